"""Which documents are duplicates, of which: the joins in their order, and what they found of one file."""

import functools
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from data_prep.config import DocumentsConfig, EngineConfig
from data_prep.dedup.cluster_sizes import count_clusters
from data_prep.dedup.clusters import duplicates_in, find_duplicates
from data_prep.dedup_index.format import KINDS, KINDS_OF, Index
from data_prep.dedup_index.join import pairs_met
from data_prep.dedup_index.write import Kept, map_keys, write_index
from data_prep.engine.over_files import run_over_files, run_with
from data_prep.engine.progress import JoinProgress, Progress, ProgressReporter, UnfinishedShard, texts_progress
from data_prep.select.keys import DocumentShard, write_keys, write_url_keys

TOLD = {"url_dedup": "pages fetched again", "exact_dedup": "exact copies", "minhash_dedup": "near copies"}
REASONS = {"url_dedup": "url_duplicate", "exact_dedup": "exact_duplicate", "minhash_dedup": "near_duplicate"}
SEEN_BEFORE = {"url_dedup": "url_seen_before", "exact_dedup": "exact_seen_before", "minhash_dedup": "near_seen_before"}
"""Reasons of what is a duplicate of a document of an index."""


@dataclass(frozen=True, slots=True)
class Duplicate:
    """Why a document goes, and where in texts/ the one stands that stays."""

    stage: str
    reason: str
    file: int
    """Index of the file of texts/; from their number on, of the files of the indices, one index after the other."""
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
    indices: tuple[Index, ...] = ()
    """Of earlier runs."""
    edits: dict[str, tuple[Path, ...]] = field(default_factory=dict)
    """{step after these: its edits of each file, by the file's index}, in the order of the steps (edits.py)."""

    def names_of(self, duplicates: Iterable[Duplicate]) -> dict[tuple[int, int], str]:
        """{(file, row): what `duplicate_of` says of that document}: NAME.parquet:ROW of texts/, or INDEX#ID. Reads the
        ids of the indices' documents; raises InputError where these are missing or damaged."""
        places = {(one.file, one.row) for one in duplicates}
        names = {(file, row): f"{self.names[file]}:{row}" for file, row in places if file < len(self.names)}
        first = len(self.names)
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
    partial: Path,
    indices: tuple[Index, ...],
    on_progress: Callable[[Progress], None],
    engine: EngineConfig,
) -> dict[str, Path]:
    """The clusters of each step of deduplication in use, in `partial`, one folder a step: {step: folder}.

    Addresses first, without a text being read: of a page that was fetched more than once only the document that stays
    takes part in the other steps.
    """
    clusters: dict[str, Path] = {}

    def join(step: str, pairs: list[Path], folder: Path) -> None:
        run = functools.partial(run_with, engine=engine)
        if indices:
            seen, kinds = partial / f"{folder.name}-seen", KINDS_OF[step]
            keys = [file.keys_of(kind) for file in files for kind in kinds]
            with ProgressReporter(JoinProgress(seen, f"{TOLD[step]} of earlier runs"), on_progress):
                pairs += pairs_met(keys, indices, kinds, len(files), seen / "join", run)
        with ProgressReporter(JoinProgress(folder, TOLD[step]), on_progress):
            clusters[step] = find_duplicates(pairs, folder, run)

    if "url_dedup" in config.steps:
        with watching(files, "addresses", lambda file: file.url_keys, on_progress):
            run_over_files(functools.partial(write_url_keys, config=config, min_quality=min_quality), files, engine)
        join("url_dedup", [file.url_keys for file in files], partial / "url")
    if {"exact_dedup", "minhash_dedup"} & set(config.steps):
        same_url = clusters.get("url_dedup")
        work = functools.partial(
            write_keys, config=config, min_quality=min_quality, files=len(files), same_url=same_url
        )
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
    seen: dict[int, str] = {}
    for step in found.clusters:
        for row, place in duplicates_in(found.clusters[step], file.index).items():
            places[row] = place
            steps.setdefault(row, step)
            if place[0] >= len(found.names):
                seen.setdefault(row, step)
    reasons = {row: (step, REASONS[step]) for row, step in steps.items()}
    reasons |= {row: (step, SEEN_BEFORE[step]) for row, step in seen.items()}
    return {row: Duplicate(*reason, *places[row]) for row, reason in reasons.items()}


def write_index_of(
    files: list[DocumentShard],
    config: DocumentsConfig,
    found: Found,
    folder: Path,
    partial: Path,
    on_progress: Callable[[Progress], None],
    engine: EngineConfig,
) -> None:
    """Writes the run's own index in `folder`; `partial` keeps what is done."""
    kinds = [kind for kind in KINDS if any(kind in KINDS_OF[step] for step in found.clusters)]
    for kind in kinds:
        (partial / "mapped" / kind).mkdir(parents=True, exist_ok=True)
    (folder / "ids").mkdir(parents=True, exist_ok=True)
    kept = functools.partial(kept_keys, kinds=kinds, folder=folder, partial=partial)
    with watching(files, "keys of what stayed", lambda file: kept(file).ids, on_progress):
        run_over_files(functools.partial(map_file, found=found, kept=kept, scratch=partial), files, engine)
    with ProgressReporter(JoinProgress(partial, "index"), on_progress):
        run = functools.partial(run_with, engine=engine)
        write_index([kept(file) for file in files], kinds, config, folder, partial, run)


def kept_keys(file: DocumentShard, kinds: list[str], folder: Path, partial: Path) -> Kept:
    """Where the file's keys for the index are, and what becomes of them."""
    stem = file.texts.stem
    mapped = {kind: partial / "mapped" / kind / f"{stem}.arrow" for kind in kinds}
    pairs = {kind: file.keys_of(kind) for kind in kinds}
    return Kept(file.texts, pairs, mapped, folder / "ids" / file.texts.name)


def map_file(file: DocumentShard, found: Found, kept: Callable[[DocumentShard], Kept], scratch: Path) -> None:
    """Maps the keys of one file to the documents that stayed."""
    places = {
        row: (one.file, one.row) for row, one in duplicates_of(file, found).items() if one.file < len(found.names)
    }
    map_keys(kept(file), places, scratch)
