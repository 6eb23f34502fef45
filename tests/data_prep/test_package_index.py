"""A pinned file is downloaded completely and verified, from the index in pip's settings."""

import base64
import dataclasses
import hashlib
import os
import shutil
import subprocess
from collections.abc import Generator
from pathlib import Path

import pytest

from data_prep import package_index
from data_prep.package_index import SETTINGS, PackageFile, fetch_package, index_client, package_cache, pip_settings
from lm.errors import InputError, UsageError
from tests.data_prep.loopback_crawl import Fault, LoopbackCrawl, serving
from tests.data_prep.loopback_index import PROJECT, closed_port, index_of

NAME = "sample-1.0-py3-none-any.whl"
DATA = bytes(range(256)) * 2000


def pin(**changes) -> PackageFile:
    whole = PackageFile(project="sample", version="1.0", name=NAME, sha256=hashlib.sha256(DATA).hexdigest())
    return dataclasses.replace(whole, **changes)


@pytest.fixture(autouse=True)
def own_settings(monkeypatch, tmp_path):
    """Isolate the tests from the pip and proxy settings of this machine."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in SETTINGS:
        monkeypatch.delenv(f"PIP_{name.upper().replace('-', '_')}", raising=False)
    monkeypatch.setattr(package_index, "PAUSES_SECONDS", (0.01, 0.01))


FILES = {NAME: DATA, "sample-1.0.tar.gz": b"other", "sample-0.9.tar.gz": b"old"}


@pytest.fixture(params=[True], ids=["PEP 691"])
def index(request, monkeypatch) -> Generator[LoopbackCrawl]:
    with serving(index_of(FILES, request.param)) as served:
        monkeypatch.setenv("PIP_INDEX_URL", f"{served.url}simple/")
        yield served


def fetch(wanted: PackageFile | None = None, lines: list[str] | None = None) -> Path:
    return fetch_package(wanted or pin(), ([] if lines is None else lines).append)


def left() -> list[str]:
    return sorted(path.name for path in package_cache().iterdir())


def downloads(index: LoopbackCrawl) -> int:
    return [path for path, _ in index.requests].count(f"files/{NAME}")


@pytest.mark.parametrize("index", [True, False], ids=["PEP 691", "PEP 503"], indirect=True)
def test_the_file_is_downloaded_once_and_then_read_from_the_cache(index):
    lines = []
    path = fetch(lines=lines)
    assert path.read_bytes() == DATA and len(lines) == 1 and NAME in lines[0]
    assert fetch() == path and downloads(index) == 1 and left() == [NAME]


def test_a_busy_index_and_a_dropped_connection_are_retried(index):
    index.faults |= {PROJECT: [Fault(status=503)], f"files/{NAME}": [Fault(cut=1000)]}
    lines = []
    assert fetch(lines=lines).read_bytes() == DATA
    assert sum("trying again" in line for line in lines) == 2


@pytest.mark.parametrize(("path", "fault"), [(PROJECT, Fault(status=503)), (f"files/{NAME}", Fault(cut=1000))])
def test_a_permanent_fault_is_reported_with_the_fix(index, path, fault):
    index.always[path] = fault
    with pytest.raises(InputError, match="cannot be fetched from the package index") as caught:
        fetch()
    assert pin().sha256 in str(caught.value) and str(package_cache() / NAME) in str(caught.value)
    assert left() == []


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"project": "other-thing"}, "has no project other-thing"),
        ({"name": "sample-1.0.post1.tar.gz"},
         r"has no file sample-1\.0\.post1\.tar\.gz of sample.*sample-1\.0\.tar\.gz"),
    ],
)  # fmt: skip
def test_a_missing_project_or_file_is_reported_with_the_available_ones(index, changes, told):
    with pytest.raises(InputError, match=told):
        fetch(pin(**changes))


def test_a_page_that_is_not_an_index_and_an_unwritable_cache_are_reported(index, tmp_path):
    index.always[PROJECT] = Fault(headers={"Content-Type": "image/png"})
    with pytest.raises(InputError, match="is not a package index"):
        fetch()
    shutil.rmtree(tmp_path / "cache")
    (tmp_path / "cache").write_text("in the way")
    with pytest.raises(InputError, match="XDG_CACHE_HOME"):
        fetch()


def test_a_modified_cached_file_is_downloaded_again(index, tmp_path):
    package_cache().mkdir(parents=True)
    (package_cache() / NAME).write_bytes(DATA[:-1] + b"?")
    assert fetch().read_bytes() == DATA


def test_a_hash_mismatch_reports_both_and_leaves_nothing(index, tmp_path):
    with pytest.raises(InputError, match="is not the pinned file") as caught:
        fetch(pin(sha256="ab" * 32))
    assert "ab" * 32 in str(caught.value)
    assert hashlib.sha256(DATA).hexdigest() in str(caught.value)
    assert left() == []
    assert downloads(index) == 1  # a retry would download the same file


def test_an_unreachable_index_is_reported(monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{closed_port()}/simple/")
    with pytest.raises(InputError, match="Check the network and pip's settings"):
        fetch()


def test_a_login_is_sent_only_to_the_host_of_the_index(index):
    url = f"{index.url}simple/"
    with index_client({"index-url": url.replace("://", "://me:s%40cret@")}) as client:
        assert client.endpoint == url
        client.s.get(url + "sample/")
        client.s.get(url.replace("127.0.0.1", "localhost") + "sample/")
    logins = [headers.get("Authorization") for _, headers in index.requests]
    assert logins == [f"Basic {base64.b64encode(b'me:s@cret').decode()}", None]


def test_pips_certificates_are_used_and_must_exist(tmp_path):
    with pytest.raises(InputError, match=r"missing\.pem"):
        index_client({"cert": str(tmp_path / "missing.pem")})
    (tmp_path / "own.pem").write_text("")
    with index_client({"cert": str(tmp_path / "own.pem")}) as client:
        assert client.s.verify == str(tmp_path / "own.pem")


@pytest.mark.parametrize("changes", [{"sha256": "abc"}, {"sha256": "G" * 64}, {"name": "a/b.whl"}, {"name": "a.exe"}])
def test_invalid_pins_are_rejected(changes):
    with pytest.raises(UsageError, match="of the package sample is"):
        pin(**changes)


def environment(folder, **more: str) -> dict[str, str]:
    """Isolate the test from the settings of this user."""
    return {
        "HOME": str(folder),
        "XDG_CONFIG_HOME": str(folder / "config"),
        "XDG_CONFIG_DIRS": str(folder / "xdg"),
        **more,
    }


def write(path, text: str):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


def test_later_files_win_and_the_environment_wins_over_files(tmp_path):
    write(tmp_path / "xdg/pip/pip.conf", "[global]\nindex-url = http://shared.example/simple\n")
    write(tmp_path / ".pip/pip.conf", "[global]\nindex_url = http://old.example/simple\ncert = /old.pem\n")
    assert pip_settings(environment(tmp_path))["index-url"] == "http://old.example/simple"
    write(tmp_path / "config/pip/pip.conf", "[global]\nindex-url = http://user.example/simple\n")
    settings = pip_settings(environment(tmp_path))
    assert (settings["index-url"], settings["cert"]) == ("http://user.example/simple", "/old.pem")
    settings = pip_settings(environment(tmp_path, PIP_INDEX_URL="http://env.example/", PIP_CERT="/env.pem"))
    assert (settings["index-url"], settings["cert"]) == ("http://env.example/", "/env.pem")


def test_a_named_file_replaces_the_users(tmp_path):
    write(
        tmp_path / "config/pip/pip.conf", "[global]\nindex-url = http://user.example/\nproxy = http://proxy.example\n"
    )
    named = write(tmp_path / "named.conf", "[install]\nindex-url = http://named.example/\n")
    settings = pip_settings(environment(tmp_path, PIP_CONFIG_FILE=named))
    assert settings["index-url"] == "http://named.example/"
    assert "proxy" not in settings


def test_the_section_of_a_command_wins_over_the_global_section_of_a_later_file(tmp_path):
    write(tmp_path / "xdg/pip/pip.conf", "[download]\nindex-url = http://download.example/\n[install]\ncert = /i.pem\n")
    write(tmp_path / "config/pip/pip.conf", "[global]\nindex-url = http://user.example/\ncert = /user.pem\n")
    settings = pip_settings(environment(tmp_path))
    assert (settings["index-url"], settings["cert"]) == ("http://download.example/", "/i.pem")
    write(tmp_path / "config/pip/pip.conf", "[download]\nindex-url = http://user.example/\n")
    assert pip_settings(environment(tmp_path))["index-url"] == "http://user.example/"


@pytest.mark.parametrize("value", ["1", "true", "Yes", "on"])
def test_no_index_is_honoured(tmp_path, value):
    with pytest.raises(InputError, match=f"no-index is {value}"):
        index_client(pip_settings(environment(tmp_path, PIP_NO_INDEX=value)))
    write(tmp_path / "config/pip/pip.conf", f"[global]\nno-index = {value}\n")
    with pytest.raises(InputError, match=f"no-index is {value}"):
        index_client(pip_settings(environment(tmp_path)))
    for off in ("0", "false", "no", "off"):  # the environment wins over the file here too
        index_client(pip_settings(environment(tmp_path, PIP_NO_INDEX=off)))


def test_os_devnull_disables_files_and_invalid_files_are_rejected(tmp_path):
    write(tmp_path / "config/pip/pip.conf", "[global]\nindex-url = http://user.example/\n")
    assert pip_settings(environment(tmp_path, PIP_CONFIG_FILE=os.devnull)).get("index-url") is None
    write(tmp_path / "config/pip/pip.conf", "no section\n= = =\n")
    with pytest.raises(InputError, match=r"pip's settings cannot be read: .*pip\.conf"):
        pip_settings(environment(tmp_path))


def test_settings_equal_those_of_pip(tmp_path):
    pip = shutil.which("pip")
    if pip is None:
        pytest.skip("no pip on PATH")
    write(tmp_path / "config/pip/pip.conf", "[global]\nindex-url = http://user.example/simple\n")
    variables = environment(tmp_path, PATH=os.environ["PATH"])
    command = [pip, "config", "get", "global.index-url"]
    said = subprocess.run(command, env=variables, capture_output=True, text=True, check=True).stdout.strip()
    assert pip_settings(variables)["index-url"] == said
