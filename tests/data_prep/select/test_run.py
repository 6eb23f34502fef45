"""From WARC files to texts and documents: every reason for dropping a page, and reproducible bytes."""

import dataclasses
import json
import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from configs.recipes import gristmill as recipe
from data_prep.config import ONE_PROCESS, DocumentsConfig, EngineConfig, UrlFilterConfig
from data_prep.config.documents import AFTER_DEDUP
from data_prep.documents import WebPage
from data_prep.funnel.report import read_counts, read_examples
from data_prep.measure import run as extraction
from data_prep.measure.row import text_schema
from data_prep.measure.run import extract_texts, stem_of
from data_prep.prepare import Outcome, outcome_of, prepare_documents
from data_prep.select.apply_filters import dropped_schema, kept_schema
from data_prep.sources import InputFile
from data_prep.warc import write_pages
from lm.errors import InputError
from tests.corpus import texts
from tests.data_prep.measured import contents
from tests.data_prep.pages import GERMAN, PROSE, demo_config, html, page
from tests.growth import superlinear

# Without gopher_repetition, which runs first and would drop most of these repetitive pages.
FILTERS = ("gopher_quality", "c4", "fineweb", "exact_dedup", "minhash_dedup")
CONFIG = demo_config(
    steps=FILTERS,
    url_filter=UrlFilterConfig(banned_domains=("bad.example",), banned_words=("casino",)),
    personal_data=dataclasses.replace(recipe.PERSONAL_DATA, email_placeholder="X"),
)
WORDS = PROSE.split()


def variant(number: int) -> str:
    """Prose unique to this number."""
    return f"{PROSE} The number on the door was {number}."


def tale(number: int) -> str:
    """Prose that shares no shingle with that of other numbers."""
    return texts(1, seed=number, paragraphs=1)[0]


POLICY = "By reading on you agree to our terms of use, which the miller wrote one winter evening by the fire."
"""A line that C4's rules remove."""
PAGES = {
    "kept": html(variant(1), "Write to miller@mill.example for more."),
    "banned_domain": html(variant(2)),
    "banned_word": html(variant(3)),
    "html_too_large": html(variant(4)) + b" " * CONFIG.extract.max_bytes,
    "html_too_deep": html("<div>" * (CONFIG.extract.max_depth + 1) + variant(5)),
    "no_text": b"<html><head><title>t</title></head><body></body></html>",
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
        "Read our terms of use, says miller, before buying bread here, thanks dear customers everywhere.",
        "Fresh bread costs more money this winter. Bakers say flour prices rose sharply after bad harvests. " * 5,
    ),
}
PAGES |= {
    "c4_curly_bracket": html(variant(8) + " Its {sign} was gone."),
    "c4_too_few_sentences": html(variant(9).replace(".", ",")),
    "fineweb_too_few_terminal_punctuation_lines": html(
        POLICY, *[tale(n).replace(".", ". And so on") for n in range(20, 29)]
    ),
}
URLS = {"banned_domain": "http://www.bad.example/", "banned_word": "http://a.example/casino/"}


def pages_of(names) -> list[WebPage]:
    return [page(PAGES[name], URLS.get(name, f"http://a.example/{name}")) for name in names]


def write_files(folder: Path) -> list[Path]:
    """Three WARC files: every reason once, copies in later files and in the same file, and one file without pages."""
    copies = [
        dated(page(html(variant(1), "Write to miller@mill.example  for more."), f"http://a.example/copy{i}"), 2026 + i)
        for i in (1, 2)
    ]
    others = [page(html(tale(number)), f"http://b.example/{number}") for number in range(100, 108)]
    near = dated(page(html(tale(103) + " The end."), "http://b.example/near"), 2027)
    paths = [folder / name for name in ("z.warc.gz", "a.warc.gz", "empty.warc.gz")]
    write_pages(paths[0], pages_of(PAGES))
    write_pages(paths[1], [*others[:4], near, copies[0], dated(others[0], 2028), *others[4:], copies[1]])
    write_pages(paths[2], [])
    return paths


