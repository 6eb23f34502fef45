"""Text compressed by the model of a run, compared with gzip, zstd and xz.

    python -m tests.bench.compression [--run runs/demo] [--bytes 100000] [--segments 1 4 16 64]

Compresses and decompresses held-out documents of the run. Prints a JSON line for each number of segments: bytes, bits
per byte, the coder's excess over the model's cross-entropy, and tokens per second without compilation.
"""

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq

from launch.stages.packing import load_packer
from lm.compression.codec import Packer, compress, decompress
from lm.data.records import document_tables
from lm.evaluation.bits_per_byte import compressed_bits_per_byte
from lm.run_paths import RunPaths
from tests.bench.runner import require_model, run_benchmark


def held_out_text(run: Path, size: int) -> bytes:
    """The first `size` bytes, cut at a character boundary, of the held-out documents in a fixed random order."""
    paths = RunPaths(run)
    tables = [Path(str(table)) for table in document_tables(paths.tokens)]
    rows = [row for table in tables for row in pq.read_table(table, columns=["id", "split"]).to_pylist()]
    held_out = {row["id"] for row in rows if row["split"] == "val"}
    texts = [
        row["text"]
        for file in sorted(paths.documents.glob("*.parquet"))
        for row in pq.read_table(file, columns=["id", "text"]).to_pylist()
        if row["id"] in held_out
    ]
    random.Random(0).shuffle(texts)
    return "\n".join(texts).encode()[:size].decode(errors="ignore").encode()


def measure(packer: Packer, data: bytes, segments: int | None) -> dict[str, object]:
    compress(data, packer, segments=segments)  # compiles
    began = time.perf_counter()
    packed = compress(data, packer, segments=segments)
    halfway = time.perf_counter()
    assert decompress(packed.data, packer, "it") == data
    ended = time.perf_counter()
    others = compressed_bits_per_byte(data, len(data))
    return {
        "bytes": len(data),
        "tokens": packed.tokens,
        "segments": packed.header.segments,
        "grist_bytes": len(packed.data),
        "header_bytes": packed.header_bytes,
        **{
            f"{name.removesuffix('_bits_per_byte')}_bytes": round(bits * len(data) / 8) for name, bits in others.items()
        },
        "bits_per_byte": round(8 * len(packed.data) / len(data), 4),
        "cross_entropy_bits_per_byte": round(packed.cross_entropy_bits / len(data), 4),
        "above_cross_entropy": round(8 * packed.coded_bytes / packed.cross_entropy_bits - 1, 6),
        "compress_tokens_per_second": round(packed.tokens / (halfway - began)),
        "decompress_tokens_per_second": round(packed.tokens / (ended - halfway)),
    }


def main(
    run: Path = Path("runs/demo"), bytes: int = 100_000, segments: tuple[int, ...] = ()
) -> Iterator[dict[str, object]]:
    packer, data = load_packer(str(require_model(run))), held_out_text(run, bytes)
    for number in segments or (None,):
        yield measure(packer, data, number)


if __name__ == "__main__":
    run_benchmark(main)
