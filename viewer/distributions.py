"""Columns of the distribution of one signal: kept and dropped documents, and the thresholds."""

import itertools
import math
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from data_prep.funnel.counts import GROUPS, bin_edges, bins_kind
from data_prep.verdict import Threshold

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
