"""The funnel report: every page once under its reason, with examples at the right positions."""

import dataclasses
import json
from pathlib import Path

import pytest

from data_prep.documents import Document
from data_prep.funnel.counts import EXAMPLES, TOP_DOMAINS, empty_counts
from data_prep.funnel.report import EXCERPT_CHARACTERS, FUNNEL, Funnel, read_counts, read_funnel, write_funnel
from data_prep.quality.fineweb import FineWebFilter
from data_prep.quality.gopher import GopherQualityFilter
from data_prep.sources.inputs import Records
from lm.errors import InputError
from tests.data_prep.measured import CONFIG, real_rows, write_texts
from tests.launch.run_folder import Rejection, make_document, write_funnel_of

KEPT = [make_document(i, "Grüße. " * (i + 1)) for i in range(40)]
DROPPED = [
    *(Rejection(make_document(100 + i, "", language=""), "extract", "no_text") for i in range(15)),
    *(Rejection(make_document(200 + i, "x" * (i + 1)), "gopher_quality", "gopher_short_document") for i in range(7)),
    *(Rejection(make_document(300 + i, "kurz", language="de"), "language", "other_language") for i in range(3)),
    Rejection(make_document(400, "twice"), "exact_dedup", "exact_duplicate"),
    Rejection(make_document(500, "new"), "a_stage_of_tomorrow", "some/reason"),
    Rejection(make_document(600, "long"), "gopher_quality", "gopher_long_document"),
]


def funnel_of(folder: Path, kept: list[Document], dropped: list[Rejection], files: int = 2) -> Funnel:
    write_funnel_of(folder, kept, dropped, CONFIG, files)
    return read_funnel(folder / FUNNEL, folder / "texts", CONFIG)


def test_every_page_is_counted_once(tmp_path: Path):
    funnel = funnel_of(tmp_path, KEPT, DROPPED)
    assert funnel.pages_read == len(KEPT) + len(DROPPED)
    assert funnel.documents_kept == len(KEPT)
    kept_bytes = sum(len(document.text.encode()) for document in KEPT)
    assert funnel.clean_text_bytes == kept_bytes
    assert funnel.extracted_bytes == kept_bytes + sum(len(one.document.text) for one in DROPPED)
    assert sum(one.documents for one in funnel.lengths) == len(KEPT)
    assert sum(domain.text_bytes for domain in funnel.domains) == kept_bytes
    assert {tally.name: tally.documents for tally in funnel.languages} == {"en": len(KEPT) + 10, "de": 3}


def test_stages_follow_the_pipeline_and_add_up(tmp_path: Path):
    funnel = funnel_of(tmp_path, KEPT, DROPPED)
    assert [stage.stage for stage in funnel.stages] == [
        "extract", "language", "gopher_quality", "exact_dedup", "a_stage_of_tomorrow",
    ]  # fmt: skip
    left = funnel.pages_read
    for stage in funnel.stages:
        assert stage.entered == left
        left -= stage.dropped
    assert left == funnel.documents_kept


def test_reasons_have_counts_bytes_thresholds_and_examples(tmp_path: Path):
    reasons = {reason.reason: reason for reason in funnel_of(tmp_path, KEPT, DROPPED).reasons}
    short = reasons["gopher_short_document"]
    assert (short.documents, short.text_bytes, len(short.examples)) == (7, sum(range(8)), 7)
    assert all(set(example.excerpt) == {"x"} for example in short.examples)
    assert short.threshold and (short.threshold.drops, short.threshold.value) == (
        "below",
        CONFIG.get(GopherQualityFilter).min_words,
    )
    assert {example.values["words"] for example in short.examples} == {1.0}
    assert [example.excerpt for example in reasons["no_text"].examples] == [""] * EXAMPLES
    assert reasons["no_text"].threshold is None
    assert "some/reason" in reasons
    assert list(reasons).index("gopher_short_document") < list(reasons).index("gopher_long_document")  # more of them


def test_examples_are_the_documents_as_the_filter_saw_them(tmp_path: Path):
    funnel = funnel_of(tmp_path, KEPT, DROPPED, files=3)
    kept = {document.url: document.text for document in KEPT}
    assert len(funnel.kept) == EXAMPLES
    assert all(kept[example.url].startswith(example.excerpt) for example in funnel.kept)
    dropped = {one.document.url: one.reason for one in DROPPED}
    for reason in funnel.reasons:
        assert {dropped[example.url] for example in reason.examples} == {reason.reason}


def test_records_seen_are_pages_plus_skipped_records(tmp_path: Path):
    funnel = funnel_of(tmp_path, KEPT, DROPPED)
    assert funnel.records.skipped == {"not_a_response": 1000, "not_html": 100}
    assert funnel.records.seen == funnel.pages_read + 1100


def test_an_excerpt_is_the_beginning_and_bytes_count_the_whole_text(tmp_path: Path):
    (example,) = funnel_of(tmp_path, [make_document(1, "ü" * 5000)], []).kept
    assert example.excerpt == "ü" * EXCERPT_CHARACTERS
    assert example.text_bytes == 10_000


