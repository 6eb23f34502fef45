"""From user files to the manifest that the next stage reads, and the stage around it."""

import dataclasses
import gzip
import os
import re
from pathlib import Path

import pytest
import zstandard

from configs.fineweb import get_config as get_fineweb
from configs.recipes.demo_pages import PACKAGES
from data_prep.config import PagesConfig
from data_prep.config.pages import NO_CRAWL, NO_DATASET
from data_prep.sources import fetch_pages, input_files
from data_prep.sources.local import warc_kind
from data_prep.warc import write_pages
from launch.fetch_pages import STAGE
from launch.stages.stage import run_stage, settings_of
from lm.errors import InputError, UsageError
from lm.fields import with_values
from lm.storage import write_atomically
from tests.data_prep.pages import named_files
from tests.data_prep.warc.test_warc import page

DEMO = Path(__file__).parents[3] / "configs/demo.py"
REAL = Path(__file__).parents[3] / "../shared/data/warc"


def config(**changes) -> PagesConfig:
    return dataclasses.replace(PagesConfig(), **changes)


def own_files(folder: Path, *names: str) -> list[Path]:
    paths = [folder / f"{name}.warc.gz" for name in names]
    for path in paths:
        write_pages(path, [page(0)])
    return paths


def names(*patterns: object, option: str = "warc") -> list[str]:
    return list(named_files(f"pages.{option}", [*map(str, patterns)]).values())


def tables(*patterns: object) -> list[str]:
    return names(*patterns, option="tables")


def test_user_files_are_listed_in_place_with_names_relative_to_the_first_wildcard(tmp_path, monkeypatch):
    expected = own_files(tmp_path / "own", "a", "b", "sub/c")
    monkeypatch.chdir(tmp_path)
    manifest = fetch_pages(config(warc=("own/**/*.warc.gz", "own/a.*")), tmp_path / "run")
    names = ["a.warc.gz", "b.warc.gz", "sub/c.warc.gz"]
    assert manifest["files"] == [
        {"path": str(path), "name": name, "kind": "warc", "bytes": path.stat().st_size, "pages": None}
        for path, name in zip(expected, names, strict=True)
    ]
    assert manifest["packages"] == []
    monkeypatch.chdir("/")
    assert [(file.path, file.name) for file in input_files(tmp_path / "run")] == list(zip(expected, names, strict=True))


def test_names_and_order_do_not_depend_on_the_location_of_the_files(tmp_path, monkeypatch):
    one, two = tmp_path / "z/one", tmp_path / "a/two"
    for folder in (one, two):
        own_files(folder, "x/b", "a-b/c", "a/d")
    assert names(f"{one}/**/*.gz") == names(f"{two}/**/*.gz") == ["a/d.warc.gz", "a-b/c.warc.gz", "x/b.warc.gz"]
    assert names(f"{one}/x/b.warc.gz") == ["b.warc.gz"]
    assert names(f"{one}/*/b.*") == ["x/b.warc.gz"]
    monkeypatch.chdir(one)
    assert names("x/../**/b.*", "./a/*") == ["d.warc.gz", "x/b.warc.gz"]
    assert names(f"{one}/x/*", f"{two}/x/*", f"{one}/a/*") == ["b.warc.gz", "d.warc.gz", "x/b.warc.gz"]
    again = ["a/d.warc.gz", "a-b/c.warc.gz", "b.warc.gz", "x/b.warc.gz"]
    assert names(f"{two}/x/*", f"{one}/x/*", f"{one}/**/*.gz") == again


@pytest.mark.parametrize("pattern", ["", "/*.jsonl", "/**/*"])
def test_a_file_name_that_is_not_utf_8_is_rejected_by_its_bytes(tmp_path, pattern):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/a.jsonl").write_text("{}")
    (tmp_path / os.fsdecode(b"notes/caf\xe9.jsonl")).write_text("{}")
    with pytest.raises(UsageError, match=r"pages\.tables: the path b'.*/notes/caf\\xe9\.jsonl' is not UTF-8\. Rename"):
        fetch_pages(config(tables=(f"{tmp_path}/notes{pattern}",)), tmp_path / "run")


