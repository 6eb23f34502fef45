"""The funnel: pages read, and dropped by each rule, with the distribution of each measured signal."""

import dataclasses
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data_prep.config import DocumentsConfig
from data_prep.config.filters import breaks
from data_prep.funnel.counts import CLUSTER_BINS, TOP_DOMAINS
from data_prep.funnel.report import (
    TOP_LANGUAGES,
    Example,
    Written,
    language_funnels,
    read_counts,
    read_examples,
    tallies,
)
from data_prep.verdict import Threshold
from viewer.answers import key_of
from viewer.distributions import columns_of
from viewer.explanations import reason_sentence, signal_words, stage_words
from viewer.page import window_html
from viewer.run_folder import reasons_in_order
from viewer.training_data import finite

RECORDED = 5
"""Documents of each reason in an exported page."""


def funnel_answer(written: Written, config: DocumentsConfig) -> dict[str, Any]:
    """Return the counts of funnel.json as JSON for the page: pages read, and documents dropped by each stage and
    reason, the stages in order and their most frequent reasons first."""
    counts, by_name = written.counts, {(one.stage, one.reason): one for one in written.thresholds}
    stages, entered = [], counts["rows"]
    for stage, rows in itertools.groupby(reasons_in_order(counts, config), lambda row: row[0]):
        title, about = stage_words(stage)
        reasons = [
            {
                "name": f"{stage}/{reason}", "reason": reason, "documents": documents, "bytes": size,
                "about": "" if (stage, reason) in by_name else reason_sentence(stage, reason),
                "threshold": threshold_json(by_name[stage, reason]) if (stage, reason) in by_name else None,
            }
            for _, reason, documents, size in rows
        ]  # fmt: skip
        dropped, size = (sum(one[unit] for one in reasons) for unit in ("documents", "bytes"))
        stages.append({
            "stage": stage, "title": title, "about": about, "entered": entered, "dropped": dropped, "bytes": size,
            "reasons": reasons,
        })  # fmt: skip
        entered -= dropped
    lengths = {int(exponent): documents for exponent, documents in counts["lengths"].items()}
    exponents = range(min(lengths), max(lengths) + 1) if lengths else ()
    clusters, ends = counts.get("cluster_sizes", {}), dict(zip(CLUSTER_BINS, [*CLUSTER_BINS[1:], None], strict=True))
    languages = language_funnels(counts.get("by_language", {}), config)
    return {
        "pages": counts["rows"], "bytes": counts["kept"][1] + sum(one["bytes"] for one in stages),
        "kept": counts["kept"][0], "kept_bytes": counts["kept"][1], "clean_text_bytes": counts["clean_text_bytes"],
        "seen": written.records.seen, "skipped": written.records.skipped, "replaced": counts["replaced"],
        "stages": stages, "thresholds": [threshold_json(one) for one in written.thresholds],
        "signals": [signal_json(signal, written) for signal in dict.fromkeys(one.signal for one in written.thresholds)],
        "languages": [
            dataclasses.astuple(one) for one in tallies(counts["languages"], lambda pair: pair[0], TOP_LANGUAGES)
        ],
        "domains": [dataclasses.astuple(one) for one in tallies(counts["domains"], lambda pair: pair[1], TOP_DOMAINS)],
        "by_language": [dataclasses.asdict(one) | {"dropped": [(t.name, t.documents) for t in one.dropped[:3]]}
                        for one in languages],
        "lengths": [[2**e, 2 ** (e + 1), lengths.get(e, 0)] for e in exponents],
        "clusters": [[low, ends[low], *clusters[str(low)]] for low in sorted(map(int, clusters))],
    }  # fmt: skip


def threshold_json(one: Threshold) -> dict[str, Any]:
    """Return a threshold as JSON, with explanations of its stage and its quality signal."""
    title, sentence = signal_words(one.signal)
    stage, about = stage_words(one.stage)
    return dataclasses.asdict(one) | {"stage_title": stage, "about": about, "title": title, "sentence": sentence}


def signal_json(signal: str, written: Written) -> dict[str, Any]:
    """Return the histogram of a quality signal as JSON, in the columns to draw."""
    thresholds = [one for one in written.thresholds if one.signal == signal]
    columns = columns_of(signal, thresholds, written.counts["values"].get(signal, {}))
    title, sentence = signal_words(signal)
    return {"signal": signal, "title": title, "sentence": sentence} | dataclasses.asdict(columns)


def measured(thresholds: list[Threshold], values: Mapping[str, Any], label: str) -> list[list[Any]]:
    """Return [measured value, threshold, whether the threshold drops the document] for each threshold. `values` are the
    document's signals; `label` is its language, such as "deu_Latn", for thresholds by language."""
    found = []
    for one in thresholds:
        value, line = finite(values.get(one.signal)), one.of_language(label)
        found.append([value, line.value, value is not None and bool(breaks(value, line.drops, line.value))])
    return found


def preview_html(path: Path, texts: Path, config: DocumentsConfig, name: str, changes: list[str] | None) -> str:
    """Return the page of launch.refilter: the counts in `path`, a funnel.json made with other thresholds, and examples
    from texts/. `changes` describes the changed thresholds; None if the run has no counts to compare with."""
    written = read_counts(path)
    examples, near = read_examples(written, texts, config)
    signals = {f"{one.stage}/{one.reason}": one.signal for one in written.thresholds}
    answers = {
        key_of("model", {}): {"name": name},
        key_of("funnel", {}): funnel_answer(written, config) | {"preview": True, "changes": changes},
        key_of("documents", {"limit": RECORDED}): examples_answer(examples.get("kept", ())[:RECORDED], ""),
    }
    for reason in written.counts["reasons"]:
        shown = examples.get(reason, ())[:RECORDED]
        answers[key_of("documents", {"reason": reason, "limit": RECORDED})] = examples_answer(
            shown, signals.get(reason, "")
        )
    for reason, signal in signals.items():
        answers[key_of("beside", {"reason": reason})] = examples_answer(near.get(reason, ()), signal)
    return window_html(answers, pages=("data",))


def examples_answer(examples: tuple[Example, ...], signal: str) -> dict[str, Any]:
    """Return examples in the form of /v1/inspect/documents, each with its value of `signal`; "file" is empty."""
    documents = [
        {"file": "", "row": number, "url": one.url, "beginning": " ".join(one.excerpt.split()), "bytes": one.text_bytes,
         "language": one.language, "value": one.values.get(signal), "passage": ""}
        for number, one in enumerate(examples)
    ]  # fmt: skip
    return {"documents": documents, "next": None, "rows": None, "total": None, "unreadable": []}
