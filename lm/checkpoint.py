"""Checkpoints: the whole TrainState under plain names, by Orbax, whole or absent.

A checkpoint has two items: `model`, the parameters, and `training`, the step and the optimizer's state. Each is a flat
{name: array}, for example "blocks.0.attention.query.weight": names that do not depend on Python classes, so that a
checkpoint outlives a refactoring and other programs can read it.
"""

import contextlib
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any, cast

import jax
import orbax.checkpoint as ocp
from flax import nnx

from lm.errors import InputError
from lm.model.config import ModelConfig
from lm.model.transformer import Transformer
from lm.sharding import is_parameter
from lm.train_state import TrainState


def part_name(key: object) -> str:
    """The plain name of one step of a tree path."""
    for attribute in ("key", "idx", "name"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    return str(key)


def named_leaves(tree: object) -> dict[str, Any]:
    """{"blocks.0.mlp.up.weight": array, ...} in tree order.

    A parameter that holds nothing is left out: an optimizer of some parameters has such in the place of the others.
    """
    leaves = jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_parameter)[0]
    return {
        ".".join(part_name(key) for key in path): leaf.get_raw_value() if isinstance(leaf, nnx.Variable) else leaf
        for path, leaf in leaves
        if jax.tree.leaves(leaf)
    }


def replace_leaves[Tree](tree: Tree, named: Mapping[str, Any]) -> Tree:
    """`tree` with every leaf taken from `named`, under the names that `named_leaves` gives."""
    return jax.tree.unflatten(jax.tree.structure(tree), [named[name] for name in named_leaves(tree)])


def items_of(state: TrainState) -> dict[str, object]:
    return {"model": state.model, "training": {"step": state.step, "optimizer": state.optimizer_state}}


class Checkpoints:
    """checkpoints/<step>/ of a run folder. Saving goes on behind the training; `close` waits for it."""

    def __init__(self, folder: Path, kept: int):
        self.folder = folder
        options = ocp.CheckpointManagerOptions(max_to_keep=kept, enable_async_checkpointing=True)
        handlers = {name: ocp.StandardCheckpointHandler() for name in ("model", "training")}
        self.manager = ocp.CheckpointManager(folder.absolute(), options=options, item_handlers=handlers)

    def latest_step(self) -> int | None:
        """The newest whole checkpoint's step, or None."""
        return self.manager.latest_step()

    def save(self, step: int, state: TrainState) -> None:
        items = {name: ocp.args.StandardSave(named_leaves(item)) for name, item in items_of(state).items()}
        with self.readable_errors("written"):
            self.manager.save(step, args=ocp.args.Composite(**items))

    def restore(self, step: int, like: TrainState) -> TrainState:
        """The state saved at `step`, laid out on the devices as `like` is. Raises InputError when it is of another
        model."""
        items = self.restore_items(step, items_of(like))
        training = cast(dict, items["training"])
        return TrainState(training["step"], cast(Transformer, items["model"]), training["optimizer"])

    def restore_items(self, step: int, like: dict[str, object]) -> dict[str, object]:
        """The named items, each in the tree and the layout of its `like` (arrays, or ShapeDtypeStructs with
        shardings)."""
        arguments = {}
        with self.readable_errors("read", step):
            found = {name: self.manager.item_metadata(step)[name].tree for name in like}
        for name, tree in like.items():
            wanted = named_leaves(tree)
            self.check_shapes(step, name, wanted, found[name])
            abstract = {key: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding) for key, x in wanted.items()}
            arguments[name] = ocp.args.StandardRestore(abstract)
        with self.readable_errors("read", step):
            restored = self.manager.restore(step, args=ocp.args.Composite(**arguments))
        return {name: replace_leaves(tree, restored[name]) for name, tree in like.items()}

    def check_shapes(self, step: int, item: str, wanted: Mapping[str, Any], found: Mapping[str, Any]) -> None:
        """Raises InputError when the checkpoint's arrays are not those of the model that is asked for."""
        there, asked = ({key: tuple(x.shape) for key, x in arrays.items()} for arrays in (found, wanted))
        differing = [key for key in sorted(there | asked) if there.get(key) != asked.get(key)]
        if differing:
            key = differing[0]
            raise InputError(
                f"{self.folder / str(step)} cannot be restored into this model: {len(differing)} arrays of {item} "
                f"differ, first {key}: {there.get(key, 'absent')} in the checkpoint, {asked.get(key, 'absent')} in "
                "the config. Use the config that the run was started with, or another --workdir."
            )

    def close(self) -> None:
        """Waits until all that was asked for is on disk."""
        with self.readable_errors("written"):
            self.manager.wait_until_finished()
            self.manager.close()

    @contextlib.contextmanager
    def readable_errors(self, verb: str, step: int | None = None) -> Generator[None]:
        """Turns whatever Orbax and TensorStore raise for a full disk or a damaged file into an InputError."""
        try:
            yield
        except Exception as error:
            place = self.folder if step is None else self.folder / str(step)
            remedy = (
                "Free space there, then run again: older checkpoints are whole."
                if step is None
                else f"Delete {place}, then run again: training goes on from the checkpoint before it."
            )
            cause = " ".join(str(error).split())[:300]
            raise InputError(f"{place} cannot be {verb}: {type(error).__name__}: {cause}. {remedy}") from error


def restore_model(config: ModelConfig, folder: Path) -> Transformer:
    """The parameters alone of the newest checkpoint in `folder`, whole on the default device.

    Raises InputError when there is none, or when it is of another model.
    """
    checkpoints = Checkpoints(folder, kept=1)
    step = checkpoints.latest_step()
    if step is None:
        raise InputError(f"There is no checkpoint in {folder}. First run: python -m launch.train CONFIG.py")
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    model = jax.eval_shape(lambda: Transformer(config, jax.random.key(0)))
    model = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), model)
    restored = checkpoints.restore_items(step, {"model": model})["model"]
    checkpoints.close()
    return cast(Transformer, restored)
