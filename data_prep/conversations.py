"""Write shards of packed records with a loss mask from conversations, for finetuning.

A conversation is one row of a JSON lines or Parquet file: {"messages": [...], "tools": [...]}; lm/chat/messages.py
describes messages. A row that is malformed is left out, and reported with its reason.
"""

import contextlib
import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_prep.shards.encode import TABLE_SCHEMA
from data_prep.shards.tokenize import packed_records
from data_prep.shards.write import write_records
from data_prep.sources.formats import PARQUET, Table, beginning
from data_prep.sources.json_rows import rows as json_rows
from data_prep.sources.sizes import ConversationSizes
from data_prep.sources.tables import RATIO_FROM_BYTES
from lm.chat.messages import Message, MessageError, check_messages, check_tools
from lm.chat.template import ChatTemplate
from lm.data.records import MANIFEST, DocumentTable, Manifest, SequenceRecord, Shard, Split
from lm.errors import InputError
from lm.storage import Place, appearing, digest, write_atomically, writing
from lm.storage.example_rows import read_parquet_rows

TRAINED_BIT = np.uint32(1 << 31)
"""Set in the ids of trained tokens while conversations are packed."""
SPLITS = ("train", "val")


@dataclass(frozen=True)
class Conversation:
    """A valid conversation."""

    place: str
    """File and line or row, for messages."""
    messages: list[Message]
    tools: list[Message]


type Report = Callable[[str, str, str], None]
"""report(file and line or row, reason, message) of a row that is left out."""


def read_conversations(path: Place, report: Report) -> Iterator[Conversation]:
    """Yield the valid conversations of a file in order. Raises InputError if the file cannot be read, or has no valid
    conversation."""
    found = 0
    for one in valid_rows(f"{path}, ", rows_of(path, report), report):
        found += 1
        yield one
    if not found:
        raise InputError(
            f"{path} has no valid conversation. Each row needs messages, as in "
            '{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}.'
        )


def valid_rows(prefix: str, rows: Iterable[tuple[object, dict[str, Any]]], report: Report) -> Iterator[Conversation]:
    """Yield the valid conversations among `rows`, (place, values), whose places get the `prefix`."""
    for place, row in rows:
        try:
            messages = check_messages(row.get("messages"), for_training=True)
            tools = check_tools(row.get("tools") or [])
        except MessageError as error:
            report(f"{prefix}{place}", error.reason, str(error))
            continue
        yield Conversation(f"{prefix}{place}", messages, tools)


def sizes_of(conversations: Iterable[Conversation], template: ChatTemplate, memory: int) -> ConversationSizes:
    """Measure the conversations that the template can render. `memory` is passed through."""
    lengths, keys = [], []
    for one in conversations:
        with contextlib.suppress(InputError):  # reported when they are written
            lengths.append(len(template.encode(one.messages, one.tools).ids))
            keys.append((question_key(one), answers_key(one)))
    rephrased = held_out_questions(keys, 1.0, "rephrased")
    shared = sum(question in rephrased for question, _ in keys)
    return ConversationSizes(max(len(lengths), 1), sum(lengths), max(lengths, default=1), shared, memory)


