"""A compiled blocklist holds what its lists hold, and a damaged one is never believed."""

import io
import random

import numpy as np
import pytest

from data_prep.url_filter import blocklist
from data_prep.url_filter.blocklist import BannedWords, blocklist_bytes, hash_domains, hash_pages, read_blocklist

WORDS = BannedWords(words=("poker", "\u043f\u043e\u043a\u0435\u0440"), substrings=("free poker",))


def written(path, *hashes, words=WORDS):
    joined = np.concatenate([*hashes, np.empty(0, dtype=np.uint64)])
    path.write_bytes(b"".join(blocklist_bytes(words, joined)))
    return path


def test_round_trip(tmp_path):
    listed = [f"site{number}.example" for number in range(20_000)]
    found = read_blocklist(written(tmp_path / "b", *hash_domains(io.BytesIO("\n".join(listed).encode()))))
    assert found is not None
    assert len(found) == len(listed)
    assert found.words == WORDS
    assert all(entry in found for entry in listed)
    assert not any(f"site{number}.example" in found for number in range(20_000, 60_000))


def test_an_empty_list_bans_nothing(tmp_path):
    found = read_blocklist(written(tmp_path / "b", words=BannedWords()))
    assert found is not None
    assert "" not in found
    assert "a.example" not in found


def test_every_flipped_byte_and_every_cut_is_noticed(tmp_path):
    whole = written(tmp_path / "b", *hash_domains(io.BytesIO(b"a.example\nb.example\n"))).read_bytes()
    damaged = tmp_path / "damaged"
    for place in range(len(whole)):
        damaged.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert read_blocklist(damaged) is None, place
        damaged.write_bytes(whole[:place])
        assert read_blocklist(damaged) is None, place
    assert read_blocklist(tmp_path / "missing") is None


@pytest.mark.parametrize(
    "lines",
    [
        b"a.example\nb.example",
        b"a.example\r\nb.example\r\n",
        b"# sites\n\n  A.example \n.b.example\n",
        b".a.example\n*.b.example\n",
        pytest.param(b"a.example.\nb.example\n\xff\n", id="a byte that is no UTF-8"),
    ],
)
def test_spellings_of_a_list(tmp_path, lines):
    found = read_blocklist(written(tmp_path / "b", *hash_domains(io.BytesIO(lines))))
    assert found is not None
    assert "a.example" in found
    assert "b.example" in found
    assert "sites" not in found


def test_pages_with_and_without_scheme(tmp_path):
    lines = b"# pages\na.example/Room/7\nhttps://www.b.example/?q=1\nc.example\n"
    found = read_blocklist(written(tmp_path / "b", *hash_pages(io.BytesIO(lines))))
    assert found is not None
    assert all(key in found for key in ("a.example/room/7", "b.example/?q=1", "c.example/"))
    assert "c.example" not in found  # a page, not a domain


@pytest.mark.parametrize("seed", range(5))
def test_where_chunks_end_does_not_matter(monkeypatch, seed):
    chance = random.Random(seed)
    lines = "\n".join("".join(chance.choices("ab.ü\r#", k=chance.randrange(12))) for _ in range(200)).encode()
    whole = np.concatenate(list(hash_domains(io.BytesIO(lines))))
    monkeypatch.setattr(blocklist, "CHUNK", chance.randrange(1, 50))
    assert (np.sort(np.concatenate(list(hash_domains(io.BytesIO(lines))))) == np.sort(whole)).all()
