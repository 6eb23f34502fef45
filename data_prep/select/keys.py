"""The first pass over a file of texts/: the keys by which documents meet that are duplicates (dedup/clusters.py)."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from data_prep.config import DocumentsConfig
from data_prep.dedup.clusters import duplicates_in
from data_prep.dedup.exact import text_key
from data_prep.dedup.minhash import band_keys
from data_prep.dedup.nodes import make_node, writing_pairs
from data_prep.dedup.scope import dump_of, scope_of
from data_prep.dedup.url import url_key, url_node
from data_prep.engine.tasks import here, no_note
from data_prep.select.filtered import candidates, looked_at
from data_prep.select.texts_files import TextsFile
from data_prep.verdict import columns_needed, read_measured, verdicts
from lm.storage import Place

NEVER_STAYS = 2**64 - 1
"""The first word of a node that is in a cluster only to be told which document of it stays."""


@dataclass(frozen=True)
class DocumentShard(TextsFile):
    """One file of texts/ and where its results go."""

    url_keys: Place
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


def write_url_keys(file: DocumentShard, config: DocumentsConfig, min_quality: float | None) -> None:
    """Writes the keys of the addresses of the documents among which duplicates are looked for.

    Reads no text.
    """
    with writing_pairs(here(file.url_keys)) as add:
        for number, row in rows_looked_at(file, config, min_quality):
            if key := url_key(row["url"], dump_of(row, config), config.url_dedup):
                add([key], url_node(row["date"], row["id"], file.index, number, config.url_dedup))


def rows_looked_at(
    file: DocumentShard, config: DocumentsConfig, min_quality: float | None
) -> Iterator[tuple[int, dict]]:
    """(number, row) as `candidates`, without the texts."""
    names, first = ["id", "url", "date", "dump"], 0
    for rows in read_measured(file.texts, list(dict.fromkeys([*columns_needed(config), *names]))):
        found = verdicts(rows, config, min_quality)
        for number, (row, verdict) in enumerate(zip(rows.select(names).to_pylist(), found, strict=True)):
            if looked_at(verdict, config):
                yield first + number, row
        first += rows.num_rows
        file.note(first)


def write_keys(
    file: DocumentShard, config: DocumentsConfig, min_quality: float | None, same_url: Place | None = None
) -> None:
    """Writes the keys of the documents among which duplicates are looked for.

    Two files: that of near-duplicates (`near_keys`) holds the keys of the exact ones too, so that copies are in one
    cluster however short they are. `same_url` has the clusters of documents of one address: those of them that go have
    no other key than that, by which they are told which document stays in the end.
    """
    refetched = duplicates_in(same_url, file.index) if same_url else {}
    with writing_pairs(here(file.exact_keys)) as add_exact, writing_pairs(here(file.near_keys)) as add_near:
        for number, row in candidates(file.texts, config, min_quality, file.note):
            order, place = make_node(row["date"], row["id"], file.index, number)
            node, keys = (min(order, NEVER_STAYS - 1), place), []
            if same_url and (key := url_key(row["url"], dump_of(row, config), config.url_dedup)):
                keys.append(key)
            if number in refetched:
                node = NEVER_STAYS, place
            else:
                keys.append(text_key(row["text"], scope_of(row, config)))
            add_exact(keys, node)
            if "minhash_dedup" in config.steps and number not in refetched:
                keys += band_keys(row["text"], scope_of(row, config), config.minhash) or ()
            add_near(keys, node)
