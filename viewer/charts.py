"""Charts as static SVG, rendered by Vega-Lite (Satyanarayan et al. 2017, doi:10.1109/TVCG.2016.2599030) without a
browser.

Colors are CSS variables, so one SVG works in light mode, dark mode and print. Each chart is rendered for a wide and a
narrow page with the same font size, and CSS shows the one that fits. Every bar and column is covered by a transparent
mark with its values as <title>, which browsers show on hover and the script of the page reads.
"""

import json
import math
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTHS = {"wide": 760, "narrow": 340}
"""Width of a chart in CSS pixels on a wide and on a narrow page."""
SMALL_WIDTHS = {"wide": 236, "narrow": 340}
"""Width of small multiples, three next to each other on a wide page."""
FONT = "var(--sans)"
POINTS = 500
"""Maximum points of a curve: more cannot be distinguished on a screen."""
SPIKE = 20
"""A curve whose maximum is more than this many times its median gets a logarithmic axis."""
HIT = re.compile(r'<path aria-label="([^"]*)" role="graphics-symbol" aria-roledescription="rect mark" (d="[^"]*")/>')
"""A transparent mark with the values of the mark that it covers."""


@dataclass(frozen=True)
class Drawing:
    """One SVG, and the position of its plot in CSS pixels from the top left corner."""

    size: str
    """"wide", "narrow" or "every": the pages to show it on; a CSS class."""
    svg: str
    left: int
    top: int
    width: int
    height: int


@dataclass(frozen=True)
class Chart:
    """A figure and its description in words."""

    drawings: tuple[Drawing, ...]
    label: str
    """Title and one sentence about the content: the accessible name of each drawing."""
    rows: tuple[tuple[str, str], ...] = ()
    """(name, value) of every bar or column, for a table."""
    readout: str = ""
    """JSON for the script that reads values off curves: domains, names, colors, points."""


@dataclass(frozen=True)
class Bar:
    """One bar of a bar chart."""

    label: str
    value: float
    """Length of the bar."""
    note: str
    """Text at the end of its line."""
    rest: float = 0.0
    """Length of a second, lighter part after it: in the funnel, the dropped documents."""
    strong: bool = False
    """Whether to highlight the bar."""


@dataclass(frozen=True)
class Series:
    """One curve."""

    name: str
    color: str
    """A CSS color, usually var(--…)."""
    points: tuple[tuple[float, float], ...]
    dots: bool = False
    """Mark each point, for few, exact values."""
    width: float = 1.5


def draw(
    layers: list[dict], label: str, size: str, whole: int, height: int, padding: tuple[int, int, int, int], **spec
) -> Drawing:
    """Render layers to an SVG of width `whole`, with the plot at a fixed position; `padding` is left, top, right,
    bottom.

    `label` is its accessible name.
    """
    import vl_convert

    left, top, right, bottom = padding
    width = whole - left - right
    axis = {
        "labelColor": "var(--muted)", "titleColor": "var(--muted)", "gridColor": "var(--rule)", "labelFont": FONT,
        "domainColor": "var(--rule)", "tickColor": "var(--rule)", "titleFont": FONT, "labelFontSize": 12,
        "titleFontSize": 12, "titleFontWeight": "normal", "labelPadding": 6, "ticks": False, "domain": False,
    }  # fmt: skip
    chart = {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "autosize": "none",
        "background": None,
        "width": width,
        "height": height,
        "padding": {"left": left, "top": top, "right": right, "bottom": bottom},
        "layer": layers,
        "config": {
            "view": {"stroke": None},
            "axis": axis,
            "text": {"font": FONT, "fontSize": 13, "color": "var(--ink)"},
        },
        **spec,
    }
    svg = vl_convert.vegalite_to_svg(chart)
    svg = svg.replace("<svg ", f'<svg role="img" aria-label="{escape(label)}" ', 1)
    svg = HIT.sub(r'<path class="hit" \2><title>\1</title></path>', svg)
    return Drawing(size, svg, left, top, width, height)


