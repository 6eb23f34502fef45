"""Page of a ladder: each rung on the curve of the law for its size, and the lowest loss by FLOPs."""

import math
from pathlib import Path

import numpy as np

from lm.scaling.law import INTERVAL
from lm.scaling.study import CONSTANTS, Measured, Study, short
from viewer.charts import FONT, WIDTHS, Chart, draw
from viewer.templates import fill

HERE = Path(__file__).parent
POINTS = 40
"""Points of a curve."""
PADDING = (46, 12, 64, 48)


def logarithmic(title: str, ends: tuple[float, float], **axis: object) -> dict:
    """Encoding of a logarithmic horizontal axis, without its field."""
    shown = {"title": title, "grid": False, "titlePadding": 8, "domain": True, "tickCount": 6, "format": "~s"} | axis
    return {"type": "quantitative", "scale": {"type": "log", "domain": ends, "nice": False}, "axis": shown}


def layer(mark: dict, values: list[dict], **encoding: dict) -> dict:
    return {"data": {"values": values}, "mark": mark, "encoding": encoding}


def spaced(low: float, high: float) -> list[float]:
    return np.geomspace(low, high, POINTS).tolist()


def height_of(losses: list[float]) -> dict:
    """Encoding of a loss on the vertical axis, without its field."""
    air = 0.05 * (max(losses) - min(losses)) or 0.1
    domain = [min(losses) - air, max(losses) + air]
    axis = {"title": None, "tickCount": 6, "format": ".2f"}
    return {"type": "quantitative", "scale": {"domain": domain, "nice": False, "zero": False}, "axis": axis}


def tokens_chart(study: Study) -> Chart:
    """Loss by tokens: a curve of the law for each size, with the measurements."""
    everything = (*study.fitted, *study.held_out)
    law, lengths = study.fit.law, [one.rung.tokens for one in everything]
    ends = (min(lengths) / 1.15, max(lengths) * 1.15)
    lines, names, heights = [], [], []
    held_out = {one.rung.parameters for one in study.held_out}
    for size in sorted({one.rung.parameters for one in everything}):
        kind = "held out" if size in held_out else "fitted"
        losses = [(at, law.loss(size, at)) for at in spaced(*ends)]
        heights += [loss for _, loss in losses]
        lines += [{"x": at, "y": loss, "size": size, "kind": kind} for at, loss in losses]
        names.append({"x": ends[1], "y": losses[-1][1], "name": short(size), "kind": kind})
    points = [
        {"x": one.rung.tokens, "y": one.loss, "kind": "held out" if one.rung.held_out else "fitted"}
        for one in everything
    ]
    bars = [
        {"x": one.rung.tokens, "low": found.low, "high": found.high}
        for one in study.held_out for found in [study.prediction(one)]
    ]  # fmt: skip
    ends_of_bars = (end for one in bars for end in (one["low"], one["high"]))
    y = height_of([*heights, *(one.loss for one in everything), *ends_of_bars])
    color = {"condition": {"test": "datum.kind == 'held out'", "value": "var(--accent)"}, "value": "var(--second)"}
    label = (
        f"Loss in nats a token by tokens of training: {len(study.fitted)} rungs on curves fitted to them"
        + "".join(
            f"; {short(one.rung.parameters)} parameters, held out, were predicted {study.prediction(one).value:.3f} "
            f"and measured {one.loss:.3f}" for one in study.held_out
        )
    )  # fmt: skip
    drawings = []
    for size, width in WIDTHS.items():
        x = logarithmic("tokens", ends, tickCount=4 if size == "narrow" else 8)
        xy = {"x": {"field": "x"} | x, "y": {"field": "y"} | y}
        line = {"type": "line", "strokeWidth": 1.3}
        layers = [
            layer(line, lines, detail={"field": "size"}, color=color, **xy),
            layer(
                {"type": "rule", "color": "var(--accent)", "strokeWidth": 6, "opacity": 0.35}, bars,
                x=xy["x"], y={"field": "low"} | y, y2={"field": "high"},
            ),
            layer({"type": "point", "filled": True, "size": 46, "opacity": 1}, points, color=color, **xy),
            layer({"type": "text", "align": "left", "dx": 4, "font": FONT, "fontSize": 12}, names,
                  text={"field": "name"}, color=color, **xy),
        ]  # fmt: skip
        drawings.append(draw(layers, label, size, width, 320, PADDING))
    return Chart(tuple(drawings), label + ".")


def budget_chart(study: Study) -> Chart:
    """Loss by FLOPs: the rungs, and the lowest loss of the law for each budget, with its interval."""
    everything = (*study.fitted, *study.held_out)
    most = max(study.budget, *(one.flops for one in everything))
    ends = (min(study.budget, *(one.flops for one in everything)) / 1.5, most * 1.5)
    best = []
    for flops in spaced(*ends):
        losses = [law.loss(*law.optimum(flops)) for law in study.fit.draws]
        low, high = np.percentile(losses, INTERVAL).tolist()
        best.append({"x": flops, "y": study.fit.law.loss(*study.fit.law.optimum(flops)), "low": low, "high": high})
    points = [{"x": one.flops, "y": one.loss, "held": one.rung.held_out} for one in everything]
    wanted = [{"x": study.budget, "y": study.loss.value}]
    y = height_of([*(one.loss for one in everything), *(one["y"] for one in best)])
    color = {"condition": {"test": "datum.held", "value": "var(--accent)"}, "value": "var(--second)"}
    label = (
        f"Loss in nats a token by arithmetic, 6 N D: every rung, and the lowest that the law has. For "
        f"{study.budget:.3g} FLOP it is {study.loss.value:.3f}"
    )
    drawings = []
    for size, width in WIDTHS.items():
        x = logarithmic("FLOP", ends, tickCount=4 if size == "narrow" else 8, format=".0e")
        xy = {"x": {"field": "x"} | x, "y": {"field": "y"} | y}
        layers = [
            layer({"type": "area", "color": "var(--bar)", "opacity": 0.25, "clip": True}, best, x=xy["x"],
                  y={"field": "low"} | y, y2={"field": "high"}),
            layer({"type": "line", "color": "var(--ink)", "strokeWidth": 1.5}, best, **xy),
            layer({"type": "point", "filled": True, "size": 46, "opacity": 1}, points, color=color, **xy),
            layer({"type": "point", "shape": "diamond", "color": "var(--ink)", "size": 90, "strokeWidth": 2}, wanted,
                  **xy),
        ]  # fmt: skip
        drawings.append(draw(layers, label, size, width, 260, PADDING))
    return Chart(tuple(drawings), label + ".")


def rows(study: Study) -> list[tuple[Measured, float, float]]:
    """(rung, loss of the law, error in percent) of all rungs."""
    everything = (*study.fitted, *study.held_out)
    return [(one, study.prediction(one).value, 100 * study.error(one)) for one in everything]


def render(study: Study, name: str) -> str:
    """Return the HTML of the page of a ladder in the run `name`, self-contained."""
    constants = [
        (name, meaning, study.fit.interval(lambda law, name=name: getattr(law, name)))
        for name, meaning in CONSTANTS.items()
    ]
    largest = max(one.rung.parameters for one in study.fitted)
    times = [one.rung.parameters / largest for one in study.held_out]
    worst = max((abs(study.error(one)) for one in study.held_out), default=math.nan)
    return fill(
        HERE / "template.html", study=study, name=name, short=short, tokens_chart=tokens_chart(study),
        budget_chart=budget_chart(study), rows=rows(study), constants=constants, remarks=study.remarks(),
        times=max(times, default=math.nan), worst=100 * worst,
    )  # fmt: skip
