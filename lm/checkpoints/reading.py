"""Checkpoints, read: the state of one onto any mesh, or a model's parameters alone. Nothing here writes, so that the
checkpoints of a run may be read while it trains."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.sharding import Mesh

from lm.checkpoints.errors import OTHER, not_by_orbax, readable_errors
from lm.checkpoints.layer_forms import as_stored, as_wanted
from lm.checkpoints.manifest import DamageError, steps_in, verify
from lm.config import ModelConfig
from lm.errors import InputError, UsageError
from lm.model.param_names import named_leaves, replace_leaves
from lm.model.transformer import Transformer
from lm.parallel import one_device_mesh, shardings
from lm.resilience.multihost import agreed, all_agree

ARRAYS = ocp.type_handlers.create_type_handler_registry(
    (jax.Array, ocp.type_handlers.ArrayHandler(min_slice_bytes_for_replica_parallel=1 << 20))
)
"""Small arrays that several devices hold are written by one of them: slicing them over all of these takes longer, and
compiles a program for each slice."""

Found = tuple[int | None, dict[str, Any]]
"""(the step of a checkpoint, what its manifest says about it), or (None, {})."""


def item_handler() -> ocp.CompositeCheckpointHandler:
    """How the two items of a checkpoint are stored. Compression would take most of the time of a save, and takes 7 %
    off floating numbers."""
    for logger in ("absl", "asyncio"):
        logging.getLogger(logger).addFilter(not_by_orbax)
    model, training = (
        ocp.PyTreeCheckpointHandler(use_compression=False, type_handler_registry=ARRAYS) for _ in range(2)
    )
    return ocp.CompositeCheckpointHandler(model=model, training=training)


def looked_up_once(look: Callable[[], Found], otherwise: str) -> Found:
    """What `look` finds, asked by process 0 and told to all. Its InputError ends all of them, others with the message
    `otherwise`."""
    found: Found = None, {}
    error = None
    if jax.process_index() == 0:
        try:
            found = look()
        except InputError as raised:
            error = raised
    if jax.process_count() > 1:
        if not all_agree(error is None):
            error = error or InputError(otherwise)
        else:
            found = agreed(found)
    if error is not None:
        raise error
    return found


def whole_checkpoint(folder: Path, step: int | None = None) -> int:
    """The newest step in `folder`, or `step`, once every file of that checkpoint was found as it was written.

    Raises InputError where there is none or it is damaged, UsageError where there are others than `step`.
    """

    def look() -> Found:
        steps = steps_in(folder)
        if not steps:
            raise InputError(
                f"There is no checkpoint in {folder}. First run: python -m launch.train CONFIG.py --workdir "
                f"{folder.parent}"
            )
        if step is not None and step not in steps:
            raise UsageError(
                f"There is no checkpoint of step {step:,} in {folder}. There are those of steps "
                f"{', '.join(map(str, steps))}."
            )
        chosen = steps[-1] if step is None else step
        try:
            verify(folder / str(chosen))
        except DamageError as damage:
            others = f", or take that of step {max(rest)}" if (rest := {*steps} - {chosen}) else ""
            raise InputError(
                f"{folder / str(chosen)} is damaged: {damage}. Bring it back from a copy{others}, or train again."
            ) from damage
        return chosen, {}

    chosen, _ = looked_up_once(look, "Process 0 found no checkpoint to read; see what it says.")
    assert chosen is not None
    return chosen


def restore_model(config: ModelConfig, folder: Path, mesh: Mesh | None = None, step: int | None = None) -> Transformer:
    """The parameters alone of the newest checkpoint in `folder`, or that of `step`, laid out over `mesh` by the table
    of axes in lm/parallel.py; whole on one device, if no mesh is given. Of several processes all must ask.

    Raises as `whole_checkpoint`, and InputError when it is of another model.
    """
    return read_parameters(config, folder / str(whole_checkpoint(folder, step)), mesh)


def read_parameters(config: ModelConfig, checkpoint: Path, mesh: Mesh | None) -> Transformer:
    """As `restore_model`, of one checkpoint, whose files are not verified."""
    mesh = mesh or one_device_mesh(config)
    shapes = jax.eval_shape(lambda: Transformer(config, jax.random.key(0)))
    place = lambda shape, sharding: jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding)
    like = jax.tree.map(place, shapes, shardings(shapes, mesh))
    return cast(Transformer, restore_items(checkpoint, {"model": like})["model"])


def restore_items(folder: Path, like: Mapping[str, object], cast_types: bool = False) -> dict[str, object]:
    """The named items of the checkpoint in `folder`, each in the tree and the layout of its `like` (arrays, or
    ShapeDtypeStructs with shardings), whichever form its layers are stored in; its files are not verified. Raises as
    `check_items`."""
    arguments = {}
    for name, abstract in check_items(folder, like, cast_types).items():
        layout = ocp.checkpoint_utils.construct_restore_args(abstract)
        arguments[name] = ocp.args.PyTreeRestore(abstract, restore_args=layout)
    with readable_errors(folder, "read", OTHER), ocp.Checkpointer(item_handler()) as orbax:
        restored = orbax.restore(folder.resolve(), args=ocp.args.Composite(**arguments))
    return {name: replace_leaves(tree, as_wanted(restored[name], named_leaves(tree))) for name, tree in like.items()}


def check_items(
    folder: Path, like: Mapping[str, object], cast_types: bool
) -> dict[str, dict[str, jax.ShapeDtypeStruct]]:
    """The arrays of `like` in the form in which the checkpoint has them. Raises InputError where shapes there differ,
    or types, unless `cast_types`; reads no array."""
    with readable_errors(folder, "read", OTHER), ocp.Checkpointer(item_handler()) as orbax:
        metadata = cast(dict, orbax.metadata(folder.resolve()).item_metadata)
        found = {name: metadata[name].tree for name in like}
    stored = {name: as_stored(named_leaves(tree), found[name]) for name, tree in like.items()}
    for name, arrays in stored.items():
        check_arrays(folder, name, arrays, found[name], cast_types)
    return stored


def check_arrays(
    folder: Path, item: str, wanted: Mapping[str, Any], found: Mapping[str, Any], cast_types: bool
) -> None:
    """Raises InputError when the checkpoint's arrays are not those of the model that is asked for."""

    def kind(array: Any) -> str:
        return f"{tuple(array.shape)}" if cast_types else f"{tuple(array.shape)} {np.dtype(array.dtype).name}"

    there, asked = ({key: kind(x) for key, x in arrays.items()} for arrays in (found, wanted))
    differing = [key for key in sorted(there | asked) if there.get(key) != asked.get(key)]
    if differing:
        key = differing[0]
        raise InputError(
            f"{folder} cannot be restored into this model: {len(differing)} arrays of {item} differ, first {key}: "
            f"{there.get(key, 'absent')} in the checkpoint, {asked.get(key, 'absent')} in the config. Use the config "
            "that the run was started with, or another --workdir (train.start.checkpoint takes what fits)."
        )
