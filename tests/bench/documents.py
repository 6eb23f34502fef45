"""The whole way from a WARC file to documents in one process, MinHash off, beside which stands datatrove's FineWeb.

    python -m tests.bench.documents PAGES.warc.gz OUT_DIR

Writes OUT_DIR/decisions.jsonl ({"url", "decision": "kept" or the stage, "reason"}) and prints one JSON line. The clock
starts before anything heavy is imported and before the lists are loaded; start_up_seconds is what passes until the
first page is read. The URL lists lie in the user's cache, as they do for the peer.
"""

import argparse
import dataclasses
import json
import shutil
import time
from pathlib import Path

SAMPLE = Path(__file__).parents[2] / "../shared/data/extraction/aeb.warc.gz"


def main() -> None:
    begun = time.perf_counter()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("warc", type=Path, nargs="?", default=SAMPLE)
    parser.add_argument("out", type=Path, nargs="?", default=Path("/tmp/gristmill-bench-documents"))
    arguments = parser.parse_args()
    if not arguments.warc.is_file():
        print(json.dumps({"benchmark": "documents", "skipped": f"there is no {arguments.warc}"}))
        return
    from configs.fineweb import get_config
    from data_prep.measure.row import warm_up
    from data_prep.measure.run import extract_texts
    from data_prep.parquet import read_rows
    from data_prep.select.run import prepare_documents
    from data_prep.sources import InputFile
    from data_prep.url_filter.filter import prepare_lists

    config = get_config().documents
    steps = tuple(step for step in config.steps if step not in ("exact_dedup", "minhash_dedup"))
    config = dataclasses.replace(config, steps=steps)
    out = arguments.out
    shutil.rmtree(out, ignore_errors=True)
    prepare_lists(config.url_filter)
    warm_up(config)
    start_up = time.perf_counter() - begun
    warc = InputFile(arguments.warc.resolve(), arguments.warc.name, "warc", arguments.warc.stat().st_size)
    extract_texts([warc], config, out)
    outcome = prepare_documents(out / "texts", config, out)
    wall = time.perf_counter() - begun
    with (out / "decisions.jsonl").open("w", encoding="utf-8") as file:
        for folder in ("documents", "dropped"):
            for path in sorted((out / folder).glob("*.parquet")):
                for row in read_rows(path):
                    decision, reason = row.get("stage") or "kept", row.get("reason")
                    line = {"url": row["url"], "decision": decision, "reason": reason, "text": row["text"]}
                    file.write(json.dumps(line, ensure_ascii=False) + "\n")
    print(
        json.dumps(
            {
                "benchmark": "documents",
                "read": outcome.pages,
                "kept": outcome.kept,
                "wall_seconds": round(wall, 3),
                "start_up_seconds": round(start_up, 3),
                "documents_per_second": round(outcome.pages / wall, 1),
            }
        )
    )


if __name__ == "__main__":
    main()
