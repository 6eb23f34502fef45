"""Files of conversations become packed shards, whose weights are exactly the loss mask of the chat template."""

import dataclasses
import gzip
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.conversations import (
    Conversation,
    answers_key,
    held_out_questions,
    question_key,
    read_conversations,
    sizes_of,
    write_conversation_shards,
)
from lm.chat.messages import check_messages
from lm.chat.template import ChatTemplate
from lm.chat.templates import TEMPLATES, with_template
from lm.data.batches import Windows
from lm.data.records import read_manifest
from lm.errors import InputError
from lm.tokenizer.characters import CharacterTokenizer
from lm.tokenizer.encoding import BytePairTokenizer, numbered
from lm.tokenizer.patterns import SPLIT_PATTERNS
from tests.assistant_run import talks

BYTES = tuple(bytes([byte]) for byte in range(256))
PLAIN = BytePairTokenizer(
    SPLIT_PATTERNS["cl100k"], (*BYTES, b"\n\n"), special_tokens=numbered((*BYTES, b"\n\n"), ("<|endoftext|>",))
)
TEMPLATE = ChatTemplate(with_template(PLAIN, "gristmill"))
NO_REPLY = [{"role": "user", "content": "Hi"}]
HI = [*NO_REPLY, {"role": "assistant", "content": "Hello"}]
LENGTH = 96


def read(path: Path) -> tuple[list[Conversation], list[tuple[str, str]]]:
    """The conversations, and (place, reason) of rows that are left out."""
    left_out: list[tuple[str, str]] = []
    found = list(read_conversations(path, lambda place, reason, text: left_out.append((place, reason))))
    return found, left_out


def write(
    path: Path, conversations: list[Conversation], length: int = LENGTH, fraction: float = 0.3, template=TEMPLATE
):
    left_out: list[tuple[str, str]] = []
    report = lambda place, reason, text: left_out.append((place, reason))
    manifest, cut = write_conversation_shards(conversations, template, path, length, fraction, report)
    return manifest, cut, left_out


def are_held_out(conversations: list[Conversation], fraction: float, rule: str = "any") -> list[bool]:
    """Whether each is held out."""
    keys = [(question_key(one), answers_key(one)) for one in conversations]
    chosen = held_out_questions(keys, fraction, rule)
    return [question in chosen for question, _ in keys]


def made(*texts: str) -> list[Conversation]:
    return [
        Conversation(f"f.jsonl, line {number}", check_messages([{"role": "user", "content": text}, HI[1]]), [])
        for number, text in enumerate(texts, 1)
    ]


def lines(rows: list) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


ROWS = [{"messages": messages} for messages in talks()]


@pytest.mark.parametrize("form", ["jsonl", "gz", "array", "parquet"])
def test_files_of_every_format_give_the_same_conversations(tmp_path, form):
    path = tmp_path / "talks"
    if form == "parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), path)  # absent fields of a struct are null
    else:
        data = json.dumps(ROWS).encode() if form == "array" else lines(ROWS)
        path.write_bytes(gzip.compress(data) if form == "gz" else data)
    found, left_out = read(path)
    assert [one.messages for one in found] == [check_messages(row["messages"]) for row in ROWS] and not left_out
    unit = {"array": "element", "parquet": "row"}.get(form, "line")
    assert [one.place for one in found] == [f"{path}, {unit} {number}" for number in range(1, len(ROWS) + 1)]


def test_calls_in_columns_of_parquet_may_be_objects(tmp_path):
    """All rows have the fields of all calls, and those of other tools are null."""
    call = lambda name, **arguments: {"type": "function", "function": {"name": name, "arguments": arguments}}
    rows = [
        {"messages": [NO_REPLY[0], {"role": "assistant", "content": None, "tool_calls": [one]}], "tools": None}
        for one in (call("search", query="x"), call("calculator", expression="1"))
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    found, _ = read(tmp_path / "a.parquet")
    assert [one.messages[1] for one in found] == [
        {"role": "assistant", "content": "", "tool_calls": [call("search", query="x")]},
        {"role": "assistant", "content": "", "tool_calls": [call("calculator", expression="1")]},
    ]


def test_rows_are_left_out_by_reason(tmp_path):
    rows = {
        b'{"messages": ': "not_json", b"[1, 2]": "not_an_object", b"\xff{}": "not_json",
        b'{"messages": []}': "no_messages", b"{}": "no_messages", lines([{"messages": NO_REPLY}]): "no_reply",
        lines([{"messages": [{"role": "bot", "content": ""}]}]): "unknown_role",
        lines([{"messages": [{"role": "user", "content": 1}]}]): "content_not_text",
        lines([{"messages": HI, "tools": "search"}]): "malformed_tools",
        lines([{"messages": HI, "tools": ["search"]}]): "malformed_tools",
        b'{"messages": [' + b"[" * 500 + b"]" * 500 + b"]}": "not_an_object",
        b'{"messages": [{"role": "user", "content": "", "x": ' + b"[" * 99 + b"1" + b"]" * 99 + b"}]}":
            "nested_too_deeply",
    }  # fmt: skip
    (path := tmp_path / "a.jsonl").write_bytes(b"\n".join([lines([{"messages": HI}]).strip(), *map(bytes.strip, rows)]))
    found, left_out = read(path)
    assert [one.place for one in found] == [f"{path}, line 1"]
    assert left_out == [(f"{path}, line {number}", reason) for number, reason in enumerate(rows.values(), 2)]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.jsonl", b"{}\n", "has no valid conversation. Each row needs messages"),
        ("a.jsonl", b"", "has no valid conversation"),
        ("a.parquet", b"PAR1" + b"\0" * 50, "is not a complete Parquet file"),
    ],
)
def test_a_file_without_conversations_is_refused(tmp_path, name, data, message):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=message):
        read(tmp_path / name)


