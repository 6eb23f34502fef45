"""Render the report: fill the template with a run. Texts of the corpus and the model are escaped by jinja2's
autoescape."""

import math
from pathlib import Path
from typing import TYPE_CHECKING

from data_prep.verdict import Threshold
from lm.fields import flatten
from lm.resilience.goodput import PHASES, share_of_steps
from viewer import charts
from viewer.charts import Bar, Series
from viewer.explanations import stage_name
from viewer.formats import plain, seconds
from viewer.report.followed import FollowedPage
from viewer.report.funnel_page import anchor, funnel_chart, lengths_chart
from viewer.report.listed import listing_of, signal_name, thresholds_in_order
from viewer.report.shown_tokens import BITS_PER_SHADE, SHADES, show_tokens
from viewer.run_folder import FinishedRun
from viewer.task_scores import Score
from viewer.templates import CHARTS_SCRIPT, fill
from viewer.tokenizer.look import known
from viewer.training_data import Sample, Token, cut_into_tokens

if TYPE_CHECKING:  # imports JAX, which a page does not need
    from lm.evaluation.token_view import TokenView

HERE = Path(__file__).parent
LONGEST_SHOWN = 16
"""Maximum token length in the histogram, in bytes."""
PASSES = {"above": "at most", "below": "at least", "at most": "more than", "at least": "less than"}
"""{side that a threshold drops: side that passes}."""
CLOSEST = 5
"""Number of thresholds to name next to the followed page's text, those that its values are closest to."""
DTYPE_BYTES = {"float32": 4, "bfloat16": 2}
STAGE_TITLES = {"train": "training", "evaluate": "evaluation", "sample": "samples"}


def shade(token: Token, vocab_size: int) -> int:
    """0 for a single byte, 1 to 4 by rank; each shade covers four times as many ranks as the one before."""
    if token.rank < 256:
        return 0
    position = (token.rank - 255) / max(1, vocab_size - 255)
    return max(1, 4 + math.ceil(math.log(position, 4))) if position < 1 else 4


COMPANIONS = (
    ("Learning rate", "learning_rate", "~g"),
    ("Gradient norm", "gradient_norm", "~g"),
    ("Tokens per second", "tokens_per_second", "~s"),
    ("MFU", "mfu", "~%"),
    ("Share of this CPU's measured matrix-product speed", "cpu_matmul_share", "~%"),
    ("Share of time waiting for data", "data_wait_share", "~%"),
)
"""(title, key of metrics.jsonl, d3-format) of the small charts below the loss."""


def training_charts(run: FinishedRun) -> list[dict]:
    """Title, series and chart of the loss and of the small charts below it."""
    train, validation = run.curves.train, run.curves.validation

    def points(lines: tuple[dict, ...], key: str) -> tuple[tuple[float, float], ...]:
        values = ((line["step"], line.get(key)) for line in lines)
        return tuple((step, value) for step, value in values if isinstance(value, int | float) and math.isfinite(value))

    uniform = math.log(run.vocabulary.size)
    loss = [
        Series("training", "var(--quiet)", points(train, "loss"), width=1.3),
        Series("held-out", "var(--accent)", points(validation, "validation_loss"), dots=True, width=2.2),
    ]
    loss = [one for one in loss if one.points]
    made = []
    if loss:
        title, reference = "Loss, nats per token", (uniform, f"every token equally likely: {uniform:.2f}")
        made.append((title, loss, charts.curves(title, loss, 300, from_zero=False, reference=reference)))
    for title, key, number in COMPANIONS:
        one = Series(title.lower(), "var(--second)", points(train, key), width=1.2)
        if not one.points:
            continue
        logarithmic = key == "gradient_norm" and charts.has_spike([one])
        title += ", logarithmic scale" if logarithmic else ""
        chart = charts.curves(title, [one], 110, small=True, number=number, logarithmic=logarithmic)
        made.append((title, [one], chart))
    return [{"title": title, "series": series, "chart": chart} for title, series, chart in made]


