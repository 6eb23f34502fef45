"""The stage "documents", file by file: rows of texts/ become documents/ and dropped/, by the rules and the duplicates.

Two passes over each file: the first writes the keys by which duplicates meet, the second applies the filters. Between
them stands the join (dedup/clusters.py), and what it found is written down for each file, so that a file of which it
found the same again is not filtered again. Whoever calls has put paths of this machine in the fields of what is written
(data_prep.engine.tasks).
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from data_prep.config import DocumentsConfig
from data_prep.dedup.clusters import duplicates_in
from data_prep.dedup.exact import text_key
from data_prep.dedup.minhash import band_keys
from data_prep.dedup.nodes import make_node, writing_pairs
from data_prep.documents import DOCUMENT_SCHEMA
from data_prep.engine.tasks import here, no_note
from data_prep.funnel.counts import Counts, empty_counts, merge, order_of
from data_prep.funnel.domains import HostCounter
from data_prep.measure.row import text_schema, value_columns
from data_prep.parquet import write_rows
from data_prep.pii import replace_personal_data
from data_prep.select.filtered import filtered_rows
from data_prep.select.texts_files import TextsFile
from lm.storage import Place, write_atomically


def kept_schema(config: DocumentsConfig) -> pa.Schema:
    """Of documents/."""
    return pa.schema([*DOCUMENT_SCHEMA, *map(text_schema(config).field, value_columns(config))])


def dropped_schema(config: DocumentsConfig) -> pa.Schema:
    """Of dropped/; duplicate_of says which row of texts/ stayed ("NAME.parquet:ROW"), null where that is not the
    reason."""
    return pa.schema([*text_schema(config), ("duplicate_of", pa.string())])


@dataclass(frozen=True)
class DocumentShard(TextsFile):
    """One file of texts/ and where its results go."""

    exact_keys: Place
    near_keys: Place
    duplicates: Place
    """What the joins found of it (JSON)."""
    documents: Place
    dropped: Place
    hosts: Place
    """Counts of the hosts of kept documents (domains.py)."""
    counts: Place
    """What became of the rows, in numbers (JSON)."""
    note: Callable[[int], None] = no_note
    """Takes the number of rows that were read, now and then."""


def write_keys(file: DocumentShard, config: DocumentsConfig, min_quality: float | None) -> None:
    """Writes the keys of the documents that pass the rules.

    Two files: that of near-duplicates (`near_keys`) holds the keys of the exact ones too, so that copies are in one
    cluster however short they are.
    """
    with writing_pairs(here(file.exact_keys)) as add_exact, writing_pairs(here(file.near_keys)) as add_near:
        for filtered in filtered_rows(file.texts, config, min_quality, file.note):
            for number, (row, verdict) in enumerate(zip(filtered.rows, filtered.verdicts, strict=True)):
                if verdict is None:
                    node = make_node(row["date"], row["id"], file.index, filtered.first + number)
                    keys = [text_key(row["text"], row["dump"])]
                    add_exact(keys, node)
                    if "minhash_dedup" in config.steps:
                        keys += band_keys(row["text"], row["dump"], config.minhash) or ()
                    add_near(keys, node)


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
    clusters: dict[str, Place]
    """{step of deduplication: folder of its result}; the steps that are not used are missing."""
    min_quality: float | None
    """Lowest score that the quality classifier may give."""


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


def write_duplicates(file: DocumentShard, found: Found) -> None:
    """Writes what the joins found of the file: [row, stage, reason, file, row, name of that file] of each."""
    rows = [
        [row, one.stage, one.reason, one.file, one.row, found.names[one.file]]
        for row, one in sorted(duplicates_of(file, found).items())
    ]
    write_atomically(file.duplicates, json.dumps(rows).encode())


def read_duplicates(place: Place) -> tuple[dict[int, Duplicate], dict[int, str]]:
    """({row: what it is a duplicate of}, {file: its name}) as `write_duplicates` wrote them."""
    rows = json.loads(place.read_bytes())
    duplicates = {row: Duplicate(stage, reason, file, other) for row, stage, reason, file, other, _ in rows}
    return duplicates, {file: name for *_, file, _, name in rows}


def apply_filters(file: DocumentShard, config: DocumentsConfig, min_quality: float | None) -> None:
    """Writes the file's kept and dropped documents, in reading order, and the counts.

    Personal data is replaced in both, now that which texts are alike was asked of what was read.
    """
    counts: list[Counts] = [empty_counts()]
    documents, dropped = here(file.documents), here(file.dropped)
    hosts = HostCounter(here(file.hosts))
    schemas = {documents: kept_schema(config), dropped: dropped_schema(config)}
    rows = kept_and_dropped(file, documents, dropped, config, min_quality, counts, hosts)
    write_rows(rows, schemas, scratch=hosts.counts_file.parent)
    hosts.write()
    write_atomically(file.counts, json.dumps(merge(counts)).encode())


def kept_and_dropped(
    file: DocumentShard,
    documents: Path,
    dropped: Path,
    config: DocumentsConfig,
    min_quality: float | None,
    counts: list[Counts],
    hosts: HostCounter,
) -> Iterator[tuple[Path, dict]]:
    """Each row with the file that it belongs to; appends to `counts`, and adds what is kept to `hosts`."""
    duplicates, names = read_duplicates(file.duplicates)
    columns = kept_schema(config).names
    for filtered in filtered_rows(file.texts, config, min_quality, file.note):
        replaced, clean_text_bytes, shown = Counter(), 0, []
        for number, row in enumerate(filtered.rows):
            if duplicate := duplicates.get(filtered.first + number):
                filtered.verdicts[number] = duplicate.stage, duplicate.reason
                place = file.index, filtered.first + number
                shown.append([order_of(row["id"]), *place, duplicate.file, duplicate.row])
            row["text"], kinds = replace_personal_data(row["text"], config.personal_data)
            if verdict := filtered.verdicts[number]:
                stage, reason = verdict
                stays = f"{names[duplicate.file]}:{duplicate.row}" if duplicate else None
                yield dropped, {**row, "stage": stage, "reason": reason, "duplicate_of": stays}
            else:
                replaced.update(kinds)
                clean_text_bytes += len(row["text"].encode())
                hosts.add(row["url"], row["text_bytes"])
                yield documents, {name: row[name] for name in columns}
        besides = {"pairs": shown, "replaced": dict(replaced), "clean_text_bytes": clean_text_bytes}
        counts.append(merge([filtered.counts(file.index, config), empty_counts() | besides]))
