"""How fast documents are looked through for n-grams of evaluation sets, and repeated lines and passages taken out.

    python -m tests.bench.decontamination [RUN] [--seconds 5] [--sets PATTERN ...]

RUN is a finished run of configs/demo.py, or any run folder with documents/. Prints one JSON line: documents and bytes
a CPU second of one core, n-grams of the index, the seconds that it took, and how many documents have an overlap.
"""

import argparse
import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from data_prep.config import DecontaminationConfig, LineDedupConfig, SubstringDedupConfig
from data_prep.decontamination.examples import example_files, read_examples
from data_prep.decontamination.index import build_index, overlaps
from data_prep.decontamination.run import DOCUMENTS_AT_ONCE
from data_prep.dedup.lines import remove_lines
from data_prep.dedup.substrings import remove_substrings
from data_prep.dedup.survivors import Survivor, SurvivorFile, write_survivors
from data_prep.parquet import read_rows

SHARED = Path(__file__).parents[2] / "../shared/data/eval"
SETS = [str(SHARED / name) for name in ("*.jsonl", "hellaswag*.txt.bz2")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, nargs="?", default=Path("runs/demo"))
    parser.add_argument("--seconds", type=float, default=5, help="of CPU (default: 5)")
    parser.add_argument("--sets", nargs="+", default=SETS, help="files of evaluation sets")
    arguments = parser.parse_args()
    files = sorted((arguments.run / "documents").glob("*.parquet"))
    if not files or (arguments.sets == SETS and not SHARED.is_dir()):
        missing = f"{arguments.run}/documents" if not files else str(SHARED)
        print(json.dumps({"bench": "decontamination", "skipped": f"there is no {missing}"}))
        return
    config = DecontaminationConfig(sets=tuple(arguments.sets))
    begun = time.process_time()
    index = build_index(read_examples(example_files(config.sets), config.fields), config)
    built = time.process_time() - begun
    texts = [row["text"] for path in files for row in read_rows(path, ["text"])]
    rates, hit, end = [], 0, time.process_time() + arguments.seconds
    while not rates or time.process_time() < end:
        begun = time.process_time()
        hit = sum(len(overlaps(batch, index)) for batch in itertools.batched(texts, DOCUMENTS_AT_ONCE))
        rates.append(len(texts) / (time.process_time() - begun))
    size = statistics.mean(len(text.encode()) for text in texts)
    row = {
        "bench": "decontamination", "documents": len(texts), "bytes_per_document": round(size),
        "documents_per_second": round(statistics.median(rates)),
        "megabytes_per_second": round(statistics.median(rates) * size / 1e6, 1), "ngrams": len(index.hashes),
        "index_seconds": round(built, 2), "documents_with_an_overlap": hit,
    }  # fmt: skip
    print(json.dumps(row | rates_of_steps(texts)))


def rates_of_steps(texts: list[str]) -> dict[str, float]:
    """Documents a CPU second of the two other steps, all their passes together, on one group of all texts."""

    def each(work: Callable[[Any], None], units: Iterable[Any]) -> None:
        for unit in units:
            work(unit)

    found = {}
    for name, step in (
        ("line_dedup", partial(remove_lines, config=LineDedupConfig())),
        ("substring_dedup", partial(remove_substrings, config=SubstringDedupConfig())),
    ):
        with tempfile.TemporaryDirectory() as folder:
            file = SurvivorFile(0, Path(folder) / "0.parquet")
            write_survivors(file.path, (Survivor(n, n, str(n), "", text) for n, text in enumerate(texts)))
            begun = time.process_time()
            step([file], folder=Path(folder) / "step", report=Path(folder), over=each)
            found[f"{name}_documents_per_second"] = round(len(texts) / (time.process_time() - begun), 1)
    return found


if __name__ == "__main__":
    main()
