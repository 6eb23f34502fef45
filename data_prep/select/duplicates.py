"""Which documents are duplicates, of which: the joins in their order, and what they found of one file."""

import functools
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from data_prep.config import DocumentsConfig
from data_prep.dedup.cluster_sizes import count_clusters, sizes_in
from data_prep.dedup.clusters import INDEX_FILES, duplicates_in, find_duplicates
from data_prep.dedup.partitions import Partitions
from data_prep.dedup_index.format import KINDS, KINDS_OF, Index
from data_prep.dedup_index.join import pairs_met
from data_prep.dedup_index.write import Kept, map_keys, write_index
from data_prep.engine import identity_of
from data_prep.engine.tasks import File, FileRunner, TaskRunner, delete_other_digests
from data_prep.select.keys import DocumentShard, has_index, write_keys, write_same_url, write_url_keys
from data_prep.select.texts_files import TextsFile
from lm.storage import Place, write_atomically

TOLD = {"url_dedup": "refetched pages", "exact_dedup": "exact duplicates", "minhash_dedup": "near-duplicates"}
REASONS = {"url_dedup": "url_duplicate", "exact_dedup": "exact_duplicate", "minhash_dedup": "near_duplicate"}
SEEN_BEFORE = {"url_dedup": "url_seen_before", "exact_dedup": "exact_seen_before", "minhash_dedup": "near_seen_before"}
"""Reasons of what is a duplicate of a document of an index."""


@dataclass(frozen=True, slots=True)
class Duplicate:
    """Why a document goes, and where in texts/ the one stands that stays."""

    stage: str
    reason: str
    file: int
    """Number of the file in the joins; from INDEX_FILES on, of a file of the indices, one index after the other."""
    row: int


@dataclass(frozen=True)
class Found:
    """What the joins found: the same for all files."""

    names: dict[int, str]
    """{number: name} of all files of texts/."""
    clusters: dict[str, Partitions]
    """{step of deduplication: its result}; the steps that are not used are missing."""
    sizes: Partitions | None = None
    """The clusters' sizes, where they are asked for (cluster_sizes.py)."""
    indices: tuple[Index, ...] = ()
    """Of earlier runs."""

    def names_of(self, duplicates: Iterable[Duplicate]) -> dict[tuple[int, int], str]:
        """{(file, row): what `duplicate_of` says of that document}: NAME.parquet:ROW of texts/, or INDEX#ID. Reads the
        ids of the indices' documents; raises InputError where these are missing or damaged."""
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
    files: list[DocumentShard],
    config: DocumentsConfig,
    min_quality: float | None,
    partial: Place,
    indices: tuple[Index, ...],
    run: FileRunner,
) -> tuple[list[DocumentShard], dict[str, Partitions]]:
    """The files whose keys could be written, and the clusters of each step of deduplication in use: {step: result}, in
    folders of `partial` whose names tell of which keys.

    Addresses first, without a text being read: of a page that was fetched more than once only the document that stays
    takes part in the other steps.
    """
    clusters: dict[str, Partitions] = {}
    decided = [config, min_quality, [index.name for index in indices]]
    for_index = lambda *kinds: [f"index_{kind}" for kind in kinds] if has_index(config) else []

    def join(step: str, field: str, written: list[dict[str, File]]) -> None:
        fields = [field, *(f"index_{kind}" for kind in KINDS_OF[step] if indices)]
        keys = [one[name] for name in fields for one in written if name in one]
        digest = identity_of(keys, [index.name for index in indices])[:12]
        pairs: list[Place] = [getattr(file, field) for file in files]
        if indices:
            tasks = TaskRunner(run.folder, run.engine, run.on_progress, f"{TOLD[step]} of earlier runs")
            own = [file.keys_of(kind) for file in files for kind in KINDS_OF[step]]
            seen = partial / f"{step}-seen-{digest}"
            delete_other_digests(seen)
            pairs += pairs_met(own, indices, KINDS_OF[step], seen / "join", tasks)
        folder: Any = partial / f"{step}-{digest}"
        delete_other_digests(folder)
        clusters[step] = find_duplicates(pairs, folder, TaskRunner(run.folder, run.engine, run.on_progress, TOLD[step]))

    if "url_dedup" in config.steps:
        work = functools.partial(write_url_keys, config=config, min_quality=min_quality)
        files, written = run("addresses", files, work, ["url_keys", *for_index("url")], decided)
        join("url_dedup", "url_keys", written)
    if {"exact_dedup", "minhash_dedup"} & set(config.steps):
        found = {file.name: "" for file in files}
        if "url_dedup" in clusters:
            work = functools.partial(write_same_url, clusters=clusters["url_dedup"])
            files, written = run("url-duplicates", files, work, ["same_url"], names_of(clusters))
            found = {file.name: one["same_url"][1] for file, one in zip(files, written, strict=True)}
        work = functools.partial(write_keys, config=config, min_quality=min_quality, after_urls="url_dedup" in clusters)
        fields = ["exact_keys", "near_keys", *for_index("exact", "near")]
        files, written = run("keys", files, work, fields, lambda file: [*decided, found[file.name]])
        for step, field in (("exact_dedup", "exact_keys"), ("minhash_dedup", "near_keys")):
            if step in config.steps:
                join(step, field, written)
    return files, clusters


def names_of(clusters: dict[str, Partitions]) -> dict[str, str]:
    """What the clusters are of: {step: name}."""
    return {step: result.folder.parent.name for step, result in clusters.items()}


