"""From WARC files to Parquet, on files written here: every reason, and the same bytes however it is run."""

import hashlib
import random
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from data_prep import pipeline
from data_prep.beam_runner import run_pipeline
from data_prep.config import PersonalDataConfig, UrlFilterConfig
from data_prep.documents import DOCUMENT_SCHEMA, REJECTION_SCHEMA, STAGES, WebPage
from data_prep.prepare import lay_out, outcome_of, prepare_documents
from data_prep.report import read_funnel
from data_prep.warc import write_pages
from lm.errors import InputError
from tests.data_prep.pages import GERMAN, PROSE, demo_config, html, page

CONFIG = demo_config(
    url_filter=UrlFilterConfig(banned_domains=("bad.example",), banned_words=("casino",)),
    personal_data=PersonalDataConfig(replace_emails=True, email_placeholder="X"),
)
WORDS = PROSE.split()


def variant(number: int) -> str:
    """Prose that no other number has."""
    return f"{PROSE} The number on the door was {number}."


PAGES = {
    "kept": html(variant(1), "Write to miller@mill.example for more."),
    "banned_domain": html(variant(2)),
    "banned_word": html(variant(3)),
    "html_too_large": html(variant(4)) + b" " * CONFIG.extract.max_bytes,
    "html_too_deep": html("<div>" * 300 + variant(5)),
    "no_text": b"<html><head><title>t</title></head><body></body></html>",
    "unreadable_html": b"no page",
    "low_language_score": html("Lorem kaj ipsum 17 wie auch dolor, mais amet con la und y del. " * 6),
    "other_language": html(GERMAN),
    "gopher_short_document": html(" ".join(WORDS[:40])),
    "gopher_long_document": html(*[variant(i) for i in range(1200)]),
    "gopher_below_mean_word_length": html(
        "I am in it, and so is he; we go up to it as it is on me to do so by an ox. " * 4
    ),
    "gopher_above_mean_word_length": html(
        "The internationalization of telecommunications infrastructures notwithstanding, organizational "
        "responsibilities and interdepartmental misunderstandings characterized bureaucratization. " * 6
    ),
    "gopher_too_many_hashes": html(" ".join(f"#{word}" if i % 4 == 0 else word for i, word in enumerate(WORDS))),
    "gopher_too_many_ellipses": html(" ".join(f"{word}..." if i % 5 == 0 else word for i, word in enumerate(WORDS))),
    "gopher_too_many_bullet_lines": html(*[f"- {sentence}" for sentence in variant(6).split(". ")]),
    "gopher_too_many_ellipsis_lines": html(*[f"{sentence}..." for sentence in variant(7).split(". ")]),
    "gopher_too_few_words_with_letter": html(
        " ".join(f"{word} 2025, 2026;" if i % 3 == 0 else word for i, word in enumerate(WORDS))
    ),
    "gopher_too_few_stop_words": html(
        "Fresh bread costs more money this winter. Bakers say flour prices rose sharply after bad harvests. " * 5
    ),
}
URLS = {"banned_domain": "http://www.bad.example/", "banned_word": "http://a.example/casino/"}


def pages_of(names) -> list[WebPage]:
    return [page(PAGES[name], URLS.get(name, f"http://a.example/{name}")) for name in names]


@pytest.fixture
def files(tmp_path) -> list[Path]:
    """Three WARC files: every reason once, copies in later files and in the same file, and one file without a page."""
    copies = [
        page(html(variant(1), "Write to miller@mill.example  for more."), f"http://a.example/copy{i}") for i in (1, 2)
    ]
    others = [page(html(variant(number)), f"http://b.example/{number}") for number in range(100, 108)]
    paths = [tmp_path / "warc" / name for name in ("z.warc.gz", "a.warc.gz", "empty.warc.gz")]
    write_pages(paths[0], pages_of(PAGES))
    write_pages(paths[1], [*others[:4], copies[0], others[0], *others[4:], copies[1]])
    write_pages(paths[2], [])
    return paths


def prepare(files: list[Path], out: Path, workers: int = 1, config=CONFIG):
    return prepare_documents(
        files,
        names_of(files),
        config,
        out / "parts",
        out / "documents",
        out / "dropped",
        workers,
        lambda progress: None,
    )


def names_of(files: list[Path]) -> list[str]:
    return [path.name for path in files]


def digests(out: Path) -> dict[str, str]:
    return {
        str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest()
        for folder in ("documents", "dropped")
        for path in sorted((out / folder).iterdir())
    }


