"""The three recipes: their settings, and the effect of each field in which they differ, except for the quality filters
(quality/test_datatrove.py)."""

import dataclasses
import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from configs import datatrove_0_10 as config_0_10
from configs import fineweb, fineweb_2024
from configs.recipes import datatrove_0_10, gristmill
from configs.recipes import fineweb_2024 as recipe_2024
from data_prep import language
from data_prep.config import DocumentsConfig, UrlFilterConfig
from data_prep.measure import row
from data_prep.measure.row import rows_of_input
from data_prep.pii import replace_personal_data
from data_prep.prepare import prepare_documents
from data_prep.quality.gopher import GopherQualityFilter
from data_prep.sources import InputFile
from data_prep.url_filter.filter import reject_reason
from data_prep.verdict import thresholds_of
from data_prep.warc import write_pages
from lm.errors import UsageError
from lm.fields import flatten, with_values
from tests.data_prep.measured import CONFIG, real_rows, write_records, write_texts
from tests.data_prep.pages import GERMAN, PROSE, demo_config, document, html, page

RECIPES = {"gristmill": fineweb, "datatrove_0_10": config_0_10, "fineweb_2024": fineweb_2024}
DOCUMENTS = {name: config.get_config().documents for name, config in RECIPES.items()}


def differing(one: DocumentsConfig, other: DocumentsConfig) -> set[str]:
    fields = [flatten(dataclasses.asdict(config)) for config in (one, other)]
    return {name for name in fields[0].keys() & fields[1].keys() if fields[0][name] != fields[1][name]}


def test_the_recipes_have_the_documented_differences():
    assert differing(DOCUMENTS["gristmill"], DOCUMENTS["datatrove_0_10"]) == {
        "steps", "url_filter.matching", "extract.engine", "extract.deduplicate", "extract.max_depth",
        "extract.max_elements", "language.letters_only", "language.check_script", "personal_data.kinds",
        "personal_data.emails", "personal_data.ips", "personal_data.ip_placeholder",
    }  # fmt: skip
    assert differing(DOCUMENTS["datatrove_0_10"], DOCUMENTS["fineweb_2024"]) == {
        "url_filter.packages", "extract.xhtml", "language.line_breaks", "gopher_repetition.words",
        "gopher_repetition.count_blank_lines", "gopher_quality.words", "gopher_quality.count_stop_words",
        "gopher_quality.terminal_marks", "c4.sentences", "fineweb.words", "fineweb.line_ends",
        "fineweb.count_blank_lines", "fineweb.limit_falls", "minhash.normalisation", "personal_data.emails",
    }  # fmt: skip


def test_a_users_filter_runs_after_those_of_each_recipe():
    class Own(GopherQualityFilter):
        name = "own"
        signals, rules = (), ()

    own = Own(**{field.name: getattr(gristmill.GOPHER_QUALITY, field.name) for field in dataclasses.fields(Own)})
    for recipe in (gristmill, datatrove_0_10, recipe_2024):
        config = recipe.documents("dump", recipe.URL_FILTER, own)
        assert config.sections == (*(one.name for one in recipe.FILTERS), "own")
        assert set(config.sections) < set(config.steps)


def test_steps_in_another_order_are_rejected_with_both_orders():
    ordered = (
        ("gopher_quality", "c4"),
        ("exact_dedup", "line_dedup"),
        ("c4", "line_dedup"),
        ("exact_dedup", "decontamination"),
    )
    for one, other in ordered:
        with pytest.raises(UsageError, match=rf"is {other} {one}, .* recipe's order is {one} {other}\."):
            demo_config(steps=(other, one))
    with pytest.raises(UsageError, match="each once"):
        demo_config(steps=("c4", "c4"))


def test_values_at_a_limit_are_kept_or_dropped_by_the_recipe():
    sides = {name: {one.reason: one.drops for one in thresholds_of(config)} for name, config in DOCUMENTS.items()}
    changed = {reason for reason, side in sides["fineweb_2024"].items() if side != sides["gristmill"][reason]}
    assert changed == {
        "fineweb_too_few_terminal_punctuation_lines", "fineweb_too_many_short_lines",
        "fineweb_duplicate_line_characters",
    }  # fmt: skip
    assert {sides["fineweb_2024"][reason] for reason in changed} == {"at most", "at least"}


def test_line_breaks_can_be_removed_before_language_detection(monkeypatch):
    asked = []
    monkeypatch.setattr(language, "likeliest", lambda line, number: asked.append(line) or [("en", 1.0)])
    for config in (datatrove_0_10.LANGUAGE, recipe_2024.LANGUAGE):
        language.detect_language(document("one 1\ntwo"), config)
    assert asked == ["one 1 two", "one 1two"]


def test_the_check_of_scripts_can_be_disabled():
    cherokee = document("ᎣᏏᏲ ᏙᎯᏧ " * 20 + "the cat and the dog")
    assert language.detect_language(cherokee, gristmill.LANGUAGE).language != "en"
    unchecked = dataclasses.replace(gristmill.LANGUAGE, check_script=False)
    assert (
        language.detect_language(cherokee, unchecked).language
        == language.likeliest(re.sub("\\s+", " ", cherokee.text), 1)[0][0]
    )


