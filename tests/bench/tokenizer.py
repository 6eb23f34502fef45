"""Training and encoding speed of tokenizers, compared with rustbpe and tiktoken.

    python -m tests.bench.tokenizer TEXT_FILE [--vocabulary 8192] [--pattern cl100k] [--pipeline-mb 200]

Prints a JSON line. Trainers run in separate processes, to measure peak memory; encoders take turns in one thread
(median CPU time); the pipeline is `write_shards` on Parquet documents, the text repeated up to --pipeline-mb, with one
and two workers (wall time with two seconds of start-up).
"""

import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Literal

import tyro

from tests.bench.runner import SHARED, ask_peer, require_file, run_benchmark

DOCUMENT = 4000
"""Characters per document; the text is split at line ends."""
FILES = 16

TRAIN = """
import json, resource, sys, time
from tests.bench.tokenizer import documents
texts, out, vocabulary, pattern = list(documents(sys.argv[2])), sys.argv[3], int(sys.argv[4]), sys.argv[5]
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
if sys.argv[1] == "ours":
    from pathlib import Path
    from lm.config import TokenizerConfig
    from lm.tokenizer import save, train_bpe
    config = TokenizerConfig(vocabulary, pattern, 700_000_000)
    start = time.perf_counter()
    tokenizer = train_bpe(texts, config)
    seconds = time.perf_counter() - start
    save(tokenizer, Path(out))
else:
    import rustbpe
    from lm.tokenizer.patterns import SPLIT_PATTERNS
    trainer = rustbpe.Tokenizer()
    start = time.perf_counter()
    trainer.train_from_iterator(iter(texts), vocabulary - 1, 256, SPLIT_PATTERNS[pattern])
    ranks = trainer.get_mergeable_ranks()
    seconds = time.perf_counter() - start
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"seconds": seconds, "peak_mb": peak / 1024, "texts_mb": before / 1024}))
"""


def documents(path: str | Path) -> Iterator[str]:
    """Split the text of a file into documents of at least DOCUMENT characters that end with a line."""
    part, size = [], 0
    with Path(path).open(encoding="utf-8", errors="replace", newline="") as file:
        for line in file:
            part.append(line)
            size += len(line)
            if size >= DOCUMENT:
                yield "".join(part)
                part, size = [], 0
    if part:
        yield "".join(part)


def megabytes_per_second(runs: Mapping[str, Callable[[str], object]], texts: list[str], turns: int) -> dict[str, float]:
    """Median speed over all turns by CPU time of one thread."""
    size = sum(len(text.encode()) for text in texts) / 1e6
    rates: dict[str, list[float]] = {name: [] for name in runs}
    for name, run in itertools.chain.from_iterable([runs.items()] * turns):
        start = time.process_time()
        for text in texts:
            run(text)
        rates[name].append(size / (time.process_time() - start))
    return {name: statistics.median(values) for name, values in rates.items()}


def write_documents(texts: list[str], folder: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir()
    for number in range(FILES):
        rows = [
            {"id": str(i), "url": "", "text": texts[i]} for i in range(number, len(texts), FILES)
        ]  # evenly spread, so that files are similar
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{number:05d}.parquet", row_group_size=1000)


def seconds_of(folder: Path, tokenizer, workers: int, encoder: Literal["tiktoken", "gigatoken"]) -> float:
    from data_prep.config import EngineConfig, ShardsConfig
    from data_prep.shards.write import write_shards

    config = ShardsConfig(
        record_length=1024, token_dtype="uint32", train_shards=FILES, validation_fraction=0.01, encoder=encoder,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as out:
        start = time.perf_counter()
        write_shards(folder, tokenizer, Path(out) / "tokens", config, EngineConfig(workers=workers))
        return time.perf_counter() - start


def main(
    text: tyro.conf.Positional[Path] = SHARED / "text/tinyshakespeare.txt",
    vocabulary: int = 8192,
    pattern: str = "cl100k",
    turns: int = 5,
    pipeline_mb: float = 200,
) -> Iterator[dict[str, object]]:
    import tiktoken

    from lm.tokenizer import BytePairTokenizer, load
    from lm.tokenizer.fast import fast_encoder

    require_file(text)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        directly = ask_peer(sys.executable, TRAIN, "rustbpe", text, folder, vocabulary, pattern)
        ours = ask_peer(sys.executable, TRAIN, "ours", text, folder / "tokenizer", vocabulary, pattern)
        tokenizer = load(folder / "tokenizer")
        assert isinstance(tokenizer, BytePairTokenizer)
        peer = tiktoken.Encoding("x", pat_str=tokenizer.pattern, mergeable_ranks=tokenizer.ranks, special_tokens={})
        texts = list(documents(text))
        size = sum(len(one.encode()) for one in texts)
        runs = {"ours": tokenizer.encode, "tiktoken": peer.encode_ordinary, "fast": fast_encoder(tokenizer)}
        rates = megabytes_per_second(runs, texts, turns)
        copies = max(1, round(pipeline_mb * 1e6 / size))
        write_documents(texts * copies, folder / "documents")
        pipeline = {
            (workers, encoder): copies * size / 1e6 / seconds_of(folder / "documents", tokenizer, workers, encoder)
            for encoder in ("tiktoken", "gigatoken")
            for workers in (1, 2)
        }
    yield {
        "text_mb": round(size / 1e6, 1),
        "vocabulary": vocabulary,
        "train_seconds": round(ours["seconds"], 2),
        "rustbpe_seconds": round(directly["seconds"], 2),
        "train_peak_mb": round(ours["peak_mb"]),
        "rustbpe_peak_mb": round(directly["peak_mb"]),
        "texts_in_memory_mb": round(ours["texts_mb"]),
        "encode_mb_per_second": round(rates["ours"], 2),
        "tiktoken_mb_per_second": round(rates["tiktoken"], 2),
        "gigatoken_mb_per_second": round(rates["fast"], 2),
        "pipeline_mb_per_second": round(pipeline[2, "tiktoken"], 2),
        "pipeline_one_worker_mb_per_second": round(pipeline[1, "tiktoken"], 2),
        "pipeline_gigatoken_mb_per_second": round(pipeline[2, "gigatoken"], 2),
        "pipeline_one_worker_gigatoken_mb_per_second": round(pipeline[1, "gigatoken"], 2),
        "bytes_per_token": round(size / sum(len(tokenizer.encode(one)) for one in texts), 3),
    }


if __name__ == "__main__":
    run_benchmark(main)