@pytest.fixture
def files(tmp_path) -> list[Path]:
    return write_files(tmp_path / "warc")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Outcome, Path]:
    """The outcome of the files, and the folder."""
    folder = tmp_path_factory.mktemp("made")
    return prepare(write_files(folder / "warc"), folder), folder


def dated(one: WebPage, year: int) -> WebPage:
    """The same page, fetched in another year."""
    return dataclasses.replace(one, date=f"{year}-01-01T00:00:00Z", id=f"{one.id}-{year}")


def extract(files: list[Path], out: Path, config: DocumentsConfig = CONFIG, engine: EngineConfig = ONE_PROCESS) -> Path:
    inputs = [InputFile(path, path.name, "warc", path.stat().st_size) for path in files]
    extract_texts(inputs, config, out, engine=engine)
    return out / "texts"


def prepare(files: list[Path], out: Path, config: DocumentsConfig = CONFIG) -> Outcome:
    return prepare_documents(extract(files, out, config), config, out)


def test_every_page_has_its_reason(made):
    outcome, out = made
    kept, dropped = (pq.read_table(out / folder).to_pylist() for folder in ("documents", "dropped"))
    reasons = {row["url"]: row["reason"] for row in dropped}
    assert {name: reasons.get(URLS.get(name, f"http://a.example/{name}"), "kept") for name in PAGES} == {
        n: n for n in PAGES
    }
    assert outcome.kept == len(kept) == 1 + 8
    assert sum(outcome.dropped.values()) == len(dropped) == len(PAGES) - 1 + 4
    assert outcome.pages == len(PAGES) + 12
    assert outcome.dropped["exact_dedup", "exact_duplicate"] == 3
    assert outcome.dropped["minhash_dedup", "near_duplicate"] == 1
    assert next(iter(outcome.dropped))[0] == "url_filter"
    assert outcome.replaced["email"] == 1


def column(path: Path, name: str) -> list:
    return pq.read_table(path)[name].to_pylist()


def test_files_rows_and_columns(made):
    _, out = made
    names = ["a.parquet", "empty.parquet", "z.parquet"]
    for folder, schema in (("texts", text_schema), ("documents", kept_schema), ("dropped", dropped_schema)):
        assert [path.name for path in sorted((out / folder).glob("*.parquet"))] == names
        assert all(pq.read_schema(out / folder / name) == schema(CONFIG) for name in names)
    assert column(out / "documents/a.parquet", "url") == [
        f"http://b.example/{number}" for number in range(100, 108)
    ]  # the original text
    copies = out / "dropped/a.parquet"
    assert column(copies, "url") == [
        "http://b.example/near", "http://a.example/copy1", "http://b.example/100", "http://a.example/copy2",
    ]  # fmt: skip
    assert column(copies, "duplicate_of") == ["a.parquet:3", "z.parquet:0", "a.parquet:0", "z.parquet:0"]
    assert column(copies, "stage") == ["minhash_dedup", *["exact_dedup"] * 3]
    assert column(copies, "text")[1].endswith("Write to X for more.")  # a copy before the replacement
    (first,) = pq.read_table(out / "documents/z.parquet").to_pylist()
    assert first["text"] == f"{variant(1)}\nWrite to X for more."
    assert (first["dump"], first["file_path"], first["language"]) == ("demo", "z.warc.gz", "en")
    dropped = {row["reason"]: row for row in pq.read_table(out / "dropped/z.parquet").to_pylist()}
    assert list(dropped) == [name for name in PAGES if name != "kept"]
    for row in dropped.values():
        assert (row["text"] == "") == (row["words"] is None) == (row["stage"] in ("url_filter", "extract"))
        assert row["duplicate_of"] is None
    assert dropped["other_language"]["language"] == "de"
    # The filters before the one that dropped the document have removed their lines.
    assert "terms of use" in dropped["gopher_too_few_stop_words"]["text"]
    assert "terms of use" not in dropped["fineweb_too_few_terminal_punctuation_lines"]["text"]


