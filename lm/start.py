"""What a run begins from: its own newest checkpoint, a checkpoint of another run, or random parameters."""

from collections.abc import Callable, Mapping
from typing import Any, cast

from lm.checkpoint import Checkpoints
from lm.checkpoint_files import DamageError, verify
from lm.config import StartConfig
from lm.errors import InputError
from lm.model.transformer import Transformer
from lm.train_state import TrainState

IDENTITY = ("seed", "tokenizer", "data")
"""What is said about a checkpoint that must be the same in the run that goes on from it."""


def begin(
    checkpoints: Checkpoints,
    start: StartConfig,
    like: TrainState,
    fresh: Callable[[], TrainState],
    about: Mapping[str, Any],
    say: Callable[[str], None] = print,
    went_on: bool = False,
) -> tuple[TrainState, dict[str, Any]]:
    """(the state to train from, laid out as `like`; what was said about it, {} where it is not this run's own).

    `about` is what this run says of itself. Raises InputError when there is a checkpoint, but of another run; and when
    there is none, though this run `went_on` from one before, or the folder is a link to what is not there.
    """
    found = checkpoints.restore_newest(like)
    if found is not None:
        state, told = found
        for name in IDENTITY:
            if told.get(name) != about[name]:
                raise InputError(
                    f"{checkpoints.folder / str(told['step'])} is of another run: {name} is {told.get(name)!r} there, "
                    f"{about[name]!r} here. Give the run that made it, or another --workdir."
                )
        say(f"train: going on from the checkpoint at step {told['step']:,}")
        return state, told
    if start.checkpoint:
        state = start_from(checkpoints, start, like, fresh, about["tokenizer"])
        say(f"train: starting with {start.take} from {start.checkpoint}, at step {int(state.step):,}")
        return state, {}
    if went_on or (checkpoints.place.is_symlink() and not checkpoints.place.exists()):
        why = "earlier attempts of this run went on from one (goodput.json)" if went_on else "it is a link into nothing"
        raise InputError(
            f"There is no checkpoint in {checkpoints.place}, but {why}. Bring the folder back, or mount its disk; to "
            "train again from step 0, take another --workdir."
        )
    return fresh(), {}


def start_from(
    checkpoints: Checkpoints,
    start: StartConfig,
    like: TrainState,
    fresh: Callable[[], TrainState],
    tokenizer: str,
) -> TrainState:
    """The state as `start` asks for, floating types changed into those of `like`.

    Raises InputError on a checkpoint that is damaged, or of another tokenizer than the one with this fingerprint.
    """
    folder = start.folder()
    try:
        other = verify(folder).get("tokenizer")
    except DamageError as damage:
        raise InputError(f"train.start.checkpoint is damaged: {damage}. Bring it back from a copy.") from damage
    if other != tokenizer:
        raise InputError(
            f"train.start.checkpoint = {folder} was trained with tokenizer {other}, but this run's is {tokenizer}: its "
            "embeddings mean other tokens. Name the other run's tokenizer/ in tokenizer.load."
        )
    if start.take == "parameters":
        items = checkpoints.restore_items(folder, {"model": like.model}, cast_types=True)
        return fresh()._replace(model=cast(Transformer, items["model"]))
    return checkpoints.restore(folder, like, cast_types=True)
