"""First pass over a file of texts/: write the keys by which duplicates are found (dedup/clusters.py)."""

import contextlib
import json
from collections.abc import Callable, Generator, Sequence

from data_prep.config import DocumentsConfig
from data_prep.dedup.clusters import INDEX_FILES, Node, duplicates_in, make_node, writing_pairs
from data_prep.dedup.keys import dump_of, scope_of, text_key, url_key, url_node
from data_prep.dedup.minhash import keys_of_signature, signature
from data_prep.dedup.partitions import Partitions
from data_prep.engine import Workspace
from data_prep.engine.tasks import StoredFile
from data_prep.select.filtered import candidates, is_dedup_candidate
from data_prep.verdict import columns_needed, read_measured, verdicts
from lm.storage import write_atomically

NEVER_STAYS = 2**64 - 1
"""First word of a node that is never the smallest of its cluster: the document joins it only to find out which is."""


def pairs_name(kind: str, file: StoredFile) -> str:
    """Return the path, in the run folder, of a file's deduplication keys. `kind` is "url", "exact" or "near", or one of
    these after "index/" for keys of an index."""
    return f"parts/{kind}/{file.name}.pairs"


def write_url_keys(file: StoredFile, space: Workspace, config: DocumentsConfig) -> None:
    """Write the URL keys of the documents of a file that take part in deduplication. Reads no texts."""
    path = space.output(pairs_name("url", file))
    with writing_pairs(path) as add, writing_index_keys(file, space, ("url",), config) as index:
        names, first = ["id", "url", "date", "dump"], 0
        for rows in read_measured(file.path, list(dict.fromkeys([*columns_needed(config), *names]))):
            found = verdicts(rows, config)
            for number, (row, verdict) in enumerate(zip(rows.select(names).to_pylist(), found, strict=True), first):
                if not is_dedup_candidate(verdict, config):
                    continue
                if key := url_key(row["url"], dump_of(row, config), config.url_dedup):
                    node = document_node(*url_node(row["date"], row["id"], file.id, number, config.url_dedup))
                    add([key], node)
                    if index:
                        index["url"]([url_key(row["url"], "", config.url_dedup) or key], node)
            first += rows.num_rows
            space.count(rows.num_rows)


def document_node(order: int, place: int) -> Node:
    """Return the node of a document of this run: two integers that order the documents of a cluster, the first of which
    is kept. Documents of an index are before it (their first integer is 0), documents that must not be kept after it
    (NEVER_STAYS). `order` and `place` are from `make_node` or `url_node`."""
    return min(max(order, 1), NEVER_STAYS - 1), place


@contextlib.contextmanager
def writing_index_keys(
    file: StoredFile, space: Workspace, kinds: Sequence[str], config: DocumentsConfig
) -> Generator[dict[str, Callable[[Sequence[bytes], Node], None]]]:
    """Yield {kind: function (keys, node) that writes a document's keys for a deduplication index}; {} if the config
    neither writes an index nor compares with one."""
    with contextlib.ExitStack() as stack:
        asked = config.dedup_index.write or config.dedup_index.against
        paths = {kind: space.output(pairs_name(f"index/{kind}", file)) for kind in kinds if asked}
        yield {kind: stack.enter_context(writing_pairs(path)) for kind, path in paths.items()}


def same_url_name(file: StoredFile) -> str:
    return f"parts/same-url/{file.name}.json"


def write_same_url(file: StoredFile, space: Workspace, clusters: Partitions) -> None:
    """Write a JSON list of [row, in_this_run] for each document of the file that is a duplicate by URL. in_this_run is
    False if the document kept instead is in an index of earlier runs. `clusters` is from `find_duplicates`."""
    found = duplicates_in(clusters, file.id)
    rows = [[row, stays < INDEX_FILES] for row, (stays, _) in found.items()]
    write_atomically(space.output(same_url_name(file)), json.dumps(rows))


def write_keys(file: StoredFile, space: Workspace, config: DocumentsConfig, after_urls: bool = False) -> None:
    """Write the keys by which exact and near-duplicates among the file's documents are found. The file of
    near-duplicate keys also has the exact keys, so that copies are in one cluster however short they are.

    Set `after_urls` if `write_same_url` ran before. A duplicate by URL then gets only the key of its URL, which
    connects it to the document kept for that URL, or no key if that document is in an index of earlier runs.
    """
    refetched = dict(json.loads(space.place(same_url_name(file)).read_bytes())) if after_urls else {}
    exact, near = (space.output(pairs_name(kind, file)) for kind in ("exact", "near"))
    bands = lambda hashes, scope: () if hashes is None else keys_of_signature(hashes, scope, config.minhash)
    with (
        writing_pairs(exact) as add_exact,
        writing_pairs(near) as add_near,
        writing_index_keys(file, space, ("exact", "near"), config) as index,
    ):
        for number, row in candidates(file.path, config, space.count):
            node = document_node(*make_node(row["date"], row["id"], file.id, number))
            by_url = url_key(row["url"], dump_of(row, config), config.url_dedup) if after_urls else None
            keys = [by_url] if by_url else []
            if number in refetched:
                if refetched[number]:
                    add_exact(keys, (NEVER_STAYS, node[1]))
                    add_near(keys, (NEVER_STAYS, node[1]))
                continue
            hashes = signature(row["text"], config.minhash) if "minhash_dedup" in config.steps else None
            scope = scope_of(row, config)
            keys.append(text_key(row["text"], scope))
            add_exact(keys, node)
            add_near([*keys, *bands(hashes, scope)], node)
            if index:  # its keys do not depend on the dump (data_prep/dedup_index)
                scope = f"\\0{row['language']}" if config.minhash.by_language else ""
                index["exact"]([text_key(row["text"], scope)], node)
                index["near"](bands(hashes, scope), node)