def test_personal_data_is_not_shown_even_at_the_end_of_an_excerpt(tmp_path: Path):
    text = "word " * (EXCERPT_CHARACTERS // 5 - 2) + "miller@mill.example and so on."
    (example,) = funnel_of(tmp_path, [make_document(1, text)], []).kept
    assert "miller" not in example.excerpt


def test_the_funnel_does_not_depend_on_the_number_of_files(tmp_path: Path):
    kept = [dataclasses.replace(one, text=f"{one.text}{i}") for i, one in enumerate(KEPT)]
    one = funnel_of(tmp_path / "one", kept, DROPPED, files=1)
    three = funnel_of(tmp_path / "three", kept, DROPPED, files=3)
    same = ("pages_read", "stages", "reasons", "kept", "languages", "domains", "lengths", "extracted_bytes")
    assert {name: getattr(one, name) for name in same} == {name: getattr(three, name) for name in same}
    assert [d.bins for d in one.distributions] == [d.bins for d in three.distributions]


def test_distributions_have_every_text_once_and_every_threshold(tmp_path: Path):
    funnel = funnel_of(tmp_path, KEPT, DROPPED)
    texts = len(KEPT) + sum(bool(one.document.text) for one in DROPPED)
    for distribution in funnel.distributions:
        assert sum(one.kept + one.dropped + one.elsewhere for one in distribution.bins) == texts
        assert sum(one.kept for one in distribution.bins) == len(KEPT)
        assert [one.low for one in distribution.bins] == sorted(one.low for one in distribution.bins)
        assert all(len(near) == EXAMPLES for near in distribution.near)
    words = next(one for one in funnel.distributions if one.signal == "words")
    assert [one.reason for one in words.thresholds] == ["gopher_short_document", "gopher_long_document"]
    assert sum(one.dropped for one in words.bins) == 8


def test_length_bins_have_no_gaps_and_each_text_is_in_its_bin(tmp_path: Path):
    lengths = funnel_of(tmp_path, [make_document(1, "a" * 8), make_document(2, "a" * 64)], []).lengths
    assert [(one.low, one.documents) for one in lengths] == [(8, 1), (16, 0), (32, 0), (64, 1)]
    assert all(one.high == 2 * one.low for one in lengths)


def test_the_largest_domains_are_named(tmp_path: Path):
    kept = [make_document(i, "a" * (i + 1), url=f"https://www.host-{i}.example/") for i in range(50)]
    funnel = funnel_of(tmp_path, kept, [])
    assert [one.name for one in funnel.domains] == [f"host-{i}.example" for i in range(49, 49 - TOP_DOMAINS, -1)]


def test_no_documents_dropped_or_kept(tmp_path: Path):
    funnel = funnel_of(tmp_path / "kept", KEPT, [])
    assert (funnel.stages, funnel.reasons, funnel.pages_read) == ((), (), len(KEPT))
    funnel = funnel_of(tmp_path / "dropped", [], DROPPED)
    assert (funnel.documents_kept, funnel.kept, funnel.lengths, funnel.domains) == (0, (), (), ())


def test_pairs_of_duplicates_are_shown_side_by_side(tmp_path: Path):
    rows = real_rows(CONFIG, 9)
    paths = [tmp_path / "texts/a.parquet", tmp_path / "texts/b.parquet"]
    for path, mine in zip(paths, (rows[:5], rows[5:]), strict=True):
        write_texts(path, mine, rows_per_group=2)
    counts = empty_counts() | {"pairs": [[1, 1, 2, 0, 4]]}
    write_funnel(tmp_path / FUNNEL, counts, {0: "a.parquet", 1: "b.parquet"}, Records(9, {}), CONFIG)
    (pair,) = read_funnel(tmp_path / FUNNEL, tmp_path / "texts", CONFIG).duplicates
    assert (pair.dropped.url, pair.stayed.url) == (rows[7]["url"], rows[4]["url"])


@pytest.mark.parametrize("text", ["", "{", "[]", '{"counts": {}}', '{"thresholds": [{"stage": "c4"}], "counts": {}}'])
def test_a_damaged_funnel_is_an_input_error_that_names_it(tmp_path: Path, text: str):
    (tmp_path / FUNNEL).write_text(text)
    with pytest.raises(InputError, match=r"funnel\.json cannot be read.*launch\.prepare_documents"):
        read_counts(tmp_path / FUNNEL)


def test_a_missing_funnel_is_an_input_error(tmp_path: Path):
    with pytest.raises(InputError, match=r"funnel\.json cannot be read.*launch\.prepare_documents"):
        read_funnel(tmp_path / FUNNEL, tmp_path / "texts", CONFIG)


@pytest.mark.parametrize("damage", ["missing", "cut", "shorter"])
def test_damaged_texts_are_an_input_error_that_names_the_file(tmp_path: Path, damage: str):
    funnel_of(tmp_path, KEPT, DROPPED)
    file = tmp_path / "texts/00001.parquet"
    if damage == "missing":
        file.unlink()
    elif damage == "cut":
        file.write_bytes(file.read_bytes()[:-100])
    else:
        write_texts(file, real_rows(CONFIG, 2))
    with pytest.raises(InputError, match=r"00001\.parquet.*launch\.extract_texts"):
        read_funnel(tmp_path / FUNNEL, tmp_path / "texts", CONFIG)


def test_the_file_is_plain_json_with_thresholds_and_their_options(tmp_path: Path):
    write_funnel_of(tmp_path, KEPT, DROPPED, CONFIG)
    written = json.loads((tmp_path / FUNNEL).read_text())
    assert written["files"] == {"0": "00000.parquet", "1": "00001.parquet"}
    (short_lines,) = [one for one in written["thresholds"] if one["signal"] == "short_lines"]
    assert short_lines == {
        "stage": "fineweb", "reason": "fineweb_too_many_short_lines", "signal": "short_lines", "drops": "above",
        "value": CONFIG.get(FineWebFilter).max_short_lines, "option": "documents.fineweb.max_short_lines",
    }  # fmt: skip
