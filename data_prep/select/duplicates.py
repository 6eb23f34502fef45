"""Which documents are duplicates, of which: the joins in their order, and what they found of one file."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from data_prep.config import DocumentsConfig, EngineConfig
from data_prep.dedup.cluster_sizes import count_clusters
from data_prep.dedup.clusters import duplicates_in, find_duplicates
from data_prep.engine.over_files import run_over_files, run_with
from data_prep.engine.progress import JoinProgress, Progress, ProgressReporter, UnfinishedShard, texts_progress
from data_prep.select.keys import DocumentShard, write_keys, write_url_keys

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
    clusters: dict[str, Path]
    """{step of deduplication: folder of its result}; the steps that are not used are missing."""
    min_quality: float | None
    """Lowest score that the quality classifier may give."""
    sizes: Path | None = None
    """The folder of the clusters' sizes, where they are asked for (cluster_sizes.py)."""
    edits: dict[str, tuple[Path, ...]] = field(default_factory=dict)
    """{step after these: its edits of each file, by the file's index}, in the order of the steps (edits.py)."""


def find_clusters(
    files: list[DocumentShard],
    config: DocumentsConfig,
    min_quality: float | None,
    partial: Path,
    on_progress: Callable[[Progress], None],
    engine: EngineConfig,
) -> dict[str, Path]:
    """The clusters of each step of deduplication in use, in `partial`, one folder a step: {step: folder}.

    Addresses first, without a text being read: of a page that was fetched more than once only the document that stays
    takes part in the other steps.
    """
    clusters: dict[str, Path] = {}

    def join(step: str, pairs: list[Path], folder: Path) -> None:
        with ProgressReporter(JoinProgress(folder, TOLD[step]), on_progress):
            clusters[step] = find_duplicates(pairs, folder, functools.partial(run_with, engine=engine))

    if "url_dedup" in config.steps:
        with watching(files, "addresses", lambda file: file.url_keys, on_progress):
            run_over_files(functools.partial(write_url_keys, config=config, min_quality=min_quality), files, engine)
        join("url_dedup", [file.url_keys for file in files], partial / "url")
    if {"exact_dedup", "minhash_dedup"} & set(config.steps):
        work = functools.partial(write_keys, config=config, min_quality=min_quality, same_url=clusters.get("url_dedup"))
        with watching(files, "keys", lambda file: file.exact_keys, on_progress):
            run_over_files(work, files, engine)
    if "exact_dedup" in config.steps:
        join("exact_dedup", [file.exact_keys for file in files], partial / "exact")
    if "minhash_dedup" in config.steps:
        join("minhash_dedup", [file.near_keys for file in files], partial / "near")
    return clusters


def find_sizes(
    clusters: dict[str, Path],
    config: DocumentsConfig,
    partial: Path,
    on_progress: Callable[[Progress], None],
    engine: EngineConfig,
) -> Path | None:
    """The sizes of the clusters of the last step, which holds those of all steps; None where they are not asked for."""
    if not config.counts_clusters:
        return None
    folder = partial / "sizes"
    with ProgressReporter(JoinProgress(folder, "sizes of clusters"), on_progress):
        return count_clusters(list(clusters.values())[-1], folder / "sums", functools.partial(run_with, engine=engine))


def watching(
    files: list[DocumentShard],
    step: str,
    part: Callable[[DocumentShard], Path],
    on_progress: Callable[[Progress], None],
) -> ProgressReporter:
    """Tells how far a pass over the files is, by the part that it leaves of each."""
    return ProgressReporter(
        texts_progress([UnfinishedShard(file.index, file.texts, part(file), file.note) for file in files], step),
        on_progress,
    )


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