def test_a_table_without_messages_is_refused(tmp_path):
    pq.write_table(pa.table({"text": ["x"]}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match="has no column messages, but: 'text'"):
        read(tmp_path / "a.parquet")


def test_conversations_that_begin_with_the_same_question_are_in_one_split():
    one, other = made("What is Brem?", "What is Brem?")
    other.messages.append({"role": "user", "content": "And then?"})
    for fraction in np.linspace(0.01, 0.99, 50):
        assert len({*are_held_out([one, other], fraction)}) == 1
    some = made(*map(str, range(2000)))
    assert 0.17 < sum(are_held_out(some, 0.2)) / len(some) < 0.23


def asked(*pairs: tuple[str, str]) -> list[Conversation]:
    """Conversations of (question, answer)."""
    return [
        Conversation(f"f, row {number}", check_messages([
            {"role": "user", "content": question}, {"role": "assistant", "content": answer},
        ]), [])
        for number, (question, answer) in enumerate(pairs)
    ]  # fmt: skip


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 4)), min_size=1, max_size=30), st.floats(0.01, 0.99),
    st.randoms(),
)  # fmt: skip
def test_the_answers_of_rephrased_held_out_questions_stay_in_training(pairs, fraction, chance):
    """By the definition: other questions with each of their answers are trained; and no more are held out than asked
    for, except with the last question. The order of the rows does not matter."""
    named = [(f"question {one}", f"answer {two}") for one, two in pairs]
    conversations = asked(*named)
    out = are_held_out(conversations, fraction, "rephrased")
    split = dict(zip(named, out, strict=True))
    known = {answer for (_, answer), held in split.items() if not held}
    assert all(answer in known for (_, answer), held in split.items() if held)
    assert len({(question, held) for (question, _), held in split.items()}) == len({one for one, _ in pairs})
    largest = max(Counter(one for one, _ in pairs).values())
    assert sum(out) < fraction * len(pairs) + largest
    order = list(range(len(pairs)))
    chance.shuffle(order)
    assert are_held_out([conversations[i] for i in order], fraction, "rephrased") == [out[i] for i in order]
    assert sizes_of(conversations, TEMPLATE, 7).rephrased == sum(are_held_out(conversations, 1.0, "rephrased"))


def test_without_questions_that_share_answers_none_can_be_held_out_as_rephrased(tmp_path):
    report = lambda *row: None
    with pytest.raises(InputError, match=r"in the split val, of 2 .*held_out = rephrased.*--chat.held-out any"):
        write_conversation_shards(
            asked(("a", "1"), ("b", "2")), TEMPLATE, tmp_path, LENGTH, 0.5, report, held_out="rephrased"
        )
    write_conversation_shards(
        asked(("a", "1"), ("b", "1")), TEMPLATE, tmp_path, LENGTH, 0.5, report, held_out="rephrased"
    )


def test_the_sizes_of_conversations_are_those_of_their_tokens():
    some = asked(("a", "1"), ("bb", "1"), ("ccc", "2"))
    lengths = [len(TEMPLATE.encode(one.messages).ids) for one in some]
    assert tuple(sizes_of(some, TEMPLATE, 7)) == (3, sum(lengths), max(lengths), 1, 7)
    assert tuple(sizes_of([], TEMPLATE, 0)) == (1, 0, 1, 0, 0)