def test_a_second_dump_keeps_the_names_of_the_first_and_names_are_unique(tmp_path):
    own_files(tmp_path, *(f"{dump}/data/{number}" for dump in ("a", "b", "c") for number in range(3)))
    dumps = [f"{tmp_path}/{dump}/data/*.warc.gz" for dump in ("c", "a", "b")]
    before: dict[Path, str] = {}
    for count in (1, 2, 3):
        named = {Path(str(place)): name for place, name in named_files("pages.warc", dumps[:count]).items()}
        assert before.items() <= named.items() and len({*named.values()}) == len(named) == 3 * count
        before = named
    assert before[tmp_path / "c/data/0.warc.gz"] == "0.warc.gz"
    assert before[tmp_path / "a/data/0.warc.gz"] == "data/0.warc.gz"
    assert before[tmp_path / "b/data/0.warc.gz"] == "b/data/0.warc.gz"


def record(kind: str, block: bytes = b"x") -> bytes:
    head = f"WARC/1.0\r\nWARC-Type: {kind}\r\nContent-Length: {len(block)}\r\n\r\n"
    return head.encode() + block + b"\r\n\r\n"


@pytest.mark.parametrize(
    ("name", "records", "kind"),
    [
        ("a.gz", ["warcinfo", "response"], "warc"),
        ("a.gz", ["warcinfo", "metadata", "request", "response"], "warc"),
        ("a.gz", ["warcinfo", "conversion", "conversion"], "wet"),
        ("a.warc.wet.gz", ["warcinfo"], "wet"),
        ("a.wet", ["warcinfo"], "wet"),
        ("sweet.warc.gz", ["warcinfo", "response"], "warc"),
        ("a.warc.gz", ["warcinfo"], "warc"),
    ],
)
@pytest.mark.parametrize("pack", [gzip.compress, bytes], ids=["gzip", "uncompressed"])
def test_wet_is_detected_by_its_name_or_its_first_records(tmp_path, name, records, kind, pack):
    (tmp_path / name).write_bytes(b"".join(pack(record(type_)) for type_ in records))
    (file,) = fetch_pages(config(warc=(str(tmp_path / name),)), tmp_path / "run")["files"]
    assert file["kind"] == kind
    assert [file.kind for file in input_files(tmp_path / "run")] == [kind]


def test_the_content_of_a_page_does_not_affect_the_kind_of_its_file(tmp_path):
    page_like_wet = record("response", b"HTTP/1.1 200 OK\r\n\r\n" + record("conversion"))
    (tmp_path / "a.warc").write_bytes(page_like_wet)
    assert fetch_pages(config(warc=(str(tmp_path / "a.warc"),)), tmp_path / "run")["files"][0]["kind"] == "warc"


WAT = b"".join(gzip.compress(record(kind)) for kind in ("warcinfo", "metadata"))
REFUSED: dict[str, tuple[dict[str, bytes], str, str]] = {
    **{f"begins with {data}": ({"b.pdf": data}, "*.*", r"b\.pdf is not a WARC file: it begins with b'")
       for data in (b"", b"%PDF-1.4", b"WAR", b"hello")},
    **{f"only metadata in {name}": ({name: WAT}, "*.*", r"metadata of pages \(WAT\), but no page")
       for name in ("b.gz", "b.warc.wat.gz")},
    "no match": ({}, "nothing-*.warc", r"nothing-\*\.warc' matches no file"),
    "unknown user": ({}, "~nobodyx/*.gz", r"pages\.warc: ~nobodyx/\*\.gz is the home of an unknown user"),
}  # fmt: skip
"""{case: (files next to a good one, pattern, error)}."""


