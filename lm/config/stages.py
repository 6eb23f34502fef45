"""Stages of a training run: consecutive steps with one batch size, context length and mixture. No JAX here.

`Stages` counts the sequences and tokens before any step, in a closed form. With a schedule, steps times batch size is
wrong. Steps count from 0 here: a stage begins after `first_step` updates.
"""

import bisect
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lm.config.model import ModelConfig

NO_END = sys.maxsize
"""`end` of the last stage: a run that is extended stays in it."""


@dataclass(frozen=True)
class Stage:
    """Steps `first_step` to `end` - 1 of a run, which have one batch size, context length and mixture."""

    first_step: int
    end: int
    windows_before: int
    """Number of windows that all earlier steps read."""
    windows: int
    """Windows per step (train.batch_size or train.batch_schedule); each has model.context_length tokens and targets."""
    parts: int
    """Number of equal sequences that each window is cut into (train.context_schedule)."""
    context_length: int
    """Tokens per sequence."""
    micro_batches: int
    """Number of parts of a batch that are computed one after the other (gradient accumulation)."""
    weights: tuple[float, ...] = ()
    """Weights of the folders in lm.data.mixture.mixture_of (train.mixture_schedule); (): those of train.mixture."""

    @property
    def shape(self) -> tuple[int, int]:
        """(sequences per batch, tokens per sequence)."""
        return self.windows * self.parts, self.context_length

    @property
    def tokens(self) -> int:
        """Tokens per batch."""
        return self.windows * self.parts * self.context_length

    def model(self, model: "ModelConfig") -> "ModelConfig":
        """Return the config with this stage's context length: for FLOP counts and checks, not to build the model."""
        return replace(model, context_length=self.context_length)

    def describe(self) -> str:
        """Return a phrase with the shape, tokens, micro-batches and weights of a batch."""
        sequences, length = self.shape
        text = f"batches of {sequences:,} sequences of {length:,} tokens ({self.tokens:,} tokens)"
        text += f", micro-batches {self.micro_batches}" if self.micro_batches > 1 else ""
        return text + (f", mixture {' '.join(f'{weight:g}' for weight in self.weights)}" if self.weights else "")


class Stages:
    """All stages of a run, in order; the last one has no end."""

    def __init__(self, stages: Sequence[Stage]):
        self._stages = tuple(stages)
        self._first_steps = [stage.first_step for stage in stages]
        self._windows_before = [stage.windows_before for stage in stages]

    def __iter__(self) -> Iterator[Stage]:
        return iter(self._stages)

    def __len__(self) -> int:
        return len(self._stages)

    def at(self, step: int) -> Stage:
        """Return the stage that contains a step."""
        return self._stages[bisect.bisect_right(self._first_steps, step) - 1]

    def between(self, first: int, end: int | None) -> list[Stage]:
        """Return the stages that contain steps `first` to `end` - 1 (None: all later steps)."""
        return [stage for stage in self if stage.end > first and (end is None or stage.first_step < end)]

    def largest(self, steps: int) -> Stage:
        """Return the stage that needs the most memory in steps 0 to `steps` - 1: that with the largest micro-batch,
        then the largest batch, then the longest context."""
        return max(
            self.between(0, steps),
            key=lambda stage: (stage.tokens // stage.micro_batches, stage.tokens, stage.context_length),
        )

    def windows_before(self, step: int) -> int:
        """Return the number of windows that steps 0 to `step` - 1 read."""
        stage = self.at(step)
        return stage.windows_before + (step - stage.first_step) * stage.windows

    def tokens_before(self, step: int) -> int:
        """Return the number of tokens that steps 0 to `step` - 1 read."""
        stage = self.at(step)
        return self.windows_before(step) * stage.parts * stage.context_length

    def step_of(self, window: int) -> tuple[int, int]:
        """Return (step, position in its batch) of window number `window`, counted in the order of reading."""
        stage = self._stages[bisect.bisect_right(self._windows_before, window) - 1]
        step, place = divmod(window - stage.windows_before, stage.windows)
        return stage.first_step + step, place


def constant(batch_size: int, context_length: int) -> Stages:
    """Return a single stage without end, with the same batch size and context length at every step."""
    return Stages([Stage(0, NO_END, 0, batch_size, 1, context_length, 1)])
