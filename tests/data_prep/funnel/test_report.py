"""The funnel report: every page once under its reason, with examples at the right positions."""

import json
from pathlib import Path
from typing import Any

import pytest

from data_prep.documents import Document
from data_prep.funnel import counts
from data_prep.funnel.counts import EXAMPLES, TOP_DOMAINS
from data_prep.funnel.report import EXCERPT_CHARACTERS, FUNNEL, Written, read_counts, read_examples
from data_prep.quality.fineweb import FineWebFilter
from data_prep.quality.gopher import GopherQualityFilter
from lm.errors import InputError
from tests.data_prep.measured import CONFIG, real_rows, write_texts
from tests.launch.run_folder import Rejection, make_document, write_funnel_of
from viewer.funnel import funnel_answer

KEPT = [make_document(i, "Grüße. " * (i + 1)) for i in range(40)]
DROPPED = [
    *(Rejection(make_document(100 + i, "", language=""), "extract", "no_text") for i in range(15)),
    *(Rejection(make_document(200 + i, "x" * (i + 1)), "gopher_quality", "gopher_short_document") for i in range(7)),
    *(Rejection(make_document(300 + i, "kurz", language="de"), "language", "other_language") for i in range(3)),
    Rejection(make_document(400, "twice"), "exact_dedup", "exact_duplicate"),
    Rejection(make_document(500, "new"), "a_stage_of_tomorrow", "some/reason"),
    Rejection(make_document(600, "long"), "gopher_quality", "gopher_long_document"),
]


def written_of(folder: Path, kept: list[Document], dropped: list[Rejection], files: int = 2) -> Written:
    write_funnel_of(folder, kept, dropped, CONFIG, files)
    return read_counts(folder / FUNNEL)