def test_personal_data_is_in_no_kept_or_dropped_document_and_not_in_the_report(tmp_path):
    """Also if an earlier stage drops the document. Only replacements in kept documents are counted."""
    path = tmp_path / "mail.warc.gz"
    letters = [html(tale(1), "Write to a@b.example."), html("Too short: c@d.example"), html(GERMAN, "An e@f.example")]
    write_pages(path, [page(body, f"http://a.example/{i}") for i, body in enumerate([*letters, letters[0]])])
    out = tmp_path / "out"
    outcome = prepare([path], out)
    assert (outcome.kept, outcome.replaced["email"]) == (1, 1)
    texts = [text for folder in ("documents", "dropped") for text in column(out / folder / "mail.parquet", "text")]
    assert [text.count("X") for text in texts] == [1] * 4
    assert "@" not in "".join(texts)
    assert "@" not in str(read_examples(read_counts(out / "funnel.json"), out / "texts", CONFIG))


def test_a_finished_file_is_kept_and_a_partial_one_is_not(files, tmp_path):
    out = tmp_path / "out"
    prepare(files, out)
    expected = contents(out, "texts/*")
    done, half = out / "texts/z.parquet", out / "texts/a.parquet"
    (out / "scratch/texts").mkdir(parents=True)
    (out / "scratch/texts/texts-z.parquet.1.partial").write_bytes(b"PAR1")  # left by a killed worker
    half.write_bytes(half.read_bytes()[:-1])
    filtered = out / "documents/z.parquet"
    (out / "dropped/a.parquet").unlink()
    before = [(path.stat().st_mtime_ns, path.stat().st_ino) for path in (done, filtered)]
    files[0].write_bytes(bytes(files[0].stat().st_size))  # not read again
    prepare(files, out)
    assert contents(out, "texts/*") == expected
    assert [(path.stat().st_mtime_ns, path.stat().st_ino) for path in (done, filtered)] == before
    assert not list(out.rglob("*.partial"))


def test_a_file_that_is_not_warc_is_named(files, tmp_path):
    files[1].write_bytes(b"<html>" * 100)
    told = r"1 of 3 units failed:\n  a: .*a\.warc\.gz holds no WARC record\. Give WARC files"
    with pytest.raises(InputError, match=told):
        extract(files, tmp_path / "out")


def test_nothing_survives(files, tmp_path):
    banning = dataclasses.replace(CONFIG, url_filter=UrlFilterConfig(("example",), ()))
    with pytest.raises(InputError) as caught:
        prepare([files[0], files[2]], tmp_path / "out", banning)
    found, pages = str(caught.value), len(PAGES)
    assert f"No document is left of {pages} pages in 2 files" in found
    assert f"{pages} of {pages} pages are dropped, most of them by these rules:" in found and "-0.0 MB" not in found
    (line,) = re.findall(
        r"url_filter/banned_domain: (\d+) pages, such as (.+); to keep them, change documents\.(.+)", found
    )
    assert line[1].count("http://") == 3 and line[2] == "url_filter" and "configs/own_text.py" in found


def test_a_rule_that_drops_most_pages_is_named_with_examples_and_its_setting(tmp_path):
    """Pages of programs have short words; the rules of Gopher are for prose."""
    code = [html(f"{PROSE} " + f"{n} = [{n}] + {{{n}}} - 7 * (1 / 2) ; " * 40) for n in range(6)]
    write_pages(tmp_path / "a.warc.gz", [page(body, f"http://a.example/{n}") for n, body in enumerate(code)])
    write_pages(tmp_path / "b.warc.gz", [page(html(tale(n)), f"http://b.example/{n}") for n in range(3)])
    config = dataclasses.replace(CONFIG, steps=("gopher_quality",))
    outcome = prepare([tmp_path / "a.warc.gz", tmp_path / "b.warc.gz"], tmp_path / "out", config)
    assert (outcome.pages, outcome.kept) == (9, 3)
    name, option = (
        "gopher_quality/gopher_below_mean_word_length",
        r"documents\.gopher_quality\.min_mean_word_length, now 3",
    )
    examples = ", ".join([r"http://a\.example/\d \(\d\.\d+\)"] * 3)
    assert re.search(
        f"6 of 9 pages .*\n  {name}: 6 pages, such as {examples}; to keep them, change {option}", outcome.explained
    )
    assert "-0.0 MB" not in outcome.table()
    whole = prepare([tmp_path / "b.warc.gz"], tmp_path / "whole", config)
    assert whole.kept == 3 and not whole.explained


