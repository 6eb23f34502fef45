"""The URL filter's lists come from a pinned wheel and from the user's paths and addresses, and are compiled once."""

import dataclasses
import gzip
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
from data_prep.package_index import PackageFile, package_cache
from data_prep.url_filter import lists
from data_prep.url_filter.filter import prepare_lists, reject_reason
from data_prep.url_filter.lists import load_lists
from lm.errors import InputError, UsageError
from lm.storage import Url, write_atomically
from tests import object_store
from tests.data_prep import loopback_crawl
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
    file=PackageFile(project="sample", version="1.0", name=NAME, sha256=hashlib.sha256(WHEEL).hexdigest()),
    folder="sample/lists",
    licence="public domain",
    credit="the test",
)
CONFIG = dataclasses.replace(EMPTY, packages=(PIN,), soft_word_threshold=2)


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("PIP_NO_INDEX", raising=False)


def own_folder(root: Path, name: str, **lists: str) -> Path:
    folder = root / name
    folder.mkdir(parents=True)
    for file_name, text in lists.items():
        (folder / file_name.replace("_txt", ".txt")).write_text(text)
    return folder


def compiled() -> list[Path]:
    return sorted(package_cache().glob("blocklist-*"))


def test_a_pinned_wheel_is_fetched_and_compiled_once(monkeypatch):
    with serving(LoopbackIndex({NAME: WHEEL})) as index:
        monkeypatch.setenv("PIP_INDEX_URL", index.url)
        lines = []
        facts = prepare_lists(CONFIG, lines.append)
        assert facts == [f"{PIN.file.sha256}  {NAME}:sample/lists"]
        assert [line.split(":")[0] for line in lines] == [f"downloaded {NAME}", "compiled the URL lists"]
        assert prepare_lists(CONFIG, lines.append) == facts
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


def test_an_index_without_the_file_leaves_nothing(monkeypatch):
    with serving(LoopbackIndex({"sample-1.0.tar.gz": b"other"})) as index:
        monkeypatch.setenv("PIP_INDEX_URL", index.url)
        with pytest.raises(InputError, match=f"has no file {NAME}"):
            load_lists(CONFIG)
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
    file = dataclasses.replace(PIN.file, sha256=hashlib.sha256(b"no zip").hexdigest())
    wrong = dataclasses.replace(PIN, file=file)
    with pytest.raises(InputError, match=f"{NAME} cannot be read"):
        load_lists(dataclasses.replace(CONFIG, packages=(wrong,)))


def packed(**lists: str) -> bytes:
    """A .tar.gz of lists in a folder, as UT1 publishes its categories."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as archive:
        for name, text in lists.items():
            info = tarfile.TarInfo(f"adult/{name}")
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text.encode()))
    return made.getvalue()


URLS = {
    "http://www.bad.example/": "banned_domain",  # of the package
    "http://a.worse.example/": "banned_domain",
    "http://good.example/corner": "banned_url",
    "http://good.example/poker": "banned_word",
    "http://good.example/a-lucky-strike": "banned_substring",
    "http://good.example/": None,
}
"""By the package and two lists of the user's."""


@pytest.fixture
def in_cache():
    """The package, so that no index is asked for it."""
    package_cache().mkdir(parents=True)
    (package_cache() / NAME).write_bytes(WHEEL)


def test_own_lists_are_added_to_the_packages_and_replace_them_only_if_told_to(tmp_path, in_cache):
    own_folder(tmp_path, "ut1/adult", domains="worse.example\n")
    own_folder(tmp_path, "ut1/games", urls="good.example/corner\n", banned_words_txt="dice\n")
    config = dataclasses.replace(CONFIG, folders=(f"{tmp_path}/ut1/*",))
    facts = prepare_lists(config)
    own = {"adult/domains", "games/urls", "games/banned_words.txt"}
    assert {fact.split("  ")[1] for fact in facts} == {f"{NAME}:sample/lists", *own}
    assert {url: reject_reason(url, config) for url in URLS} == URLS
    assert reject_reason("http://good.example/dice", config) == "banned_word"
    alone = dataclasses.replace(config, packaged_lists=False)
    assert {fact.split("  ")[1] for fact in prepare_lists(alone)} == own
    assert [reject_reason(url, alone) for url in URLS] == [None, "banned_domain", "banned_url", None, None, None]


def test_a_folder_may_have_the_name_of_a_list(tmp_path, in_cache):
    folder = own_folder(tmp_path, "urls", domains="worse.example\n")
    config = dataclasses.replace(CONFIG, folders=(str(folder),))
    assert reject_reason("http://a.worse.example/", config) == "banned_domain"


def test_a_list_may_be_a_file_or_an_archive(tmp_path, in_cache):
    folder = own_folder(tmp_path, "mine", domains="worse.example\n")
    (tmp_path / "adult.tar.gz").write_bytes(packed(urls="good.example/corner\n", usage="x"))
    config = dataclasses.replace(CONFIG, folders=(str(folder / "domains"), str(tmp_path / "*.tar.gz")))
    assert {url: reject_reason(url, config) for url in URLS} == URLS
    (tmp_path / "adult.tar.gz").write_bytes(packed(usage="x"))
    with pytest.raises(InputError, match=r"adult\.tar\.gz has none of the files domains, urls"):
        prepare_lists(config)
    (tmp_path / "adult.tar.gz").write_bytes(packed(urls="good.example/corner\n")[:80])
    with pytest.raises(InputError, match=r"adult\.tar\.gz cannot be read"):
        prepare_lists(config)


