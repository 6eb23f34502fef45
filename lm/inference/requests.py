"""Requests and results of text generation, shared by sampling and the server."""

import dataclasses
from typing import Literal

from lm.errors import UsageError, shown
from lm.tokenizer.base import Tokenizer

MAX_TEMPERATURE = 1e30
"""Maximum temperature; it fits into float32."""

type FinishReason = Literal["stop", "length", "cancelled"]
"""stop: end of the document or a stop string. length: max_tokens reached, or the context is full."""


@dataclasses.dataclass(frozen=True)
class SamplingParams:
    """Sampling parameters, applied in this order: repetition penalty, temperature, top-k, top-p, min-p."""

    max_tokens: int = 128
    """Maximum number of new tokens; 0: only the prompt's log-probabilities."""
    temperature: float = 1.0
    """0: always the most likely token; 1: the model's distribution."""
    top_k: int = 0
    """Sample only from the k most likely tokens; 0: all."""
    top_p: float = 1.0
    """Sample only from the most likely tokens with a total probability of at least p (nucleus sampling,
    arXiv:1904.09751)."""
    min_p: float = 0.0
    """Sample only from tokens at least min_p times as likely as the most likely one (arXiv:2407.01082)."""
    repetition_penalty: float = 1.0
    """Divide positive logits of tokens in the prompt or the text so far by this, and multiply negative ones
    (arXiv:1909.05858)."""
    stop: tuple[str, ...] = ()
    """Stop strings: the text ends before the first of them, even if it begins within a token."""
    seed: int = 0
    """The same seed gives the same text, whatever else is in the batch."""
    logprobs: int | None = None
    """Return the log-probability of each new token, and this many of the most likely tokens, from the model's
    distribution before temperature and other parameters. None: no log-probabilities."""
    prompt_logprobs: bool = False
    """Also return log-probabilities of the prompt's tokens, except the first."""

    def __post_init__(self):
        valid = {
            "max_tokens": (self.max_tokens >= 0, "0 or more"),
            "temperature": (0 <= self.temperature <= MAX_TEMPERATURE, f"from 0 to {MAX_TEMPERATURE:g}"),
            "top_k": (self.top_k >= 0, "0 (for all) or more"),
            "top_p": (0 < self.top_p <= 1, "above 0 and at most 1"),
            "min_p": (0 <= self.min_p <= 1, "from 0 to 1"),
            "repetition_penalty": (0.01 <= self.repetition_penalty <= 100, "from 0.01 to 100"),
            "seed": (0 <= self.seed < 2**32, "from 0 to 4,294,967,295"),
            "logprobs": (self.logprobs is None or self.logprobs >= 0, "0 or more"),
        }
        for name, (fine, wanted) in valid.items():
            if not fine:
                raise UsageError(f"{name} is {getattr(self, name)}; it must be {wanted}.")
        if not all(self.stop):
            raise UsageError(f"stop is {self.stop!r}: an empty string would stop immediately. Remove it.")


@dataclasses.dataclass(frozen=True)
class TokenLogprob:
    """A token and its log-probability in nats, given all previous tokens."""

    token: int
    logprob: float | None
    """None for the first token of a prompt."""
    top: tuple[tuple[int, float], ...] = ()
    """Most likely tokens at this position with their log-probabilities, best first."""


@dataclasses.dataclass(frozen=True)
class GenerationRequest:
    """Prompt to continue, with sampling parameters. `prompt` has token ids, with BOS if it begins a document."""

    prompt: tuple[int, ...]
    params: SamplingParams


@dataclasses.dataclass(frozen=True)
class GenerationEvent:
    """New output of one request since its previous event."""

    request_id: int
    """Number that `Engine.submit` returned."""
    tokens: tuple[int, ...] = ()
    """Ids of the new tokens."""
    text: str = ""
    """New text: only whole characters, and nothing that could still become a stop string."""
    logprobs: tuple[TokenLogprob, ...] = ()
    """If requested: of `tokens`, and of the end-of-document token if it was drawn."""
    prompt_logprobs: tuple[TokenLogprob, ...] = ()
    """If requested: only in the first event."""
    finish_reason: FinishReason | None = None
    """Only in the last event."""


@dataclasses.dataclass(frozen=True)
class Completion:
    """Complete output of one request."""

    text: str
    tokens: tuple[int, ...]
    """Without the end-of-document token; includes the tokens that contain a stop string."""
    logprobs: tuple[TokenLogprob, ...]
    """Of the tokens, and of the end-of-document token if it was drawn."""
    prompt_logprobs: tuple[TokenLogprob, ...]
    finish_reason: FinishReason


class QueueFull(UsageError):  # noqa: N818  (it went as it should)
    """Raised by `Engine.submit` if the queue has max_queue requests; try again later."""


def check_prompt(
    tokenizer: Tokenizer, prompt: str, tokens: int, remedy: str = "Ask for more tokens, or shorten the prompt."
) -> list[int]:
    """Return the token ids of the prompt, with BOS if the tokenizer adds it. Raises UsageError, with `remedy`, if the
    prompt leaves no room for new text within `tokens` tokens in total."""
    row = tokenizer.prompt_ids(prompt)
    if len(row) >= tokens:
        raise UsageError(
            f"The prompt {shown(prompt)} is {len(row):,} tokens with BOS; that leaves no room within {tokens} "
            f"tokens, which include the new text. {remedy}"
        )
    return row
