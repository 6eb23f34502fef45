"""Options of launch.sample besides those of its stage. Does not import JAX."""

import dataclasses
from typing import Annotated, Literal

import tyro

from lm.inference.requests import SamplingParams


@dataclasses.dataclass(frozen=True)
class Options:
    """With any of these options, texts are only printed, as they are generated, and the run is not changed."""

    prompt: Annotated[tuple[tuple[str, ...], ...], tyro.conf.UseAppendAction] = ()
    """Prompts to continue, instead of sample.prompts."""
    step: int | None = None
    """Step of the checkpoint or snapshot to sample from; default: the newest."""
    interactive: tyro.conf.UseCounterAction[int] = 0
    """Continue what you type, line by line. Default on a terminal if neither --prompt nor --step is set, but another
    option is."""
    n: int = 1
    """Texts per prompt and temperature, with consecutive seeds."""
    temperature: float | None = None
    """Temperature, instead of sample.temperatures: 0 is greedy decoding, 1 samples from the model's distribution."""
    top_k: int = 0
    """Sample only from the k most likely tokens; 0: all."""
    top_p: float = 1.0
    """Sample only from the most likely tokens whose probabilities add up to p (nucleus sampling)."""
    min_p: float = 0.0
    """Sample only from tokens with at least this fraction of the probability of the most likely one."""
    repetition_penalty: float = 1.0
    """Values above 1 make tokens that already occur in the text less likely."""
    max_tokens: int | None = None
    """Maximum new tokens per text; default: sample.tokens minus the prompt."""
    stop: tuple[str, ...] = ()
    """End a text before the first occurrence of one of these strings."""
    seed: int | None = None
    """Random seed, instead of sample.seed; the same seed gives the same text."""
    logprobs: int | None = None
    """Print the log-probability of each token, and of the N most likely tokens at its position."""
    weights: Literal["float32", "bfloat16", "int8"] | None = None
    """Convert the weights to this type, in a layout for fast decoding on one device; default: as trained."""

    def params(self, temperature: float, max_tokens: int, seed: int) -> SamplingParams:
        """Sampling parameters. Raises UsageError for invalid values."""
        return SamplingParams(
            max_tokens, temperature, self.top_k, self.top_p, self.min_p, self.repetition_penalty, self.stop, seed,
            self.logprobs,
        )  # fmt: skip
