"""Write the index of a run, after its joins."""

import functools
from collections.abc import Sequence

from data_prep.config import DocumentsConfig
from data_prep.dedup.keys import KINDS, KINDS_OF
from data_prep.dedup_index.format import FOLDER
from data_prep.dedup_index.joins import map_keys, write_index
from data_prep.engine import Workspace, identity_of
from data_prep.engine.tasks import FileRunner, StoredFile, delete_other_digests, files_of
from data_prep.select.duplicates import Found, names_of
from data_prep.select.keys import pairs_name


def write_index_of(files: list[StoredFile], config: DocumentsConfig, found: Found, run: FileRunner) -> None:
    """Write the run's index of deduplication keys, but no index if a file fails."""
    kinds = [kind for kind in KINDS if any(kind in KINDS_OF[step] for step in found.clusters)]
    digest = identity_of(names_of(found.clusters), config)[:12]
    done, made = run("index-keys", files, functools.partial(map_file, found=found, kinds=kinds), digest)
    if len(done) < len(files):
        return
    delete_other_digests(run.folder / "parts/index-parts" / digest)
    mapped = {kind: [run.folder / mapped_name(kind, file) for file in files] for kind in kinds}
    identity = identity_of([sha256 for _, sha256 in files_of(made.values())])
    texts = {file.id: file.path.name for file in files}
    tasks = run.tasks("index", digest)
    write_index(texts, mapped, config, identity, run.folder / FOLDER, run.folder / "parts/index-parts" / digest, tasks)


def mapped_name(kind: str, file: StoredFile) -> str:
    return f"parts/index-parts/mapped/{kind}/{file.name}.runs"


def map_file(file: StoredFile, space: Workspace, found: Found, kinds: Sequence[str]) -> None:
    duplicates = found.duplicates_of(file.id)
    places = {row: (one.file, one.row) for row, one in duplicates.items() if one.of_this_run}
    pairs = [(space.place(pairs_name(f"index/{kind}", file)), space.output(mapped_name(kind, file))) for kind in kinds]
    map_keys(file.path, pairs, places, space.output(f"{FOLDER}/ids/{file.path.name}"))
