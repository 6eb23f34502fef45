"""The page: whole, self-contained, harmless whatever the corpus holds, and at ease with runs that lack parts."""

import base64
import dataclasses
import hashlib
import json
import math
import re
from html import escape
from pathlib import Path
from typing import Any

import lxml.html
import pytest

from configs.experiment import load_config
from data_prep.verdict import thresholds_of
from lm.errors import InputError
from lm.run_paths import RunPaths
from tests.launch.run_folder import REPOSITORY, Rejection, make_document, uniform_view, write_json, write_run
from viewer import charts
from viewer.formats import compact, percent, plain, seconds, size
from viewer.report import funnel_page
from viewer.report.followed import read_followed
from viewer.report.listed import thresholds_in_order
from viewer.report.page import mfu_of, render
from viewer.run_folder import read_run, summarize
from viewer.tokenizer.page import render_run
from viewer.training_data import visible

HOSTILE = (
    '</script></style></textarea><script>document.title="owned"</script><img src=x onerror="x()"> {{ 7 * 7 }} &lt;b&gt;'
)
PROSE = "The wheel of the mill turns by day and by night, and grinds what the carts have brought. "
PACKAGE: dict[str, Any] = {
    "file": {"project": "mill-pages", "version": "1.0", "name": "mill_pages-1.0.tar.gz", "sha256": "ab" * 32},
    "licence": "MIT", "credit": "Pages on mills by A. Miller", "address": "https://mill.example/",
    "pages": 12, "html_bytes": 3_400_000,
}  # fmt: skip
METRICS = [
    *({"step": s, "loss": 6 - s / 20, "gradient_norm": 1.0, "learning_rate": 1e-3, "tokens_per_second": 100.0 + s}
      for s in range(10, 51, 10)),
    {"step": 50, "validation_loss": 3.6, "validation_bits_per_byte": 1.9},
]  # fmt: skip
SAMPLES = [{"step": s, "prompt": "The", "temperature": 0.8, "text": f"The mill at {s}"} for s in (25, 50)]
FINAL = [{"prompt": "In the", "temperature": t, "text": f"In the end of {t}"} for t in (0.0, 0.8)]
EXPERIMENT = load_config(REPOSITORY / "configs/demo.py")
CONFIG = EXPERIMENT.documents
KEPT = [make_document(i, PROSE * (i % 5 + 3) + f"Mill number {i}.") for i in range(12)]
DROPPED = [
    *(Rejection(make_document(100 + i, "Too short."), "gopher_quality", "gopher_short_document") for i in range(4)),
    Rejection(make_document(200, "", language=""), "extract", "no_text"),
]


def render_report(workdir: Path) -> str:
    run = read_run(workdir, CONFIG)
    followed = read_followed(workdir, EXPERIMENT, run.tokenizer, thresholds_in_order(run.funnel))
    return render(run, followed, uniform_view(followed, run.vocabulary.size))


def open_page(workdir: Path) -> tuple[str, lxml.html.HtmlElement]:
    html = render_report(workdir)
    return html, lxml.html.document_fromstring(html)


def text_of(element: lxml.html.HtmlElement) -> str:
    return " ".join(element.text_content().split())


