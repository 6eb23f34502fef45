"""The Engine's events as the JSON of completions. A whole answer is the pieces of a streamed one, joined."""

import codecs
import dataclasses
import json
from collections.abc import Iterable, Sequence

from lm.inference.requests import GenerationEvent, TokenLogprob
from lm.serving.protocol import CompletionCall, Prompt
from lm.tokenizer import Tokenizer

LEAST_LOGPROB = -9999.0
"""In the place of minus infinity, which JSON does not know."""
LISTS = ("tokens", "token_logprobs", "top_logprobs", "text_offset")


def to_json(value: object) -> bytes:
    """ASCII alone: a lone surrogate that a client sent stays the escape that it was."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode("ascii")


def token_text(tokenizer: Tokenizer, token: int) -> str:
    """The token's text; where its bytes are no whole characters, "bytes:" and each of them as \\xNN, as OpenAI's."""
    data = tokenizer.token_bytes(token)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)


@dataclasses.dataclass
class Usage:
    """Tokens of a call: those of each prompt once, its BOS included, and all that were drawn."""

    prompt_tokens: int
    completion_tokens: int = 0

    @classmethod
    def of(cls, call: CompletionCall) -> "Usage":
        return cls(sum(len(prompt.tokens) for prompt in call.prompts))

    def as_json(self) -> dict[str, int]:
        both = {"prompt_tokens": self.prompt_tokens, "completion_tokens": self.completion_tokens}
        return both | {"total_tokens": sum(both.values())}


class ChoiceWriter:
    """One choice of an answer, piece by piece."""

    def __init__(self, index: int, prompt: Prompt, call: CompletionCall, tokenizer: Tokenizer):
        self.index, self.prompt, self.call, self.tokenizer = index, prompt, call, tokenizer
        self.offset = 0
        """Characters of the text that stand before the next token."""
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.begun = False

    def piece(self, event: GenerationEvent) -> dict[str, object]:
        """What is new of this choice, as `choices` of an answer has it."""
        text, scored = event.text, list(event.logprobs)
        if self.call.echo and not self.begun:
            text = self.tokenizer.decode(self.prompt.shown) + text
            scored = list(event.prompt_logprobs[len(self.prompt.tokens) - len(self.prompt.shown) :]) + scored
        self.begun = True
        logprobs = None if self.call.params.logprobs is None else self.logprobs(scored)
        return {"index": self.index, "text": text, "logprobs": logprobs, "finish_reason": event.finish_reason}

    def logprobs(self, scored: Iterable[TokenLogprob]) -> dict[str, list]:
        rows: dict[str, list] = {name: [] for name in LISTS}
        for one in scored:
            text = token_text(self.tokenizer, one.token)
            rows["tokens"].append(text)
            rows["token_logprobs"].append(None if one.logprob is None else max(one.logprob, LEAST_LOGPROB))
            rows["top_logprobs"].append(None if one.logprob is None else self.top(one, text, one.logprob))
            rows["text_offset"].append(self.offset)
            self.offset += len(self.decoder.decode(self.tokenizer.token_bytes(one.token)))
        return rows

    def top(self, one: TokenLogprob, text: str, logprob: float) -> dict[str, float]:
        """The likeliest tokens, and the one that stands there; of tokens with one text, the likelier."""
        found: dict[str, float] = {}
        for token, value in one.top:
            found.setdefault(token_text(self.tokenizer, token), max(value, LEAST_LOGPROB))
        found.setdefault(text, max(logprob, LEAST_LOGPROB))
        return found


def joined(pieces: Sequence[dict]) -> dict[str, object]:
    """The choice that these pieces of it are, in their order."""
    whole = dict(pieces[-1]) | {"text": "".join(piece["text"] for piece in pieces)}
    if whole["logprobs"] is not None:
        whole["logprobs"] = {name: [one for piece in pieces for one in piece["logprobs"][name]] for name in LISTS}
    return whole


class Envelope:
    """What stands around the choices, the same in every piece of an answer."""

    def __init__(self, id: str, created: int, model: str, fingerprint: str):
        """`created` in seconds since 1970; `fingerprint` says which checkpoint answers."""
        self.fields = {
            "id": f"cmpl-{id}", "object": "text_completion", "created": created, "model": model,
            "system_fingerprint": fingerprint,
        }  # fmt: skip

    def around(self, choices: Sequence[dict], usage: Usage | None) -> bytes:
        return to_json(self.fields | {"choices": list(choices), "usage": usage and usage.as_json()})