def test_every_page_has_its_reason(files, tmp_path):
    outcome = prepare(files, tmp_path / "out")
    kept, dropped = (pq.read_table(tmp_path / "out" / folder).to_pylist() for folder in ("documents", "dropped"))
    reasons = {row["url"]: row["reason"] for row in dropped}
    assert {name: reasons.get(URLS.get(name, f"http://a.example/{name}"), "kept") for name in PAGES} == {
        n: n for n in PAGES
    }
    assert outcome.kept == len(kept) == 1 + 8
    assert sum(outcome.dropped.values()) == len(dropped) == len(PAGES) - 1 + 3
    assert outcome.pages == len(PAGES) + 11
    assert outcome.dropped["exact_dedup", "exact_duplicate"] == 3
    assert next(iter(outcome.dropped))[0] == "url_filter"
    assert outcome.emails_replaced == 1


def column(path: Path, name: str) -> list:
    return pq.read_table(path)[name].to_pylist()


def test_files_rows_and_columns(files, tmp_path):
    out = tmp_path / "out"
    prepare(files, out)
    names = ["a.parquet", "empty.parquet", "z.parquet"]
    assert [path.name for path in sorted((out / "documents").iterdir())] == names
    assert [path.name for path in sorted((out / "dropped").iterdir())] == names
    assert pq.read_schema(out / "documents/a.parquet") == DOCUMENT_SCHEMA
    assert pq.read_schema(out / "dropped/empty.parquet") == REJECTION_SCHEMA
    assert column(out / "documents/a.parquet", "url") == [
        f"http://b.example/{number}" for number in range(100, 108)
    ]  # as they were read
    copies = out / "dropped/a.parquet"
    assert column(copies, "url") == ["http://a.example/copy1", "http://b.example/100", "http://a.example/copy2"]
    assert set(column(copies, "stage")) == {"exact_dedup"}
    assert column(copies, "text")[0].endswith("Write to X for more.")  # a copy by its words before the replacement
    (first,) = pq.read_table(out / "documents/z.parquet").to_pylist()
    assert first["text"] == f"{variant(1)}\nWrite to X for more."
    assert (first["dump"], first["file_path"], first["language"]) == ("demo", "z.warc.gz", "en")
    dropped = {row["reason"]: row for row in pq.read_table(out / "dropped/z.parquet").to_pylist()}
    assert list(dropped) == [name for name in PAGES if name != "kept"]
    for row in dropped.values():
        assert (row["text"] == "") == (row["stage"] in ("url_filter", "extract"))
    assert dropped["other_language"]["language"] == "de"


def test_personal_data_reaches_neither_kept_nor_dropped_documents_nor_the_report(tmp_path):
    """Also where a stage before the last drops the document; replacements in kept documents alone are counted."""
    path = tmp_path / "mail.warc.gz"
    letters = [html(variant(1), "a@b.example"), html("Too short: c@d.example"), html(GERMAN, "e@f.example")]
    write_pages(path, [page(body, f"http://a.example/{i}") for i, body in enumerate([*letters, letters[0]])])
    outcome = prepare([path], tmp_path / "out")
    assert (outcome.kept, outcome.emails_replaced) == (1, 1)
    folders = tmp_path / "out/documents", tmp_path / "out/dropped"
    texts = [text for folder in folders for text in column(folder / "mail.parquet", "text")]
    assert [text.count("X") for text in texts] == [1] * 4
    assert "@" not in "".join(texts)
    assert "@" not in str(read_funnel(*folders))


def test_same_bytes_with_two_workers_and_in_any_order_of_arrival(files, tmp_path):
    prepare(files, tmp_path / "one", workers=1)
    prepare(files, tmp_path / "two", workers=2)
    assert digests(tmp_path / "one") == digests(tmp_path / "two")
    out = tmp_path / "shuffled"
    sources = lay_out(files, names_of(files), out / "parts", out / "documents", out / "dropped")
    for folder in ("parts", "documents", "dropped"):
        (out / folder).mkdir(parents=True)
    random.Random(1).shuffle(sources)
    assert [source.index for source in sources] != [0, 1, 2]
    run_pipeline(lambda graph: pipeline.add_pipeline(graph, sources, CONFIG, workers=1), workers=1)
    assert digests(out) == digests(tmp_path / "one")


