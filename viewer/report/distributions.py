"""Small chart of the distribution of one signal: kept and dropped documents, and the thresholds."""

import itertools
import math
from bisect import bisect_left, bisect_right
from dataclasses import dataclass

from data_prep.funnel.counts import bins_kind
from data_prep.funnel.report import Distribution, ValueBin
from viewer.charts import Chart, draw, hits
from viewer.formats import value

WIDTH, HEIGHT = 360, 96
"""CSS pixels of the chart and height of its plot: two fit next to each other on a wide page, one fills a narrow
page."""
COLUMNS = 60
OUTLIERS, FAR_OUTLIERS = 0.02, 0.002
"""Shares of the documents at either end that need not be visible; the first applies only beyond twice the highest
threshold."""
LEAST_HEIGHT = 0.03
"""Minimum height of a column as a share of the plot, so that a single document among millions is visible."""
UPPER = ("above", "at least")
"""Values of `drops` for thresholds that drop larger values."""
GROUPS = (("elsewhere", "var(--dropped)"), ("dropped", "var(--accent)"), ("kept", "var(--bar)"))
"""Stacked groups, from back to front."""


@dataclass(frozen=True)
class Columns:
    """Binned distribution for drawing; the outermost columns include everything beyond them."""

    edges: list[float]
    """Left edges of the columns, and the right edge of the last one."""
    counts: list[list[int]]
    """[kept, dropped, dropped by other rules] of each column."""
    below: int
    """Documents below the first edge."""
    above: int
    """Documents above the last edge."""
    lowest: float
    highest: float
    """Lower edge of the first bin and upper edge of the last one; for integers, the largest value that it may
    contain."""


def columns_of(distribution: Distribution) -> Columns:
    """Combine the bins of a distribution into about COLUMNS columns at most, with thresholds at edges if possible."""
    bins, lines = distribution.bins, [line_at(distribution, index) for index in range(len(distribution.thresholds))]
    totals = [one.kept + one.dropped + one.elsewhere for one in bins]
    low, high = min(lines), max(lines)
    if bins:
        near, far = (quantile(bins, totals, 1 - share)[1] for share in (OUTLIERS, FAR_OUTLIERS))
        low, high = min(low, quantile(bins, totals, FAR_OUTLIERS)[0]), max(high, near, min(2 * high, far))
    edges = edges_between(distribution, max(0.0, low), high, lines[0])
    counts = [[0, 0, 0] for _ in edges[1:]]
    for one in bins:
        place = min(max(bisect_right(edges, one.low + 1e-9) - 1, 0), len(counts) - 1)
        for group, number in enumerate((one.kept, one.dropped, one.elsewhere)):
            counts[place][group] += number
    below = sum(total for one, total in zip(bins, totals, strict=True) if one.high <= edges[0])
    above = sum(total for one, total in zip(bins, totals, strict=True) if one.low + 1e-9 >= edges[-1])
    whole = bins_kind(distribution.signal) in ("whole", "doubling")
    ends = (bins[0].low, bins[-1].high - whole) if bins else (edges[0], edges[-1])
    return Columns(edges, counts, below, above, *ends)


def quantile(bins: tuple[ValueBin, ...], totals: list[int], share: float) -> tuple[float, float]:
    """Edges of the bin in which that share of the documents is reached."""
    place = bisect_left(list(itertools.accumulate(totals)), share * sum(totals))
    return bins[place].low, bins[place].high


def line_at(distribution: Distribution, index: int) -> float:
    """Position of a threshold: between integers if the signal is an integer."""
    threshold = distribution.thresholds[index]
    beyond = threshold.drops in ("at most", "above")  # the threshold itself is on the side of smaller values
    return threshold.value + (bins_kind(distribution.signal) == "whole" and beyond)


def edges_between(distribution: Distribution, low: float, high: float, line: float) -> list[float]:
    """Edges from `low` to `high`, with a margin; one of them is `line` if the scale is linear."""
    if bins_kind(distribution.signal) == "doubling":
        low, high = math.floor(low / 1.3), math.ceil(high * 1.3) + 1
        inner = {edge for one in distribution.bins for edge in (one.low, one.high) if low <= edge <= high}
        return sorted({*inner, float(low), float(high)})
    if bins_kind(distribution.signal) == "whole":
        step = max(1, math.ceil((high - low + 1) / COLUMNS))
    else:
        widths = [one.high - one.low for one in distribution.bins[:1]] or [0.005]
        step = widths[0] * max(1, math.ceil((high - low) / widths[0] / COLUMNS))
    before, after = math.ceil((line - low) / step - 1e-9), math.ceil((high - line) / step - 1e-9)
    room = 1 if bins_kind(distribution.signal) == "whole" else max(1, round(0.06 * (before + after)))
    wanted = max(before, room)
    before = min(wanted, math.floor(line / step + 1e-9))  # nothing is below 0
    first, last = line - before * step, line + max(after, room) * step
    edges = [round(first + number * step, 9) for number in range(round((last - first) / step) + 1)]
    return [0.0, *edges] if before < wanted and edges[0] > 0 else edges  # the rest above 0 is a narrower column


def height(number: int, most: int) -> float:
    """Height of a column as a share of the plot: proportional to the square root, so that small columns are visible."""
    return max(math.sqrt(number / most), LEAST_HEIGHT) if number else 0.0


def outline(columns: Columns, group: int, most: int) -> list[dict]:
    """Points of the upper edge of one group, stacked on those before it."""
    tops = [height(sum(counts[: group + 1]) if counts[group] else 0, most) for counts in columns.counts]
    return [{"x": edge, "y": top} for edge, top in zip(columns.edges, [*tops, tops[-1]], strict=True)]


