"""What is asked of a model, and what it answers: the words of every way to generate text, of the server too."""

import dataclasses
from typing import Literal

from lm.errors import UsageError, shown
from lm.tokenizer.base import Tokenizer

MAX_TEMPERATURE = 1e30
"""Float32 holds it."""

type FinishReason = Literal["stop", "length", "cancelled"]
"""stop: the end of the document, or a stop string. length: max_tokens, or the model's context is full."""


@dataclasses.dataclass(frozen=True)
class SamplingParams:
    """How tokens are drawn. The order: repetition penalty, temperature, top-k, top-p, min-p."""

    max_tokens: int = 128
    """New tokens at most; 0 for the prompt's log-probabilities alone."""
    temperature: float = 1.0
    """0 takes the likeliest token; 1 samples from the model's own distribution."""
    top_k: int = 0
    """Only the k likeliest tokens; 0 for all."""
    top_p: float = 1.0
    """Only the likeliest tokens whose probabilities together reach p (nucleus sampling, arXiv:1904.09751)."""
    min_p: float = 0.0
    """Only tokens at least min_p times as probable as the likeliest (arXiv:2407.01082)."""
    repetition_penalty: float = 1.0
    """Divides the positive logits of tokens that stand in the prompt or the text so far, and multiplies the negative
    ones (arXiv:1909.05858)."""
    stop: tuple[str, ...] = ()
    """Text ends before the first of these, also where it begins within a token."""
    seed: int = 0
    """The same seed gives the same text, whatever else is in the batch."""
    logprobs: int | None = None
    """Log-probabilities of each new token, and of so many of the likeliest; of the model's own distribution, before
    temperature and the rest. None for no log-probabilities."""
    prompt_logprobs: bool = False
    """The same of the prompt's tokens; the first, which nothing precedes, has none."""

    def __post_init__(self):
        in_range = {
            "max_tokens": self.max_tokens >= 0,
            "temperature": 0 <= self.temperature <= MAX_TEMPERATURE,
            "top_k": self.top_k >= 0,
            "top_p": 0 < self.top_p <= 1,
            "min_p": 0 <= self.min_p <= 1,
            "repetition_penalty": 0.01 <= self.repetition_penalty <= 100,
            "seed": 0 <= self.seed < 2**32,
            "logprobs": self.logprobs is None or self.logprobs >= 0,
        }
        wanted = {
            "max_tokens": "0 or more",
            "temperature": f"from 0 to {MAX_TEMPERATURE:g}",
            "top_k": "0 (for all) or more",
            "top_p": "above 0 and at most 1",
            "min_p": "from 0 to 1",
            "repetition_penalty": "from 0.01 to 100",
            "seed": "from 0 to 4,294,967,295",
            "logprobs": "0 or more",
        }
        for name, fine in in_range.items():
            if not fine:
                raise UsageError(f"{name} is {getattr(self, name)}; it must be {wanted[name]}.")
        if not all(self.stop):
            raise UsageError(f"stop is {self.stop!r}: an empty string would stop at once. Leave it out.")


@dataclasses.dataclass(frozen=True)
class TokenLogprob:
    """A token and its log-probability, in nats, given all tokens before it."""

    token: int
    logprob: float | None
    """None for the first token of a prompt."""
    top: tuple[tuple[int, float], ...] = ()
    """The likeliest tokens in its place, best first, with theirs."""


@dataclasses.dataclass(frozen=True)
class GenerationRequest:
    """A prompt's tokens, the beginning of a document (bos_id) included where one is wanted, and how to go on."""

    prompt: tuple[int, ...]
    params: SamplingParams


@dataclasses.dataclass(frozen=True)
class GenerationEvent:
    """What is new of one request since its last event."""

    request_id: int
    tokens: tuple[int, ...] = ()
    text: str = ""
    """New text: whole characters alone, and nothing that may still become a stop string."""
    logprobs: tuple[TokenLogprob, ...] = ()
    """Of `tokens`, and of the end of the document where one was drawn, if they were asked for."""
    prompt_logprobs: tuple[TokenLogprob, ...] = ()
    """In the first event alone, where they were asked for."""
    finish_reason: FinishReason | None = None
    """In the last event alone."""


@dataclasses.dataclass(frozen=True)
class Completion:
    """All that is new of one request: its events together."""

    text: str
    tokens: tuple[int, ...]
    """Without the end of the document; those that a stop string was found in are among them."""
    logprobs: tuple[TokenLogprob, ...]
    """Of the tokens, and of the end of the document where one was drawn."""
    prompt_logprobs: tuple[TokenLogprob, ...]
    finish_reason: FinishReason


class QueueFull(UsageError):  # noqa: N818  (it went as it should)
    """As many requests wait as may: ask again later."""


def check_prompt(
    tokenizer: Tokenizer, prompt: str, tokens: int, remedy: str = "Ask for more tokens, or shorten the prompt."
) -> list[int]:
    """The prompt's tokens (Tokenizer.prompt_ids). Raises UsageError, with the `remedy`, when `tokens` leaves no room
    after them."""
    row = tokenizer.prompt_ids(prompt)
    if len(row) >= tokens:
        raise UsageError(
            f"The prompt {shown(prompt)} is {len(row):,} tokens with the document's head; that leaves nothing of "
            f"{tokens}. {remedy}"
        )
    return row
