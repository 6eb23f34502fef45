"""Turn conversations into tokens by a Jinja chat template, the form in which models are published.

The text is that of transformers' apply_chat_template, byte for byte. In the tokens, only the template's own text can
give special tokens: names such as <|end|> in a message are encoded as text.

The loss mask marks what the model is trained to write: the parts between {% generation %} and {% endgeneration %}; in a
template without them, each reply of the assistant, with the special token that ends it.
"""

import copy
import datetime
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context

from lm.chat.messages import Message
from lm.chat.sandbox import METER, Meter, RenderingStopped, Sandbox, TemplateError
from lm.errors import shown
from lm.tokenizer.base import Tokenizer

PRIVATE = range(0xE000, 0xF900)
"""Characters without a meaning in Unicode, which stand for others while a template is rendered."""

MOST_FORM = 99
"""Maximum characters of a format of the time."""


class Encoded(NamedTuple):
    """Tokens of a conversation."""

    ids: np.ndarray
    """(tokens,) int32."""
    trained: np.ndarray
    """(tokens,) bool: whether the model is trained to write the token."""


class Generation(Extension):
    """{% generation %} ... {% endgeneration %} encloses what the model is trained to write in the two characters of the
    variable `marks`, if there is one."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        call = self.call_method("marked", [nodes.ContextReference()])
        return nodes.CallBlock(call, [], [], body).set_lineno(line)

    def marked(self, context: Context, caller: Any) -> str:
        begin, end = context.get("marks") or ("", "")
        return begin + caller() + end


def refuse(message: object) -> None:
    """Raise TemplateError: raise_exception of a template."""
    raise TemplateError(f"The chat template refuses the conversation: {shown(str(message), quotes=False)}")


def now(form: str) -> str:
    """Return the time in the format `form`: strftime_now of a template. Raises TemplateError if it is too long."""
    if len(form) > MOST_FORM:  # %99d is the day in 99 digits
        raise TemplateError(f"The chat template asks for the time as {shown(form)}, which is refused.")
    return datetime.datetime.now().strftime(form)


class ChatTemplate:
    """The chat template of a tokenizer. Raises TemplateError if it has none, or it is not valid Jinja."""

    def __init__(self, tokenizer: Tokenizer):
        if not tokenizer.chat_template:
            raise TemplateError(
                "The tokenizer has no chat template, so it cannot encode a conversation. Finetune the model "
                "(launch.finetune), or import one that has a chat template."
            )
        self.tokenizer = tokenizer
        self.stops: Callable[[], bool] = bool
        """Renderings end with RenderingStopped soon after this returns True."""
        names = sorted(tokenizer.special_tokens, key=len, reverse=True)
        self.special = re.compile(f"({'|'.join(map(re.escape, names))})") if names else re.compile(r"(?!)")
        self.beginnings = {name[:size] for name in names for size in range(1, len(name))}
        self.endings = {name[size:] for name in names for size in range(1, len(name))}
        self.longest = max(map(len, names), default=0)
        self.has_generation = re.search(r"\{%-?\s*generation\s*-?%\}", tokenizer.chat_template) is not None
        named = tokenizer.special_names
        ends = tokenizer.stop_ids or sorted(tokenizer.eos_ids)
        self.values = {
            "bos_token": named.get(tokenizer.bos_id, ""),
            "eos_token": named.get(ends[0], "") if ends else "",
        }
        environment = Sandbox(extensions=[Generation, loopcontrols])
        functions = {"raise_exception": refuse, "strftime_now": now}
        try:
            self.template = environment.from_string(tokenizer.chat_template, functions)
        except TemplateError:
            raise
        except Exception as error:  # also of Python, which compiles it: SyntaxError, MemoryError, RecursionError
            raise TemplateError(f"The chat template is not valid Jinja: {shown(str(error), quotes=False)}.") from error

    def until(self, stops: Callable[[], bool]) -> "ChatTemplate":
        """Return a copy whose renderings end with RenderingStopped soon after `stops` returns True."""
        found = copy.copy(self)
        found.stops = stops
        return found

    def text(
        self, messages: Sequence[Message], tools: Sequence[Message] = (), reply: bool = False,
        marks: tuple[str, str] | None = None,
    ) -> str:  # fmt: skip
        """Return the text of the conversation; with `reply`, it ends where the assistant's reply begins. `marks`, if
        given, enclose what the model is trained to write.

        Equals transformers' apply_chat_template(messages, tools, add_generation_prompt=reply, tokenize=False). Raises
        TemplateError if the template refuses the conversation, TemplateLimitError if it exceeds its Meter.
        """
        strings = [len(one) for one in strings_in([messages, tools])]
        meter = Meter(len(messages), len(strings), sum(strings), self.stops)
        try:
            return self.template.render(
                {METER: meter}, messages=list(messages), tools=list(tools) or None, documents=None,
                add_generation_prompt=reply, marks=marks, **self.values,
            )  # fmt: skip
        except (TemplateError, RenderingStopped):
            raise
        except Exception as error:  # whatever it is, it is the template's
            raise TemplateError(
                f"The chat template cannot render the conversation: {type(error).__name__}: "
                f"{shown(str(error), quotes=False)}."
            ) from error

    def encode(self, messages: Sequence[Message], tools: Sequence[Message] = (), reply: bool = False) -> Encoded:
        """Return the tokens of the conversation, and which of them the model is trained to write; with `reply`, up to
        where the assistant's reply begins. Raises TemplateError like `text`, and like Tokenizer.encode."""
        # {first or last character of a special token's name: its stand-in, which the conversation does not have}.
        wanted = sorted({letter for name in self.tokenizer.special_tokens for letter in (name[0], name[-1])})
        used = set("".join(strings_in([messages, tools])))
        free = [chr(code) for code in PRIVATE if chr(code) not in used]
        if len(free) < len(wanted) + 2:
            raise TemplateError("The conversation has nearly all of Unicode's private characters. Remove them.")
        begin, end, *others = free
        letters = dict(zip(wanted, others, strict=False))
        hide = lambda text: self.without_names(text, letters)
        messages = [
            {key: one if key == "role" else deep(one, hide) for key, one in message.items()} for message in messages
        ]
        tools = deep(tools, hide)
        text = self.text(messages, tools, reply, (begin, end))
        if not self.has_generation and not reply:
            text = self.with_marks(text, messages, tools, (begin, end))
        return self.tokens(text, (begin, end), {ord(stand_in): letter for letter, stand_in in letters.items()})

    def without_names(self, text: str, letters: Mapping[str, str]) -> str:
        """Replace a character of each special token's name in `text`, and of each part of a name that `text` begins or
        ends with, by its stand-in: then no rendering has a name that the template did not write."""
        text = self.special.sub(lambda found: letters[found[0][0]] + found[0][1:], text)
        for size in range(1, min(len(text), self.longest) + 1):
            if text[-size:] in self.beginnings:
                text = text[: len(text) - size] + letters[text[-size]] + text[len(text) - size + 1 :]
            if text[:size] in self.endings:
                text = text[: size - 1] + letters[text[size - 1]] + text[size:]
        return text

    def tokens(self, text: str, marks: tuple[str, str], letters: Mapping[int, str]) -> Encoded:
        """Encode a rendered text: special tokens by their names, and the text between two of them at once, with the
        `letters` that stand for others replaced."""
        ids: list[int] = []  # extended in place: a long conversation has thousands of parts
        trained: list[bool] = []
        is_on = False
        parts = self.special.split(text)
        for number, part in enumerate(parts):
            if number % 2:
                ids.append(self.tokenizer.special_tokens[part])
                trained.append(is_on)
                continue
            pieces: list[tuple[str, bool]] = []
            for piece in re.split(f"([{''.join(marks)}])", part):
                if piece in marks:
                    is_on = piece == marks[0]
                elif piece:
                    pieces.append((piece.translate(letters), is_on))
            whole = self.tokenizer.encode("".join(piece for piece, _ in pieces))
            on_of_byte = np.repeat(
                [on for _, on in pieces], [len(piece.encode("utf-8", "replace")) for piece, _ in pieces]
            )
            bounds = np.cumsum([0, *(len(self.tokenizer.token_bytes(id)) for id in whole)])
            if bounds[-1] == len(on_of_byte):  # a token is trained if any of its bytes is, as in transformers
                trained_before = np.cumsum([0, *on_of_byte])[bounds]
                ids += whole
                trained += np.diff(trained_before).astype(bool).tolist()
                continue
            for piece, on in pieces:  # tokens are not the bytes of the text (sentencepiece): encode piece by piece
                some = self.tokenizer.encode(piece)
                ids += some
                trained += [on] * len(some)
        return Encoded(np.array(ids, np.int32), np.array(trained, bool))

    def with_marks(
        self, text: str, messages: Sequence[Message], tools: Sequence[Message], marks: tuple[str, str]
    ) -> str:
        """Put the marks around each reply in the text of a template without {% generation %}. A reply ends with its
        last special token. Raises TemplateError if an earlier part of the conversation changes with later messages."""
        found, at = [], 0
        for number, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            before = self.text(messages[:number], tools, reply=True)
            until = self.text(messages[: number + 1], tools)
            if not (text.startswith(until) and until.startswith(before)):
                raise TemplateError(
                    f"The chat template changes earlier messages when messages[{number}] follows, so the replies to "
                    "train on cannot be found. Put {% generation %} and {% endgeneration %} around them."
                )
            specials = [one.end() for one in self.special.finditer(until, len(before))]
            end = specials[-1] if specials and not until[specials[-1] :].strip() else len(until)
            found += [text[at : len(before)], marks[0], text[len(before) : end], marks[1]]
            at = end
        return "".join([*found, text[at:]])


def strings_in(value: object) -> Iterator[str]:
    """All strings in nested lists and objects, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from strings_in(key)
            yield from strings_in(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from strings_in(inner)


def deep(value: Any, change: Any) -> Any:
    """Copy of nested lists and objects, with `change` applied to each string."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {change(key): deep(inner, change) for key, inner in value.items()}
    return [deep(inner, change) for inner in value] if isinstance(value, list | tuple) else value
