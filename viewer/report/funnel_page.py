"""Page of the funnel: every rule with its threshold, the documents that it dropped, and kept documents close to it."""

import re
from collections.abc import Iterable
from pathlib import Path

from data_prep.funnel.report import Distribution, Funnel, Reason
from lm.terminal import counted
from viewer import charts
from viewer.charts import Bar
from viewer.explanations import PERSONAL_DATA, reason_sentence, signal_words, stage_name, stage_words
from viewer.formats import count, percent, size, value
from viewer.report.distributions import columns_of, distribution_chart
from viewer.templates import CHARTS_SCRIPT, fill

HERE = Path(__file__).parent
REDRAWN = (
    "The funnel as other thresholds would draw it, from what was measured; documents/ is as it was. Duplicates were "
    "not looked for again, so what passes still has them among it."
)
"""Note on the page of launch.refilter."""


def funnel_chart(funnel: Funnel) -> charts.Chart:
    rows = [Bar("Pages read", funnel.pages_read, count(funnel.pages_read))]
    for stage in funnel.stages:
        left = stage.entered - stage.dropped
        note = f"{count(left)} left · −{count(stage.dropped)} ({percent(stage.dropped, stage.entered)})"
        rows.append(Bar(stage_name(stage.stage), left, note, rest=stage.dropped))
    kept = f"{count(funnel.documents_kept)} ({percent(funnel.documents_kept, funnel.pages_read)} of the pages)"
    label = f"The funnel: {counted(funnel.pages_read, 'page')} read, {counted(funnel.documents_kept, 'document')} kept."
    return charts.bars([*rows, Bar("Documents kept", funnel.documents_kept, kept, strong=True)], label)


def lengths_chart(funnel: Funnel) -> charts.Chart:
    bins = [(b.low, b.high, b.documents) for b in funnel.lengths]
    names = [f"{size(b.low)} to {size(b.high)}" for b in funnel.lengths]
    label = "Lengths of the kept documents in bytes; each column covers twice the range of the one before."
    return charts.histogram(bins, "bytes of text", label, True, names)


def anchor(stage: str, reason: str) -> str:
    """HTML id of a reason; includes the stage, since two stages may have a reason of the same name."""
    return "-".join(re.sub(r"[^\w.]+", "-", name) for name in (stage, reason))


def filters_of(funnel: Funnel) -> list[dict]:
    """Filters with thresholds, in order, each with its signals: charts, thresholds, dropped documents."""
    filters: dict[str, dict] = {}
    for distribution in funnel.distributions:
        stage = distribution.thresholds[0].stage
        _, sentence = stage_words(stage)
        one = filters.setdefault(
            stage, {"stage": stage, "title": stage_name(stage), "sentence": sentence, "signals": []}
        )
        one["signals"].append(signal_of(distribution, funnel.reasons))
    return list(filters.values())


def signal_of(distribution: Distribution, reasons: Iterable[Reason]) -> dict:
    """Name and chart of a signal, whether it dropped anything, and, for each threshold, dropped and close documents."""
    columns = columns_of(distribution)
    by_name = {(reason.stage, reason.reason): reason for reason in reasons}
    title, sentence = signal_words(distribution.signal)
    lines = [f"what is {one.drops} {value(one.value)} is dropped" for one in distribution.thresholds]
    pairs = zip(distribution.thresholds, distribution.near, strict=True)
    return {
        "signal": distribution.signal,
        "title": title,
        "sentence": sentence,
        "chart": distribution_chart(distribution, columns, f"{title}: its distribution; {', '.join(lines)}."),
        "columns": columns,
        "dropped": any((one.stage, one.reason) in by_name for one in distribution.thresholds),
        "thresholds": [(one, by_name.get((one.stage, one.reason)), near) for one, near in pairs],
    }


def render(funnel: Funnel, name: str, note: str, back: str = "", changes: Iterable[str] | None = None) -> str:
    """Return the HTML of the page, self-contained; `back` is the URL of the run's report, "" if there is none.

    `changes` lists differences of the thresholds from the run's; None on the run's own page.
    """
    return fill(
        HERE / "funnel.html",
        script=CHARTS_SCRIPT,
        funnel=funnel,
        name=name,
        note=note,
        back=back,
        changes=changes if changes is None else list(changes),
        anchor=anchor,
        sentence=reason_sentence,
        kinds=PERSONAL_DATA,
        funnel_chart=funnel_chart(funnel),
        filters=filters_of(funnel),
        plain_reasons=[reason for reason in funnel.reasons if reason.threshold is None],
        kept_bytes=funnel.extracted_bytes - sum(reason.text_bytes for reason in funnel.reasons),
        lengths_chart=lengths_chart(funnel),
    )
