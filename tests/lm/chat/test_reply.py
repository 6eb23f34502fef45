"""Replies are read token by token: the three forms of calls, and everything else is text."""

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm.chat.reply import Reply
from lm.chat.templates import TEMPLATES, with_template
from lm.config.tokenizer import SPECIAL_TOKENS
from lm.tokenizer.base import Tokenizer
from lm.tokenizer.encoding import BytePairTokenizer, numbered
from lm.tokenizer.patterns import SPLIT_PATTERNS

BYTES = tuple(bytes([byte]) for byte in range(256))
PIECES = (b'{"', b'"}', b"<tool", b"_call>", b"ca", b"\n\n", b" {", b'": "')
LLAMA = ("<|python_tag|>", "<|eom_id|>")


def tokenizer_with(template: str) -> Tokenizer:
    """Bytes, some pieces, and the special tokens of all templates, of which one is chosen."""
    tokens = (*BYTES, *PIECES)
    names = dict.fromkeys([*SPECIAL_TOKENS, *TEMPLATES["chatml"].tokens, *TEMPLATES["llama3"].tokens, *LLAMA])
    plain = BytePairTokenizer(SPLIT_PATTERNS["cl100k"], tokens, special_tokens=numbered(tokens, tuple(names)))
    return with_template(plain, template)


TOKENIZERS = {name: tokenizer_with(name) for name in TEMPLATES}


RAW = re.compile(r"\ufffd|<\|[a-z_]+\|>")
"""What is never shown: bytes that are no character, and special tokens."""


def call(name: str, **arguments: object) -> dict:
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


def read(name: str, ids: list[int], stop: tuple[str, ...] = (), calls: bool = True, cut: bool = False) -> dict:
    """The message; all shown text is its content."""
    reply = Reply(TOKENIZERS[name], stop, calls)
    shown = [reply.push(id) for id in ids]
    rest, message = reply.finish(cut)
    assert "".join(shown) + rest == message["content"], (shown, rest, message)
    assert not RAW.search(message["content"]), message
    return message


def splits(name: str, text: str) -> list[list[int]]:
    """The text as ids of single bytes, as encoded, and with each piece of the vocabulary as one token."""
    tokenizer = TOKENIZERS[name]
    special = [one for one in tokenizer.special_tokens if one in text]
    by_bytes = [
        id for part in tokenizer.encode(text, special) for id in
        ([part] if part in tokenizer.special_tokens.values() else list(tokenizer.token_bytes(part)))
    ]  # fmt: skip
    found = [by_bytes, tokenizer.encode(text, special)]
    for number, piece in enumerate(PIECES, len(BYTES)):
        ids, at = [], 0
        while at < len(by_bytes):
            whole = by_bytes[at : at + len(piece)] == list(piece)
            ids.append(number if whole else by_bytes[at])
            at += len(piece) if whole else 1
        found.append(ids)
    return found


SEARCH, SUM = call("search", query="Mühle {x}"), call("calculator", expression="6 * 7")
CASES = [
    ("gristmill", '<|call|>search {"query": "Mühle {x}"}', "", [SEARCH]),
    ("gristmill", 'Let me see.<|call|>search {"query": "Mühle {x}"}<|call|>calculator {"expression": "6 * 7"}',
     "Let me see.", [SEARCH, SUM]),
    ("gristmill", "<|call|>now", "", [call("now")]),
    ("gristmill", " It is.", "It is.", []),
    ("gristmill", "   It is.", "  It is.", []),
    ("gristmill", " Let me see.<|call|>now", "Let me see.", [call("now")]),
    ("gristmill", " a<|call|>search {", "asearch {", []),
    ("gristmill", " a<|user|>b<|endoftext|>c", "abc", []),
    ("chatml", " It is.", " It is.", []),
    ("gristmill", 'call search {"query": "x"}', 'call search {"query": "x"}', []),
    ("gristmill", '{"name": "f", "arguments": {}}', '{"name": "f", "arguments": {}}', []),
    ("gristmill", '<tool_call>{"name": "f"}</tool_call>', '<tool_call>{"name": "f"}</tool_call>', []),
    ("gristmill", "a<|call|>search {", "asearch {", []),
    ("gristmill", "<|call|>", "", []),
    ("gristmill", "<|call|>f [1]", "f [1]", []),
    ("gristmill", '<|call|>f {"a": 1}<|call|>g {', 'f {"a": 1}g {', []),
    ("chatml", "a<|im_start|>b<|im_end|>", "ab", []),
    ("llama3", "<|start_header_id|>a<|eot_id|>", "a", []),
    ("chatml", '<tool_call>\n{"name": "search", "arguments": {"query": "Mühle {x}"}}\n</tool_call>', "", [SEARCH]),
    ("chatml", 'Wait.\n<tool_call>{"name": "search", "arguments": {"query": "Mühle {x}"}}</tool_call>\n'
     '<tool_call>{"name": "calculator", "arguments": {"expression": "6 * 7"}}</tool_call>', "Wait.\n", [SEARCH, SUM]),
    ("chatml", '<tool_call>{"name": "now"}', "", [call("now")]),
    ("chatml", "<tool_call>{</tool_call> is a call", "<tool_call>{</tool_call> is a call", []),
    ("chatml", '<tool_call>{"name": 3}</tool_call>', '<tool_call>{"name": 3}</tool_call>', []),
    ("chatml", '<tool_call>{"name": "f"}</tool_call><tool_call>', '<tool_call>{"name": "f"}</tool_call><tool_call>',
     []),
    ("chatml", "a < b and <tool", "a < b and <tool", []),
    ("llama3", '{"name": "search", "parameters": {"query": "Mühle {x}"}}', "", [SEARCH]),
    ("llama3", '<|python_tag|>{"name": "search", "parameters": {"query": "Mühle {x}"}}<|eom_id|>', "", [SEARCH]),
    ("llama3", '\n {"name": "search", "arguments": {"query": "Mühle {x}"}}\n', "", [SEARCH]),
    ("llama3", '{"name": "Bob", "age": 3}', '{"name": "Bob", "age": 3}', []),
    ("llama3", '{"name": "f", "parameters": {}} x', '{"name": "f", "parameters": {}} x', []),
    ("llama3", '  {"name": "f", "param', '  {"name": "f", "param', []),
    ("llama3", "{}", "{}", []),
    ("llama3", '[{"name": "f"}]', '[{"name": "f"}]', []),
    ("llama3", 'So: {"name": "f", "parameters": {}}', 'So: {"name": "f", "parameters": {}}', []),
    ("llama3", "\n", "\n", []),
    ("llama3", "", "", []),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "text", "content", "calls"), CASES, ids=[f"{one[0]} {one[1][:50]!r}" for one in CASES]
)
def test_calls_and_text_are_read_in_any_tokens(name, text, content, calls):
    wanted = {"role": "assistant", "content": content} | ({"tool_calls": calls} if calls else {})
    for ids in splits(name, text):
        assert read(name, ids) == wanted


