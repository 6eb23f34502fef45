"""Rungs of a ladder, and the options that select them. Does not import JAX: lm/scaling/ladder.py builds the rungs."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from lm.config import ModelConfig, TrainConfig
from lm.data.records import Split
from lm.errors import UsageError

HELD_OUT_TOKENS = 2**17
"""Minimum held-out tokens that a rung's loss is measured on (or train.validation_batches, if more; or all, if fewer
exist)."""


@dataclass(frozen=True)
class Rung:
    """One training run of a ladder."""

    parameters: int
    """N: parameters in matrix products."""
    model: ModelConfig
    train: TrainConfig
    held_out: bool
    """Predicted, not used for the fit."""

    @property
    def tokens(self) -> int:
        """D: number of training tokens."""
        return self.train.stages(self.model.context_length).tokens_before(self.train.steps)

    @property
    def name(self) -> str:
        """Name of its run folder; equal for equal training."""
        model, train = self.model, self.train
        return f"width{model.width}-layers{model.layers}-steps{train.steps}-seed{train.seed}"

    @property
    def learning_rate(self) -> float:
        return self.train.optimizer.learning_rate


@dataclass(frozen=True)
class LadderConfig:
    """Which rungs to train; empty fields get defaults from the experiment."""

    rungs: tuple[float, ...] = ()
    """Parameters of each fitted model, e.g. 1e6 2e6 4e6; by default 1/32, 1/16, 1/8 and 1/4 of the config's model."""
    tokens: tuple[float, ...] = ()
    """Training tokens of each fitted model; by default 1/8, 1/4, 1/2 and all of the config's."""
    held_out: tuple[float, ...] = ()
    """Parameters of the models that test the prediction; by default 4 times the largest fitted model."""
    held_out_tokens: tuple[float, ...] = ()
    """Training tokens of the models that test the prediction; by default the largest of --tokens."""
    seeds: int = 1
    """Runs of each rung, with seeds counting up from the config's."""
    budget: float = 0.0
    """FLOPs to recommend parameters and tokens for, such as 1e18."""
    epochs: float = 1.0
    """Maximum passes of a rung over the corpus. Repeated text is worth less than new text, the more so the larger the
    model (arXiv:2305.16264), which the law does not model."""

    def __post_init__(self):
        for name in ("rungs", "tokens", "held_out", "held_out_tokens"):
            if bad := [one for one in getattr(self, name) if not 1 <= one < 1e18]:
                option = name.replace("_", "-")
                raise UsageError(f"--{option} has {bad[0]:g}; give numbers from 1 up, such as --{option} 1e6 2e6 4e6.")
        if not 1 <= self.seeds <= 100:
            raise UsageError(f"--seeds is {self.seeds}; it must be from 1 to 100: the runs of each rung.")
        if not 0 < self.epochs <= 1000:
            raise UsageError(f"--epochs is {self.epochs:g}; it must be above 0, and at most 1000, as in --epochs 2.")

    def check(self, train: TrainConfig) -> None:
        """Raise UsageError if there is no budget, or if rungs would not all be trained on one corpus and schedule."""
        if not 1 <= self.budget < 1e40:
            raise UsageError(f"--budget is {self.budget:g}; give the FLOP to spend, such as --budget 1e18.")
        for name in ("batch_schedule", "context_schedule", "mixture_schedule"):
            if getattr(train, name):
                raise UsageError(
                    f"train.{name} is set, but its steps are those of the whole run, and a rung has other ones. Leave "
                    f"it out: --train.{name.replace('_', '-')} without a value."
                )
        if train.mixture:
            folders = ", ".join(source.tokens for source in train.mixture)
            raise UsageError(
                f"train.mixture has {folders}, but a ladder is measured on one corpus: the run's own. Leave the "
                "mixture out, or write one set of shards of all sources."
            )


def refuse_repetition(ladder: Sequence[Rung], corpus_tokens: int, epochs: float) -> None:
    """Raise UsageError for a rung that would read the corpus more than `epochs` times."""
    longest = max(ladder, key=lambda rung: rung.tokens)
    if longest.tokens > epochs * corpus_tokens:
        raise UsageError(
            f"{longest.name} takes {longest.tokens:,} tokens, but the corpus has {corpus_tokens:,}, to be read "
            f"{epochs:g} times at most. Give fewer (--tokens{', --held-out-tokens' if longest.held_out else ''}), "
            f"bring more text, or let it be read again: --epochs {longest.tokens / corpus_tokens + 0.05:.1f}"
        )


def windows_in(split: Split, context_length: int) -> int:
    """Windows of `context_length` tokens that training and validation read in a split (lm/data/batches.py)."""
    return sum(-(-(shard.tokens - 1) // context_length) for shard in split.shards if shard.records)


def measured_on(rung: Rung, windows: int) -> Rung:
    """Return the rung with its loss measured on the same held-out text, of `windows` windows, as all others."""
    train, context = rung.train, rung.model.context_length
    available = -(-windows // train.batch_size)
    wanted = max(train.validation_batches, -(-HELD_OUT_TOKENS // (train.batch_size * context)))
    return dataclasses.replace(rung, train=dataclasses.replace(train, validation_batches=min(wanted, available)))
