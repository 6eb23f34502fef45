"""Sample documents by a hash of their ids. Reads the ids first, then only the row groups that contain a sampled
document."""

import functools
import hashlib
from collections.abc import Iterator

import pyarrow as pa

from data_prep.config import ONE_PROCESS, EngineConfig
from data_prep.engine import OnProgress, Workspace
from data_prep.engine.tasks import FileRunner, allow_no_failures, files_of
from data_prep.parquet import read_rows, write_rows
from data_prep.shards.tokenize import DocumentFile, read_texts, texts_where
from lm.storage import Place

SAMPLE = "sample"
"""Name of the step, and of its output folder."""


def sample_texts(
    files: list[DocumentFile],
    characters: int,
    folder: Place,
    engine: EngineConfig = ONE_PROCESS,
    on_progress: OnProgress = lambda progress: None,
) -> Iterator[str]:
    """Yield about `characters` characters of text, or all of it if there is less: whole documents, sampled uniformly by
    the hash of their ids. The share of documents is computed from bytes, so non-Latin scripts give fewer characters.
    The sampled texts of each file are first written to folder/sample/. Raises InputError like `run_step` and
    `read_batches`."""
    text_bytes = sum(file.text_bytes for file in files)
    share = characters / text_bytes if text_bytes else 1
    if share >= 1:
        yield from read_texts(files)
        return
    run = FileRunner(folder, allow_no_failures(engine, len(files)), on_progress)
    _, made = run(SAMPLE, files, functools.partial(write_sample, share=share), share)
    drawn = 0
    for name, _ in files_of(made.values()):
        for row in read_rows(folder / name):
            drawn += 1
            yield row["text"]
    if not drawn:  # a few large documents, none sampled: yield all, and the caller stops when it has enough
        yield from read_texts(files)


def write_sample(file: DocumentFile, space: Workspace, share: float) -> None:
    """Write the texts of a file that are sampled at `share`, by a hash of their ids, in order."""
    path = space.output(f"{SAMPLE}/{file.name}.parquet")

    def rows() -> Iterator[tuple]:
        for _, text in texts_where(file, "id", lambda id: position(id) < share):
            space.count(1, len(text))
            yield path, {"text": text}

    write_rows(rows(), {path: pa.schema([("text", pa.string())])}, space.scratch)


def position(id: str) -> float:
    """Return a hash of a document's id as a number in [0, 1)."""
    return int.from_bytes(hashlib.blake2b(id.encode(), digest_size=8, key=b"tokenizer").digest(), "big") / 2**64
