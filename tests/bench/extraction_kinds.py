"""Mean F1 of words in main text on seven kinds of pages, as counted by WCXB's evaluate.py.

    python -m tests.bench.extraction_kinds WCXB [--split test|dev] [--engine gristmill|trafilatura|resiliparse]

WCXB is a checkout at the commit in tests/bench/extract_fit/corpora.py. The shipped trees are fitted to dev, so only
test is a fair measure. A page without main text counts 1 if no text is found, else 0. trafilatura has two rows: the
engine, which favors precision, and trafilatura.extract(html) with default settings.
"""

import collections
import gzip
import json
import logging
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import trafilatura
import tyro

from configs.recipes.gristmill import EXTRACT
from data_prep.documents import WebPage
from data_prep.extract import extract_text
from tests.bench.extract_fit.__main__ import word_f1
from tests.bench.extraction import config_for
from tests.bench.runner import SkippedError, run_benchmark


def main(
    wcxb: tyro.conf.Positional[Path | None] = None, split: Literal["test", "dev"] = "test", engine: str = EXTRACT.engine
) -> Iterator[dict[str, object]]:
    if wcxb is None:
        raise SkippedError("give a checkout of WCXB")
    config = config_for(engine, EXTRACT.min_probability)
    calls = {engine: lambda html: extract_text(WebPage("", "", "", "", html, ""), config)[0]}
    if engine == "trafilatura":
        logging.disable(logging.CRITICAL)
        calls["trafilatura.extract(html)"] = lambda html: trafilatura.extract(html) or ""
    for name, text_of in calls.items():
        yield {"engine": name, "split": split} | score(wcxb / split, text_of)


def score(folder: Path, text_of: Callable[[bytes], str]) -> dict[str, object]:
    """Mean F1 of `text_of` over the pages of the split, and by kind of page."""
    scores = collections.defaultdict(list)
    for path in sorted((folder / "ground-truth").glob("*.json")):
        truth = json.loads(path.read_text(encoding="utf-8"))
        html = gzip.decompress((folder / "html" / f"{path.stem}.html.gz").read_bytes())
        kind = truth["_internal"]["page_type"]["primary"].replace("category", "collection")
        scores[kind].append(word_f1(text_of(html), truth["ground_truth"].get("main_content") or ""))
    pages = [f1 for some in scores.values() for f1 in some]
    kinds = {kind: [len(some), round(statistics.mean(some), 4)] for kind, some in sorted(scores.items())}
    return {"pages": len(pages), "f1": round(statistics.mean(pages), 4), "kinds": kinds}


if __name__ == "__main__":
    run_benchmark(main)