def bars(rows: list[Bar], label: str) -> Chart:
    """Horizontal bars, each below a line with its label and its note; an empty chart if there are no rows."""
    if not rows:
        return Chart((), label)
    pitch, thickness = 46, 14
    longest = max((row.value + row.rest for row in rows), default=0) or 1
    values = [
        {
            "label": row.label, "note": row.note, "value": row.value, "end": row.value + row.rest, "y": i * pitch + 14,
            "low": i * pitch + 24, "high": i * pitch + 24 + thickness, "strong": row.strong,
            "top": i * pitch, "foot": (i + 1) * pitch, "values": f"{row.label}: {row.note}",
        }
        for i, row in enumerate(rows)
    ]  # fmt: skip
    height = pitch * len(rows)
    x = {"type": "quantitative", "scale": {"domain": [0, longest], "nice": False}, "axis": None}
    y = {"type": "quantitative", "scale": {"domain": [0, height], "reverse": True, "nice": False}, "axis": None}
    ends = {"y": {"field": "low", **y}, "y2": {"field": "high"}}
    color = {"condition": {"test": "datum.strong", "value": "var(--accent)"}, "value": "var(--bar)"}
    layers = [
        {
            "mark": {"type": "rect", "color": "var(--dropped)"},
            "encoding": {"x": {"field": "value", **x}, "x2": {"field": "end"}, **ends},
        },
        {"mark": "rect", "encoding": {"x": {"field": "value", **x}, "x2": {"datum": 0}, **ends, "color": color}},
        {
            "mark": {"type": "text", "align": "left", "x": 0, "fontWeight": 600},
            "encoding": {"text": {"field": "label"}, "y": {"field": "y", **y}},
        },
        {
            "mark": {"type": "text", "align": "right", "x": "width", "color": "var(--muted)"},
            "encoding": {"text": {"field": "note"}, "y": {"field": "y", **y}},
        },
        hits({"y": {"field": "top", **y}, "y2": {"field": "foot"}, "x": {"value": 0}, "x2": {"value": "width"}}),
    ]
    drawings = (
        draw(layers, label, size, width, height, (0, 0, 1, 0), data={"values": values})
        for size, width in WIDTHS.items()
    )
    return Chart(tuple(drawings), label, tuple((row.label, row.note) for row in rows))


def hits(encoding: dict) -> dict:
    """Layer of transparent marks with the values ("values" of the data) of the marks below them."""
    mark = {"type": "rect", "color": "transparent"}
    return {"mark": mark, "encoding": encoding | {"description": {"field": "values"}}}


def histogram(
    bins: Sequence[tuple[float, float, int]], title: str, label: str, logarithmic: bool, names: list[str]
) -> Chart:
    """Columns from `low` to `high` with the count as height; `title` is the horizontal axis and its unit, `names` are
    the columns in words.

    An empty chart if there are no bins.
    """
    if not bins:
        return Chart((), label)
    rows = tuple((name, f"{number:,}") for name, (_, _, number) in zip(names, bins, strict=True))
    values = [
        {"low": low, "high": high, "count": count, "values": ": ".join(row)}
        for row, (low, high, count) in zip(rows, bins, strict=True)
    ]
    scale = {"type": "log", "base": 2} if logarithmic else {"type": "linear"}
    edges = [edge for low, high, _ in bins for edge in (low, high)]
    most = max((number for _, _, number in bins), default=0)
    number = "format(datum.value, ',d')" if most <= 50_000 else "datum.value ? format(datum.value, '~s') : '0'"
    y_axis = {"title": None, "tickCount": min(4, most), "labelExpr": number}
    drawings = []
    for size, width in WIDTHS.items():
        x_axis: dict[str, object] = {"title": title, "grid": False, "titlePadding": 10, "domain": True}
        if logarithmic:
            edges_named = [low for low, _, _ in bins][:: 1 if size == "wide" else 2]
            x_axis |= {"values": edges_named, "labelExpr": BINARY_LABEL, "labelFlush": False}
        else:
            x_axis |= {"format": "d", "tickCount": 10 if size == "wide" else 5}
        x_scale = {**scale, "domain": [min(edges), max(edges)], "nice": False}
        x = {"field": "low", "type": "quantitative", "scale": x_scale, "axis": x_axis}
        y = {"field": "count", "type": "quantitative", "axis": y_axis}
        mark = {"type": "rect", "color": "var(--bar)", "stroke": "var(--paper)", "strokeWidth": 2}
        layers = [
            {"mark": mark, "encoding": {"x": x, "x2": {"field": "high"}, "y": y, "y2": {"datum": 0}}},
            hits({"x": x, "x2": {"field": "high"}, "y": {"value": 0}, "y2": {"value": "height"}}),
        ]
        drawings.append(draw(layers, label, size, width, 170, (44, 10, 8, 48), data={"values": values}))
    return Chart(tuple(drawings), label, rows)


BINARY_LABEL = (
    "datum.value < 1024 ? datum.value : datum.value < 1048576 ? datum.value / 1024 + 'K' : datum.value / 1048576 + 'M'"
)