@pytest.mark.parametrize("name", TEMPLATES)
def test_deeply_nested_arguments_are_text(name):
    deep = '{"a": ' * 2000 + "1" + "}" * 2000
    texts = {
        "gristmill": f"<|call|>f {deep}", "chatml": f'<tool_call>{{"name": "f", "arguments": {deep}}}</tool_call>',
        "llama3": f'{{"name": "f", "parameters": {deep}}}',
    }  # fmt: skip
    text = texts[name]
    assert read(name, splits(name, text)[1]) == {"role": "assistant", "content": text.replace("<|call|>", "")}


@pytest.mark.parametrize(
    ("name", "text", "content"),
    [
        ("gristmill", "one.STOPtwo", "one."),
        ("gristmill", "one.ST", "one.ST"),
        ("gristmill", "a<|call|>f {STOP", "af {"),
        ("chatml", "one.STOP<tool_call>{}", "one."),
        ("chatml", "<tool_call>{STOP", "<tool_call>{"),
        ("llama3", '{"a": "STOP', '{"a": "'),
        ("llama3", " STOP", " "),
    ],
)
def test_text_ends_at_a_stop_string(name, text, content):
    for ids in splits(name, text):
        assert read(name, ids, ("STOP",)) == {"role": "assistant", "content": content}


@pytest.mark.parametrize(("name", "text"), dict.fromkeys((one[0], one[1]) for one in CASES if one[3]))
def test_without_tools_calls_are_text(name, text):
    shown = RAW.sub("", text).removeprefix(" ")
    assert read(name, splits(name, text)[0], calls=False) == {"role": "assistant", "content": shown}


SOME = {
    name: [*range(256, 256 + len(PIECES)), *tokenizer.special_tokens.values(), *b'{}"<> \n:,tool_cal/name\xc3\xbc\xff']
    for name, tokenizer in TOKENIZERS.items()
}


@given(name=st.sampled_from(list(TEMPLATES)), numbers=st.lists(st.integers(0, 999), max_size=40), stops=st.booleans())
def test_any_tokens_give_a_message_whose_content_is_what_was_shown(name, numbers, stops):
    ids = [SOME[name][number % len(SOME[name])] for number in numbers]
    message = read(name, ids, ("na", "}}") if stops else ())
    for one in message.get("tool_calls", ()):
        assert one["function"]["name"] and isinstance(one["function"]["arguments"], dict)
    assert set(message) <= {"role", "content", "tool_calls"}


def test_every_cut_of_a_reply_can_be_shown_without_its_calls():
    for name, text, *_ in CASES:
        for ids in itertools.accumulate(([id] for id in splits(name, text)[0]), initial=[]):
            read(name, ids)
            cut = read(name, ids, cut=True)
            begun = [one for one in ("<|call|>", "<tool_call>") if one in TOKENIZERS[name].decode(ids)]
            calls = begun == [{"gristmill": "<|call|>", "chatml": "<tool_call>"}.get(name)]
            if calls:
                assert cut == {"role": "assistant", "content": text.partition(begun[0])[0].removeprefix(" ")}


@pytest.mark.parametrize("calls", [False, True])
@pytest.mark.parametrize("name", TEMPLATES)
def test_bytes_that_are_no_character_are_not_shown(name, calls):
    ids = [*b" a\xff\xc3", *b"b\xf0\x9f\x8c", TOKENIZERS[name].special_tokens["<|call|>"], *b"\xf0"]
    assert read(name, ids, calls=calls)["content"].strip() == "ab"
