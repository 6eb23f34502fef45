"""The stage "documents", file by file: rows of texts/ become documents/ and dropped/, by the rules and the duplicates.

Two passes over each file, both restartable: the first writes the keys by which duplicates meet, the second applies the
filters. Between them stands the join (dedup/clusters.py).
"""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from data_prep.config import DocumentsConfig
from data_prep.dedup.clusters import duplicates_in, make_node, writing_pairs
from data_prep.dedup.exact import text_key
from data_prep.dedup.minhash import band_keys
from data_prep.dedup.survivors import Edit, read_edits
from data_prep.documents import DOCUMENT_SCHEMA
from data_prep.funnel.counts import Counts, empty_counts, merge, order_of
from data_prep.funnel.domains import HostCounter
from data_prep.measure.row import text_schema, value_columns
from data_prep.parquet import rows_in, write_rows
from data_prep.pii import replace_personal_data
from data_prep.select.filtered import filtered_rows
from lm.storage import write_atomically


def kept_schema(config: DocumentsConfig) -> pa.Schema:
    """Of documents/."""
    return pa.schema([*DOCUMENT_SCHEMA, *map(text_schema(config).field, value_columns(config))])


def dropped_schema(config: DocumentsConfig) -> pa.Schema:
    """Of dropped/; duplicate_of says which row of texts/ stayed ("NAME.parquet:ROW"), null where that is not the
    reason."""
    return pa.schema([*text_schema(config), ("duplicate_of", pa.string())])


@dataclass(frozen=True)
class DocumentShard:
    """One file of texts/ and where its results go."""

    index: int
    """Place among all files, sorted by name."""
    texts: Path
    exact_keys: Path
    near_keys: Path
    documents: Path
    dropped: Path
    hosts: Path
    """Counts of the hosts of kept documents (domains.py)."""
    counts: Path
    """What became of the rows, in numbers (JSON); written last, and so the sign that the file is done."""
    note: Path
    """Holds the number of rows read so far while one of the passes is at the file."""

    @property
    def bytes(self) -> int:
        return self.texts.stat().st_size


def write_keys(file: DocumentShard, config: DocumentsConfig, min_quality: float | None) -> None:
    """Writes the keys of the documents that pass the rules, unless they are there.

    Two files: that of near-duplicates (`near_keys`) holds the keys of the exact ones too, so that copies are in one
    cluster however short they are.
    """
    if file.exact_keys.is_file():  # the outer one, and so the last to appear
        return
    with writing_pairs(file.exact_keys) as add_exact, writing_pairs(file.near_keys) as add_near:
        for filtered in filtered_rows(file.texts, config, min_quality, file.note):
            for number, (row, verdict) in enumerate(zip(filtered.rows, filtered.verdicts, strict=True)):
                if verdict is None:
                    node = make_node(row["date"], row["id"], file.index, filtered.first + number)
                    keys = [text_key(row["text"], row["dump"])]
                    add_exact(keys, node)
                    if "minhash_dedup" in config.steps:
                        keys += band_keys(row["text"], row["dump"], config.minhash) or ()
                    add_near(keys, node)
    file.note.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class Duplicate:
    """Why a document goes, and where in texts/ the one stands that stays."""

    stage: str
    reason: str
    file: int
    row: int


@dataclass(frozen=True)
class Found:
    """What the joins found: the same for all files."""

    names: tuple[str, ...]
    """Of all files of texts/, by index."""
    clusters: dict[str, Path]
    """{step of deduplication: folder of its result}; the steps that are not used are missing."""
    min_quality: float | None
    """Lowest score that the quality classifier may give."""
    edits: dict[str, tuple[Path, ...]] = field(default_factory=dict)
    """{step after these: its edits of each file, by the file's index}, in the order of the steps (edits.py)."""


def duplicates_of(file: DocumentShard, found: Found) -> dict[int, Duplicate]:
    """{row: what it is a duplicate of}, always a row that stays.

    An exact copy is named as one, but the place is that of its cluster of near-duplicates, where there is one: this
    holds the whole cluster of exact copies, whose first document may itself be a near-duplicate and go.
    """
    near, exact = (
        duplicates_in(found.clusters[step], file.index) if step in found.clusters else {}
        for step in ("minhash_dedup", "exact_dedup")
    )
    duplicates = {row: Duplicate("minhash_dedup", "near_duplicate", *place) for row, place in near.items()}
    for row, place in exact.items():
        duplicates[row] = Duplicate("exact_dedup", "exact_duplicate", *near.get(row, place))
    return duplicates


def edits_of(file: DocumentShard, found: Found) -> dict[int, list[tuple[str, Edit]]]:
    """{row: (step, what it does to the document) of each step that does anything to it, in their order}."""
    edits: dict[int, list[tuple[str, Edit]]] = {}
    for step, paths in found.edits.items():
        for row, edit in read_edits(paths[file.index]).items():
            edits.setdefault(row, []).append((step, edit))
    return edits


def apply_filters(file: DocumentShard, config: DocumentsConfig, found: Found) -> None:
    """Writes the file's kept and dropped documents, in reading order, and the counts, unless they are there.

    Personal data is replaced in both, now that which texts are alike was asked of what was read.
    """
    if file.counts.is_file() and None not in (rows_in(file.documents), rows_in(file.dropped)):
        return
    counts: list[Counts] = []
    hosts = HostCounter(file.hosts)
    schemas = {file.documents: kept_schema(config), file.dropped: dropped_schema(config)}
    write_rows(kept_and_dropped(file, config, found, counts, hosts), schemas, scratch=file.counts.parent)
    hosts.write()
    write_atomically(file.counts, json.dumps(merge(counts)).encode(), scratch=file.counts.parent)
    file.note.unlink(missing_ok=True)


def kept_and_dropped(
    file: DocumentShard, config: DocumentsConfig, found: Found, counts: list[Counts], hosts: HostCounter
) -> Iterator[tuple[Path, dict]]:
    """Each row with the file that it belongs to; appends to `counts`, and adds what is kept to `hosts`."""
    duplicates, edits, columns = duplicates_of(file, found), edits_of(file, found), kept_schema(config).names
    for filtered in filtered_rows(file.texts, config, found.min_quality, file.note):
        replaced, clean_text_bytes, shown = Counter(), 0, []
        for number, row in enumerate(filtered.rows):
            if duplicate := duplicates.get(filtered.first + number):
                filtered.verdicts[number] = duplicate.stage, duplicate.reason
                place = file.index, filtered.first + number
                shown.append([order_of(row["id"]), *place, duplicate.file, duplicate.row])
            for step, edit in edits.get(filtered.first + number, ()):
                row["text"] = edit.applied(row["text"])
                filtered.verdicts[number] = (step, edit.reason) if edit.reason else None
            row["text"], kinds = replace_personal_data(row["text"], config.personal_data)
            if verdict := filtered.verdicts[number]:
                stage, reason = verdict
                stays = f"{found.names[duplicate.file]}:{duplicate.row}" if duplicate else None
                yield file.dropped, {**row, "stage": stage, "reason": reason, "duplicate_of": stays}
            else:
                replaced.update(kinds)
                clean_text_bytes += len(row["text"].encode())
                hosts.add(row["url"], row["text_bytes"])
                yield file.documents, {name: row[name] for name in columns}
        besides = {"pairs": shown, "replaced": dict(replaced), "clean_text_bytes": clean_text_bytes}
        counts.append(merge([filtered.counts(file.index, config), empty_counts() | besides]))