def score_charts(run: FinishedRun) -> list[dict]:
    """Small chart for each task that was evaluated at several steps: accuracies together, perplexity separately."""
    of_tasks: dict[tuple[str, bool, bool], list[Score]] = {}
    for one in run.scores:
        if len(one.points) > 1:
            of_tasks.setdefault((one.task, one.by_harness, one.figure == "perplexity"), []).append(one)
    made = []
    for (task, by_harness, is_perplexity), scores in of_tasks.items():
        colors = ("var(--accent)", "var(--second)")
        series = [Series(one.figure, color, one.points, dots=True) for one, color in zip(scores, colors, strict=False)]
        title = f"{task}{', perplexity' if is_perplexity else ''}{', by lm-eval' if by_harness else ''}"
        guessing = scores[0].guessing
        reference = (guessing, f"guessing: {guessing:g}") if guessing else None
        logarithmic = is_perplexity and charts.has_spike(series)
        chart = charts.curves(
            title, series, 130, small=True, from_zero=False, reference=reference, logarithmic=logarithmic
        )
        made.append({"title": title, "series": series, "chart": chart})
    return made


def mfu_of(run: FinishedRun) -> str:
    """Median MFU, or a CPU's share of its own measured speed, in words: "12 % of …"; "" if neither was logged."""
    for key, whole in (
        ("mfu", "the chips' peak rate by their maker (MFU)"),
        ("cpu_matmul_share", "the speed of the best matrix product measured on this CPU when training began"),
    ):
        share = run.curves.median(key)
        if share is not None:
            return f"{100 * share:.0f} % of {whole}"
    return ""


def archive(run: FinishedRun) -> dict:
    """Size of the whole clean text if compressed at the held-out rate, including what is needed to decompress it."""
    text_bytes = run.funnel.clean_text_bytes
    rates = dict(run.compression.bits_per_byte)
    parameter_bytes = run.compression.parameters * DTYPE_BYTES[run.config["model"]["parameter_dtype"]]
    rows = []
    for name, rate in run.compression.bits_per_byte:
        needed = parameter_bytes if name == "this model" else 0
        rows.append({"name": name, "rate": rate, "text": text_bytes * rate / 8, "needed": needed})
    saved = rates["gzip -9"] - rates["this model"]
    return {
        "rows": rows,
        "parameter_bytes": parameter_bytes,
        "breaks_even": 8 * parameter_bytes / saved if saved > 0 else None,
    }


def compression_chart(run: FinishedRun) -> charts.Chart:
    finite = [(name, rate) for name, rate in run.compression.bits_per_byte if math.isfinite(rate)]
    told = "; ".join(f"{name}: {rate:.3f}" for name, rate in finite)
    rows = [Bar(name, rate, f"{rate:.3f} bits per byte", strong=name == "this model") for name, rate in finite]
    return charts.bars(rows, f"Bits per byte of the held-out documents: {told}.")


def seconds_chart(run: FinishedRun) -> charts.Chart:
    rows = [Bar(STAGE_TITLES.get(name, name), value, seconds(value)) for name, value in run.seconds.items()]
    return charts.bars(rows, "Time by stage: " + "; ".join(f"{row.label}: {row.note}" for row in rows) + ".")


def goodput_chart(run: FinishedRun) -> charts.Chart:
    """Training time by phase, over all attempts."""
    sums = run.phases
    rows = [Bar(PHASES.get(kind, kind), s, seconds(s), strong=kind == "steps") for kind, s in sums.items() if s >= 0.1]
    return charts.bars(rows, "Where training's time went: " + "; ".join(f"{r.label}: {r.note}" for r in rows) + ".")


def token_lengths_chart(run: FinishedRun) -> charts.Chart:
    lengths = [(n, tokens) for n, tokens in run.vocabulary.lengths if n <= LONGEST_SHOWN]
    bins = [(n - 0.5, n + 0.5, tokens) for n, tokens in lengths]
    names = [f"{n} byte{'s' if n != 1 else ''}" for n, _ in lengths]
    label = "Lengths of the tokens of the vocabulary in bytes."
    return charts.histogram(bins, "bytes in a token", label, False, names)


