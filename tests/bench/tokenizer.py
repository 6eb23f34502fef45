"""How fast a vocabulary is trained and text is encoded, beside rustbpe and tiktoken called directly, in the same run.

    python -m tests.bench.tokenizer TEXT_FILE [--vocabulary 8192] [--pattern cl100k] [--pipeline-mb 200]

Prints one JSON line. Training runs in processes of its own, ours and rustbpe's, so that the peak of memory is its own;
encoding is by one thread, ours and tiktoken's in turns, the median of the turns by CPU time; the pipeline is
`write_shards` on documents in Parquet, the text again and again until it is as large as --pipeline-mb, with one worker
and with two, by the clock, start-up counted (nearly two seconds, those of Beam).
"""

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Literal

SAMPLE = Path(__file__).parents[2] / "../shared/data/text/tinyshakespeare.txt"
DOCUMENT = 4000
"""Characters of the documents that the text is cut into, at line ends."""
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
    """The text of a file in parts of at least DOCUMENT characters that end with a line."""
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


def trained(who: str, text: Path, out: Path, vocabulary: int, pattern: str) -> dict[str, float]:
    command = [sys.executable, "-c", TRAIN, who, str(text), str(out), str(vocabulary), pattern]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def megabytes_per_second(runs: Mapping[str, Callable[[str], object]], texts: list[str], turns: int) -> dict[str, float]:
    """By CPU time of one thread, the median of the turns."""
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
        ]  # spread, so that files are alike
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{number:05d}.parquet", row_group_size=1000)


def pipeline_seconds(folder: Path, tokenizer, workers: int, encoder: Literal["tiktoken", "gigatoken"]) -> float:
    from data_prep.config import EngineConfig, ShardsConfig
    from data_prep.shards.write import write_shards

    config = ShardsConfig(
        record_length=1024, token_dtype="uint32", train_shards=FILES, validation_fraction=0.01, encoder=encoder,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as out:
        start = time.perf_counter()
        write_shards(folder, tokenizer, Path(out) / "tokens", config, EngineConfig(workers=workers))
        return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path, nargs="?", default=SAMPLE)
    parser.add_argument("--vocabulary", type=int, default=8192)
    parser.add_argument("--pattern", default="cl100k")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--pipeline-mb", type=float, default=200)
    arguments = parser.parse_args()
    if not arguments.text.is_file():
        print(json.dumps({"benchmark": "tokenizer", "skipped": f"there is no {arguments.text}"}))
        return
    import tiktoken

    from lm.tokenizer import BytePairTokenizer, load
    from lm.tokenizer.fast import fast_encoder

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        directly = trained("rustbpe", arguments.text, folder, arguments.vocabulary, arguments.pattern)
        ours = trained("ours", arguments.text, folder / "tokenizer", arguments.vocabulary, arguments.pattern)
        tokenizer = load(folder / "tokenizer")
        assert isinstance(tokenizer, BytePairTokenizer)
        peer = tiktoken.Encoding("x", pat_str=tokenizer.pattern, mergeable_ranks=tokenizer.ranks, special_tokens={})
        texts = list(documents(arguments.text))
        size = sum(len(text.encode()) for text in texts)
        runs = {"ours": tokenizer.encode, "tiktoken": peer.encode_ordinary, "fast": fast_encoder(tokenizer)}
        rates = megabytes_per_second(runs, texts, arguments.turns)
        copies = max(1, round(arguments.pipeline_mb * 1e6 / size))
        write_documents(texts * copies, folder / "documents")
        seconds = {
            (workers, encoder): pipeline_seconds(folder / "documents", tokenizer, workers, encoder)
            for encoder in ("tiktoken", "gigatoken")
            for workers in (1, 2)
        }
    print(
        json.dumps(
            {
                "benchmark": "tokenizer",
                "text_mb": round(size / 1e6, 1),
                "vocabulary": arguments.vocabulary,
                "train_seconds": round(ours["seconds"], 2),
                "rustbpe_seconds": round(directly["seconds"], 2),
                "train_peak_mb": round(ours["peak_mb"]),
                "rustbpe_peak_mb": round(directly["peak_mb"]),
                "texts_in_memory_mb": round(ours["texts_mb"]),
                "encode_mb_per_second": round(rates["ours"], 2),
                "tiktoken_mb_per_second": round(rates["tiktoken"], 2),
                "gigatoken_mb_per_second": round(rates["fast"], 2),
                "pipeline_mb_per_second": round(copies * size / 1e6 / seconds[2, "tiktoken"], 2),
                "pipeline_one_worker_mb_per_second": round(copies * size / 1e6 / seconds[1, "tiktoken"], 2),
                "pipeline_gigatoken_mb_per_second": round(copies * size / 1e6 / seconds[2, "gigatoken"], 2),
                "pipeline_one_worker_gigatoken_mb_per_second": round(copies * size / 1e6 / seconds[1, "gigatoken"], 2),
                "bytes_per_token": round(size / sum(len(tokenizer.encode(text)) for text in texts), 3),
            }
        )
    )


if __name__ == "__main__":
    main()
