"""Pages of pinned packages become WARC files and a manifest."""

import dataclasses
import hashlib
import io
import json
import zipfile
from pathlib import Path

import pytest

from configs.packages import write_pages
from configs.packages.write_pages import fetch_package_pages
from data_prep.config import PackagePages
from data_prep.package_index import PackageFile, package_cache
from data_prep.sources import input_files
from data_prep.warc import read_pages
from lm.errors import InputError, UsageError
from lm.storage import size_of

NAME = "sample-1.0-py3-none-any.whl"


def wheel(pages: int) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for number in range(pages):
            archive.writestr(zipfile.ZipInfo(f"doc/{number:03d}.html"), f"<p>Page {number}.</p>")
            archive.writestr(zipfile.ZipInfo(f"doc/{number:03d}.txt"), f"Text {number}.")
    return file.getvalue()


def pin(**changes) -> PackagePages:
    file = PackageFile(project="sample", version="1.0", name=NAME, sha256=hashlib.sha256(wheel(7)).hexdigest())
    whole = PackagePages(
        file=file,
        format="html",
        pattern="*.html",
        address="https://sample.example/",
        licence="public domain",
        credit="the test",
    )
    return dataclasses.replace(whole, **changes)


PINS = (pin(), pin(format="plain_text", pattern="*.txt", address="https://txt.example/"))


@pytest.fixture(autouse=True)
def in_cache(tmp_path, monkeypatch):
    """Put a wheel of 7 HTML pages and 7 texts into the cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(write_pages, "PAGES_PER_FILE", 3)
    package_cache().mkdir(parents=True)
    (package_cache() / NAME).write_bytes(wheel(7))


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_packages_become_the_warc_files_of_the_manifest(tmp_path):
    manifest = fetch_package_pages(PINS, tmp_path / "run")
    assert json.loads((tmp_path / "run/pages/manifest.json").read_text()) == manifest
    assert [(f["path"], f["pages"]) for f in manifest["files"]] == [
        (f"pages/sample-{n:05d}.warc.gz", pages) for n, pages in enumerate([3, 3, 1, 3, 3, 1])
    ]
    files = input_files(tmp_path / "run")
    assert [file.name for file in files] == [f["path"] for f in manifest["files"]]
    assert [f["bytes"] for f in manifest["files"]] == [size_of(file.path) for file in files]
    read = [page for file in files for page in read_pages(file.path)]
    assert len({p.id for p in read}) == len(read) == 14
    assert read[0].url == "https://sample.example/doc/000.html"
    html, text = manifest["packages"]
    assert (html["file"]["name"], html["pages"], html["html_bytes"]) == (NAME, 7, 7 * len("<p>Page 0.</p>"))
    assert html["licence"] == "public domain"
    assert text["html_bytes"] == sum(len(p.body) for p in read[7:])


def test_bytes_are_reproducible(tmp_path):
    fetch_package_pages(PINS, tmp_path / "one")
    fetch_package_pages(PINS, tmp_path / "two")
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


def test_partial_files_of_a_killed_attempt_are_deleted(tmp_path):
    leftover = tmp_path / "run/pages/pages-sample-00000.warc.gz.0123.partial"
    leftover.parent.mkdir(parents=True)
    leftover.write_bytes(b"half a page")
    fetch_package_pages(PINS, tmp_path / "run")
    assert not leftover.exists()


def test_a_pattern_without_pages_is_rejected_and_no_manifest_written(tmp_path):
    with pytest.raises(InputError, match=r"No file in .* matches '\*\.pdf'"):
        fetch_package_pages((pin(pattern="*.pdf"),), tmp_path / "run")
    assert not (tmp_path / "run/pages/manifest.json").exists()


def test_an_empty_selection_is_rejected(tmp_path):
    with pytest.raises(UsageError, match="both empty"):
        fetch_package_pages((), tmp_path)


def test_invalid_pins_are_rejected():
    with pytest.raises(UsageError, match=r"pages\.packages\.entries_per_page is 0"):
        pin(entries_per_page=0)
