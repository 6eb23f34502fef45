"""The funnel: every document is counted once, under its reason, whatever the files it lies in."""

import dataclasses
from pathlib import Path

import pytest

from data_prep.documents import Document, Rejection
from data_prep.report import EXAMPLES, EXCERPT_CHARACTERS, host, read_funnel
from lm.errors import InputError
from tests.launch.run_folder import make_document, write_documents, write_rejections

KEPT = [make_document(i, "Grüße. " * (i + 1)) for i in range(40)]
DROPPED = [
    *(Rejection(make_document(100 + i, "", language=""), "extract", "no_text") for i in range(5)),
    *(Rejection(make_document(200 + i, "x" * i), "gopher_quality", "gopher_short_document") for i in range(7)),
    *(Rejection(make_document(300 + i, "kurz", language="de"), "language", "other_language") for i in range(3)),
    Rejection(make_document(400, "twice"), "exact_dedup", "exact_duplicate"),
    Rejection(make_document(500, "new"), "a_stage_of_tomorrow", "some_reason"),
    Rejection(make_document(600, "long"), "gopher_quality", "gopher_long_document"),
]


def funnel_of(folder: Path, kept: list[Document], dropped: list[Rejection], files: int = 2):
    write_documents(folder / "documents", kept, files)
    write_rejections(folder / "dropped", dropped, files)
    return read_funnel(folder / "documents", folder / "dropped")


def test_every_page_is_counted_once(tmp_path: Path):
    funnel = funnel_of(tmp_path, KEPT, DROPPED)
    assert funnel.pages_read == len(KEPT) + len(DROPPED)
    assert funnel.documents_kept == len(KEPT)
    assert funnel.clean_text_bytes == sum(len(document.text.encode()) for document in KEPT)
    assert sum(one.documents for one in funnel.lengths) == len(KEPT)
    assert sum(domain.text_bytes for domain in funnel.domains) == funnel.clean_text_bytes
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


def test_reasons_carry_counts_bytes_and_their_own_examples(tmp_path: Path):
    reasons = {reason.reason: reason for reason in funnel_of(tmp_path, KEPT, DROPPED).reasons}
    short = reasons["gopher_short_document"]
    assert (short.documents, short.text_bytes, len(short.examples)) == (7, sum(range(7)), EXAMPLES)
    assert all(set(example.excerpt) <= {"x"} for example in short.examples)
    assert [example.excerpt for example in reasons["no_text"].examples] == [""] * EXAMPLES
    assert list(reasons).index("gopher_short_document") < list(reasons).index("gopher_long_document")  # more of them


def test_an_excerpt_is_the_beginning_and_bytes_are_of_the_whole(tmp_path: Path):
    (example,) = funnel_of(tmp_path, [make_document(1, "ü" * 5000)], []).kept
    assert example.excerpt == "ü" * EXCERPT_CHARACTERS
    assert example.text_bytes == 10_000


def test_neither_order_nor_number_of_files_changes_the_funnel(tmp_path: Path):
    same_id = [dataclasses.replace(make_document(7, text), url=text) for text in ("a", "b", "c")]
    kept = KEPT + 4 * same_id
    one = funnel_of(tmp_path / "one", kept, DROPPED, files=1)
    assert one == funnel_of(tmp_path / "three", kept[::-1], DROPPED[::-1], files=3)
    assert len(one.kept) == 2 * EXAMPLES


def test_lengths_have_no_gaps_and_each_text_lies_in_its_bin(tmp_path: Path):
    lengths = funnel_of(tmp_path, [make_document(1, "a" * 8), make_document(2, "a" * 64)], []).lengths
    assert [(one.low, one.documents) for one in lengths] == [(8, 1), (16, 0), (32, 0), (64, 1)]
    assert all(one.high == 2 * one.low for one in lengths)


def test_nothing_dropped(tmp_path: Path):
    write_documents(tmp_path / "documents", KEPT)
    funnel = read_funnel(tmp_path / "documents", tmp_path / "dropped")
    assert (funnel.stages, funnel.reasons, funnel.pages_read) == ((), (), len(KEPT))


def test_nothing_kept_is_an_input_error(tmp_path: Path):
    with pytest.raises(InputError, match="holds no document"):
        funnel_of(tmp_path, [], DROPPED)


def test_a_damaged_file_is_an_input_error_that_names_it(tmp_path: Path):
    write_documents(tmp_path / "documents", KEPT)
    (tmp_path / "documents/00001.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(InputError, match=r"00001\.parquet.*launch\.prepare_documents"):
        read_funnel(tmp_path / "documents", tmp_path / "dropped")


def test_a_file_without_reasons_is_an_input_error(tmp_path: Path):
    write_documents(tmp_path / "documents", KEPT)
    write_documents(tmp_path / "dropped", KEPT)
    with pytest.raises(InputError, match="no column stage, reason"):
        read_funnel(tmp_path / "documents", tmp_path / "dropped")


@pytest.mark.parametrize(
    ("url", "expected"),
    [("https://www.a.example/x", "a.example"), ("http://A.example:80", "a.example"), ("http://[", ""), ("", "")],
)
def test_host(url: str, expected: str):
    assert host(url) == expected