def test_long_conversations_are_cut_and_those_without_a_reply_within_the_length_are_left_out(tmp_path):
    # <|endoftext|><|user|> text<|end|><|assistant|> Hello<|end|>: 12 tokens more than the text
    texts = ["a" * (LENGTH - 12), "b" * (LENGTH - 11), "c" * (LENGTH - 6), "d" * (LENGTH - 5), "e" * 500, "f", "g"]
    manifest, cut, left_out = write(tmp_path, made(*texts), fraction=0.5)
    assert cut == 2 and left_out == [("f.jsonl, line 4", "nothing_trained"), ("f.jsonl, line 5", "nothing_trained")]
    table = pq.read_table(tmp_path / "documents/00000-of-00001.parquet").to_pylist()
    assert [row["tokens"] for row in table] == [LENGTH, LENGTH, LENGTH, 13, 13]
    assert sum(split.documents for split in manifest.splits.values()) == 5


TWO_AT_MOST = "{% if messages|length > 2 %}{{ raise_exception('too many') }}{% endif %}"
CONTENTS = "{% for m in messages %}{{ m.content }}{% generation %}x{% endgeneration %}{% endfor %}"
ASCII = CharacterTokenizer("\n" + "".join(map(chr, range(32, 127))))


@pytest.mark.parametrize(
    ("tokenizer", "jinja"),
    [(TEMPLATE.tokenizer, f"{TWO_AT_MOST}{TEMPLATE.tokenizer.chat_template}"), (ASCII, CONTENTS)],
)
def test_what_a_template_refuses_or_a_tokenizer_cannot_encode_is_left_out(tmp_path, tokenizer, jinja):
    template = ChatTemplate(dataclasses.replace(tokenizer, chat_template=jinja))
    conversations = made("a", "é", "c", "d", "e")
    conversations[1].messages.extend(HI)
    *_, left_out = write(tmp_path, conversations, fraction=0.5, template=template)
    assert left_out == [("f.jsonl, line 2", "template_refuses")]


def test_an_empty_split_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"split val, of 1 in all: .* = 1e-09,.* --chat.validation-fraction 0.5"):
        write(tmp_path, made("a"), fraction=1e-9)


TURNS = st.lists(
    st.tuples(st.text("ab <|end>\n", max_size=12), st.text("ab <|end>\n", max_size=12)), min_size=1, max_size=4
)


@settings(max_examples=30)
@given(
    name=st.sampled_from(list(TEMPLATES)), some=st.lists(TURNS, min_size=1, max_size=12), begins=st.booleans(),
    system=st.booleans(),
)  # fmt: skip
def test_weights_are_the_loss_mask_and_no_token_is_lost_or_doubled(tmp_path_factory, name, some, begins, system):
    template, path = ChatTemplate(with_template(PLAIN, name)), tmp_path_factory.mktemp("shards")
    conversations = []
    for number, turns in enumerate([*some, [("one", "two")], [("three", "four")]]):
        messages = [{"role": "system", "content": "S"}] if system else []
        for turn, (question, answer) in enumerate(turns):
            if turn or not begins:  # a conversation may begin with a reply
                messages.append({"role": "user", "content": question})
            messages.append({"role": "assistant", "content": answer})
        conversations.append(Conversation(f"f, row {number}", check_messages(messages), []))
    splits = are_held_out(conversations, 0.5)
    if len({*splits}) < 2:
        return
    _, _, left_out = write(path, conversations, fraction=0.5, template=template)
    refused = {place for place, _ in left_out}
    wanted: dict[str, Counter] = {"train": Counter(), "val": Counter()}
    for conversation, held_out in zip(conversations, splits, strict=True):
        ids, trained = template.encode(conversation.messages)
        if conversation.place not in refused:
            row = tuple(ids[:LENGTH].tolist()), tuple(trained[1:LENGTH].tolist())
            wanted["val" if held_out else "train"][row] += 1
    for split, expected in wanted.items():
        windows = Windows(path, read_manifest(path), split, LENGTH)
        found: Counter = Counter()
        for number in range(len(windows)):
            inputs, targets, segments, weights = windows[number]
            for segment in range(1, segments.max(initial=0) + 1):
                here = np.flatnonzero(segments == segment)
                assert (np.diff(here) == 1).all()
                found[tuple(inputs[here].tolist()), tuple((weights[here[:-1]] > 0).tolist())] += 1
                np.testing.assert_array_equal(targets[here[:-1]], inputs[here[1:]])
                assert weights[here[-1]] == 0, "a token of another conversation is a target"
            assert not weights[segments == 0].any() and set(weights.tolist()) <= {0.0, 1.0}
        assert found == expected
    manifest = read_manifest(path)
    assert manifest.is_packed("train") and manifest.is_packed("val")
