"""The funnel: pages read, and dropped by each rule, with the distribution of each measured signal."""

import dataclasses
import itertools
import math
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.config import DocumentsConfig
from data_prep.config.filters import breaks
from data_prep.funnel.counts import CLUSTER_BINS, GROUPS, TOP_DOMAINS, bin_edges, bins_kind
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
from viewer.explanations import reason_sentence, signal_words, stage_words
from viewer.page import key_of, window_html
from viewer.run_folder import reasons_in_order
from viewer.training_data import finite

COLUMNS = 60
OUTLIERS, FAR_OUTLIERS = 0.02, 0.002
"""Shares of documents at either end that need not be visible; the first only beyond twice the highest threshold."""


@dataclass(frozen=True)
class Columns:
    """Histogram of a quality signal, as drawn. The first and the last column include everything beyond them."""

    kind: str
    """"whole" for integers, "doubling" for a logarithmic scale, or "share" for fractions."""
    edges: list[float]
    """Left edges of the columns, and the right edge of the last one."""
    counts: list[list[int]]
    """[kept, dropped by this signal's thresholds, dropped by other rules] documents of each column."""
    lines: list[float]
    """Where to draw each threshold; for integers, between two columns."""
    below: int
    """Documents below the first edge."""
    above: int
    """Documents above the last edge."""
    lowest: float
    """Lower edge of the first bin."""
    highest: float
    """Lower edge of the first bin and upper edge of the last one; for integers, the largest value in it."""


def columns_of(signal: str, thresholds: Sequence[Threshold], groups: Mapping[str, Mapping[str, int]]) -> Columns:
    """Combine the bins of a signal's histogram in funnel.json into about COLUMNS columns, with thresholds at edges if
    possible. `groups` is {"kept", "dropped" or "elsewhere" (by other rules): {bin number: documents}}."""
    width = bins_kind(signal)
    kind = width if isinstance(width, str) else "share"
    numbers = sorted({int(number) for group in groups.values() for number in group})
    bins = [bin_edges(signal, number) for number in numbers]
    counted = [[groups[group].get(str(number), 0) for group in GROUPS] for number in numbers]
    totals = [sum(counts) for counts in counted]
    # A threshold that drops larger values is at the upper end of its integer.
    lines = [one.value + (kind == "whole" and one.drops in ("at most", "above")) for one in thresholds]
    low, high = min(lines), max(lines)
    if bins:
        near, far = (quantile(bins, totals, 1 - share)[1] for share in (OUTLIERS, FAR_OUTLIERS))
        low, high = min(low, quantile(bins, totals, FAR_OUTLIERS)[0]), max(high, near, min(2 * high, far))
    edges = edges_between(kind, bins, max(0.0, low), high, lines[0])
    columns = np.zeros((len(edges) - 1, len(GROUPS)), int)
    for (start, _), counts in zip(bins, counted, strict=True):
        columns[np.clip(bisect_right(edges, start + 1e-9) - 1, 0, len(columns) - 1)] += counts
    below = sum(total for (_, end), total in zip(bins, totals, strict=True) if end <= edges[0])
    above = sum(total for (start, _), total in zip(bins, totals, strict=True) if start + 1e-9 >= edges[-1])
    ends = (bins[0][0], bins[-1][1] - (kind != "share")) if bins else (edges[0], edges[-1])
    return Columns(kind, edges, columns.tolist(), lines, below, above, *ends)


def quantile(bins: list[tuple[float, float]], totals: list[int], share: float) -> tuple[float, float]:
    """Return the edges of the bin in which the cumulative share of documents (`totals`, by bin) reaches `share`."""
    return bins[bisect_left(list(itertools.accumulate(totals)), share * sum(totals))]


def edges_between(kind: str, bins: list[tuple[float, float]], low: float, high: float, line: float) -> list[float]:
    """Return column edges from `low` to `high` plus a margin. The threshold `line` is one of them, if possible."""
    if kind == "doubling":
        low, high = math.floor(low / 1.3), math.ceil(high * 1.3) + 1
        inner = {edge for pair in bins for edge in pair if low <= edge <= high}
        return sorted({*inner, float(low), float(high)})
    if kind == "whole":
        step = max(1, math.ceil((high - low + 1) / COLUMNS))
    else:
        width = bins[0][1] - bins[0][0] if bins else 0.005
        step = width * max(1, math.ceil((high - low) / width / COLUMNS))
    before, after = math.ceil((line - low) / step - 1e-9), math.ceil((high - line) / step - 1e-9)
    margin = 1 if kind == "whole" else max(1, round(0.06 * (before + after)))
    wanted = max(before, margin)
    before = min(wanted, math.floor(line / step + 1e-9))  # nothing is below 0
    first, last = line - before * step, line + max(after, margin) * step
    edges = [round(first + number * step, 9) for number in range(round((last - first) / step) + 1)]
    return [0.0, *edges] if before < wanted and edges[0] > 0 else edges  # the rest above 0 is a narrower column


RECORDED = 5
"""Documents of each reason in an exported page."""


def funnel_answer(written: Written, config: DocumentsConfig) -> dict[str, Any]:
    """Return the counts of funnel.json as JSON for the page: pages read, and documents dropped by each stage and
    reason, the stages in order and their most frequent reasons first."""
    counts, by_name = written.counts, {(one.stage, one.reason): one for one in written.thresholds}
    stages, entered = [], counts["rows"]
    for stage, rows in itertools.groupby(reasons_in_order(counts, config), lambda row: row[0]):
        title, about = stage_words(stage)
        reasons: list[dict[str, Any]] = [
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