def thin(points: tuple[tuple[float, float], ...]) -> list[tuple[float, float]]:
    """Average stretches of equal length to at most POINTS points; drops non-finite points."""
    finite = [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
    if len(finite) <= POINTS:
        return finite
    groups = [finite[len(finite) * i // POINTS : len(finite) * (i + 1) // POINTS] for i in range(POINTS)]
    return [(group[-1][0], sum(y for _, y in group) / len(group)) for group in groups]


def domain(values: list[float], from_zero: bool) -> tuple[float, float]:
    """Range of an axis, with a small margin."""
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    if from_zero:
        low = min(0.0, low)
    air = 0.05 * ((high - low) or abs(high) or 1.0)
    return (low if from_zero else low - air), high + air


def has_spike(series: list[Series]) -> bool:
    """Whether one value exceeds the others so much that a linear axis would show nothing else; False if a value is not
    positive."""
    values = [y for one in series for _, y in one.points if math.isfinite(y)]
    return bool(values) and min(values) > 0 and max(values) > SPIKE * statistics.median(values)


def powers(low: float, high: float) -> list[float]:
    """Ticks of a logarithmic axis: powers of ten, and multiples of them if there are few."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1,) if math.log10(high / low) > 3 else (1, 2, 5) if math.log10(high / low) < 1 else (1, 3)
    return [factor * 10.0**power for power in decades for factor in factors if low <= factor * 10.0**power <= high]


def curves(
    title: str,
    series: list[Series],
    height: int,
    small: bool = False,
    from_zero: bool = True,
    reference: tuple[float, str] | None = None,
    number: str = "~g",
    logarithmic: bool = False,
) -> Chart:
    """Curves over the training steps, with the data for reading values off them.

    `reference` is a height and its name, drawn as a dotted line; `number` is a d3-format.
    """
    thinned = [thin(one.points) for one in series]
    x_domain = (0, max((x for points in thinned for x, _ in points), default=1) or 1)
    heights = [y for points in thinned for _, y in points] + ([reference[0]] if reference else [])
    y_domain = (min(heights) / 1.1, max(heights) * 1.1) if logarithmic else domain(heights, from_zero)
    readout = {
        "x": x_domain,
        "y": y_domain,
        "logarithmic": logarithmic,
        "series": [{"name": s.name, "color": s.color, "points": p} for s, p in zip(series, thinned, strict=True)],
    }
    ends = (f"{s.name}: from {p[0][1]:.4g} to {p[-1][1]:.4g}" for s, p in zip(series, thinned, strict=True) if p)
    label = f"{title}, over the steps of training. {'; '.join(ends)}."
    drawings = []
    for size, width in (SMALL_WIDTHS if small else WIDTHS).items():
        x_axis = {
            "title": "step", "grid": False, "titlePadding": 8, "domain": True, "tickCount": max(3, width // 95),
            "format": ",d" if x_domain[1] < 100_000 else "~s",
        }  # fmt: skip
        y_axis = {"title": None, "tickCount": max(3, height // 55), "labelExpr": f"format(datum.value, '{number}')"}
        x_scale, y_scale = ({"domain": ends, "nice": False, "zero": False} for ends in (x_domain, y_domain))
        if logarithmic:
            y_scale = {"type": "log", "domain": y_domain, "nice": False}
            y_axis["values"] = powers(*y_domain)
        x = {"field": "x", "type": "quantitative", "scale": x_scale, "axis": x_axis}
        y = {"field": "y", "type": "quantitative", "scale": y_scale, "axis": y_axis}
        layers = reference_layers(*reference, y) if reference else []
        for one, points in zip(series, thinned, strict=True):
            layers.append(curve_layer(one, points, x, y))
        drawings.append(draw(layers, label, size, width, height, (46, 20 if reference else 6, 12, 44)))
    return Chart(tuple(drawings), label, readout=json.dumps(readout))


def curve_layer(one: Series, points: list[tuple[float, float]], x: dict, y: dict) -> dict:
    """Layer of one curve; `x` and `y` are the encodings shared by all curves."""
    mark: dict[str, object] = {"type": "line", "color": one.color, "strokeWidth": one.width, "strokeJoin": "round"}
    if one.dots or len(points) == 1:
        mark["point"] = {"color": one.color, "size": 36, "filled": True}
    values = [{"x": at, "y": value} for at, value in points]
    return {"data": {"values": values}, "mark": mark, "encoding": {"x": x, "y": y}}


def reference_layers(height: float, name: str, y: dict) -> list[dict]:
    """A dotted line at `height`, with its name above its right end."""
    data = {"values": [{"y": height, "name": name}]}
    rule = {"type": "rule", "strokeDash": [2, 4], "color": "var(--muted)"}
    text = {"type": "text", "align": "right", "x": "width", "dy": -9, "color": "var(--muted)", "fontSize": 12}
    return [
        {"data": data, "mark": rule, "encoding": {"y": y}},
        {"data": data, "mark": text, "encoding": {"y": y, "text": {"field": "name"}}},
    ]
