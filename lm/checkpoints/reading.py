"""Read checkpoints: the state with any shardings, or only the parameters. Nothing here writes, so checkpoints of a run
can be read while it is running."""

import functools
import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding

from lm.checkpoints.addresses import orbax_path
from lm.checkpoints.errors import OTHER, not_by_orbax, readable_errors
from lm.checkpoints.manifest import DamageError, find_parameters, verify
from lm.checkpoints.replicas import broadcast, first_replica
from lm.config import ModelConfig
from lm.errors import InputError
from lm.model.param_names import IN_BLOCK, are_stacked, named_leaves, replace_leaves, stack_names, unstack_names
from lm.model.transformer import Transformer, abstract_model
from lm.parallel import one_device_mesh, shardings
from lm.resilience.multihost import fail_together, settle
from lm.storage import Place, place_of, sizes_below

ARRAYS = ocp.type_handlers.create_type_handler_registry(
    (jax.Array, ocp.type_handlers.ArrayHandler(min_slice_bytes_for_replica_parallel=1 << 20))
)
"""Handler with which one device writes a small array that several devices hold: slicing it over all of them takes
longer, and compiles a program per slice."""


MOST_RATIO, FROM_BYTES = 100, 1 << 27
"""A model's arrays may be MOST_RATIO times as large as its files, or FROM_BYTES if that is more. Arrays are not
compressed, but blocks of zeros have no file, so a checkpoint of 40 kB can claim any size."""


def item_handler() -> ocp.PyTreeCheckpointHandler:
    """Return Orbax's handler for an item of a checkpoint. Compression would take most of the time of a save and removes
    7 % of floating-point data. Orbax's Checkpointer is not used, because it waits 20 minutes for a process that failed;
    here processes report failures to each other (lm/resilience/multihost.py)."""
    for logger in ("absl", "asyncio"):
        logging.getLogger(logger).addFilter(not_by_orbax)
    return ocp.PyTreeCheckpointHandler(use_compression=False, type_handler_registry=ARRAYS)


def verify_together(folder: Place) -> dict[str, Any]:
    """Return the metadata of a checkpoint after verifying every file: each process reads a part, and if one fails, all
    raise its error. Raises DamageError, and InputError if a file may not be read."""
    about: dict[str, Any] = {}
    found = None
    try:
        about = verify(folder, jax.process_index(), jax.process_count())
    except (DamageError, InputError) as error:
        found = isinstance(error, DamageError), str(error)
    for damaged, text in filter(None, settle("verify", found, list)):
        raise DamageError(text) if damaged else InputError(text)
    return about


def whole_parameters(folders: Sequence[Place], step: int | None = None) -> Place:
    """Return the checkpoint that `find_parameters` finds, after verifying its files. Raises the errors of
    `find_parameters`, and InputError if the checkpoint is damaged."""
    look = lambda _: list(map(str, find_parameters(folders, step)))
    chosen, *rest = map(place_of, settle("look", None, look))
    steps = [int(one.name) for one in rest if one.name != chosen.name]
    try:
        verify_together(chosen)
    except DamageError as damage:
        others = f", or use step {max(steps)}" if steps else ""
        raise InputError(f"{chosen} is damaged: {damage}. Restore it from a copy{others}, or train again.") from damage
    return chosen


def read_parameters(config: ModelConfig, checkpoint: Place, mesh: Mesh | None) -> Transformer:
    """Return the model in the folder `checkpoint`, sharded over `mesh` by lm/parallel.py; without a mesh, on one
    device. With several processes, all must call it. Does not verify files. Raises InputError if the checkpoint is of
    another model."""
    check_layers(config, checkpoint)
    mesh = mesh or one_device_mesh(config)
    shapes = abstract_model(config)
    place = lambda shape, sharding: shape.update(sharding=sharding)
    like = jax.tree.map(place, shapes, shardings(shapes, mesh))
    return cast(Transformer, restore_items(checkpoint, {"model": like})["model"])