def column_values(columns: Columns, whole: bool) -> list[dict]:
    """Range and counts of each column in words."""
    found = []
    for (low, high), (kept, dropped, elsewhere) in zip(itertools.pairwise(columns.edges), columns.counts, strict=True):
        name = value(low) if whole and high - low <= 1 else f"{value(low)} to {value(high)}"
        parts = ((kept, "kept"), (dropped, "dropped by this rule"), (elsewhere, "dropped by another"))
        told = ", ".join(f"{number:,} {what}" for number, what in parts if number) or "none"
        found.append({"low": low, "high": high, "values": f"{name}: {told}"})
    return found


def distribution_chart(distribution: Distribution, columns: Columns, label: str) -> Chart:
    """Stacked columns of three groups, with each threshold as a line; its dropped side is tinted."""
    most = max((sum(counts) for counts in columns.counts), default=0) or 1
    first, last = columns.edges[0], columns.edges[-1]
    x_scale = {
        "type": "symlog" if bins_kind(distribution.signal) == "doubling" else "linear",
        "domain": [first, last],
        "nice": False,
    }
    x_axis = {"title": None, "grid": False, "domain": True, "labelFlush": False, **ticks(distribution, columns)}
    x = {"field": "x", "type": "quantitative", "scale": x_scale, "axis": x_axis}
    # Labels are the squares of the axis positions.
    number = f"format(round(datum.value * datum.value * {most}), {most} < 10000 ? ',d' : '.2~s')"
    y_axis = {"title": None, "values": [math.sqrt(n / most) for n in round_numbers(most)], "labelExpr": number}
    y = {"field": "y", "type": "quantitative", "scale": {"domain": [0, 1.02], "nice": False}, "axis": y_axis}
    layers: list[dict] = []
    lines = [(line_at(distribution, index), one) for index, one in enumerate(distribution.thresholds)]
    for at, one in lines:
        side = {"x": at, "end": last if one.drops in UPPER else first}
        shade = {"x": x, "x2": {"field": "end"}, "y": {"value": 0}, "y2": {"value": HEIGHT}}
        layers.append({"data": {"values": [side]}, "mark": {"type": "rect", "color": "var(--tint)"}, "encoding": shade})
    for group, (name, color) in zip((2, 1, 0), GROUPS, strict=True):
        area = {"type": "area", "color": color, "interpolate": "step-after", "description": name}
        values = outline(columns, group, most)
        layers.append({"data": {"values": values}, "mark": area, "encoding": {"x": x, "y": y, "y2": {"datum": 0}}})
    for at, one in lines:
        data = {
            "values": [{"x": at, "name": f"{value(one.value)} →" if one.drops in UPPER else f"← {value(one.value)}"}]
        }
        scale = math.log1p if bins_kind(distribution.signal) == "doubling" else float
        place = (scale(at) - scale(first)) / (scale(last) - scale(first))
        left = place > (0.8 if one.drops in UPPER else 0.2)
        text = {
            "type": "text", "align": "right" if left else "left", "dx": 3 if left else -3, "y": -9, "fontSize": 12,
            "fontWeight": 600, "color": "var(--accent)",
        }  # fmt: skip
        rule = {"type": "rule", "color": "var(--accent)", "strokeWidth": 1.5}
        layers.append({"data": data, "mark": rule, "encoding": {"x": x}})
        layers.append({"data": data, "mark": text, "encoding": {"x": x, "text": {"field": "name"}}})
    whole = bins_kind(distribution.signal) == "whole"
    over = hits({"x": {**x, "field": "low"}, "x2": {"field": "high"}, "y": {"value": 0}, "y2": {"value": HEIGHT}})
    layers.append({"data": {"values": column_values(columns, whole)}, **over})
    return Chart((draw(layers, label, "every", WIDTH, HEIGHT, (44, 12, 22, 26)),), label)


def ticks(distribution: Distribution, columns: Columns) -> dict[str, object]:
    """Ticks of the horizontal axis."""
    if bins_kind(distribution.signal) == "doubling":
        numbers = [0, *(base * 10**power for power in range(7) for base in (1, 3))]
        label = "datum.value < 1000 ? datum.value : datum.value / 1000 + 'k'"
        return {"values": [n for n in numbers if columns.edges[0] <= n <= columns.edges[-1]], "labelExpr": label}
    if bins_kind(distribution.signal) == "whole":  # in the middle of their columns
        step = max(1, math.ceil((columns.edges[-1] - columns.edges[0]) / 10))
        numbers = range(int(columns.edges[0]), int(columns.edges[-1]), step)
        more = f"datum.value > {columns.edges[-1] - 1} ? '+' : ''" if columns.above else "''"
        return {"values": [n + 0.5 for n in numbers], "labelExpr": f"format(datum.value - 0.5, ',d') + ({more})"}
    return {"tickCount": 5, "labelExpr": "format(datum.value, '.4~g')"}


def round_numbers(most: int) -> list[int]:
    """0 and two or three round numbers up to `most`, well separated on a square-root scale."""
    numbers = [base * 10**power for power in range(len(str(most))) for base in (1, 2, 5) if base * 10**power <= most]
    chosen = numbers[-1:]
    for number in reversed(numbers):
        if 0.2 < math.sqrt(number / most) < math.sqrt(chosen[-1] / most) - 0.28:
            chosen.append(number)
    return [0, *reversed(chosen)]
