"""Batches per second from warm shards.

    python -m tests.bench.loader [--seconds 5] [--threads 1]

Prints a JSON line: tokens per second of batch(step) and of iterate(), at 16 x 4096, 8 x 256 (the demo), 16 x 3000
(windows across record boundaries) and from a mixture of two folders at 16 x 4096, from random tokens.
"""

import hashlib
import itertools
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter  # ty: ignore[import-not-found]

from lm.data.batches import Batch, BatchSource
from lm.data.records import MANIFEST, Manifest, SequenceRecord, Shard, Split, to_bytes
from tests.bench.runner import run_benchmark

LENGTH, RECORDS = 4096, 2000


def write_shard(folder: Path, seed: int) -> Path:
    """Create a folder with one shard of 8.2 M tokens in documents of about 600 tokens, and return it."""
    folder.mkdir()
    generator = np.random.default_rng(seed)
    path = folder / "train-00000-of-00001.array_record"
    writer = ArrayRecordWriter(str(path), "group_size:1")
    for number in range(RECORDS):
        starts = np.arange(0, LENGTH, 600, dtype=np.uint32)
        tokens = generator.integers(0, 8192, LENGTH + 1).astype(np.uint16)
        writer.write(to_bytes(SequenceRecord(tokens, LENGTH + 1, starts, number + np.arange(len(starts)))))
    writer.close()
    tokens = RECORDS * LENGTH + 1
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    shard = Shard(path.name, RECORDS, path.stat().st_size, sha256, RECORDS, tokens, 4 * tokens)
    split = Split(RECORDS, tokens, 4 * tokens, RECORDS, (shard,))
    manifest = Manifest("none", 8192, LENGTH, "uint16", {"train": split}, ())
    (folder / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
    return folder


def tokens_per_second(batches: Iterable[Batch], seconds: float) -> float:
    count, start = 0, time.perf_counter()
    for batch in batches:
        count += np.asarray(batch.inputs_BT).size
        if time.perf_counter() - start > seconds:
            break
    return count / (time.perf_counter() - start)


def main(seconds: float = 5, threads: int = 1) -> Iterator[dict[str, object]]:
    """Args:
    seconds: Duration of each measurement.
    threads: Loader threads of iterate().
    """
    row: dict[str, object] = {"threads": threads}
    with tempfile.TemporaryDirectory() as name:
        one, other = (write_shard(Path(name) / f"tokens-{seed}", seed) for seed in range(2))
        mixture = {one: 3.0, other: 7.0}
        cases = (16, 4096, one), (8, 256, one), (16, 3000, one), (16, 4096, mixture)
        for batch_size, context, folders in cases:
            source = BatchSource(folders, "train", context, batch_size, 0, threads)
            next(source.iterate())  # warm
            direct = (source.batch(step) for step in itertools.count())
            shape = f"{batch_size}x{context}" + ("_mixture" if folders is mixture else "")
            row[f"batch_{shape}_tokens_per_second"] = round(tokens_per_second(direct, seconds))
            row[f"iterate_{shape}_tokens_per_second"] = round(tokens_per_second(source.iterate(), seconds))
    yield row


if __name__ == "__main__":
    run_benchmark(main)