def test_a_list_may_lie_at_an_address_and_is_known_by_its_contents(tmp_path, in_cache, monkeypatch):
    monkeypatch.setenv("GRISTMILL_CACHE", str(tmp_path / "objects"))
    with object_store.serving() as store:
        store.bucket("lists")
        for name, value in store.environment().items():
            monkeypatch.setenv(name, value)
        write_atomically(Url("s3://lists/ut1/games/urls"), "good.example/corner\n")
        write_atomically(Url("s3://lists/adult.tar.gz"), packed(domains="worse.example\n"))
        config = dataclasses.replace(CONFIG, folders=("s3://lists/ut1/games", "s3://lists/adult.tar.gz"))
        facts = prepare_lists(config)
        digest = hashlib.sha256(b"good.example/corner\n").hexdigest()
        assert f"{digest}  games/urls" in facts and len(facts) == 3
        assert {url: reject_reason(url, config) for url in URLS} == URLS
        with pytest.raises(InputError, match=r"s3://lists/ut1 is none of the files domains, .* Give one of these"):
            prepare_lists(dataclasses.replace(config, folders=("s3://lists/ut1",)))
    served = {"ut1/games/urls": b"good.example/corner\n", "adult.tar.gz": packed(domains="worse.example\n")}
    with loopback_crawl.serving(loopback_crawl.LoopbackCrawl(served)) as server:
        config = dataclasses.replace(CONFIG, folders=(f"{server.url}ut1/games", f"{server.url}adult.tar.gz"))
        assert f"{digest}  games/urls" in prepare_lists(config)
        assert {url: reject_reason(url, config) for url in URLS} == URLS


def test_a_list_of_words_that_is_too_long_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(lists, "MAX_WORD_LIST", 10)
    folder = own_folder(tmp_path, "mine", banned_words_txt="long enough\n")
    with pytest.raises(InputError, match=r"The list banned_words.txt in .* has more than 10 bytes"):
        prepare_lists(dataclasses.replace(CONFIG, folders=(str(folder),), packaged_lists=False))


def test_a_changed_list_is_compiled_anew(tmp_path):
    folder = own_folder(tmp_path, "mine", domains="bad.example\n")
    config = dataclasses.replace(CONFIG, folders=(str(folder),), packaged_lists=False)
    before = prepare_lists(config)
    (folder / "domains").write_text("bid.example\n")
    assert prepare_lists(config) != before
    lists = load_lists(config)
    assert lists is not None
    assert "bid.example" in lists
    assert "bad.example" not in lists


def test_the_same_lists_give_the_same_bytes(tmp_path, monkeypatch):
    for copy in ("one", "two"):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / copy))
        own_folder(tmp_path, f"{copy}/mine", domains="b.example\na.example\n", urls="c.example/x\n")
        config = dataclasses.replace(CONFIG, folders=(f"{tmp_path}/{copy}/mine",), packaged_lists=False)
        prepare_lists(config)
    one, two = (sorted((tmp_path / copy).glob("gristmill/packages/blocklist-*")) for copy in ("one", "two"))
    assert [path.name for path in one] == [path.name for path in two]
    assert one[0].read_bytes() == two[0].read_bytes()


def test_a_damaged_compiled_file_is_made_again(tmp_path):
    folder = own_folder(tmp_path, "mine", domains="bad.example\n")
    config = dataclasses.replace(CONFIG, folders=(str(folder),), packaged_lists=False)
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
    folder = own_folder(tmp_path, "mine", domains="bad.example\n")
    config = dataclasses.replace(CONFIG, folders=(str(folder),), packaged_lists=False)
    assert reject_reason("http://bad.example/", config) == "banned_domain"
    assert len(pickle.dumps(config)) < 2000


def test_folders_that_will_not_do(tmp_path):
    with pytest.raises(InputError, match="matches no folder and no list"):
        prepare_lists(dataclasses.replace(CONFIG, folders=(f"{tmp_path}/nothing*",)))
    own_folder(tmp_path, "ut1/adult", domains="bad.example\n")
    with pytest.raises(InputError, match=r"ut1 is none of the files .* It has the categories adult: name"):
        prepare_lists(dataclasses.replace(CONFIG, folders=(f"{tmp_path}/ut1",)))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="at least one of them"):
        prepare_lists(dataclasses.replace(CONFIG, folders=(f"{tmp_path}/empty",)))


def test_a_cache_that_cannot_be_written(tmp_path):
    (tmp_path / "cache").write_text("")
    folder = own_folder(tmp_path, "mine", domains="bad.example\n")
    config = dataclasses.replace(CONFIG, folders=(str(folder),), packaged_lists=False)
    with pytest.raises(InputError, match="cannot be written"):
        load_lists(config)


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


@pytest.mark.parametrize("hides", ["one line", "many lines", "a header", "another file"])
def test_an_archive_that_unpacks_to_far_more_than_its_size_is_not_read_on(tmp_path, monkeypatch, hides):
    """One of 2 MB took 4 GB, or all memory."""
    monkeypatch.setattr("data_prep.url_filter.lists.RATIO_FROM_BYTES", 1 << 20)
    size = 20 << 20
    member = tarfile.TarInfo("x" if hides == "another file" else "domains")
    member.type, member.size = tarfile.XHDTYPE if hides == "a header" else tarfile.REGTYPE, size
    content = {"many lines": b"a\n" * (size // 2), "one line": b"a" * size}.get(hides, bytes(size))
    (tmp_path / "lists.tar.gz").write_bytes(gzip.compress(member.tobuf() + content + bytes(1024)))
    with pytest.raises(InputError, match=r"lists\.tar\.gz cannot be read: it unpacks to more than 100 times its size"):
        load_lists(dataclasses.replace(CONFIG, packages=(), folders=(str(tmp_path / "lists.tar.gz"),)))
