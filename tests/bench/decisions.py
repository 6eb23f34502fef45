"""Do our quality rules drop the documents that DataTrove's drop?

    python -m tests.bench.decisions DECISIONS.jsonl

Each line is one document: {"url", "decision": "kept" or the filter's name, "reason", "text"}, as DataTrove's four
quality filters with FineWeb's thresholds decided. Rows that were dropped before those filters are left out. Prints one
JSON line: documents, the shares with the same verdict (kept or dropped) and the same stage, and each disagreement with
both reasons and our value.
"""

import argparse
import dataclasses
import json
import time
from pathlib import Path

import pyarrow as pa

from configs.demo import get_config
from configs.recipes import gristmill as recipe
from data_prep.config import DocumentsConfig
from data_prep.measure.row import text_schema, values_of
from data_prep.verdict import verdicts

STAGES = ("gopher_repetition", "gopher_quality", "c4", "fineweb")


def fineweb_config() -> DocumentsConfig:
    """FineWeb's four quality filters with its thresholds."""
    return dataclasses.replace(
        get_config().documents,
        steps=STAGES,
        gopher_repetition=recipe.GOPHER_REPETITION,
        gopher_quality=recipe.GOPHER_QUALITY,
        c4=recipe.C4,
        fineweb=recipe.FINEWEB,
    )


def compare(rows: list[dict[str, str]], config: DocumentsConfig) -> dict[str, object]:
    """What is printed, of rows that DataTrove's filters decided."""
    start = time.process_time()
    measured = [{"language": "en", "language_score": 1.0, **values_of(row["text"], config)} for row in rows]
    found = verdicts(pa.Table.from_pylist(measured, text_schema(config)), config, min_quality=None)
    seconds = time.process_time() - start
    signals = {(one.name, rule.reason): rule.signal for one in config.filters for rule in one.rules if rule.option}
    same_stage, disagreements = 0, []
    for row, values, verdict in zip(rows, measured, found, strict=True):
        ours, reason = verdict or ("kept", "kept")
        same_stage += ours == row["decision"]
        if (ours == "kept") != (row["decision"] == "kept"):
            signal = signals.get((ours, reason))
            value = {"value": values[signal]} if signal else {}
            disagreements.append({"url": row["url"], "ours": reason, **value, "datatrove": row["reason"] or "kept"})
    return {
        "documents": len(rows),
        "same_verdict": round(1 - len(disagreements) / len(rows), 5),
        "same_stage": round(same_stage / len(rows), 5),
        "documents_per_cpu_second": round(len(rows) / seconds),
        "disagreements": disagreements,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("decisions", nargs="?", type=Path, help="JSON lines of DataTrove's decisions, with the texts")
    decisions = parser.parse_args().decisions
    if decisions is None or not decisions.exists():
        print("decisions: no file of DataTrove's decisions given or found; bench/datatrove_fineweb.py writes one.")
        return
    with decisions.open(encoding="utf-8") as lines:
        rows = [row for row in map(json.loads, lines) if row["decision"] in ("kept", *STAGES) and row["text"]]
    if not rows:
        print(f"decisions: {decisions} holds no row that a quality filter decided.")
        return
    print(json.dumps({"bench": "decisions", **compare(rows, fineweb_config())}, ensure_ascii=False))


if __name__ == "__main__":
    main()
