"""Read a reply of the assistant, token by token: its text, and the tools that it calls.

Three forms of a call are read: <|call|>NAME {...} with the special token, as in our template; lines between <tool_call>
and </tool_call>, as in ChatML models; and a reply that is one JSON object with a name, as in Llama 3.1.
"""

import itertools
import json
import re
from collections.abc import Sequence
from typing import Any

from lm.chat.messages import Message, MessageError, checked_calls
from lm.inference.text_stream import TextStream
from lm.tokenizer.base import Tokenizer

CALL = "<|call|>"
OPEN, CLOSE = "<tool_call>", "</tool_call>"
CONTROL = re.compile(r"<\|.*\|>")
"""Names of special tokens that are not shown, besides those that begin and end documents."""
BROKEN = "\N{REPLACEMENT CHARACTER}"
"""What bytes that are no character decode to; not shown."""


class Reply:
    """A reply that arrives token by token."""

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str] = (), calls: bool = True):
        """`stop` are the strings at which the text ends. Without `calls`, calls are text."""
        self.tokenizer, self.stop, self.reads_calls = tokenizer, tuple(stop), calls
        ours = CALL in tokenizer.chat_template
        self.call_id = tokenizer.special_tokens.get(CALL) if calls and ours else None
        self.space = " " if ours else ""
        """Space that the template writes before the text, not shown; "" after it was read."""
        self.reads_json = calls and self.call_id is None
        self.stream = TextStream(tokenizer, (*stop, *([OPEN] if self.reads_json else [])))
        self.hidden = {id for name, id in tokenizer.special_tokens.items() if CONTROL.fullmatch(name)}
        self.hidden |= {tokenizer.bos_id, *tokenizer.eos_ids}
        self.ids: list[int] = []
        self.shown = ""
        """All text that push returned."""
        self.held = ""
        """The text, if it begins like a JSON object, which may be a call."""
        self.in_calls = False

    def push(self, token: int) -> str:
        """Add a token; return the new text to show, without calls."""
        self.ids.append(token)
        self.in_calls = self.in_calls or token == self.call_id
        return "" if self.in_calls or token in self.hidden else self.show(self.stream.push(token))

    def show(self, text: str) -> str:
        """Return the text, unless it may belong to a call."""
        text, self.held = self.held + text.replace(BROKEN, ""), ""
        if text:
            text, self.space = text.removeprefix(self.space), ""
        if self.reads_json and not self.shown and text.lstrip()[:1] in ("", "{"):
            text, self.held = "", text
        self.shown += text
        return text

    def finish(self, cut: bool = False) -> tuple[str, Message]:
        """Return (text to show that was withheld, the whole message, whose content is all the shown text). A malformed
        call is text, without its special token; calls of a reply that was `cut` are left out."""
        if cut and (self.in_calls or (self.reads_json and OPEN in self.tokenizer.decode(self.ids))):
            return "", {"role": "assistant", "content": self.shown}
        rest = self.show(self.stream.finish())
        try:
            if calls := self.calls():
                return rest, {"role": "assistant", "content": self.shown, "tool_calls": checked_calls(calls, "reply")}
        except MessageError:
            pass
        stream = TextStream(self.tokenizer, self.stop)
        whole = "".join([*(stream.push(id) for id in self.ids if id not in self.hidden), stream.finish()])
        whole = whole.replace(BROKEN, "")
        if CALL in self.tokenizer.chat_template:
            whole = whole.removeprefix(" ")
        return whole[len(self.shown) - len(rest) :], {"role": "assistant", "content": whole}

    def calls(self) -> list[Message]:
        """The calls of the reply, unchecked: a name or arguments that cannot be read are None."""
        if self.call_id is not None:
            starts = [place for place, id in enumerate(self.ids) if id == self.call_id]
            parts = [self.ids[start + 1 : end] for start, end in itertools.pairwise([*starts, len(self.ids)])]
            return [call_of(*self.tokenizer.decode(part).strip().partition(" ")[::2]) for part in parts]
        if not self.reads_json:
            return []
        text = self.tokenizer.decode([id for id in self.ids if id not in self.hidden])
        enclosed = [one.partition(CLOSE)[0] for one in text.split(OPEN)[1:]]
        missing = {} if enclosed else None  # without arguments, an object is data
        objects = [json_of(one) or {} for one in enclosed or [text]]
        return [call_of(one.get("name"), one.get("arguments", one.get("parameters", missing))) for one in objects]


def json_of(text: str) -> dict[str, Any] | None:
    """The JSON object that is the whole text; None if there is none."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def call_of(name: object, arguments: object) -> Message:
    return {"type": "function", "function": {"name": name, "arguments": arguments}}