def rows_of(path: Place, report: Report) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (line or row, values) of a file. Damaged rows are reported."""
    if beginning(path).startswith(PARQUET):
        remedy = "Get it again, or leave it out."
        rows = read_parquet_rows(path, remedy, ("messages", "tools"), RATIO_FROM_BYTES)
        for number, row in enumerate(rows, 1):
            yield f"row {number}", without_nulls(row)
        return
    quarantine = lambda number, place, reason, detail="": report(f"{path}, {place}", reason, detail)
    table = Table(path, "messages", quarantine, lambda size, rows: None)
    yield from ((place, row) for _, place, row in json_rows(table))


def without_nulls(value: Any) -> Any:
    """Drop the fields that are null: Parquet stores each field of a struct in every row."""
    if isinstance(value, dict):
        return {key: without_nulls(one) for key, one in value.items() if one is not None}
    return [without_nulls(one) for one in value] if isinstance(value, list) else value


def question_key(conversation: Conversation) -> int:
    """Return a hash of the first user message, from 0 to 2**64 - 1."""
    first = next((one["content"] for one in conversation.messages if one["role"] == "user"), "")
    return hash_of(first)


def answers_key(conversation: Conversation) -> int:
    """Return a hash of all that the assistant writes."""
    return hash_of(json.dumps([one for one in conversation.messages if one["role"] == "assistant"], sort_keys=True))


def hash_of(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8])


def held_out_questions(pairs: Sequence[tuple[int, int]], fraction: float, held_out: str) -> set[int]:
    """Return the questions whose conversations are for validation, so that all conversations that begin with one
    question are in one split. `pairs` are (question_key, answers_key) of all conversations.

    "any": the questions whose hash is below `fraction`. "rephrased": in the order of their hashes, questions all of
    whose answers are also answers to other questions, which stay in the training split; until they have `fraction` of
    all conversations. Then the loss falls while the model learns its answers, and not only until it has learned their
    style: answers that it has never seen become less likely with each one that it learns by heart.
    """
    if held_out == "any":
        return {question for question, _ in pairs if question < fraction * 2**64}
    answers, askers = defaultdict(set), defaultdict(set)
    for question, answer in pairs:
        answers[question].add(answer)
        askers[answer].add(question)
    counts, chosen, conversations = Counter(question for question, _ in pairs), set(), 0
    for question in sorted(answers):
        if conversations >= fraction * len(pairs):
            break
        if all(len(askers[answer]) > 1 for answer in answers[question]):
            chosen.add(question)
            conversations += counts[question]
            for answer in answers[question]:
                askers[answer].remove(question)
    return chosen


def write_conversation_shards(
    conversations: Iterable[Conversation], template: ChatTemplate, out: Path, length: int, fraction: float,
    report: Report, *, held_out: str = "any",
) -> tuple[Manifest, int]:  # fmt: skip
    """Write shards of both splits to `out`, with the manifest last. Returns it, and the number of conversations of more
    than `length` tokens, which are cut off there. Those that the template refuses (template_refuses), or without a
    trained token (nothing_trained), are reported and left out.

    Raises InputError if a split has no conversation.
    """
    tokenizer, cut = template.tokenizer, 0
    dtype = "uint16" if tokenizer.vocab_size <= 2**16 else "uint32"
    encoded: list[np.ndarray] = []
    keys: list[tuple[int, int]] = []
    rows: list[dict[str, Any]] = []
    for conversation in conversations:
        try:
            tokens = template.encode(conversation.messages, conversation.tools)
        except InputError as error:  # of the template, or of a tokenizer that lacks a character
            report(conversation.place, "template_refuses", str(error))
            continue
        ids, trained = tokens.ids[:length], tokens.trained[:length]
        trained[:1] = False  # it would be predicted from another conversation
        if not trained.any():
            report(conversation.place, "nothing_trained", f"No token of a reply is among the first {length:,} tokens.")
            continue
        cut += len(tokens.ids) > length
        keys.append((question_key(conversation), answers_key(conversation)))
        rows.append({"id": f"{len(rows):08d}", "url": conversation.place, "file": conversation.place.rpartition(",")[0],
                     "tokens": len(ids), "text_bytes": len(tokenizer.decode_bytes(ids.tolist()))})  # fmt: skip
        encoded.append(ids.astype(np.uint32) | np.where(trained, TRAINED_BIT, np.uint32(0)))
    packed: dict[str, list[tuple[int, np.ndarray]]] = {name: [] for name in SPLITS}
    text_bytes, validation = Counter[str](), held_out_questions(keys, fraction, held_out)
    for number, (row, (question, _)) in enumerate(zip(rows, keys, strict=True)):
        row["split"] = "val" if question in validation else "train"
        packed[row["split"]].append((number, encoded[number]))
        text_bytes[row["split"]] += row["text_bytes"]
    out.mkdir(parents=True, exist_ok=True)
    splits: dict[str, Split] = {}
    with writing(out):
        for name, some in packed.items():
            if not some:
                other = "larger" if name == "val" else "smaller"
                rule = "no answer belongs to two questions" if held_out == "rephrased" else "by a hash of the question"
                raise InputError(
                    f"No conversation is in the split {name}, of {len(rows):,} in all: chat.validation_fraction = "
                    f"{fraction:g}, chat.held_out = {held_out} ({rule}). Give more conversations, or a {other} share "
                    f"with --chat.held-out any --chat.validation-fraction {0.5 if name == 'val' else 0.1}."
                )
            path = out / f"{name}-00000-of-00001.array_record"
            with appearing(path) as partial:
                records = write_records(partial, (masked(one, dtype) for one in packed_records(some, length, "uint32")))
            tokens = sum(len(ids) for _, ids in some) + 1  # one more than the targets
            shard = Shard(path.name, records, *digest(path), len(some), tokens, text_bytes[name])
            splits[name] = Split(len(some), tokens, text_bytes[name], records, (shard,))
        name = "documents/00000-of-00001.parquet"
        with appearing(out / name) as partial:
            pq.write_table(pa.Table.from_pylist(rows, TABLE_SCHEMA), partial)
        tables = (DocumentTable(name, len(rows), *digest(out / name)),)
        manifest = Manifest(
            tokenizer.fingerprint, tokenizer.vocab_size, length, dtype, splits, tables, packing="conversations"
        )
        write_atomically(out / MANIFEST, manifest.to_json().encode())
    return manifest, cut


def masked(record: SequenceRecord, dtype: str) -> SequenceRecord:
    """Move TRAINED_BIT of a packed record's tokens to its loss mask, and drop its last target, which is of no
    conversation."""
    tokens = np.where(np.arange(len(record.tokens)) < record.valid - 1, record.tokens, 0)
    return replace(
        record, tokens=(tokens & ~TRAINED_BIT).astype(dtype), valid=record.valid - 1, trained=tokens & TRAINED_BIT != 0
    )


def to_line(conversation: dict[str, Any]) -> str:
    """A conversation as a line of JSON."""
    return json.dumps(conversation, ensure_ascii=False) + "\n"
