"""Which documents are duplicates, of which: the joins in their order, and what they found of one file."""

import functools
import json
from dataclasses import dataclass
from typing import Any

from data_prep.config import DocumentsConfig
from data_prep.dedup.cluster_sizes import count_clusters, sizes_in
from data_prep.dedup.clusters import duplicates_in, find_duplicates
from data_prep.engine import identity_of
from data_prep.engine.merging import File
from data_prep.engine.tasks import FileRunner, TaskRunner
from data_prep.select.keys import DocumentShard, write_keys, write_url_keys
from lm.storage import Place, write_atomically

TOLD = {"url_dedup": "pages fetched again", "exact_dedup": "exact copies", "minhash_dedup": "near copies"}
REASONS = {"url_dedup": "url_duplicate", "exact_dedup": "exact_duplicate", "minhash_dedup": "near_duplicate"}


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
    sizes: Place | None = None
    """The folder of the clusters' sizes, where they are asked for (cluster_sizes.py)."""


def find_clusters(
    files: list[DocumentShard], config: DocumentsConfig, min_quality: float | None, partial: Place, run: FileRunner
) -> tuple[list[DocumentShard], dict[str, Place]]:
    """The files whose keys could be written, and the clusters of each step of deduplication in use: {step: folder}, in
    folders of `partial` whose names tell of which keys.

    Addresses first, without a text being read: of a page that was fetched more than once only the document that stays
    takes part in the other steps.
    """
    clusters: dict[str, Place] = {}

    def join(step: str, field: str, written: list[dict[str, File]]) -> None:
        folder: Any = partial / f"{step}-{identity_of([one[field] for one in written])[:12]}"
        tasks = TaskRunner(run.folder, run.engine, run.on_progress, TOLD[step])
        clusters[step] = find_duplicates([getattr(file, field) for file in files], folder, tasks)

    if "url_dedup" in config.steps:
        work = functools.partial(write_url_keys, config=config, min_quality=min_quality)
        files, written = run("addresses", files, work, ["url_keys"], [config, min_quality])
        join("url_dedup", "url_keys", written)
    if {"exact_dedup", "minhash_dedup"} & set(config.steps):
        work = functools.partial(write_keys, config=config, min_quality=min_quality, same_url=clusters.get("url_dedup"))
        decided = [config, min_quality, names_of(clusters)]
        files, written = run("keys", files, work, ["exact_keys", "near_keys"], decided)
        for step, field in (("exact_dedup", "exact_keys"), ("minhash_dedup", "near_keys")):
            if step in config.steps:
                join(step, field, written)
    return files, clusters


def names_of(clusters: dict[str, Place]) -> dict[str, str]:
    """What the clusters are of: {step: name}."""
    return {step: result.parent.name for step, result in clusters.items()}


def find_sizes(clusters: dict[str, Place], config: DocumentsConfig, partial: Place, run: FileRunner) -> Place | None:
    """The sizes of the clusters of the last step, which holds those of all steps; None where they are not asked for."""
    if not config.counts_clusters:
        return None
    *_, last = clusters.values()
    tasks = TaskRunner(run.folder, run.engine, run.on_progress, "sizes of clusters")
    return count_clusters(last, partial / f"{last.parent.name}-sizes", tasks)


def duplicates_of(file: DocumentShard, found: Found) -> dict[int, Duplicate]:
    """{row: what it is a duplicate of}, always a row that stays.

    A document is named a duplicate by the first step that finds it one, but the place is that of its cluster in the
    last step, which holds the whole clusters of those before: the first document of these may itself be a duplicate,
    and go.
    """
    places: dict[int, tuple[int, int]] = {}
    steps: dict[int, str] = {}
    for step in found.clusters:
        for row, place in duplicates_in(found.clusters[step], file.index).items():
            places[row] = place
            steps.setdefault(row, step)
    return {row: Duplicate(step, REASONS[step], *places[row]) for row, step in steps.items()}


def write_duplicates(file: DocumentShard, found: Found) -> None:
    """Writes what the joins found of the file: of its duplicates [row, stage, reason, file, row, name of that file],
    and of what stays the sizes of the clusters, [row, size]."""
    rows = [
        [row, one.stage, one.reason, one.file, one.row, found.names[one.file]]
        for row, one in sorted(duplicates_of(file, found).items())
    ]
    sizes = list(sizes_in(found.sizes, file.index).items()) if found.sizes else []
    write_atomically(file.duplicates, json.dumps({"duplicates": rows, "sizes": sizes}).encode())


@dataclass(frozen=True)
class FoundOfFile:
    """What `write_duplicates` wrote of a file."""

    duplicates: dict[int, Duplicate]
    """By row."""
    names: dict[int, str]
    """Of the files that hold what stays, by index."""
    sizes: dict[int, int]
    """{row: documents of its cluster}, where that is asked for and more than one."""

    @classmethod
    def at(cls, place: Place) -> "FoundOfFile":
        found = json.loads(place.read_bytes())
        rows = found["duplicates"]
        duplicates = {row: Duplicate(stage, reason, file, other) for row, stage, reason, file, other, _ in rows}
        return cls(duplicates, {file: name for *_, file, _, name in rows}, dict(found["sizes"]))