def test_a_whole_part_is_reused_and_a_half_written_one_is_not(files, tmp_path):
    out = tmp_path / "out"
    prepare(files, out)
    expected = digests(out)
    parts = out / "parts"
    part = parts / "z.parquet"
    (parts / "parts-z.parquet.1.partial").write_bytes(b"PAR1")  # what a killed worker leaves
    (parts / "a.parquet").write_bytes((parts / "a.parquet").read_bytes()[:-1])
    (out / "documents" / "old.parquet").write_bytes(b"")
    before = part.stat().st_mtime_ns, part.stat().st_ino
    files[0].write_bytes(b"not read again")
    prepare(files, out)
    assert digests(out) == expected
    assert (part.stat().st_mtime_ns, part.stat().st_ino) == before
    assert sorted(path.name for path in parts.iterdir()) == ["a.parquet", "empty.parquet", "z.parquet"]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_file_that_is_no_warc_is_named(files, tmp_path, workers):
    files[1].write_bytes(b"<html>" * 100)
    with pytest.raises(InputError, match=r"^.*a\.warc\.gz holds no WARC record\. Give WARC files[^\[]*$"):
        prepare(files, tmp_path / "out", workers)


def test_nothing_survives(files, tmp_path):
    with pytest.raises(InputError) as caught:
        prepare(
            [files[0], files[2]], tmp_path / "out", config=demo_config(url_filter=UrlFilterConfig(("example",), ()))
        )
    assert f"No document survives of {len(PAGES)} pages in 2 WARC files" in str(caught.value)
    assert "banned_domain" in str(caught.value)
    assert "Loosen the rule" in str(caught.value)


def test_no_page_at_all_is_no_matter_of_the_filters(files, tmp_path):
    paths = [tmp_path / f"{name}.warc.gz" for name in "abcd"]
    for path in paths:
        write_pages(path, [])
    with pytest.raises(InputError) as caught:
        prepare(paths, tmp_path / "out")
    assert str(caught.value).startswith(
        f"There is no page in 4 WARC files ({paths[0]}, {paths[1]}, {paths[2]}, …): they hold no HTML response. "
    )
    assert "Loosen" not in str(caught.value)


def test_a_stage_that_is_not_named_is_told_last():
    outcome = outcome_of(
        {"new_stage/some/reason": 5, "exact_dedup/exact_duplicate": 1, "extract/no_text": 2, "kept": 3}
    )
    assert list(outcome.dropped.items()) == [
        (("extract", "no_text"), 2), (("exact_dedup", "exact_duplicate"), 1), (("new_stage", "some/reason"), 5),
    ]  # fmt: skip
    assert outcome.pages == 11


def test_every_stage_has_its_place(files, tmp_path):
    assert {stage for stage, _ in prepare(files, tmp_path / "out").dropped} == set(STAGES)


def test_a_folder_that_cannot_be_written(files, tmp_path):
    (tmp_path / "out").write_text("a file, not a folder")
    with pytest.raises(InputError, match="cannot be written"):
        prepare(files, tmp_path / "out")


def test_damage_in_a_file_is_counted(files, tmp_path):
    clipped = tmp_path / "clipped.warc.gz"
    clipped.write_bytes(files[0].read_bytes()[:-200])
    assert prepare(files, tmp_path / "whole").damaged == 0
    assert prepare([clipped, *files[1:]], tmp_path / "clipped").damaged >= 1


def test_many_files_are_laid_out_in_a_moment(tmp_path):
    paths = [Path(f"{i}.warc.gz") for i in range(20_000)]  # a crawl of Common Crawl has 90,000
    start = time.process_time()
    assert len(lay_out(paths, names_of(paths), tmp_path, tmp_path, tmp_path)) == 20_000
    assert time.process_time() - start < 5.0


def test_files_that_share_a_name_do_not_meet(tmp_path):
    paths = [Path("x/a.warc.gz"), Path("y/A.warc"), Path("b.warc.gz"), Path("z/c.gz")]
    names = [s.part.stem for s in lay_out(paths, names_of(paths), tmp_path, tmp_path, tmp_path)]
    assert names == ["a-00000", "A-00001", "b", "c"]
    paths = [Path("x/a.warc"), Path("y/a.warc"), Path("a-00001.warc")]
    names = [s.part.stem for s in lay_out(paths, names_of(paths), tmp_path, tmp_path, tmp_path)]
    assert len(set(names)) == 3


def test_progress_counts_pages_and_files(files, tmp_path):
    seen = []
    out = tmp_path / "out"
    prepare_documents(files, names_of(files), CONFIG, out / "parts", out / "documents", out / "dropped", 1, seen.append)
    assert (seen[0].pages, seen[0].files_done, seen[0].files) == (0, 0, 3)
    assert (seen[-1].pages, seen[-1].files_done) == (len(PAGES) + 11, 3)
