"""How fast main text is extracted, and by which engine; the text goes to a file that can be scored.

    python -m tests.bench.extraction PAGES.warc.gz OUT.jsonl [--engine gristmill|trafilatura|resiliparse]
        [--min-probability P]

OUT.jsonl has one {"url", "text"} a line. Prints one JSON line: engine, pages, pages_per_cpu_second (reading left out,
character sets and parsing included; the median of --repeats passes), and how many pages gave no text, by reason.
Without arguments it reads the article pages of ../shared, where they exist, with each engine. An engine that is safe
for smaller pages only narrows the recipe's limits.

Where datatrove's environment lies in $PEERS_DIR (../shared/bench/peers.sh), a last line tells of its own step on the
same file, by the CPU time of all its processes, with a limit of 30 s a page; its texts go to OUT.jsonl.datatrove.
"""

import argparse
import collections
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from configs.recipes.gristmill import EXTRACT
from data_prep.config import ExtractConfig
from data_prep.config.extract import ENGINES
from data_prep.documents import WebPage
from data_prep.extract import extract_text
from data_prep.warc import read_pages

PEERS = Path(os.environ.get("PEERS_DIR", "~/.cache/gristmill-peers")).expanduser()
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
PAGES = Path(__file__).parents[2] / "../shared/data/extraction/aeb.warc.gz"


def config_for(engine: str, min_probability: float) -> ExtractConfig:
    """The recipe's config with another engine."""
    return dataclasses.replace(
        EXTRACT,
        engine=engine,
        min_probability=min_probability,
        max_depth=min(EXTRACT.max_depth, ENGINES[engine].max_depth),
        max_elements=min(EXTRACT.max_elements, ENGINES[engine].max_elements),
    )


def measure(pages: list[WebPage], config: ExtractConfig, repeats: int) -> tuple[dict[str, object], list[str]]:
    """(the row to print, the texts)."""
    extract_text(pages[0], config)  # imports, tables
    seconds, results = [], []
    for _ in range(repeats):
        started = time.process_time()
        results = [extract_text(page, config) for page in pages]
        seconds.append(time.process_time() - started)
    reasons = collections.Counter(reason for _, reason in results if reason)
    row = {
        "bench": "extraction",
        "engine": config.engine,
        "pages": len(pages),
        "pages_per_cpu_second": round(len(pages) / statistics.median(seconds), 1),
        "no_text": dict(sorted(reasons.items())),
    }
    return row, [text for text, _ in results]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", type=Path, nargs="?", help="a WARC file")
    parser.add_argument("out", type=Path, nargs="?", help="where the texts go")
    parser.add_argument("--engine", choices=sorted(ENGINES), help=f"default: the recipe's, {EXTRACT.engine}")
    parser.add_argument("--min-probability", type=float, default=EXTRACT.min_probability, help="of gristmill")
    parser.add_argument("--repeats", type=int, default=1, help="passes to take the median of (default: 1)")
    arguments = parser.parse_args()
    path = arguments.pages or PAGES
    if not path.exists():
        print(f"extraction: no pages at {path}; give a WARC file")
        sys.exit(1 if arguments.pages else 0)
    pages = list(read_pages(path))
    if not pages:
        sys.exit(f"extraction: {path} holds no page")
    engines = [arguments.engine] if arguments.engine else [EXTRACT.engine] if arguments.pages else list(ENGINES)
    for engine in engines:
        row, texts = measure(pages, config_for(engine, arguments.min_probability), arguments.repeats)
        if arguments.out:
            with arguments.out.open("w", encoding="utf-8") as out:
                for page, text in zip(pages, texts, strict=True):
                    out.write(json.dumps({"url": page.url, "text": text}) + "\n")
        print(json.dumps(row))
    if (python := PEERS / "datatrove/bin/python").exists():
        texts_out = f"{arguments.out}.datatrove" if arguments.out else ""
        command = [str(python), "-c", DATATROVE, str(path), texts_out, str(arguments.repeats)]
        told = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
        print(told.splitlines()[-1])


if __name__ == "__main__":
    main()
