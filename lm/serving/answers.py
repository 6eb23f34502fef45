"""Convert events of the Engine to the JSON of completions. A whole response is the concatenation of the streamed
pieces."""

import codecs
import dataclasses
import json
from collections.abc import Iterable, Sequence

from lm.inference.requests import GenerationEvent, TokenLogprob
from lm.serving.protocol import CompletionCall, Prompt
from lm.tokenizer import Tokenizer

LEAST_LOGPROB = -9999.0
"""Replaces minus infinity, which JSON cannot represent."""
LISTS = ("tokens", "token_logprobs", "top_logprobs", "text_offset")


def to_json(value: object) -> bytes:
    r"""Serialize to ASCII JSON; a lone surrogate sent by a client remains an escape, such as \ud800."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode("ascii")


def token_text(tokenizer: Tokenizer, token: int) -> str:
    r"""Return a token's text; if it is not whole characters, "bytes:" and each byte as \xNN, like OpenAI's API."""
    data = tokenizer.token_bytes(token)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)


@dataclasses.dataclass
class Usage:
    """Token counts of a call: `prompt_tokens` (each prompt once, with BOS) and `completion_tokens` (generated)."""

    prompt_tokens: int
    completion_tokens: int = 0

    def as_json(self) -> dict[str, int]:
        both = {"prompt_tokens": self.prompt_tokens, "completion_tokens": self.completion_tokens}
        return both | {"total_tokens": sum(both.values())}


class ChoiceWriter:
    """Converts the events of one choice (one text of a response) to JSON."""

    def __init__(self, index: int, prompt: Prompt, call: CompletionCall, tokenizer: Tokenizer):
        self.index, self.prompt, self.call, self.tokenizer = index, prompt, call, tokenizer
        self.offset = 0
        """Number of characters of text before the next token."""
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.begun = False

    def piece(self, event: GenerationEvent) -> dict[str, object]:
        """Return an entry of the response's `choices`, with the new text of `event`."""
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
            top: dict[str, float] = {}
            if one.logprob is not None:
                likeliest = [(token_text(self.tokenizer, token), value) for token, value in one.top]
                for name, value in [*likeliest, (text, one.logprob)]:
                    top.setdefault(name, max(value, LEAST_LOGPROB))  # of equal texts, the likelier token
            rows["top_logprobs"].append(top or None)
            rows["text_offset"].append(self.offset)
            self.offset += len(self.decoder.decode(self.tokenizer.token_bytes(one.token)))
        return rows


def joined(pieces: Sequence[dict]) -> dict[str, object]:
    """Concatenate the pieces of one choice, in order, to one entry of `choices`."""
    whole = dict(pieces[-1]) | {"text": "".join(piece["text"] for piece in pieces)}
    if whole["logprobs"] is not None:
        whole["logprobs"] = {name: [one for piece in pieces for one in piece["logprobs"][name]] for name in LISTS}
    return whole
