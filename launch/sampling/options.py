"""What launch.sample can be asked for besides its stage. No jax here."""

import dataclasses
from typing import Annotated, Literal

import tyro

from lm.inference.requests import SamplingParams


@dataclasses.dataclass(frozen=True)
class Options:
    """With any of these the texts are printed alone, as they are drawn, and the run stays as it is."""

    prompt: Annotated[tuple[tuple[str, ...], ...], tyro.conf.UseAppendAction] = ()
    """Print what continues these texts."""
    step: int | None = None
    """Print what the model wrote at this step, of which there must be a checkpoint or a snapshot."""
    interactive: tyro.conf.UseCounterAction[int] = 0
    """Continue what is typed, line by line; so too where neither --prompt nor --step is given, on a terminal."""
    n: int = 1
    """Texts for each prompt and temperature, by as many seeds."""
    temperature: float | None = None
    """In place of sample.temperatures: 0 takes the likeliest token, 1 samples from the model's own distribution."""
    top_k: int = 0
    """Draw from the k likeliest tokens; 0 for all."""
    top_p: float = 1.0
    """Draw from the likeliest tokens whose probabilities together reach p."""
    min_p: float = 0.0
    """Draw from tokens at least so many times as probable as the likeliest."""
    repetition_penalty: float = 1.0
    """Above 1, tokens that stand in the text already are less likely."""
    max_tokens: int | None = None
    """New tokens of a text at most; by default as many as sample.tokens leaves behind the prompt."""
    stop: tuple[str, ...] = ()
    """A text ends before the first of these strings."""
    seed: int | None = None
    """In place of sample.seed: the same seed gives the same text."""
    logprobs: int | None = None
    """Print each token's log-probability, and those of so many of the likeliest in its place."""
    weights: Literal["float32", "bfloat16", "int8"] | None = None
    """Lay the weights out for drawing on one device, in this type; by default they are as they were trained."""

    def params(self, temperature: float, max_tokens: int, seed: int) -> SamplingParams:
        """Raises UsageError for values that cannot be."""
        return SamplingParams(
            max_tokens, temperature, self.top_k, self.top_p, self.min_p, self.repetition_penalty, self.stop, seed,
            self.logprobs,
        )  # fmt: skip