def check_layers(config: ModelConfig, checkpoint: Place) -> None:
    """Raise InputError if the checkpoint has another number of layers than `config`, before allocating any of them."""
    with readable_errors(checkpoint, "read", OTHER):
        found = item_handler().metadata(orbax_path(checkpoint / "model")).tree
    in_block = [(match, array) for name, array in found.items() if (match := IN_BLOCK.fullmatch(name))]
    layers = max((array.shape[0] if match[2] is None else 1 + int(match[2]) for match, array in in_block), default=0)
    if layers != config.layers:
        raise InputError(
            f"{checkpoint} cannot be restored into this model: it has {layers:,} layers, but model.layers = "
            f"{config.layers:,}. Use the config that the run was started with, or another checkpoint."
        )


def check_size(item: Place, arrays: Mapping[str, Any]) -> None:
    """Raise InputError if the arrays of a checkpoint's item are more than MOST_RATIO times as large as its files."""
    claimed = sum(math.prod(array.shape) * np.dtype(array.dtype).itemsize for array in arrays.values())
    stored = sum(sizes_below(item).values())
    if claimed > max(FROM_BYTES, MOST_RATIO * stored):
        raise InputError(
            f"{item.parent} claims {claimed / 1e9:,.1f} GB of parameters, but its files are {stored:,} bytes: nearly "
            "all would be zeros. Choose another checkpoint with --step, or download the run again."
        )


@functools.cache
def bytes_on_each(config: ModelConfig, mesh: Mesh) -> int:
    """Return the bytes of the parameters on each device, sharded over `mesh` as by `read_parameters`."""
    shapes = abstract_model(config)
    pairs = zip(jax.tree.leaves(shapes), jax.tree.leaves(shardings(shapes, mesh)), strict=True)
    return sum(math.prod(cut.shard_shape(one.shape)) * one.dtype.itemsize for one, cut in pairs)


def restore_items(folder: Place, like: Mapping[str, object], cast_types: bool = False) -> dict[str, object]:
    """Return {item: pytree} of a checkpoint for the items in `like`, such as "model". Each gets the tree and the
    shardings of its entry in `like` (of arrays or ShapeDtypeStructs), whether layers are stored one by one or as a
    stack. Files are not verified. Raises the errors of `check_items`."""
    stored = check_items(folder, like, cast_types)
    restored, failure = {}, None
    try:
        with readable_errors(folder, "read", OTHER):
            for name, abstract in stored.items():
                restored[name] = read_arrays(folder / name, abstract)
    except InputError as error:
        failure = error
    fail_together("restore", failure)  # else the other processes would wait for this one at their next collective
    for name, abstract in stored.items():
        for key, one in abstract.items():
            if first_replica(one.sharding):
                restored[name][key] = broadcast(restored[name].get(key), one)
    return {name: replace_leaves(tree, as_wanted(restored[name], named_leaves(tree))) for name, tree in like.items()}


def read_arrays(item: Place, abstract: Mapping[str, jax.ShapeDtypeStruct]) -> dict[str, jax.Array]:
    """Return this process's arrays of a checkpoint's item, sharded as in `abstract`. An array that one replica reads
    for all (`first_replica`) is only on that replica's devices: a process without such devices does not get it."""
    mine = {}
    for name, one in abstract.items():
        sharding = first_replica(one.sharding) or one.sharding
        if sharding is None or sharding.addressable_devices:
            mine[name] = one.update(sharding=sharding)
    if not mine:
        return {}
    layout = ocp.checkpoint_utils.construct_restore_args(mine)
    arguments = ocp.args.PyTreeRestore(mine, restore_args=layout, partial_restore=True)
    return item_handler().restore(orbax_path(item), args=arguments)


