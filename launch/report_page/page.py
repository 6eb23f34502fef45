"""The page itself: the template filled with a run. Texts of the corpus and the model go through jinja2's autoescape."""

import json
import math
from pathlib import Path

from launch.folder.stamps import flatten
from launch.report_page import charts
from launch.report_page.charts import Bar, Series
from launch.report_page.formats import plain, seconds
from launch.report_page.funnel_page import anchor, funnel_chart
from launch.report_page.run_folder import RunFolder
from launch.report_page.templates import fill
from lm.report import Sample, Token, cut_into_tokens
from lm.timeline import KINDS, share_of_steps, totals
from lm.tokenizer.look import known

HERE = Path(__file__).parent
LONGEST_SHOWN = 16
"""Bytes of the longest tokens in the histogram."""
DTYPE_BYTES = {"float32": 4, "bfloat16": 2}
STAGE_TITLES = {"train": "training", "evaluate": "evaluation", "sample": "samples"}


def shade(token: Token, vocabulary_size: int) -> int:
    """0 for a single byte, 1 to 4 by when it was minted; each shade covers four times the ranks of the one before."""
    if token.rank < 256:
        return 0
    position = (token.rank - 255) / max(1, vocabulary_size - 255)
    return max(1, 4 + math.ceil(math.log(position, 4))) if position < 1 else 4


def training_charts(run: RunFolder) -> list[dict]:
    """The loss and its small companions, each with its title and what the page needs to read values off it."""
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
        reference = (uniform, f"every token equally likely: {uniform:.2f}")
        made.append(("Loss, nats per token", loss, charts.curves(loss, 300, from_zero=False, reference=reference)))
    for title, key, number in (
        ("Learning rate", "learning_rate", "~g"),
        ("Gradient norm", "gradient_norm", "~g"),
        ("Tokens per second", "tokens_per_second", "~s"),
        ("MFU", "mfu", "~%"),
        ("Share of this CPU's measured matrix-product speed", "cpu_matmul_share", "~g"),
        ("Share of time waiting for data", "data_wait_share", "~%"),
    ):
        one = Series(title.lower(), "var(--second)", points(train, key), width=1.2)
        if one.points:
            made.append((title, [one], charts.curves([one], 110, small=True, number=number)))
    return [
        {"title": title, "series": series, "drawings": drawings, "readout": json.dumps(readout)}
        for title, series, (drawings, readout) in made
    ]


def archive(run: RunFolder) -> dict:
    """What the whole clean text would take as an archive: at the held-out rate, and what is needed to unpack it."""
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


def compression_chart(run: RunFolder) -> tuple[charts.Drawing, ...]:
    finite = [(name, rate) for name, rate in run.compression.bits_per_byte if math.isfinite(rate)]
    return charts.bars(
        [Bar(name, rate, f"{rate:.3f} bits per byte", strong=name == "this model") for name, rate in finite]
    )


def goodput_chart(run: RunFolder) -> tuple[charts.Drawing, ...]:
    """What training's time went into, over all attempts."""
    sums = totals(list(run.attempts))
    bars = [Bar(KINDS[kind], s, seconds(s), strong=kind == "steps") for kind, s in sums.items() if s >= 0.1]
    return charts.bars(bars) if bars else ()


def paragraph(run: RunFolder) -> tuple[Token, ...]:
    """The beginning of the kept example with the longest excerpt, as the tokenizer cuts it."""
    excerpts = [plain(example.excerpt) for example in run.funnel.kept]
    return cut_into_tokens(known(max(excerpts, key=len, default=""), run.tokenizer), run.tokenizer)


def by_prompt(run: RunFolder) -> dict[str, list[Sample]]:
    """{prompt: its final samples}, prompts and samples in the order of the config."""
    grouped: dict[str, list[Sample]] = {}
    for sample in run.final_samples:
        grouped.setdefault(sample.prompt, []).append(sample)
    return grouped


def settings(config: dict) -> dict[str, dict[str, object]]:
    """{section: {field: value}} of config.json, without the packages, which have a table of their own."""
    sections = {name: dict(values) for name, values in config.items() if isinstance(values, dict)}
    sections.get("pages", {}).pop("packages", None)
    return {
        name: {k: ", ".join(map(str, v)) if isinstance(v, list) else v for k, v in flatten(values).items()}
        for name, values in sections.items()
    }


def render(run: RunFolder) -> str:
    """The HTML of the report, self-contained: it loads nothing, and its policy lets no script run but its own."""
    rates = dict(run.compression.bits_per_byte)
    return fill(
        HERE / "template.html",
        script=(HERE / "page.js").read_text(encoding="utf-8"),
        run=run,
        rates=rates,
        anchor=anchor,
        funnel_chart=funnel_chart(run.funnel),
        lengths_chart=charts.histogram(
            [(b.low, b.high, b.documents) for b in run.funnel.lengths], "bytes of text", True
        ),
        token_lengths_chart=charts.histogram(
            [(n - 0.5, n + 0.5, tokens) for n, tokens in run.vocabulary.lengths if n <= LONGEST_SHOWN],
            "bytes in a token",
            False,
        ),
        compression_chart=compression_chart(run),
        seconds_chart=charts.bars(
            [Bar(STAGE_TITLES.get(name, name), value, seconds(value)) for name, value in run.seconds.items()]
        ),
        goodput_chart=goodput_chart(run),
        goodput=share_of_steps(totals(list(run.attempts))),
        training=training_charts(run),
        longer_tokens=sum(tokens for n, tokens in run.vocabulary.lengths if n > LONGEST_SHOWN),
        longest_shown=LONGEST_SHOWN,
        archive=archive(run),
        paragraph=[(token, shade(token, run.vocabulary.size)) for token in paragraph(run)],
        by_prompt=by_prompt(run),
        settings=settings(run.config),
        validation={line["step"]: line["validation_loss"] for line in run.curves.validation},
    )
