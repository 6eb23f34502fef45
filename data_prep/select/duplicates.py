"""Find duplicates: run the deduplication joins in order, and look up their results for each file."""

import functools
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from data_prep.config import DocumentsConfig
from data_prep.dedup.clusters import INDEX_FILES, ROWS_AT_ONCE, duplicates_in, find_duplicates, sizes_in
from data_prep.dedup.keys import KINDS_OF
from data_prep.dedup.partitions import Partitions, join
from data_prep.engine import Marker, Workspace, identity_of
from data_prep.engine.tasks import File, FileRunner, StoredFile, delete_other_digests, file_of_each, files_of
from data_prep.select.keys import write_keys, write_same_url, write_url_keys
from lm.storage import write_atomically

TOLD = {"url_dedup": "refetched pages", "exact_dedup": "exact duplicates", "minhash_dedup": "near-duplicates"}
REASONS = {"url_dedup": "url_duplicate", "exact_dedup": "exact_duplicate", "minhash_dedup": "near_duplicate"}
SEEN_BEFORE = {"url_dedup": "url_seen_before", "exact_dedup": "exact_seen_before", "minhash_dedup": "near_seen_before"}
"""Reasons for duplicates of a document in an index of an earlier run."""


class Index(Protocol):
    """An opened index of an earlier run (data_prep/dedup_index), which is imported only for such runs."""

    @property
    def name(self) -> str: ...

    @property
    def texts(self) -> tuple[str, ...]:
        """Names of the files of its run, by number."""
        ...

    def ids_of(self, file: int, rows: Sequence[int]) -> dict[int, str]: ...


class Duplicate(NamedTuple):
    """Why a document is dropped, and which document is kept instead."""

    stage: str
    reason: str
    file: int
    """Number of the kept document's file. From INDEX_FILES on, files of the indices of earlier runs."""
    row: int
    """Row of the kept document in that file, from 0."""
    name: str = ""
    """Name of the kept document: NAME.parquet:ROW of texts/, or INDEX#ID."""

    @property
    def of_this_run(self) -> bool:
        """Whether the kept document is in texts/ of this run, so that its text can be read."""
        return self.file < INDEX_FILES


@dataclass(frozen=True)
class Found:
    """Results of deduplication for all files of texts/: the clusters of duplicates that each step found."""

    names: dict[int, str]
    """{number: name} of all files of texts/."""
    clusters: dict[str, Partitions]
    """{deduplication step in use: result of `find_duplicates`}."""
    sizes: Partitions | None = None
    """Sizes of the clusters, if the config asks for them (clusters.py)."""
    indices: tuple[Index, ...] = ()

    def duplicates_of(self, file: int) -> dict[int, Duplicate]:
        """Return {row of a duplicate: why it is dropped, and what is kept instead} for the file with the number `file`.

        Several steps may find the same duplicate. Stage and reason are those of the first step, but a step that finds a
        document in an earlier run's index has precedence. The kept document is that of the last step: its clusters
        include those of earlier steps, and the document kept by an earlier step may be a duplicate in a later one.
        """
        places: dict[int, tuple[int, int]] = {}
        reasons: dict[int, tuple[str, str]] = {}
        for step, clusters in self.clusters.items():
            for row, place in duplicates_in(clusters, file).items():
                places[row] = place
                if place[0] >= INDEX_FILES and reasons.get(row, ("", ""))[1] not in SEEN_BEFORE.values():
                    reasons[row] = step, SEEN_BEFORE[step]
                reasons.setdefault(row, (step, REASONS[step]))
        return {row: Duplicate(*reasons[row], *place) for row, place in sorted(places.items())}

    def names_of(self, duplicates: Iterable[Duplicate]) -> dict[tuple[int, int], str]:
        """Return {(file, row) of a kept document: `Duplicate.name`}. Raises InputError if an index lacks an ID."""
        places = {(one.file, one.row) for one in duplicates}
        names = {(file, row): f"{self.names[file]}:{row}" for file, row in places if file < INDEX_FILES}
        first = INDEX_FILES
        for index in self.indices:
            by_file: dict[int, list[int]] = defaultdict(list)
            for file, row in places:
                if first <= file < first + len(index.texts):
                    by_file[file - first].append(row)
            for file, rows in sorted(by_file.items()):
                names |= {(first + file, row): f"{index.name}#{id}" for row, id in index.ids_of(file, rows).items()}
            first += len(index.texts)
        return names


