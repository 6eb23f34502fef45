"""What a ladder is made of: its rungs, and which are asked for. No jax here: lm/scaling/ladder.py makes them."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from lm.config import ModelConfig, TrainConfig
from lm.data.records import Split
from lm.errors import UsageError

HELD_OUT_TOKENS = 2**17
"""Of held-out text, on which a rung's loss is measured (or as many as train.validation_batches are, or all)."""


@dataclass(frozen=True)
class Rung:
    """One training run of a ladder."""

    parameters: int
    """N: those in products."""
    model: ModelConfig
    train: TrainConfig
    held_out: bool
    """Not fitted, but predicted."""

    @property
    def tokens(self) -> int:
        """D."""
        return self.train.stages(self.model.context_length).tokens_before(self.train.steps)

    @property
    def name(self) -> str:
        """Of its run folder: the same for what is trained the same."""
        model, train = self.model, self.train
        return f"width{model.width}-layers{model.layers}-steps{train.steps}-seed{train.seed}"

    @property
    def learning_rate(self) -> float:
        return self.train.optimizer.learning_rate


@dataclass(frozen=True)
class LadderConfig:
    """Which rungs are wanted; what is left empty follows from the experiment."""

    rungs: tuple[float, ...] = ()
    """Parameters of the models that are fitted; by default 1/32, 1/16, 1/8 and 1/4 of the config's model."""
    tokens: tuple[float, ...] = ()
    """Tokens on which each of them is trained; by default 1/8, 1/4, 1/2 and all of the config's."""
    held_out: tuple[float, ...] = ()
    """Parameters of the models that are predicted; by default 4 times the largest that is fitted."""
    held_out_tokens: tuple[float, ...] = ()
    """Tokens of these; by default the most that the others are trained on."""
    seeds: int = 1
    """Runs of each rung, from the config's seed up."""
    budget: float = 0.0
    """FLOP to recommend parameters and tokens for, such as 1e18."""
    epochs: float = 1.0
    """How often a rung may read the corpus: text that is read again is worth less than new text, and more so the larger
    the model is (arXiv:2305.16264), of which the law knows nothing."""

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
        """Raises UsageError where there is no budget, or where rungs would be trained on more than one corpus."""
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
    """Raises UsageError for a rung that would read the corpus more than `epochs` times."""
    longest = max(ladder, key=lambda rung: rung.tokens)
    if longest.tokens > epochs * corpus_tokens:
        raise UsageError(
            f"{longest.name} takes {longest.tokens:,} tokens, but the corpus has {corpus_tokens:,}, to be read "
            f"{epochs:g} times at most. Give fewer (--tokens{', --held-out-tokens' if longest.held_out else ''}), "
            f"bring more text, or let it be read again: --epochs {longest.tokens / corpus_tokens + 0.05:.1f}"
        )


def windows_in(split: Split, context_length: int) -> int:
    """Windows of `context_length` tokens that training and validation read of a split (lm/data/batches.py)."""
    return sum(-(-(shard.tokens - 1) // context_length) for shard in split.shards if shard.records)


def measured_on(rung: Rung, windows: int) -> Rung:
    """The rung, its loss measured on the same held-out text as that of all others, of `windows` windows."""
    train, context = rung.train, rung.model.context_length
    available = -(-windows // train.batch_size)
    wanted = max(train.validation_batches, -(-HELD_OUT_TOKENS // (train.batch_size * context)))
    return dataclasses.replace(rung, train=dataclasses.replace(train, validation_batches=min(wanted, available)))
