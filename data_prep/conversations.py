"""Write shards of packed records with a loss mask from conversations, for finetuning.

A conversation is one row of a JSON lines or Parquet file: {"messages": [...], "tools": [...]}; lm/chat/messages.py
describes messages. A row that is malformed is left out, and reported with its reason.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
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
    for place, row in rows_of(path, report):
        try:
            messages = check_messages(row.get("messages"), for_training=True)
            tools = check_tools(row.get("tools") or [])
        except MessageError as error:
            report(f"{path}, {place}", error.reason, str(error))
            continue
        found += 1
        yield Conversation(f"{path}, {place}", messages, tools)
    if not found:
        raise InputError(
            f"{path} has no valid conversation. Each row needs messages, as in "
            '{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}.'
        )


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


def is_held_out(conversation: Conversation, fraction: float) -> bool:
    """Whether the conversation is for validation, by a hash of its first user message, so that all conversations that
    begin with one question are in one split."""
    first = next((one["content"] for one in conversation.messages if one["role"] == "user"), "")
    return int.from_bytes(hashlib.sha256(first.encode("utf-8", "surrogatepass")).digest()[:8]) < fraction * 2**64


def write_conversation_shards(
    conversations: Iterable[Conversation], template: ChatTemplate, out: Path, length: int, fraction: float,
    report: Report,
) -> tuple[Manifest, int]:  # fmt: skip
    """Write shards of both splits to `out`, with the manifest last. Returns it, and the number of conversations of more
    than `length` tokens, which are cut off there. Those that the template refuses (template_refuses), or without a
    trained token (nothing_trained), are reported and left out.

    Raises InputError if a split has no conversation.
    """
    tokenizer, cut = template.tokenizer, 0
    dtype = "uint16" if tokenizer.vocab_size <= 2**16 else "uint32"
    packed: dict[str, list[tuple[int, np.ndarray]]] = {name: [] for name in SPLITS}
    text_bytes = Counter[str]()
    rows: list[dict[str, Any]] = []
    for conversation in conversations:
        try:
            encoded = template.encode(conversation.messages, conversation.tools)
        except InputError as error:  # of the template, or of a tokenizer that lacks a character
            report(conversation.place, "template_refuses", str(error))
            continue
        ids, trained = encoded.ids[:length], encoded.trained[:length]
        trained[:1] = False  # it would be predicted from another conversation
        if not trained.any():
            report(conversation.place, "nothing_trained", f"No token of a reply is among the first {length:,} tokens.")
            continue
        cut += len(encoded.ids) > length
        split = "val" if is_held_out(conversation, fraction) else "train"
        size = len(tokenizer.decode_bytes(ids.tolist()))
        packed[split].append((len(rows), ids.astype(np.uint32) | np.where(trained, TRAINED_BIT, np.uint32(0))))
        text_bytes[split] += size
        rows.append({"id": f"{len(rows):08d}", "url": conversation.place, "file": conversation.place.rpartition(",")[0],
                     "split": split, "tokens": len(ids), "text_bytes": size})  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    splits: dict[str, Split] = {}
    with writing(out):
        for name, some in packed.items():
            if not some:
                raise InputError(
                    f"No conversation is in the split {name}, of {len(rows):,} in all (chat.validation_fraction = "
                    f"{fraction}). Give more conversations, or another fraction."
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