def test_an_input_without_pages_is_not_blamed_on_the_filters(tmp_path):
    paths = [tmp_path / f"{name}.warc.gz" for name in "abcd"]
    for path in paths:
        write_pages(path, [])
    told = (
        f"There is no page in 4 files ({paths[0]}, {paths[1]}, {paths[2]}, …): they hold no HTML response and no text."
    )
    with pytest.raises(InputError, match=re.escape(told)) as caught:
        extract(paths, tmp_path / "out")
    assert "Loosen" not in str(caught.value)


def test_every_stage_drops_a_page(made, files, tmp_path):
    found = {stage for stage, _ in made[0].dropped}
    repeated = dataclasses.replace(CONFIG, steps=("gopher_repetition", *FILTERS))
    outcome = prepare(files, tmp_path / "all", repeated)
    assert outcome.dropped["gopher_repetition", "gopher_duplicate_5_grams"] >= 1
    assert {*found, "read", "gopher_repetition", "url_dedup", *AFTER_DEDUP} == set(CONFIG.stages)


def test_the_table_has_documents_and_bytes_that_add_up(made):
    outcome, out = made
    lines = [line.rsplit(maxsplit=3) for line in outcome.table().splitlines()]
    documents = [int(line[-3].replace(",", "")) for line in lines]
    sizes = [float(line[-2].replace(",", "")) for line in lines]
    assert documents[0] + sum(documents[1:-1]) == documents[-1] == outcome.kept
    assert sizes[0] + sum(sizes[1:-1]) == pytest.approx(sizes[-1], abs=0.05 * len(sizes))
    written = pq.read_table(out / "dropped").to_pylist()
    for (stage, reason), size in outcome.extracted_bytes.items():
        if stage:
            assert size == sum(row["text_bytes"] for row in written if (row["stage"], row["reason"]) == (stage, reason))


def test_progress_names_each_step_and_counts_documents(files, tmp_path):
    seen, inputs = [], [InputFile(path, path.name, "warc", path.stat().st_size) for path in files]
    extract_texts(inputs, CONFIG, tmp_path, seen.append)
    assert (seen[0].pages, seen[0].files_done, seen[0].files) == (0, 0, 3)
    assert (seen[-1].pages, seen[-1].files_done) == (len(PAGES) + 12, 3)
    seen.clear()
    outcome = prepare_documents(tmp_path / "texts", CONFIG, tmp_path, seen.append)
    steps = list(dict.fromkeys(progress.step for progress in seen))
    joins = [step for step in steps if "duplicates" in step and step != "duplicates"]
    assert [step for step in steps if step not in joins] == ["keys", "duplicates", "filtering"]
    assert {step.split(",")[0] for step in joins} == {"exact duplicates", "near-duplicates"}
    assert all(progress.unit == "" for progress in seen if progress.step in joins)
    for step in ("keys", "filtering"):
        last = [progress for progress in seen if progress.step == step][-1]
        assert (last.files_done, last.files, last.pages, last.unit) == (3, 3, outcome.pages, "documents")


def test_the_outcome_is_in_the_order_of_the_stages():
    reasons = {"new_stage/some/reason": [5, 0], "exact_dedup/exact_duplicate": [1, 0], "extract/no_text": [2, 0]}
    counts = {"rows": 11, "kept": [3, 9], "clean_text_bytes": 8, "replaced": {}, "reasons": reasons}
    outcome = outcome_of(counts, CONFIG)
    assert list(outcome.dropped.items()) == [
        (("extract", "no_text"), 2), (("exact_dedup", "exact_duplicate"), 1), (("new_stage", "some/reason"), 5),
    ]  # fmt: skip


def test_an_unwritable_folder_is_reported(files, tmp_path):
    (tmp_path / "out").write_text("a file, not a folder")
    with pytest.raises(InputError, match="cannot be written"):
        extract(files, tmp_path / "out")