@pytest.mark.parametrize(
    ("url", "browser", "datatrove"),
    [
        ("http://deep.sub.listed.co.uk/", "banned_domain", "banned_domain"),  # the registered domain
        ("http://x.host.example/", "banned_domain", None),  # only the host itself is listed
        ("http://host.example/", "banned_domain", "banned_domain"),
        ("http://LISTED.co.uk/", "banned_domain", None),
        ("http://user@listed.co.uk:80/", "banned_domain", "banned_domain"),
        ("http://a.example/xxx", "banned_word", "banned_word"),
        ("http://a.example/XXX", "banned_word", None),
        ("http://a.example/%78xx", "banned_word", None),
        ("http://a.example/éxxx", None, "banned_word"),
        ("http://a.example/free/bets", "soft_banned_words", "soft_banned_words"),
        ("http://a.example/Free/bets", "soft_banned_words", None),
        ("http://a.example/Lucky-Strikes", "banned_substring", "banned_substring"),
        ("http://1.2.3.4/", None, None),
    ],
)
def test_urls_are_parsed_as_by_browsers_or_as_by_datatrove(url, browser, datatrove):
    config = UrlFilterConfig(
        banned_domains=("listed.co.uk", "host.example"), banned_words=("xxx",), soft_banned_words=("free", "bets"),
        soft_word_threshold=2, banned_substrings=("luckystrike",),
    )  # fmt: skip
    assert reject_reason(url, config) == browser
    assert reject_reason(url, dataclasses.replace(config, matching="datatrove")) == datatrove


@pytest.mark.parametrize(
    ("text", "ascii_", "lower_case"),
    [
        ("to ann@mill.org.", "to E.", "to E."),
        ("to Ann.Lee@Mill.org!", "to E!", "to Ann.Lee@Mill.org!"),
        ("to Ann.lee@mill.org", "to E", "to Ann.E"),
        ("a!b#c@x.y,é@z.de", "E,é@z.de", "E,é@z.de"),
        ("müller@mill.org", "müller@mill.org", "müller@mill.org"),
        ("mü-ller@mill.org", "müE", "müE"),
        ("a@b@c.de a..b@c.de", "a@E a..E", "a@E a..E"),
        ("x@[1.2.3.4] x@y", "E x@y", "E x@y"),
    ],
)
def test_emails_can_be_only_ascii_and_lower_case(text, ascii_, lower_case):
    for emails, expected in (("ascii", ascii_), ("lower_case", lower_case)):
        config = dataclasses.replace(
            datatrove_0_10.PERSONAL_DATA, emails=emails, kinds=("email",), email_placeholder="E"
        )
        assert replace_personal_data(text, config)[0] == expected


def test_every_public_ipv4_address_matches_if_the_recipe_says_so():
    config = dataclasses.replace(datatrove_0_10.PERSONAL_DATA, ip_placeholder="IP")
    assert replace_personal_data("version 8.8.4.4, 10.0.0.1, 01.2.3.4, 18.8.8.8.8, ::1", config) == (
        "version IP, 10.0.0.1, 01.2.3.4, IP.8, ::1", {"email": 0, "ip": 2},
    )  # fmt: skip


def a_file(path: Path, pages: list) -> InputFile:
    write_pages(path, pages)
    return InputFile(path, path.name, "warc", path.stat().st_size)


def test_xhtml_is_skipped_if_the_recipe_says_so(tmp_path):
    file = a_file(tmp_path / "a.warc.gz", [dataclasses.replace(page(html(PROSE)), xhtml=True), page(html(PROSE))])
    reasons = {
        xhtml: [found["reason"] for found in rows_of_input(file, demo_config(extract=dataclasses.replace(
            gristmill.EXTRACT, xhtml=xhtml)))]
        for xhtml in (True, False)
    }  # fmt: skip
    assert reasons == {True: [None, None], False: ["xhtml", None]}


def test_trafilatura_resets_its_deduplication_for_each_file(tmp_path):
    """With `deduplicate` the fourth page loses text of the first three. Results do not depend on earlier files."""
    pages = [page(html(PROSE, f"{PROSE[:-1]}, said number {n}."), url=f"http://a.example/{n}") for n in range(5)]
    file = a_file(tmp_path / "a.warc.gz", pages)
    config = demo_config(extract=datatrove_0_10.EXTRACT, steps=())
    first = [found["text"] for found in rows_of_input(file, config)]
    assert first == [found["text"] for found in rows_of_input(file, config)]
    assert PROSE in first[0].split("\n") and PROSE not in first[4].split("\n")
    alone = demo_config(extract=dataclasses.replace(datatrove_0_10.EXTRACT, deduplicate=False), steps=())
    assert all(PROSE in found["text"].split("\n") for found in rows_of_input(file, alone))


def test_deduplicate_is_an_option_of_trafilatura():
    with pytest.raises(UsageError, match="gristmill"):
        dataclasses.replace(gristmill.EXTRACT, deduplicate=True)


def test_measuring_other_languages_is_optional():
    german, english = document(GERMAN, language="de"), document(PROSE)
    file = InputFile(Path("x"), "x", "table", 0)
    for asked in (True, False):
        config = demo_config(measure_other_languages=asked, steps=())
        rows = [row.row_of(one, file, config) for one in (german, english)]
        assert [found["words"] is None for found in rows] == [not asked, False]
        assert [found["text"] for found in rows] == [GERMAN, PROSE]
    wider = with_values(config, {"language.languages": ("de", "en")})
    assert wider.of_texts() != config.of_texts()


def test_writing_dropped_documents_is_optional_and_does_not_affect_counts(tmp_path):
    written = []
    for write in (True, False):
        config = dataclasses.replace(CONFIG, write_dropped=write)
        out, texts = tmp_path / str(write), tmp_path / str(write) / "texts"
        write_texts(texts / "a.parquet", real_rows(CONFIG))
        write_records(texts, 61)
        outcome = prepare_documents(texts, config, out)
        rows = pq.read_table(out / "dropped/a.parquet").num_rows
        written.append((outcome, (out / "funnel.json").read_bytes(), (out / "documents/a.parquet").read_bytes(), rows))
    assert written[0][:3] == written[1][:3]
    assert (written[0][3], written[1][3]) == (sum(written[0][0].dropped.values()), 0)
