"""From a WARC file to documents in one process, without MinHash; the peer is datatrove's FineWeb example.

    python -m tests.bench.documents PAGES.warc.gz OUT_DIR

Writes OUT_DIR/decisions.jsonl ({"url", "decision": "kept" or the stage, "reason", "text"}). The time includes imports
and loading the URL lists, which are in the user's cache; start_up_seconds is the time before the first page.
"""

import dataclasses
import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import tyro

from tests.bench.runner import ARTICLES, require_file, run_benchmark


def main(
    warc: tyro.conf.Positional[Path] = ARTICLES,
    out: tyro.conf.Positional[Path] = Path("/tmp/gristmill-bench-documents"),
) -> Iterator[dict[str, object]]:
    begun = time.perf_counter()
    require_file(warc)
    from configs.fineweb import get_config
    from data_prep.measure.row import warm_up
    from data_prep.measure.run import extract_texts
    from data_prep.parquet import read_rows
    from data_prep.prepare import prepare_documents
    from data_prep.sources import InputFile
    from data_prep.url_filter.filter import prepare_lists

    config = get_config().documents
    steps = tuple(step for step in config.steps if step not in ("exact_dedup", "minhash_dedup"))
    config = dataclasses.replace(config, steps=steps)
    shutil.rmtree(out, ignore_errors=True)
    prepare_lists(config.url_filter)
    warm_up(config)
    start_up = time.perf_counter() - begun
    extract_texts([InputFile(warc.resolve(), warc.name, "warc", warc.stat().st_size)], config, out)
    outcome = prepare_documents(out / "texts", config, out)
    wall = time.perf_counter() - begun
    with (out / "decisions.jsonl").open("w", encoding="utf-8") as file:
        for folder in ("documents", "dropped"):
            for path in sorted((out / folder).glob("*.parquet")):
                for row in read_rows(path):
                    decision, reason = row.get("stage") or "kept", row.get("reason")
                    line = {"url": row["url"], "decision": decision, "reason": reason, "text": row["text"]}
                    file.write(json.dumps(line, ensure_ascii=False) + "\n")
    yield {
        "read": outcome.pages,
        "kept": outcome.kept,
        "wall_seconds": round(wall, 3),
        "start_up_seconds": round(start_up, 3),
        "documents_per_second": round(outcome.pages / wall, 1),
    }


if __name__ == "__main__":
    run_benchmark(main)