def find_clusters(
    files: list[StoredFile],
    config: DocumentsConfig,
    indices: Sequence[str],
    match: Callable[..., None] | None,
    run: FileRunner,
) -> tuple[list[StoredFile], dict[str, Partitions]]:
    """Write the deduplication keys of all files, and join them to clusters of duplicates. Return (files without failed
    ones, {deduplication step in use: its clusters}). Clusters are stored in folders of parts/ that are named after the
    hash of the keys. Duplicates by URL are found first, without reading texts. Of several fetches of a page, only the
    kept one takes part in the other steps. `indices` are the names of the indices of earlier runs, `match` is
    `write_matching_pairs` with them (data_prep/dedup_index/joins.py)."""
    clusters: dict[str, Partitions] = {}
    decided = [config, indices]

    def cluster(step: str, kind: str, made: dict[str, Marker]) -> None:
        own, for_index = file_of_each(made.values(), f"parts/{kind}/"), list[File]()
        for kind in KINDS_OF[step] if match else ():
            for_index += files_of(made.values(), f"parts/index/{kind}/")
        digest = identity_of(own, for_index, decided[-1])[:12]
        pairs = [run.folder / name for name, _ in own]
        if match:
            seen = run.folder / f"parts/{step}-seen-{digest}"
            delete_other_digests(seen)
            places = [run.folder / name for name, _ in for_index]
            tasks = run.tasks(f"{TOLD[step]} of earlier runs")
            work = functools.partial(match, kinds=KINDS_OF[step])
            pairs += join(places, work, tasks, seen / "join", ROWS_AT_ONCE)[0].places
        folder = run.folder / f"parts/{step}-{digest}"
        delete_other_digests(folder)
        clusters[step] = find_duplicates(pairs, folder, run.tasks(TOLD[step]))

    if "url_dedup" in config.steps:
        work = functools.partial(write_url_keys, config=config)
        files, made = run("addresses", files, work, decided)
        cluster("url_dedup", "url", made)
    if {"exact_dedup", "minhash_dedup"} & set(config.steps):
        same_url: dict[str, Marker] = {}
        if "url_dedup" in clusters:
            work = functools.partial(write_same_url, clusters=clusters["url_dedup"])
            files, same_url = run("url-duplicates", files, work, names_of(clusters))
        found = {name: marker.outputs for name, marker in same_url.items()}
        work = functools.partial(write_keys, config=config, after_urls=bool(clusters))
        files, made = run("keys", files, work, lambda file: [*decided, found.get(file.name)])
        for step, kind in (("exact_dedup", "exact"), ("minhash_dedup", "near")):
            if step in config.steps:
                cluster(step, kind, made)
    return files, clusters


def names_of(clusters: dict[str, Partitions]) -> dict[str, str]:
    """Return {deduplication step: name of the folder of its clusters}. The name identifies the clusters."""
    return {step: result.folder.parent.name for step, result in clusters.items()}


def write_duplicates(file: StoredFile, space: Workspace, found: Found) -> None:
    """Write the duplicates of a file and the sizes of its clusters, for `read_duplicates`."""
    duplicates = found.duplicates_of(file.id)
    names = found.names_of(duplicates.values())
    rows = [[row, *one._replace(name=names[one.file, one.row])] for row, one in duplicates.items()]
    sizes = list(sizes_in(found.sizes, file.id).items()) if found.sizes else []
    write_atomically(space.output(duplicates_name(file)), json.dumps({"duplicates": rows, "sizes": sizes}))


def duplicates_name(file: StoredFile) -> str:
    return f"parts/duplicates/{file.name}.json"


def read_duplicates(file: StoredFile, space: Workspace) -> tuple[dict[int, Duplicate], dict[int, int]]:
    """Return ({row: duplicate}, {row of a kept document: documents in its cluster}) of a file. The second has only
    clusters of several documents, and is empty if the config does not ask for sizes."""
    found = json.loads(space.place(duplicates_name(file)).read_bytes())
    return {row: Duplicate(*rest) for row, *rest in found["duplicates"]}, dict(found["sizes"])
