"""How much a client may ask for, and how long it may take."""

import dataclasses

from lm.errors import UsageError
from lm.tokenizer import Tokenizer

SHORTENED = 8
"""How many times shorter a normalisation may make a text."""


@dataclasses.dataclass(frozen=True)
class Limits:
    """What is beyond is refused with a 4xx error that names the field, its value and the limit."""

    context: int
    """Tokens of the prompt and the answer together; max_tokens at most, too."""
    max_choices: int = 128
    """Texts that one call may ask for: its prompts times n."""
    max_logprobs: int = 20
    """Alternatives a token."""
    max_stop: int = 16
    """Stop strings; OpenAI takes 4, but tasks of lm-eval have more."""
    max_stop_characters: int = 256
    """Of one stop string."""
    max_body_bytes: int = 2 * 2**20
    max_prompt_bytes: int = 2**31 - 1
    """Of one text in UTF-8."""
    max_queue: int = 256
    """Texts that may wait for a slot; beyond, a call is answered 429."""
    max_inspections: int = 32
    """Calls of /v1/inspect that may wait; beyond, one is answered 429."""
    read_seconds: float = 30.0
    """That a client may take to send its request: so long for the headers, and again for the body."""
    write_seconds: float = 60.0
    """That a client may leave a piece of a streamed answer unread."""
    max_connections: int = 1024
    max_connections_per_peer: int = 256
    """Of one client's address; behind a proxy, all clients have its address."""

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            least = 0 if field.name in ("max_logprobs", "max_queue", "max_stop") else 1
            if not least <= value < 2**31:
                raise UsageError(f"{field.name} is {value}; it must be at least {least}, and below 2**31.")

    def for_tokenizer(self, tokenizer: Tokenizer) -> "Limits":
        """With the bytes beyond which no text is as few tokens as the context holds: what is longer need not be
        encoded to be refused. Vocabularies that do not stand for every byte may shorten a text before they cut it, and
        have room for that."""
        longest = max(len(tokenizer.token_bytes(id)) for id in range(tokenizer.vocab_size))
        room = 1 if tokenizer.kind == "bpe" else SHORTENED
        most = min(self.max_prompt_bytes, self.context * longest * room)
        return dataclasses.replace(self, max_prompt_bytes=most)
