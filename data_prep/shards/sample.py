"""Documents that are drawn by a hash, read without the rest: first ids alone, then the row groups that are hit."""

import functools
import hashlib
from collections.abc import Iterator

import pyarrow as pa

from data_prep.config import ONE_PROCESS, EngineConfig
from data_prep.engine import Step, Unit, Workspace, identity_of, run_step
from data_prep.engine.tasks import OnProgress, files_of, whole
from data_prep.parquet import read_rows, write_rows
from data_prep.shards.tokenize import DocumentFile, read_texts, texts_where
from lm.storage import Place

SAMPLE = "sample"
"""The step, and the folder of the texts of each file, in the step's folder."""


def sample_texts(
    files: list[DocumentFile],
    characters: int,
    folder: Place,
    engine: EngineConfig = ONE_PROCESS,
    on_progress: OnProgress = lambda progress: None,
) -> Iterator[str]:
    """About `characters` characters of text, or all if there are no more: whole documents, drawn by the hash of their
    ids, so that every part of the corpus has its share. The share is estimated in bytes: other scripts than Latin give
    fewer characters. Each file is a unit, whose texts are written to folder/sample/. Raises InputError as `run_step`
    and `read_batches`."""
    text_bytes = sum(file.text_bytes for file in files)
    share = characters / text_bytes if text_bytes else 1
    if share >= 1:
        yield from read_texts(files)
        return
    units = [Unit(one.name, identity_of(SAMPLE, one.identity, share), one.bytes, one) for one in files]
    step = Step(SAMPLE, tuple(units), functools.partial(write_sample, share=share))
    made = run_step(step, whole(engine, len(units)), folder, on_progress)
    drawn = 0
    for name, _ in files_of(made.values()):
        for row in read_rows(folder / name):
            drawn += 1
            yield row["text"]
    if not drawn:  # a few large documents: the caller takes as much of the first as it wants
        yield from read_texts(files)


def write_sample(unit: Unit[DocumentFile], space: Workspace, share: float) -> None:
    """Write the texts of a file whose ids lie below `share`, in order."""
    path = space.output(f"{SAMPLE}/{unit.name}.parquet")

    def rows() -> Iterator[tuple]:
        for text in drawn_texts(unit.input, share):
            space.count(1, len(text))
            yield path, {"text": text}

    write_rows(rows(), {path: pa.schema([("text", pa.string())])}, space.scratch)


def position(id: str, purpose: bytes) -> float:
    """Where in [0, 1) the hash of a document's id lies, another place for each purpose."""
    return int.from_bytes(hashlib.blake2b(id.encode(), digest_size=8, key=purpose).digest(), "big") / 2**64


def drawn_texts(file: DocumentFile, share: float) -> Iterator[str]:
    """The texts of a file whose ids lie below `share`, in order."""
    return (text for _, text in texts_where(file, "id", lambda id: position(id, b"tokenizer") < share))