def examples_of(folder: Path, kept: list[Document], dropped: list[Rejection], files: int = 2) -> Any:
    return read_examples(written_of(folder, kept, dropped, files), folder / "texts", CONFIG)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A run folder with KEPT and DROPPED."""
    folder = tmp_path_factory.mktemp("run")
    write_funnel_of(folder, KEPT, DROPPED, CONFIG)
    return folder


@pytest.fixture(scope="module")
def funnel(folder) -> Any:
    return funnel_answer(read_counts(folder / FUNNEL), CONFIG)


def test_every_page_is_counted_once(funnel):
    assert (funnel["pages"], funnel["kept"]) == (len(KEPT) + len(DROPPED), len(KEPT))
    kept_bytes = sum(len(document.text.encode()) for document in KEPT)
    assert funnel["clean_text_bytes"] == kept_bytes
    assert funnel["bytes"] == kept_bytes + sum(len(one.document.text) for one in DROPPED)
    assert sum(documents for _, _, documents in funnel["lengths"]) == len(KEPT)
    assert sum(size for _, _, size in funnel["domains"]) == kept_bytes
    assert {name: documents for name, documents, _ in funnel["languages"]} == {"en": len(KEPT) + 10, "de": 3}


def test_stages_follow_the_pipeline_and_add_up(funnel):
    assert [stage["stage"] for stage in funnel["stages"]] == [
        "extract", "language", "gopher_quality", "exact_dedup", "a_stage_of_tomorrow",
    ]  # fmt: skip
    left = funnel["pages"]
    for stage in funnel["stages"]:
        assert stage["entered"] == left
        left -= stage["dropped"]
    assert left == funnel["kept"]


def test_reasons_have_counts_bytes_and_thresholds(funnel):
    reasons = {one["reason"]: one for stage in funnel["stages"] for one in stage["reasons"]}
    short = reasons["gopher_short_document"]
    assert (short["documents"], short["bytes"]) == (7, sum(range(8)))
    limit = short["threshold"]
    assert (limit["drops"], limit["value"]) == ("below", CONFIG.get(GopherQualityFilter).min_words)
    assert reasons["no_text"]["threshold"] is None
    assert "some/reason" in reasons
    assert list(reasons).index("gopher_short_document") < list(reasons).index("gopher_long_document")  # more of them


def test_examples_are_the_documents_as_the_filter_saw_them(tmp_path):
    examples, _ = examples_of(tmp_path, KEPT, DROPPED, files=3)
    kept = {document.url: document.text for document in KEPT}
    assert len(examples["kept"]) == EXAMPLES
    assert all(kept[one.url].startswith(one.excerpt) for one in examples.pop("kept"))
    dropped = {one.document.url: f"{one.stage}/{one.reason}" for one in DROPPED}
    assert {name: {dropped[one.url] for one in found} for name, found in examples.items()} == {
        name: {name} for name in dropped.values()
    }
    short = examples["gopher_quality/gopher_short_document"]
    assert len(short) == 7 and {one.values["words"] for one in short} == {1.0}
    assert [one.excerpt for one in examples["extract/no_text"]] == [""] * EXAMPLES


def test_records_seen_are_pages_plus_skipped_records(funnel):
    assert funnel["skipped"] == {"not_a_response": 1000, "not_html": 100}
    assert funnel["seen"] == funnel["pages"] + 1100


def test_an_excerpt_is_the_beginning_without_personal_data_and_bytes_count_the_whole_text(tmp_path):
    private = "word " * (EXCERPT_CHARACTERS // 5 - 2) + "miller@mill.example and so on."
    kept = [make_document(1, "ü" * 5000), make_document(2, private)]
    plain, masked = sorted(examples_of(tmp_path, kept, [])[0]["kept"], key=lambda one: one.url)
    assert (plain.excerpt, plain.text_bytes) == ("ü" * EXCERPT_CHARACTERS, 10_000)
    assert "word" in masked.excerpt and "miller" not in masked.excerpt


def test_distributions_have_every_text_once_and_every_threshold(folder):
    written = read_counts(folder / FUNNEL)
    texts = len(KEPT) + sum(bool(one.document.text) for one in DROPPED)
    for groups in written.counts["values"].values():
        assert sum(sum(group.values()) for group in groups.values()) == texts
        assert sum(groups["kept"].values()) == len(KEPT)
    _, near = read_examples(written, folder / "texts", CONFIG)
    assert {*near} == {f"{one.stage}/{one.reason}" for one in written.thresholds}
    assert all(len(found) == EXAMPLES for found in near.values())
    words = [one.reason for one in written.thresholds if one.signal == "words"]
    assert words == ["gopher_short_document", "gopher_long_document"]
    assert sum(written.counts["values"]["words"]["dropped"].values()) == 8


def test_length_bins_have_no_gaps_and_each_text_is_in_its_bin(tmp_path):
    kept = [make_document(1, "a" * 8), make_document(2, "a" * 64)]
    lengths = funnel_answer(written_of(tmp_path, kept, []), CONFIG)["lengths"]
    assert lengths == [[8, 16, 1], [16, 32, 0], [32, 64, 0], [64, 128, 1]]


def test_the_largest_domains_are_named(tmp_path):
    kept = [make_document(i, "a" * (i + 1), url=f"https://www.host-{i}.example/") for i in range(50)]
    domains = funnel_answer(written_of(tmp_path, kept, []), CONFIG)["domains"]
    assert [name for name, _, _ in domains] == [f"host-{i}.example" for i in range(49, 49 - TOP_DOMAINS, -1)]


def test_no_documents_dropped_or_kept(tmp_path):
    funnel = funnel_answer(written_of(tmp_path / "kept", KEPT, []), CONFIG)
    assert (funnel["stages"], funnel["pages"]) == ([], len(KEPT))
    written = written_of(tmp_path / "dropped", [], DROPPED)
    funnel = funnel_answer(written, CONFIG)
    assert (funnel["kept"], funnel["lengths"], funnel["domains"]) == (0, [], [])
    examples, near = read_examples(written, tmp_path / "dropped/texts", CONFIG)
    assert "kept" not in examples and not any(near.values())


def test_the_hosts_of_a_long_file_fit_in_memory(monkeypatch):
    monkeypatch.setattr(counts, "MAX_PARTS", 3)
    parts = [counts.empty_counts()]
    for number in range(10):
        counts.append_counts(parts, counts.empty_counts() | {"rows": 1, "domains": {f"{number}.example": [1, 9]}})
        assert len(parts) < 3
    total = counts.merge(parts)
    assert total["rows"] == 10 and len(total["domains"]) == 10


@pytest.mark.parametrize(
    "text", [None, "", "{", "[]", '{"counts": {}}', '{"thresholds": [{"stage": "c4"}], "counts": {}}']
)
def test_a_missing_or_damaged_funnel_is_an_input_error_that_names_it(tmp_path, text):
    if text is not None:
        (tmp_path / FUNNEL).write_text(text)
    with pytest.raises(InputError, match=r"funnel\.json cannot be read.*launch\.prepare_documents"):
        read_counts(tmp_path / FUNNEL)


@pytest.mark.parametrize("damage", ["missing", "cut", "shorter"])
def test_damaged_texts_are_an_input_error_that_names_the_file(tmp_path, damage: str):
    written = written_of(tmp_path, KEPT, DROPPED)
    file = tmp_path / "texts/00001.parquet"
    if damage == "missing":
        file.unlink()
    elif damage == "cut":
        file.write_bytes(file.read_bytes()[:-100])
    else:
        write_texts(file, real_rows(CONFIG, 2))
    with pytest.raises(InputError, match=r"00001\.parquet.*launch\.extract_texts"):
        read_examples(written, tmp_path / "texts", CONFIG)


def test_the_file_is_plain_json_with_thresholds_and_their_options(folder):
    written = json.loads((folder / FUNNEL).read_text())
    assert written["files"] == {"0": "00000.parquet", "1": "00001.parquet"}
    (short_lines,) = [one for one in written["thresholds"] if one["signal"] == "short_lines"]
    assert short_lines == {
        "stage": "fineweb", "reason": "fineweb_too_many_short_lines", "signal": "short_lines", "drops": "above",
        "value": CONFIG.get(FineWebFilter).max_short_lines, "option": "documents.fineweb.max_short_lines",
    }  # fmt: skip