@pytest.mark.parametrize("case", REFUSED)
def test_files_and_patterns_without_pages_are_rejected_by_name_before_any_work(tmp_path, monkeypatch, case):
    files, pattern, told = REFUSED[case]
    own_files(tmp_path, "a")
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    monkeypatch.chdir(tmp_path)
    with pytest.raises((InputError, UsageError), match=told):
        fetch_pages(config(warc=("a.*", pattern)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_two_sources_at_once_are_rejected_with_both(tmp_path):
    with pytest.raises(UsageError, match=r"pages\.warc = \('a',\) and pages\.tables = \('b',\) are both given"):
        config(warc=("a",), tables=("b",))
    crawl = dataclasses.replace(NO_CRAWL, crawl="CC-MAIN-2024-10", files=1)
    with pytest.raises(
        UsageError, match=r"common_crawl\.crawl = 'CC-MAIN-2024-10' and pages\.tfds\.dataset = 'x:1\.0\.0'"
    ):
        config(common_crawl=crawl, tfds=dataclasses.replace(NO_DATASET, dataset="x:1.0.0"))
    assert config(common_crawl=crawl, packages=PACKAGES).source == "common_crawl"
    assert config(warc=("a",), common_crawl=crawl).source == "warc"  # the config file sets the crawl


def test_fields_of_other_sources_do_not_affect_the_stage():
    from configs.demo import get_config

    experiment = dataclasses.replace(get_config(), pages=config(warc=("x",)))
    other = dataclasses.replace(experiment.pages, text_field="body", packages=PACKAGES)
    assert STAGE.settings(dataclasses.replace(experiment, pages=other)) == STAGE.settings(experiment)
    mirror = dataclasses.replace(NO_CRAWL, crawl="CC-MAIN-2024-10", files=1)
    documents = dataclasses.replace(experiment.documents, dump=mirror.crawl)
    asked = [
        settings_of(STAGE, dataclasses.replace(experiment, documents=documents, pages=config(common_crawl=crawl)))
        for crawl in (mirror, dataclasses.replace(mirror, address="http://mirror.example"))
    ]
    assert asked[0] == asked[1]


def test_a_manifest_of_another_version_is_rejected(tmp_path):
    own_files(tmp_path, "a")
    fetch_pages(config(warc=(str(tmp_path / "a.*"),)), tmp_path)
    manifest = tmp_path / "pages/manifest.json"
    whole = manifest.read_text()
    for old, new in (('"kind": "warc"', '"kind": "arc"'), ('"kind"', '"sort"'), ('"files": [', '"files": [3, ')):
        manifest.write_text(whole.replace(old, new))
        with pytest.raises(InputError, match=r"pages/manifest\.json"):
            input_files(tmp_path)


def test_a_file_of_another_size_is_rejected_with_both(tmp_path):
    (path,) = own_files(tmp_path, "a")
    size = path.stat().st_size
    fetch_pages(config(warc=(str(path),)), tmp_path / "run")
    path.write_bytes(path.read_bytes() + b"more")
    with pytest.raises(InputError, match=rf"a\.warc\.gz has {size + 4} bytes, but {size} are listed in"):
        input_files(tmp_path / "run")


def test_a_missing_manifest_or_file_is_rejected(tmp_path):
    with pytest.raises(InputError, match=r"launch\.fetch_pages"):
        input_files(tmp_path)
    write_pages(tmp_path / "a.warc.gz", [page(0)])
    fetch_pages(config(warc=(str(tmp_path / "a.warc.gz"),)), tmp_path / "run")
    (tmp_path / "a.warc.gz").unlink()
    with pytest.raises(InputError, match="no longer exists"):
        input_files(tmp_path / "run")


def test_the_stage_detects_a_changed_user_file(tmp_path):
    from configs.demo import get_config

    own, run = tmp_path / "a.warc.gz", tmp_path / "run"
    write_pages(own, [page(0)])
    experiment = dataclasses.replace(get_config(), pages=config(warc=(str(own),), packages=PACKAGES))
    assert run_stage(STAGE, experiment, run)
    assert not run_stage(STAGE, experiment, run)
    without = with_values(experiment, {"pages.packages": ()})
    assert not run_stage(STAGE, without, run)  # packages are not used together with user files
    size = own.stat().st_size
    own.write_bytes(own.read_bytes() + b"more")
    assert run_stage(STAGE, experiment, run)  # rerun: its list determines which texts run again
    assert [file.bytes for file in input_files(run)] == [size + 4]


def test_a_zstandard_warc_is_distinguished_from_a_table_by_its_name(tmp_path):
    data = zstandard.compress(record("response"))
    (tmp_path / "a.warc.zst").write_bytes(data)
    (tmp_path / "a.zst").write_bytes(data)
    assert warc_kind(tmp_path / "a.warc.zst") == "warc"
    with pytest.raises(InputError, match=r"It looks like a table of texts: give it as pages\.tables\."):
        warc_kind(tmp_path / "a.zst")


def test_a_crawl_under_the_name_of_another_is_rejected_with_both():
    experiment = get_fineweb()
    with pytest.raises(
        UsageError, match=r"dump = 'CC-MAIN-2024-10'.*'CC-MAIN-2024-18'.*--documents\.dump CC-MAIN-2024-18"
    ):
        with_values(experiment, {"pages.common_crawl.crawl": "CC-MAIN-2024-18"})


def test_a_folder_means_all_its_files_of_the_kind(tmp_path):
    for name in ("b.txt", "a.jsonl", "deep/er/c.TXT", "notes.md", ".hidden.txt", ".git/x.txt", "d.warc.gz"):
        write_atomically(tmp_path / name, '{"text": "a"}')
    expected = {"a.jsonl", "b.txt", "deep/er/c.TXT", "notes.md"}
    assert set(tables(tmp_path)) == expected
    assert set(tables(f"{tmp_path}/")) == expected
    assert names(tmp_path) == ["d.warc.gz"]
    assert len(tables(tmp_path, tmp_path / "*.txt")) == 4


def test_skipped_files_of_a_folder_are_named(tmp_path):
    """Every file of a folder that is not hidden is read, or named with the reason."""
    for name, text in {"a.docx": "x", "deep/b.pdf": "x", "c.md": "x", "d.txt": "", ".e.odt": "x"}.items():
        write_atomically(tmp_path / name, text)
    assert tables(tmp_path) == ["c.md"]
    lines = []
    fetch_pages(config(tables=(str(tmp_path),)), tmp_path / "run", lines.append)
    assert any(re.search(r"skipped 2 files of other types \(read: .*\.md .*\): a\.docx, deep/b\.pdf$", line)
               for line in lines)  # fmt: skip
    assert any(line.endswith("skipped 1 files that are empty: d.txt") for line in lines)


def test_a_folder_without_such_files_is_rejected_with_the_supported_endings(tmp_path):
    with pytest.raises(UsageError, match=r"is a folder without files with the ending \.parquet, \.txt"):
        tables(tmp_path)
    (tmp_path / "a.pdf").touch()
    with pytest.raises(UsageError, match=r"holds 1 files, but none .*\.jsonl"):
        tables(tmp_path)
    (tmp_path / "a.warc").touch()
    with pytest.raises(UsageError, match=r"It has files for pages\.warc: give it as that option"):
        tables(tmp_path)
    (tmp_path / "a.txt").touch()
    with pytest.raises(UsageError, match=r"those files are empty"):
        tables(tmp_path)


def test_an_empty_pattern_is_not_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("a")
    monkeypatch.chdir(tmp_path)
    for pattern in ("", " "):
        with pytest.raises(UsageError, match="is empty"):
            tables(pattern)
    assert tables(".") == ["a.txt"]