def test_records_seen_are_pages_quarantined_or_skipped(made, files, tmp_path):
    """Also if a worker was killed after writing a file's texts and before its records."""
    assert not any(stage == "read" for stage, _ in made[0].dropped)
    image = page(b"GIF89a", "http://a.example/gif", "image/gif")
    write_pages(files[2], [image, page(html(tale(1)), "http://a.example/tale")])
    files[0].write_bytes(files[0].read_bytes()[:-200])
    out = tmp_path / "out"
    outcome = prepare(files, out)
    (dead,) = [row for row in pq.read_table(out / "dropped").to_pylist() if row["stage"] == "read"]
    assert dead["id"].startswith("z.warc.gz#") and dead["reason"] and not dead["text"]
    assert outcome.pages == sum(outcome.dropped.values()) + outcome.kept
    records = json.loads((out / "funnel.json").read_text())["records"]
    assert records == json.loads((out / "texts/records.json").read_text())
    pages = len(PAGES) + 12 + 1  # the truncation is inside a metadata record and has a row of its own
    assert outcome.pages == pages + 1
    assert records["skipped"] == {"not_a_response": 3 + 2 * (pages + 1) - 1, "not_html": 1}
    assert records["seen"] == outcome.pages + sum(records["skipped"].values())
    before = contents(out, "texts/*")
    (out / "texts/records.json").unlink()
    (out / "units/texts/a.json").unlink()
    prepare(files, out)
    assert contents(out, "texts/*") == before


def test_a_table_keeps_its_columns(tmp_path):
    told = {
        "id": "<urn:1>", "dump": "CC-MAIN-2013-20", "url": "http://a.example/", "date": "2013-05-18T10:30:00Z",
        "file_path": "s3://commoncrawl/a.warc.gz", "language": "en", "language_score": 0.9, "token_count": 7,
    }  # fmt: skip
    path = tmp_path / "rows.jsonl"
    rows = (told, {"lang": "en"}, told | {"language": "eng_Latn"})
    path.write_text("".join(json.dumps({"text": tale(1)} | row) + "\n" for row in rows))
    file = InputFile(path, path.name, "table", path.stat().st_size)
    extract_texts([file], CONFIG, tmp_path)
    whole, bare, other = pq.read_table(tmp_path / "texts/rows.parquet").to_pylist()
    assert {name: whole[name] for name in told} == told
    assert (bare["file_path"], bare["token_count"], bare["dump"]) == ("rows.jsonl", None, CONFIG.dump)
    for row in (bare, other):
        assert row["language"] == "en" and row["language_score"] > 0.65


def test_names_of_many_files_take_linear_steps(tmp_path):
    """A crawl of Common Crawl has 90,000 files."""

    def files(count: int) -> list[InputFile]:
        return [InputFile(Path(f"{i}.warc.gz"), f"{i}.warc.gz", "warc", 1) for i in range(count)]

    assert len(extraction.unit_names(files(100))) == 100
    assert not superlinear(lambda inputs: extraction.units_of(inputs, CONFIG), files, 200)


def test_files_with_the_same_name_do_not_collide(tmp_path):
    def stems(*names: str) -> list[str]:
        files = [InputFile(Path(name), name, "warc", 1) for name in names]
        return extraction.unit_names(files)

    first, second, third, *others = stems("x/a.warc.gz", "y/A.warc", "a.warc.gz", "b.warc.gz", "B.jsonl")
    assert first.startswith("a-") and second.startswith("A-") and first[2:] != second[2:]
    assert third == "a" and others[0] == "b" and others[1].startswith("B-")
    assert stems("y/A.warc", "z/a.warc", "x/a.warc.gz")[::2] == [second, first]  # whatever other files there are
    long, other = stems(f"{'é' * 120}.warc.gz", f"{'é' * 121}.warc.gz")
    assert long != other and max(len(one.encode()) for one in (long, other)) < 170
    for name in ("x/a.warc.gz", "y/A.warc", "a.warc.gz"):
        assert stems(name)[0] in (first, second, third)
    assert stem_of("data/CC-MAIN-2024-10/000_00000.parquet") == "000_00000"
    assert stem_of("x.warc.wet.gz") == "x" and stem_of(".gz") == ".gz"