def measured(followed: FollowedPage) -> list[dict]:
    """Values of the followed page: rows of signal, threshold, value and `closeness` to the threshold."""
    return [
        {
            "signal": signal_name(threshold.signal), "stage": stage_name(threshold.stage), "threshold": threshold,
            "number": number, "closeness": closeness(threshold, number), "passes": PASSES[threshold.drops],
        }
        for threshold, number in followed.values
    ]  # fmt: skip


def closeness(threshold: Threshold, number: float | None) -> float:
    """Closeness of a value to the threshold, from 0 to 1; 0 if it was not measured, or the threshold is 0."""
    if not number or not threshold.value:
        return 0.0
    return min(1.0, number / threshold.value if threshold.drops in ("above", "at least") else threshold.value / number)


def paragraph(run: FinishedRun) -> tuple[Token, ...]:
    """Tokens of the beginning of the kept example with the longest excerpt."""
    excerpts = [plain(example.excerpt) for example in run.funnel.kept]
    return cut_into_tokens(known(max(excerpts, key=len, default=""), run.tokenizer), run.tokenizer)


def by_prompt(run: FinishedRun) -> dict[str, list[Sample]]:
    """{prompt: its final samples}, in the order of the config."""
    grouped: dict[str, list[Sample]] = {}
    for sample in run.final_samples:
        grouped.setdefault(sample.prompt, []).append(sample)
    return grouped


def settings(config: dict) -> dict[str, dict[str, object]]:
    """{section: {field: value}} of config.json, without the packages, which have their own table."""
    sections = {name: dict(values) for name, values in config.items() if isinstance(values, dict)}
    sections.get("pages", {}).pop("packages", None)
    return {
        name: {k: ", ".join(map(str, v)) if isinstance(v, list) else v for k, v in flatten(values).items()}
        for name, values in sections.items()
    }


def unbroken(run: FinishedRun) -> list[tuple[str, str]]:
    """(name of the stage, reason) of the thresholds that dropped nothing."""
    broken = {(reason.stage, reason.reason) for reason in run.funnel.reasons}
    thresholds = thresholds_in_order(run.funnel)
    return [(stage_name(one.stage), one.reason) for one in thresholds if (one.stage, one.reason) not in broken]


def render(run: FinishedRun, followed: FollowedPage, view: "TokenView") -> str:
    """Return the HTML of the report, self-contained: it loads nothing, and its policy allows no scripts except its own.

    `view` has the predictions for the tokens followed.ids.
    """
    return fill(
        HERE / "template.html",
        script=CHARTS_SCRIPT + (HERE / "page.js").read_text(encoding="utf-8"),
        style=(HERE / "report.css").read_text(encoding="utf-8"),
        run=run,
        rates=dict(run.compression.bits_per_byte),
        anchor=anchor,
        followed=followed,
        tokens=show_tokens(followed, view, run.tokenizer),
        shades=[number * BITS_PER_SHADE for number in range(SHADES)],
        measured=measured(followed),
        closest=sorted(measured(followed), key=lambda row: -row["closeness"])[:CLOSEST],
        listing=listing_of(run.funnel),
        reasons=sorted(run.funnel.reasons, key=lambda reason: (-reason.documents, reason.stage, reason.reason)),
        unbroken=unbroken(run),
        funnel_chart=funnel_chart(run.funnel),
        lengths_chart=lengths_chart(run.funnel),
        token_lengths_chart=token_lengths_chart(run),
        compression_chart=compression_chart(run),
        seconds_chart=seconds_chart(run),
        goodput_chart=goodput_chart(run),
        goodput=share_of_steps(run.phases),
        training=training_charts(run),
        score_charts=score_charts(run),
        mfu=mfu_of(run),
        longer_tokens=sum(tokens for n, tokens in run.vocabulary.lengths if n > LONGEST_SHOWN),
        longest_shown=LONGEST_SHOWN,
        archive=archive(run),
        paragraph=[(token, shade(token, run.vocabulary.size)) for token in paragraph(run)],
        by_prompt=by_prompt(run),
        settings=settings(run.config),
        validation={line["step"]: line["validation_loss"] for line in run.curves.validation},
    )