def find_sizes(
    clusters: dict[str, Partitions], config: DocumentsConfig, partial: Place, run: FileRunner
) -> Partitions | None:
    """The sizes of the clusters of the last step, which holds those of all steps; None where they are not asked for."""
    if not config.counts_clusters:
        return None
    *_, last = clusters.values()
    tasks = TaskRunner(run.folder, run.engine, run.on_progress, "sizes of clusters")
    folder = partial / f"{last.folder.parent.name}-sizes"
    delete_other_digests(folder)
    return count_clusters(last, folder, tasks)


def duplicates_of(file: DocumentShard, found: Found) -> dict[int, Duplicate]:
    """{row: what it is a duplicate of}, always a row that stays.

    A document is named a duplicate by the first step that finds it one, but the place is that of its cluster in the
    last step, which holds the whole clusters of those before: the first document of these may itself be a duplicate,
    and go.
    """
    places: dict[int, tuple[int, int]] = {}
    steps: dict[int, str] = {}
    seen: dict[int, str] = {}
    for step in found.clusters:
        for row, place in duplicates_in(found.clusters[step], file.id).items():
            places[row] = place
            steps.setdefault(row, step)
            if place[0] >= INDEX_FILES:
                seen.setdefault(row, step)
    reasons = {row: (step, REASONS[step]) for row, step in steps.items()}
    reasons |= {row: (step, SEEN_BEFORE[step]) for row, step in seen.items()}
    return {row: Duplicate(*reason, *places[row]) for row, reason in reasons.items()}


def write_duplicates(file: DocumentShard, found: Found) -> None:
    """Writes what the joins found of the file: of its duplicates [row, stage, reason, file, row, what to call that
    document, whether it is of this run], and of what stays the sizes of the clusters, [row, size]."""
    duplicates = duplicates_of(file, found)
    names = found.names_of(duplicates.values())
    rows = [
        [row, one.stage, one.reason, one.file, one.row, names[one.file, one.row], one.file < INDEX_FILES]
        for row, one in sorted(duplicates.items())
    ]
    sizes = list(sizes_in(found.sizes, file.id).items()) if found.sizes else []
    write_atomically(file.duplicates, json.dumps({"duplicates": rows, "sizes": sizes}).encode())


class Told(NamedTuple):
    """A duplicate, as it is told."""

    duplicate: Duplicate
    stays: str
    """What to call the document that stays (`Found.names_of`)."""
    of_this_run: bool
    """Whether that one is of this run: else its text is not at hand."""


@dataclass(frozen=True)
class FoundOfFile:
    """What `write_duplicates` wrote of a file."""

    duplicates: dict[int, Told]
    """By row."""
    sizes: dict[int, int]
    """{row: documents of its cluster}, where that is asked for and more than one."""

    @classmethod
    def at(cls, place: Place) -> "FoundOfFile":
        found = json.loads(place.read_bytes())
        told = {row: Told(Duplicate(*rest[:4]), *rest[4:]) for row, *rest in found["duplicates"]}
        return cls(told, dict(found["sizes"]))

    @property
    def reasons(self) -> dict[int, tuple[str, str]]:
        """{row: (stage, reason)}"""
        return {row: (one.duplicate.stage, one.duplicate.reason) for row, one in self.duplicates.items()}


@dataclass(frozen=True)
class IndexedFile(TextsFile):
    """A file of texts/ and what of it goes into an index."""

    source: DocumentShard
    mapped_url: Place
    """Its keys, each with the document that stayed, and likewise those of other kinds."""
    mapped_exact: Place
    mapped_near: Place
    ids: Place

    def kept(self, kinds: Sequence[str]) -> Kept:
        pairs, mapped = {kind: self.source.keys_of(kind) for kind in kinds}, {}
        mapped = {kind: getattr(self, f"mapped_{kind}") for kind in kinds}
        return Kept(self.id, self.texts, pairs, mapped, self.ids)


def write_index_of(
    files: list[DocumentShard], config: DocumentsConfig, found: Found, folder: Place, partial: Place, run: FileRunner
) -> None:
    """Write the run's own index in `folder`, unless a file fails, which `run` then names; `partial` keeps what units
    hand on."""
    kinds = [kind for kind in KINDS if any(kind in KINDS_OF[step] for step in found.clusters)]
    digest = identity_of(names_of(found.clusters), config)[:12]
    mapped = {f"mapped_{kind}": partial / "mapped" / kind for kind in KINDS}
    indexed = [
        IndexedFile(
            id=file.id,
            texts=file.texts,
            bytes=file.bytes,
            end=file.end,
            source=file,
            ids=folder / "ids" / file.texts.name,
            **{name: place / f"{file.name}.runs" for name, place in mapped.items()},
        )
        for file in files
    ]
    work = functools.partial(map_file, found=found, kinds=kinds)
    done, written = run("index-keys", indexed, work, ["ids", *(f"mapped_{kind}" for kind in kinds)], digest)
    if len(done) < len(files):
        return
    delete_other_digests(partial / digest)
    tasks = TaskRunner(run.folder, run.engine, run.on_progress, "index", digest)
    identity = identity_of([sha256 for one in written for _, (_, sha256) in sorted(one.items())])
    write_index([file.kept(kinds) for file in indexed], kinds, config, identity, folder, partial / digest, tasks)


def map_file(file: IndexedFile, found: Found, kinds: Sequence[str]) -> None:
    """Maps the keys of one file to the documents that stayed."""
    duplicates = duplicates_of(file.source, found)
    places = {row: (one.file, one.row) for row, one in duplicates.items() if one.file < INDEX_FILES}
    map_keys(file.kept(kinds), places)
