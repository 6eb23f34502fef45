"""Initial state of a run: from its newest checkpoint, a checkpoint of another run, or random parameters."""

from collections.abc import Callable, Mapping
from typing import Any, cast

import jax
import jax.numpy as jnp

from lm.checkpoints.manager import Checkpoints
from lm.checkpoints.manifest import DamageError, read_manifest
from lm.checkpoints.reading import check_items, restore_items, verify_together
from lm.config import ModelConfig, StartConfig, TrainConfig
from lm.errors import InputError, UsageError
from lm.model.transformer import Transformer
from lm.training.optimizer import make_optimizer
from lm.training.state import TrainState, make_state

IDENTITY = ("seed", "tokenizer", "data")
"""Metadata of a checkpoint that must match the run that resumes from it."""


def restore_or_init(
    checkpoints: Checkpoints,
    start: StartConfig,
    abstract: TrainState,
    fresh: Callable[[], TrainState],
    metadata: Mapping[str, Any],
    *,
    say: Callable[[str], None] = print,
    has_resumed: bool = False,
) -> tuple[TrainState, dict[str, Any]]:
    """Return (state to train from, with the shardings of `abstract`; metadata of the run's checkpoint, {} if none).

    The state comes from the run's newest checkpoint, else from train.start.checkpoint (`start`), else from `fresh()`.
    With train.start.take "parameters", the other run's parameters replace those of `fresh()`. Floating-point values of
    another run are cast to the types of `abstract`.
    `metadata` describes this run; `has_resumed` is True if an earlier process of the run resumed from a checkpoint.
    Raises InputError if the checkpoint belongs to another run. A missing checkpoint raises InputError if `has_resumed`
    is True or the checkpoint folder is a dangling link.
    """
    found = checkpoints.restore_newest(abstract)
    if found is not None:
        state, saved = found
        for name in IDENTITY:
            if saved.get(name) != metadata[name]:
                raise InputError(
                    f"{checkpoints.folder / str(saved['step'])} belongs to another run: its {name} is "
                    f"{saved.get(name)!r}, this run's {metadata[name]!r}. Use the other run's {name} to continue "
                    "that run, or train in another --workdir."
                )
        say(f"train: resuming from the checkpoint at step {saved['step']:,}")
        return state, saved
    if start.checkpoint:  # `check_start` has verified it
        if start.take == "parameters":
            parts = restore_items(start.folder(), {"model": abstract.model}, cast_types=True)
            model = cast(Transformer, parts["model"])
            ema = None if abstract.ema is None else jax.tree.map(jnp.copy, model)
            state = fresh()._replace(model=model, ema=ema)
        else:
            state = checkpoints.restore(start.folder(), abstract, cast_types=True)
        say(f"train: starting with {start.take} from {start.checkpoint}, at step {int(state.step):,}")
        return state, {}
    if has_resumed or (checkpoints.linked and not checkpoints.place.exists()):
        why = "earlier attempts of this run resumed from one (goodput.json)" if has_resumed else "it is a broken link"
        raise InputError(
            f"There is no checkpoint in {checkpoints.place}, but {why}. Restore the folder, or mount its disk; to "
            "train again from step 0, use another --workdir."
        )
    return fresh(), {}


def check_start(model: ModelConfig, config: TrainConfig, tokenizer: str | None, files: bool) -> None:
    """Check, before anything is compiled, that the run can start from train.start.checkpoint. `tokenizer` is the
    fingerprint of the run's tokenizer, if known. Without `files`, only the manifest and the shapes are checked, not the
    arrays. Raises UsageError if the checkpoint does not exist or leaves no steps to train, InputError if it is damaged
    or has another tokenizer or model."""
    start, folder = config.start, config.start.folder()
    try:
        about = verify_together(folder) if files else read_manifest(folder)["about"]
    except DamageError as damage:
        raise InputError(f"train.start.checkpoint is damaged: {damage}. Restore it from a copy.") from damage
    if tokenizer is not None and about.get("tokenizer") != tokenizer:
        raise InputError(
            f"train.start.checkpoint = {folder} was trained with tokenizer {about.get('tokenizer')}, but this run's "
            f"is {tokenizer}: its embeddings belong to other tokens. Give the other run's tokenizer/ as "
            "tokenizer.load."
        )
    if start.take == "everything" and about["step"] >= config.steps:
        raise UsageError(
            f"train.start.checkpoint = {start.checkpoint} is at step {about['step']}, and train.steps is "
            f"{config.steps}: nothing is left to train. Train for more steps, or load only the parameters "
            "(train.start.take = parameters)."
        )
    optimizer = make_optimizer(config.optimizer, config.steps)
    state = jax.eval_shape(lambda: make_state(model, optimizer, 0, config.spikes, config.ema_decay > 0, config.lora))
    like = {"model": state.model_to_use} if start.take == "parameters" else state.checkpoint_items()
    check_items(folder, like, cast_types=True)
