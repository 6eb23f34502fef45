"""Speed of main-text extraction by each engine.

    python -m tests.bench.extraction PAGES.warc.gz OUT.jsonl [--engine gristmill|trafilatura|resiliparse]
        [--min-probability P]

OUT.jsonl gets one {"url", "text"} per line, for scoring. Prints pages per CPU-second (charset detection and parsing
included, reading excluded; median of --repeats passes) and the number of pages without text, by reason. Without
arguments each engine reads the article pages in ../shared. If $PEERS_DIR has datatrove (../shared/bench/peers.sh), a
last row has its step on the same file, by CPU time of all its processes, with a limit of 30 s per page; its texts go to
OUT.jsonl.datatrove.
"""

import collections
import dataclasses
import json
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import tyro

from configs.recipes.gristmill import EXTRACT
from data_prep.config import ExtractConfig
from data_prep.config.extract import ENGINES
from data_prep.documents import WebPage
from data_prep.extract import extract_text
from data_prep.warc import read_pages
from tests.bench.runner import ARTICLES, PEERS, ask_peer, choose, require_file, run_benchmark

DATATROVE = """
import json, pathlib, resource, statistics, sys
from datatrove.pipeline.extractors import Trafilatura
from datatrove.pipeline.readers import WarcReader

def seconds():
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)

path = pathlib.Path(sys.argv[1]).resolve()
taken = []
for _ in range(int(sys.argv[3])):
    pages = list(WarcReader(str(path.parent), glob_pattern=path.name).run())
    start = seconds()
    texts = list(Trafilatura(favour_precision=True, timeout=30).run(pages))
    taken.append(seconds() - start)
if sys.argv[2]:
    rows = [json.dumps({"url": text.metadata.get("url"), "text": text.text}) for text in texts]
    pathlib.Path(sys.argv[2]).write_text("".join(f"{row}\\n" for row in rows))
rate = len(pages) / statistics.median(taken)
row = {"peer": "datatrove", "pages": len(pages), "texts": len(texts)}
print(json.dumps(row | {"pages_per_cpu_second": round(rate, 1)}))
"""


def config_for(engine: str, min_probability: float) -> ExtractConfig:
    """Return the recipe's config with another engine."""
    return dataclasses.replace(
        EXTRACT,
        engine=engine,
        min_probability=min_probability,
        max_depth=min(EXTRACT.max_depth, choose(ENGINES, engine).max_depth),
        max_elements=min(EXTRACT.max_elements, ENGINES[engine].max_elements),
    )


def measure(pages: list[WebPage], config: ExtractConfig, repeats: int) -> tuple[dict[str, object], list[str]]:
    """Return (the row to print, the texts)."""
    extract_text(pages[0], config)  # imports, tables
    seconds, results = [], []
    for _ in range(repeats):
        started = time.process_time()
        results = [extract_text(page, config) for page in pages]
        seconds.append(time.process_time() - started)
    reasons = collections.Counter(reason for _, reason in results if reason)
    row = {
        "engine": config.engine,
        "pages": len(pages),
        "pages_per_cpu_second": round(len(pages) / statistics.median(seconds), 1),
        "no_text": dict(sorted(reasons.items())),
    }
    return row, [text for text, _ in results]


def main(
    pages: tyro.conf.Positional[Path | None] = None,
    out: tyro.conf.Positional[Path | None] = None,
    engine: str | None = None,
    min_probability: float = EXTRACT.min_probability,
    repeats: int = 1,
) -> Iterator[dict[str, object]]:
    """Args:
    pages: A WARC file.
    out: Write the texts to this file.
    engine: Engine; by default that of the recipe.
    min_probability: Setting of the engine gristmill.
    repeats: Number of passes for the median.
    """
    path = require_file(pages or ARTICLES)
    read = list(read_pages(path))
    if not read:
        raise SystemExit(f"{path} has no page.")
    for name in [engine] if engine else [EXTRACT.engine] if pages else list(ENGINES):
        row, texts = measure(read, config_for(name, min_probability), repeats)
        if out:
            rows = ({"url": page.url, "text": text} for page, text in zip(read, texts, strict=True))
            out.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        yield row
    if (python := PEERS / "datatrove/bin/python").exists():
        yield ask_peer(python, DATATROVE, path, f"{out}.datatrove" if out else "", repeats)


if __name__ == "__main__":
    run_benchmark(main)