def check_items(
    folder: Place, like: Mapping[str, object], cast_types: bool
) -> dict[str, dict[str, jax.ShapeDtypeStruct]]:
    """Return {item: {name: shape, dtype and sharding}} of `like`, with the layers in the form of the checkpoint, one by
    one or as a stack. No array is read. Raises InputError if shapes differ, or dtypes unless `cast_types`, or the
    model's arrays are far larger than their files."""
    with readable_errors(folder, "read", OTHER):
        found = {name: item_handler().metadata(orbax_path(folder / name)).tree for name in like}
    if "model" in found:
        check_size(folder / "model", found["model"])
    stored = {name: as_stored(named_leaves(tree), found[name]) for name, tree in like.items()}
    kind = lambda x: f"{tuple(x.shape)}" if cast_types else f"{tuple(x.shape)} {np.dtype(x.dtype).name}"
    for item, wanted in stored.items():
        there, asked = ({key: kind(x) for key, x in arrays.items()} for arrays in (found[item], wanted))
        if differing := [key for key in sorted(there | asked) if there.get(key) != asked.get(key)]:
            key = differing[0]
            raise InputError(
                f"{folder} cannot be restored into this model: {len(differing)} arrays of {item} differ, first {key}: "
                f"{there.get(key, 'absent')} in the checkpoint, {asked.get(key, 'absent')} in the config. Use the "
                "config that the run was started with, or another --workdir (train.start.checkpoint loads the arrays "
                "that fit)."
            )
    return stored


def check_finite(model: Transformer, checkpoint: Place) -> None:
    """Raise InputError, with the name, if a parameter contains NaN or infinity. Each process checks its own shards."""
    on_device = jax.jit(lambda part: jnp.all(jnp.isfinite(part)))
    # On a CPU, NumPy reads the array in place and compiles nothing.
    finite = lambda part: np.isfinite(np.asarray(part)).all() if part.platform() == "cpu" else on_device(part)
    for name, array in named_leaves(model).items():
        if not all(finite(shard.data) for shard in array.addressable_shards):
            raise InputError(
                f"{checkpoint}: {name} has NaN or infinite values. Choose another checkpoint with --step, or import "
                "or train the model again."
            )


def as_stored(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, jax.ShapeDtypeStruct]:
    """Return the shapes, dtypes and shardings of the arrays `wanted`, but with the layers stacked or one by one as in a
    checkpoint's arrays `found`. If a stack has one value for all layers (Adafactor's placeholder for a moment that it
    does not keep), each layer gets that value."""
    abstract = {name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding) for name, x in wanted.items()}
    stacked = are_stacked(wanted)
    if stacked is None or are_stacked(found) in (None, stacked):
        return abstract

    def one(name: str, x: jax.ShapeDtypeStruct, layer: int) -> jax.ShapeDtypeStruct:
        if len(x.shape) < 2:
            return x
        return x.update(shape=x.shape[1:], sharding=respecified(x.sharding, lambda spec: spec[1:]))

    def whole(name: str, layers: list[jax.ShapeDtypeStruct]) -> jax.ShapeDtypeStruct:
        x = layers[0]
        if name in found and tuple(found[name].shape) == x.shape == (1,):
            return x
        sharding = respecified(x.sharding, lambda spec: (None, *spec))
        return x.update(shape=(len(layers), *x.shape), sharding=sharding)

    if not stacked:
        return stack_names(abstract, whole)
    layers = max(x.shape[0] for name, x in wanted.items() if IN_BLOCK.fullmatch(name) and len(x.shape) > 1)
    return unstack_names(abstract, layers, one)


def respecified(sharding: Sharding | None, change: Any) -> Sharding | None:
    """Return the sharding with `change` applied to its PartitionSpec, if it has one."""
    if not isinstance(sharding, NamedSharding):
        return sharding
    return NamedSharding(sharding.mesh, PartitionSpec(*change(tuple(sharding.spec))))


def as_wanted(stored: Mapping[str, jax.Array], wanted: Mapping[str, Any]) -> Mapping[str, jax.Array]:
    """Return a checkpoint's arrays with the layers stacked or one by one, and sharded, as the arrays `wanted` are."""
    if stored.keys() == wanted.keys():
        return stored

    def whole(name: str, layers: list[jax.Array]) -> jax.Array:
        return layers[0] if layers[0].shape == wanted[name].shape else jnp.stack(layers)

    def one(name: str, x: jax.Array, layer: int) -> jax.Array:
        return x if x.shape == wanted[name].shape else x[layer]

    def convert(stored: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        if are_stacked(wanted):
            return stack_names(stored, whole)
        layers = 1 + max(int(found[2]) for name in wanted if (found := IN_BLOCK.fullmatch(name)))
        return unstack_names(stored, layers, one)

    return jax.jit(convert, out_shardings={name: x.sharding for name, x in wanted.items()})(stored)
