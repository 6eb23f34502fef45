"""A file of which nothing can be read is a failed unit, whatever its format; one that is only empty is not."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from configs.own_text import get_config
from data_prep.measure.run import extract_texts
from data_prep.sources.inputs import read_input
from data_prep.sources.local import own_files
from data_prep.sources.manifest import InputFile
from data_prep.warc import write_pages
from lm.errors import InputError
from tests.data_prep.pages import html, page

RECORD = b"WARC/1.0\r\nWARC-Type: %s\r\nContent-Length: 3\r\nContent-Type: %s\r\n%s\r\nabc\r\n\r\n"
UNREADABLE = {
    "pretty.jsonl": b'{\n  "text": "a text",\n  "id": 1\n}\n',
    "latin.jsonl": '{"text": "é"}'.encode("latin-1"),
    "cut.jsonl": b'{"text": "it breaks off',
    "values.jsonl": b'"a text"\n["a text"]\n7\n',
    "no_url.warc": RECORD % (b"response", b"application/http", b"") + RECORD % (b"response", b"application/http", b""),
    "digest.wet": RECORD % (b"conversion", b"text/plain", b"WARC-Block-Digest: sha1:AAAA\r\n"),
}
WITHOUT_TEXT = {
    "blank.txt": b" \n",
    "array.json": b"[]",
    "nulls.jsonl": b'{"text": null}\n{"text": " "}\n',
    "info.warc": RECORD % (b"warcinfo", b"text/plain", b""),
}


def unit_of(path) -> InputFile:
    kind = {".warc": "warc", ".wet": "wet"}.get(path.suffix, "table")
    return InputFile(path, path.name, kind, path.stat().st_size)


@pytest.mark.parametrize("name", UNREADABLE)
def test_a_file_of_which_nothing_can_be_read_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(UNREADABLE[name])
    with pytest.raises(
        InputError, match=rf"{name}: no (row|record) can be read\. The first one, (line|offset) .*: \w+"
    ):
        list(read_input(unit_of(tmp_path / name)))


@pytest.mark.parametrize("name", WITHOUT_TEXT)
def test_a_file_that_can_be_read_but_has_no_text_is_not_refused(tmp_path, name):
    (tmp_path / name).write_bytes(WITHOUT_TEXT[name])
    list(read_input(unit_of(tmp_path / name)))
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "no_rows.parquet")
    assert not list(read_input(unit_of(tmp_path / "no_rows.parquet")))


def test_such_a_file_fails_its_unit_and_its_lines_are_no_pages(tmp_path):
    (tmp_path / "in").mkdir()
    bad, good = tmp_path / "in/bad.jsonl", tmp_path / "in/good.jsonl"
    bad.write_bytes(UNREADABLE["pretty.jsonl"])
    files = own_files((), (str(bad),), "text")
    with pytest.raises(InputError, match=r"texts: bad: .*bad\.jsonl: no row can be read.* one JSON object per line"):
        extract_texts(files, get_config().documents, tmp_path / "run")
    good.write_text("\n".join(json.dumps({"text": f"A text with the number {n}."}) for n in range(9)))
    config = get_config()
    files = own_files((), (str(tmp_path / "in"),), "text")
    engine = config.engine.__class__(max_failed=0.5)
    counts = extract_texts(files, config.documents, tmp_path / "run", engine=engine)
    assert (counts["files"], counts["rows"], counts["seen"]) == (1, 9, 9)
    assert "no row can be read" in (tmp_path / "run/quarantine/texts/bad.json").read_text()


def test_one_damaged_record_next_to_a_page_is_only_counted(tmp_path):
    write_pages(tmp_path / "a.warc.gz", [page(html("A text."))])
    whole = (tmp_path / "a.warc.gz").read_bytes()
    (tmp_path / "b.warc").write_bytes(UNREADABLE["no_url.warc"] + whole)
    assert len(list(read_input(unit_of(tmp_path / "b.warc")))) > 1