@pytest.fixture(scope="module")
def full_run(tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("full")
    write_run(workdir, KEPT, DROPPED, [PACKAGE], metrics=METRICS, samples=SAMPLES, final=FINAL)
    return workdir


@pytest.fixture(scope="module")
def full_page(full_run: Path) -> tuple[str, lxml.html.HtmlElement]:
    return open_page(full_run)


def test_links_between_the_pages_and_to_their_sections_resolve(full_run: Path):
    run = read_run(full_run, CONFIG)
    written = {
        "index.html": render_report(full_run),
        "funnel.html": funnel_page.render(run.funnel, run.name, "A note.", back="index.html"),
        "tokenizer.html": render_run(run, full_run / "documents", back="index.html"),
    }
    pages = {name: lxml.html.document_fromstring(html) for name, html in written.items()}
    linked = set()
    for name, page in pages.items():
        for href in page.xpath("//@href"):
            target, _, fragment = href.partition("#")
            assert target in {"", *pages, "window.html"}, href  # tests/window/ opens it
            linked.add(target)
            assert not fragment or len(pages[target or name].xpath("//*[@id=$id]", id=fragment)) == 1, href
        sections = [f"#{id}" for id in page.xpath("//main/section/@id")]
        assert page.xpath("//nav//@href") == sections  # all of them, in their order
        assert not page.xpath("//header//nav")  # a bar that stays in sight stands on its own
        for svg in page.xpath("//svg"):
            assert svg.get("aria-hidden") == "true" or (svg.get("role") == "img" and svg.get("aria-label")), name
    assert linked >= pages.keys() | {"window.html"}


def test_summary_holds_the_run_in_figures(full_run: Path):
    summary = summarize(read_run(full_run, CONFIG))
    expected = {
        "pages_read": 17, "documents_kept": 12, "documents_dropped": {"no_text": 1, "gopher_short_document": 4},
        "clean_text_bytes": sum(len(document.text) for document in KEPT), "vocab_size": 300, "steps": 50,
        "parameters": 3_456_789, "train_tokens_per_second": 130.0, "validation_loss": 3.1,
        "validation_bits_per_byte": 1.9, "gzip_bits_per_byte": 2.9, "xz_bits_per_byte": 2.7, "zstd_bits_per_byte": 2.8,
        "seconds": {"pages": 1.5, "shards": 2.0, "train": 65.0},
        "train_attempts": 2, "train_goodput": (30 * 2 / 3 + 15) / 65,
    }  # fmt: skip
    assert {key: summary[key] for key in expected} == expected
    assert list(summary["seconds"]) == ["pages", "shards", "train"]  # in the order of the path
    assert {"python", "jax", "flax", "optax", "orbax-checkpoint", "grain", "apache-beam"} <= summary["versions"].keys()
    assert summary["train_tokens"] > summary["validation_tokens"] > 0
    json.dumps(summary, allow_nan=False)


def test_scores_of_tasks_are_shown_over_training_and_of_the_finished_model(tmp_path: Path):
    """Of evaluators, of one without a validation loss too, and of lm-eval at two checkpoints."""
    lines = [{"step": 20, "hellaswag_acc": 0.25, "hellaswag_acc_norm": 0.3, "lambada_openai_perplexity": 5e6},
             {"step": 40, "hellaswag_acc": 0.375, "hellaswag_acc_norm": 0.4, "validation_loss": 3.0},
             {"step": 50, "lambada_openai_perplexity": 900.0}]  # fmt: skip
    figures = {"hellaswag_acc": 0.3125, "blimp_acc": 0.8125}
    write_run(tmp_path, KEPT, DROPPED, metrics=[*METRICS, *lines], evaluation=figures)
    for step, value in ((20, 0.5), (40, 0.6875)):
        write_json(RunPaths(tmp_path).harness_results(step), {"step": step, "results": {"copa": {"acc,none": value}}})
    run = read_run(tmp_path, CONFIG)
    found = {(one.task, one.figure): (one.points, one.final, one.guessing) for one in run.scores}
    assert found == {
        ("hellaswag", "acc"): (((20, 0.25), (40, 0.375)), 0.3125, 0.25),
        ("hellaswag", "acc_norm"): (((20, 0.3), (40, 0.4)), None, 0.25),
        ("lambada_openai", "perplexity"): (((20, 5e6), (50, 900.0)), None, None),
        ("blimp", "acc"): ((), 0.8125, 0.5),
        ("copa", "acc"): (((20, 0.5), (40, 0.6875)), None, None),
    }
    assert summarize(run)["blimp_acc"] == 0.8125
    _, page = open_page(tmp_path)
    (table,) = page.xpath("//table[caption='Scores of benchmarks during training and after it']")
    rows = [[cell.text_content() for cell in row] for row in table.xpath("tbody/tr")]
    assert rows[0] == ["hellaswag", "acc", "0.25 (step 20)", "0.375 (step 40)", "0.3125", "0.25"]
    assert rows[3] == ["blimp", "acc", "–", "–", "0.8125", "0.5"]
    assert rows[4] == ["copa (lm-eval)", "acc", "0.5 (step 20)", "0.6875 (step 40)", "–", "–"]
    titles = page.xpath("//section[@id='section-4']//figcaption/span[1]/text()")
    assert titles[-3:] == ["hellaswag", "lambada_openai, perplexity", "copa, by lm-eval"]


def test_a_run_without_tasks_has_no_word_of_them(full_page):
    assert "Scores of benchmarks" not in full_page[0]


def test_what_a_line_of_training_may_lack_is_null_in_the_summary(full_run: Path):
    run = read_run(full_run, CONFIG)
    lines = (
        {"step": 1, "loss": 5.0, "mfu": 0.2, "step_flops": 7},
        {"step": 2, "loss": 4.0, "mfu": 0.4, "train_flops": 14},
    )
    told = summarize(dataclasses.replace(run, curves=dataclasses.replace(run.curves, train=lines)))
    assert told["train_mfu"] == pytest.approx(0.3)
    assert (told["train_step_flops"], told["train_step_state_bytes"]) == (7, None)
    assert told["train_flops"] == 14


def test_the_page_loads_nothing_and_runs_its_own_script_alone(full_page):
    html, page = full_page
    assert not page.xpath("//@src | //link | //img | //iframe | //object | //embed | //form | //base")
    assert all(href.startswith(("#", "funnel.html", "tokenizer.html", "window.html")) for href in page.xpath("//@href"))
    assert not re.search(r"@import|url\(", html)
    (script,) = page.xpath("//script")
    digest = base64.b64encode(hashlib.sha256(script.text.encode()).digest()).decode()
    (policy,) = page.xpath("//meta[@http-equiv='Content-Security-Policy']/@content")
    assert policy.startswith("default-src 'none'")
    assert f"script-src 'sha256-{digest}'" in policy


def test_the_story_is_told_in_order_with_its_figures(full_page):
    _, page = full_page
    assert [section.get("id") for section in page.xpath("//section")] == [f"section-{i}" for i in range(1, 11)]
    text = " ".join(page.text_content().split())
    for told in ("17", "12 documents", "3.46 M", "1.90", "gzip needs 2.90", PACKAGE["licence"], PACKAGE["credit"],
                 "no_text", "gopher_short_document", "Too short.", "host-1.example", "mill at 25", "end of 0.8",
                 "13.8 MB", "float32", "1 min 5 s", "Training took 2 attempts; 53.8 % of the time"):  # fmt: skip
        assert told in text, told
    fingerprint = page.xpath("//code[@class='long']")[0].text
    assert re.fullmatch("[0-9a-f]{64}", fingerprint)


def test_results_come_first_and_licences_last(full_page):
    titles = [title.text for title in full_page[1].xpath("//section//h2")]
    assert titles == [
        "One page, followed through", "What came out", "Samples during training", "Training curves", "What was dropped",
        "Documents", "Tokenizer", "Cost and time", "Settings and versions", "Sources and licences",
    ]  # fmt: skip
    (last,) = full_page[1].xpath("//section[@id='section-10']")
    assert str(PACKAGE["licence"]) in text_of(last)
    assert full_page[1].text_content().count(PACKAGE["credit"]) == last.text_content().count(PACKAGE["credit"]) == 1


def test_every_chart_has_a_text_and_no_colour_of_its_own(full_page):
    _, page = full_page
    drawings = page.xpath("//svg[contains(@class, 'marks')]")
    # funnel, lengths, token lengths, compression, seconds, training's time, loss and three companions
    assert len(drawings) == 2 * 10
    for svg in drawings:
        assert svg.get("role") == "img" and len(svg.get("aria-label")) > 20
        colours = {c for c in svg.xpath(".//@fill | .//@stroke") if c not in ("none", "transparent")}
        assert all(colour.startswith("var(--") for colour in colours), colours
    style = page.xpath("//style")[0].text
    assert set(re.findall(r"var\((--[a-z0-9]+)\)", lxml.html.tostring(page).decode())) <= {
        *re.findall(r"(--[a-z0-9]+):", style), "--c", "--share",
    }  # fmt: skip


def test_every_bar_and_column_says_its_values_and_a_table_says_the_same(full_page):
    charts_there = full_page[1].xpath("//div[@class='chart']")
    assert len(charts_there) == 6
    for chart in charts_there:
        (table,) = chart.xpath("following-sibling::details[@class='as-table']//table")
        rows = [": ".join(text_of(cell) for cell in row.xpath("th|td")) for row in table.xpath(".//tr")]
        for svg in chart.xpath(".//svg"):
            said = [mark.text_content() for mark in svg.xpath(".//*[@class='hit']/*[local-name()='title']")]
            assert [" ".join(one.split()) for one in said] == rows and rows


def test_what_dropped_comes_before_what_did_not(full_page):
    (section,) = full_page[1].xpath("//section[@id='section-5']")
    listed = section.xpath(".//div[@class='reasons']/details/summary//code/text()")
    assert listed == ["gopher_short_document", "no_text"]  # 4 documents, 1 document
    (quiet,) = section.xpath(".//details[contains(@class, 'more-examples')]")
    names = quiet.xpath(".//li/code/text()")
    assert quiet.get("open") is None and "gopher_short_document" not in names
    assert {*names, "gopher_short_document"} == {one.reason for one in thresholds_of(CONFIG, None)}
    assert text_of(quiet.xpath("summary")[0]) == f"{len(names)} rules dropped nothing"


def test_the_list_of_documents_covers_every_reason_with_what_was_measured(full_page):
    (box,) = full_page[1].xpath("//div[@data-thresholds]")
    lines = json.loads(box.get("data-thresholds"))
    items = box.xpath(".//details")
    assert [item.get("data-reason") for item in items if item.get("data-fate") == "dropped"] == [
        "extract/no_text", *["gopher_quality/gopher_short_document"] * 4
    ]  # fmt: skip
    assert {*box.xpath(".//option/@value")} == {"", "kept", "dropped", *(i.get("data-reason") for i in items)}
    assert sum(item.get("data-fate") == "kept" for item in items) == len(KEPT)
    for item in items:
        values = json.loads(item.get("data-values"))
        assert len(values) == len(lines)
        for value, (_, drops, line, _, reason) in zip(values, lines, strict=True):
            beyond = value is not None and (value > line if drops == "above" else value < line)
            assert beyond or reason != item.get("data-reason")
    short = next(text_of(item) for item in items if item.get("data-reason").endswith("short_document"))
    assert "Length: 2, below 50" in short and "Too short." in short and ".example/page/10" in short


def test_ids_are_unique(full_page):
    ids = full_page[1].xpath("//@id")
    assert len(ids) == len(set(ids))


def test_the_same_run_gives_the_same_page(full_run: Path, full_page):
    assert render_report(full_run) == full_page[0]


def test_a_hostile_corpus_runs_nothing(tmp_path: Path):
    kept = [make_document(i, HOSTILE + PROSE * 9, url=f'https://evil.example/"><script>{HOSTILE}') for i in range(3)]
    dropped = [Rejection(make_document(9, HOSTILE, url='javascript:x("' + HOSTILE, language=HOSTILE), HOSTILE, HOSTILE)]
    hostile_sample = {"prompt": HOSTILE, "temperature": 0.8, "text": HOSTILE + "\ud800\u202e" + HOSTILE}
    package = PACKAGE | {"file": dict.fromkeys(PACKAGE["file"], HOSTILE), "licence": HOSTILE, "credit": HOSTILE}
    write_run(
        tmp_path, kept, dropped, [package], metrics=METRICS, vocab_size=258,
        samples=[hostile_sample | {"step": step} for step in (25, 50)], final=[hostile_sample],
    )  # fmt: skip
    html, page = open_page(tmp_path)
    html.encode()  # a lone surrogate is gone
    assert len(page.xpath("//script")) == len(page.xpath("//style")) == 1
    assert not page.xpath(
        "//img | //@*[starts-with(name(), 'on')] | "
        "//b[not(ancestor::div[contains(@class, 'sample') or contains(@class, 'verdict')])]"
    )
    assert all(href.startswith(("#", "funnel.html", "tokenizer.html", "window.html")) for href in page.xpath("//@href"))
    assert page.xpath("//title")[0].text.endswith("run report")
    assert any(HOSTILE in "".join(text.itertext()) for text in page.xpath("//blockquote"))  # shown, letter by letter
    assert any(HOSTILE in "".join(article.itertext()) for article in page.xpath("//article"))
    (source,) = page.xpath("//pre")
    assert escape(HOSTILE[:50]) in source.text_content()  # the page's own escapes, shown as they are
    (cells,) = page.xpath("//*[@data-tokens]")
    assert cells.text_content().startswith(HOSTILE)
    assert "".join(row[0] for row in json.loads(cells.get("data-tokens"))).startswith(visible(HOSTILE.encode()))
    assert "\u202e" not in html


def test_a_run_that_lacks_parts(tmp_path: Path):
    write_run(tmp_path, KEPT[:1], [], vocab_size=257, metrics=[])
    _, page = open_page(tmp_path)
    text = " ".join(page.text_content().split())
    for told in ("file of your own", "Nothing: every page became a document (1 page)", "No line of training was logged",
                 "No sample was taken during training", "No sample was asked for"):  # fmt: skip
        assert told in text, told
    summary = summarize(read_run(tmp_path, CONFIG))
    assert (summary["steps"], summary["train_tokens_per_second"], summary["documents_dropped"]) == (0, None, {})


@pytest.mark.parametrize("number", [0, 1, 2])
def test_samples_slide_only_where_there_is_a_slider(tmp_path: Path, number: int):
    """The page's script moves an input in each [data-slides]; a single sample has none."""
    write_run(tmp_path, KEPT, DROPPED, samples=[SAMPLES[0] | {"step": step} for step in range(1, number + 1)])
    _, page = open_page(tmp_path)
    assert len(page.xpath("//article[@data-slide]")) == number
    boxes = page.xpath("//*[@data-slides]")
    assert len(boxes) == (number > 1)
    assert all(len(box.xpath(".//label//input")) == 1 for box in boxes)


def test_histograms_count_in_whole_numbers():
    for most, expected in (
        (1, ["0", "1"]),
        (1300, ["0", "500", "1,000"]),
        (10**6, ["0", "200k", "400k", "600k", "800k", "1M"]),
    ):
        for drawing in charts.histogram([(1, 2, most), (2, 4, 1)], "bytes", "Sizes.", True, ["1", "2 to 4"]).drawings:
            axis = drawing.svg[drawing.svg.index('aria-label="Y-axis') :]
            assert re.findall(r"<text[^>]*>([^<]*)</text>", axis) == expected


def test_one_line_of_metrics_is_a_point(tmp_path: Path):
    write_run(tmp_path, KEPT, DROPPED)
    _, page = open_page(tmp_path)
    readouts = [json.loads(value) for value in page.xpath("//@data-readout")]
    assert not any(one["logarithmic"] for one in readouts)
    assert [one["series"][0]["points"] for one in readouts] == [[[10, 5.0]], [[10, 1e-3]], [[10, 1.0]], [[10, 900.0]]]


def test_a_run_that_diverged_still_has_a_report(tmp_path: Path):
    metrics = [
        *METRICS,
        {"step": 60, "loss": math.nan, "learning_rate": 1e-3},
        {"step": 60, "validation_loss": math.inf},
    ]
    bad = {"validation_loss": math.nan, "validation_bits_per_byte": math.nan}
    write_run(tmp_path, KEPT, DROPPED, metrics=metrics, samples=SAMPLES, evaluation=bad)
    html, page = open_page(tmp_path)
    assert "NaN" not in html
    assert not re.search(r"\bnan\b", page.text_content())
    summary = json.loads(json.dumps(summarize(read_run(tmp_path, CONFIG)), allow_nan=False))
    assert (summary["validation_loss"], summary["validation_bits_per_byte"]) == (None, None)


def test_a_missing_file_is_named_with_the_script_that_makes_it(full_run: Path, tmp_path: Path):
    write_run(tmp_path, KEPT, DROPPED)
    (tmp_path / "evaluation.json").unlink()
    with pytest.raises(InputError, match=r"evaluation\.json.*launch\.evaluate"):
        read_run(tmp_path, CONFIG)


def test_a_long_curve_is_thinned_to_its_means():
    points = tuple((float(step), float(step % 2)) for step in range(10_000))
    thinned = charts.thin(points)
    assert len(thinned) == charts.POINTS
    assert thinned[-1][0] == 9999.0
    assert all(0.4 < y < 0.6 for _, y in thinned)
    assert charts.thin(points[:100]) == list(points[:100])


@pytest.mark.parametrize("logarithmic", [False, True])
def test_the_readout_and_the_drawing_agree_on_where_a_point_lies(logarithmic: bool):
    series = [charts.Series("a", "var(--accent)", ((0.0, 1.0), (50.0, 300.0), (100.0, 2.0)))]
    chart = charts.curves("A curve", series, 200, from_zero=False, logarithmic=logarithmic)
    readout, scaled = json.loads(chart.readout), math.log if logarithmic else float
    assert readout["logarithmic"] == logarithmic
    for drawing in chart.drawings:
        (low, high), (_, last) = readout["y"], readout["x"]
        (path,) = re.findall(r'aria-roledescription="line mark" d="([^"]+)"', drawing.svg)
        drawn = [tuple(map(float, pair.split(","))) for pair in re.findall(r"[-\d.]+,[-\d.]+", path)]
        height = lambda y: (scaled(high) - scaled(y)) / (scaled(high) - scaled(low)) * drawing.height  # noqa: B023
        wanted = [(x / last * drawing.width, height(y)) for x, y in series[0].points]
        assert [pytest.approx(point, abs=0.01) for point in wanted] == drawn
        assert f"translate({drawing.left},{drawing.top})" in drawing.svg


def test_a_spike_gets_a_logarithmic_axis_and_the_title_says_so(tmp_path: Path):
    norms = [1.0] * 20 + [charts.SPIKE + 1.0]
    lines = [{"step": s, "loss": 5.0, "gradient_norm": norm} for s, norm in enumerate(norms, start=1)]
    write_run(tmp_path, KEPT, DROPPED, metrics=lines)
    titles = [
        text_of(figure.xpath("figcaption/span")[0])
        for figure in open_page(tmp_path)[1].xpath("//figure[@data-readout]")
    ]
    assert titles == ["Loss, nats per token", "Gradient norm, logarithmic scale"]
    curve = lambda *values: [charts.Series("a", "b", tuple(enumerate(map(float, values))))]
    assert not charts.has_spike(curve(*norms[:20])) and not charts.has_spike(curve(0, *norms))
    assert charts.powers(0.4, 150.0) == [1.0, 3.0, 10.0, 30.0, 100.0]
    assert charts.powers(1.1, 6.0) == [2.0, 5.0]


@pytest.mark.parametrize(
    ("key", "whole"),
    [("mfu", "peak rate by their maker"), ("cpu_matmul_share", "best matrix product measured on this CPU")],
)
def test_the_speed_is_named_as_what_it_is(full_run: Path, key: str, whole: str):
    run = read_run(full_run, CONFIG)
    lines = ({"step": 1, "loss": 5.0, key: 0.25},)
    words = mfu_of(dataclasses.replace(run, curves=dataclasses.replace(run.curves, train=lines)))
    assert words.startswith("25 % of ") and whole in words
    assert mfu_of(run) == ""


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (compact(1_234_567), "1.23 M"), (compact(8192), "8,192"), (compact(12_345), "12.3 k"), (compact(math.nan), "–"),
        (compact(999_999), "1,000 k"), (compact(2.5e9), "2.5 B"), (size(999), "999 B"), (size(8_192_000), "8.19 MB"),
        (size(3_000), "3.00 kB"), (size(21_999_000), "22.0 MB"), (size(999_900), "1,000 kB"),
        (seconds(9.84), "9.8 s"), (seconds(75.2), "1 min 15 s"), (seconds(3720), "1 h 2 min"),
        (percent(1, 3), "33.3 %"), (percent(3, 2), "150.0 %"), (percent(1001, 1000), "100.1 %"),
        (percent(1, 1), "100.0 %"), (percent(9999, 10_000), "> 99.9 %"), (percent(30, 1), "3,000.0 %"),
        (percent(1, 10**6), "< 0.1 %"), (percent(0, 0), "0.0 %"), (plain("a\0b\u202ec\n"), "a\ufffdb\ufffdc\n"),
    ],
)  # fmt: skip
def test_numbers_and_texts_as_shown(shown: str, expected: str):
    assert shown == expected
