"""Limits on the requests of clients: sizes, counts and times."""

import dataclasses

from lm.errors import UsageError
from lm.tokenizer import Tokenizer

SHORTENED = 8
"""Factor by which normalization may shorten a text."""


@dataclasses.dataclass(frozen=True)
class Limits:
    """Limits of a request; exceeding one is a 4xx error with the field, its value and the limit."""

    context: int
    """Tokens of prompt and completion together; also the maximum of max_tokens."""
    max_choices: int = 128
    """Texts per call: number of prompts times n."""
    max_logprobs: int = 20
    """Alternatives per token."""
    max_stop: int = 16
    """Number of stop strings; OpenAI allows 4, but tasks of lm-eval have more."""
    max_stop_characters: int = 256
    """Length of a stop string."""
    max_body_bytes: int = 2 * 2**20
    max_prompt_bytes: int = 2**31 - 1
    """UTF-8 bytes of one prompt."""
    max_queue: int = 256
    """Texts that may wait for a slot; further calls get 429."""
    max_inspections: int = 32
    """Calls of /v1/inspect that may wait; further ones get 429."""
    read_seconds: float = 30.0
    """Time for a client to send the headers of a request, and again for the body."""
    write_seconds: float = 60.0
    """Time for which a client may leave part of a streamed response unread."""
    max_connections: int = 1024
    max_connections_per_peer: int = 256
    """Connections per client address; behind a proxy, all clients have its address."""

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            least = 0 if field.name in ("max_logprobs", "max_queue", "max_stop") else 1
            if not least <= value < 2**31:
                raise UsageError(f"{field.name} is {value}; it must be at least {least}, and below 2**31.")

    def for_tokenizer(self, tokenizer: Tokenizer) -> "Limits":
        """Return the limits with max_prompt_bytes lowered to the most bytes that can fit into the context, so that
        longer texts are rejected without encoding them. Tokenizers without byte-level vocabularies may normalize, and
        thereby shorten, a text first; the limit allows for that."""
        longest = max(len(tokenizer.token_bytes(id)) for id in range(tokenizer.vocab_size))
        room = 1 if tokenizer.kind == "bpe" else SHORTENED
        most = min(self.max_prompt_bytes, self.context * longest * room)
        return dataclasses.replace(self, max_prompt_bytes=most)
