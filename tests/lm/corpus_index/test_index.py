"""The index finds the same passages as a naive search; it is complete or absent, and damaged files are named."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lm.corpus_index import build
from lm.corpus_index.build import build_index
from lm.corpus_index.index import CorpusIndex
from lm.corpus_index.suffix_array import suffix_array
from lm.errors import InputError
from tests.lm.corpus_index.corpora import indexed, naive_places, occurrences, write_run
from tests.run_files import REPOSITORY

document = st.lists(st.integers(1, 3), min_size=1, max_size=12)
PLANTED, VOCABULARY = 1000, 4096


@given(st.lists(st.lists(st.integers(0, 3), max_size=20), min_size=1, max_size=8), st.sampled_from([1, 2**13, 2**29]))
@settings(max_examples=60, deadline=None)
def test_the_suffix_array_is_sorted_by_tokens_up_to_the_separator(documents, scale):
    separator = 4 * scale
    tokens = np.array([t for one in documents for t in (*(scale * x for x in one), separator)], np.uint32)
    positions = suffix_array(tokens, separator)
    assert sorted(positions.tolist()) == list(range(len(tokens)))
    listed = tokens.tolist()
    endings = [listed[p : listed.index(separator, p) + 1] for p in positions.tolist()]
    assert endings == sorted(endings)


def places_in(index: CorpusIndex, passage, split=None) -> list[tuple[int, int]]:
    return sorted((own.number, offset) for own, offset in occurrences(index, passage, split))


@given(
    st.lists(document, min_size=2, max_size=8), st.lists(document, min_size=1, max_size=4),
    st.lists(st.lists(st.integers(1, 3), min_size=1, max_size=5), min_size=1, max_size=4),
    st.sampled_from([6, 30, 999]),
)  # fmt: skip
@settings(max_examples=12, deadline=None)
def test_every_passage_is_found_as_by_naive_search(train, val, passages, part_tokens):
    longest = max(len(one) for one in (*train, *val))
    part_tokens = max(part_tokens, longest + 1)  # longer documents are split
    with tempfile.TemporaryDirectory() as folder:
        index = indexed(write_run(Path(folder) / "run", train, val), part_tokens)
        for passage in passages:
            expected = naive_places([*train, *val], passage)
            assert places_in(index, passage) == expected
            assert places_in(index, passage, "train") == [one for one in expected if one[0] < len(train)]
            long = max((n for n in range(len(passage) + 1) if naive_places([*train, *val], passage[:n])), default=0)
            assert index.longest(passage) == (long if expected or long else 0)
        assert index.splits()["train"]["tokens"] == sum(map(len, train))


def corpus(seed: int, documents: int = 200) -> list[list[int]]:
    generator = np.random.default_rng(seed)
    return [generator.integers(1, VOCABULARY, generator.integers(30, 200)).tolist() for _ in range(documents)]


def test_planted_passages_are_found_and_absent_ones_are_not(tmp_path):
    documents, generator = corpus(0), np.random.default_rng(1)
    planted = [generator.integers(1, VOCABULARY, 6).tolist() for _ in range(PLANTED)]
    owners = generator.integers(0, len(documents), PLANTED).tolist()
    for passage, owner in zip(planted, owners, strict=True):
        documents[owner] += passage
    index = indexed(write_run(tmp_path / "run", documents, length=64), 5000)
    assert len(index.parts) > 4
    for passage, owner in zip(planted, owners, strict=True):
        matches = index.find(passage)
        (spot,) = matches.spots(10)
        own = index.document_at(spot)
        assert (own.number, own.id, own.url) == (owner, f"<urn:{owner}>", f"https://a.example/{owner}")
        assert own.tokens.tolist() == documents[owner]
    for passage in (generator.integers(1, VOCABULARY, 6).tolist() for _ in range(PLANTED)):
        assert not index.find(passage).count


def test_tokens_of_32_bits_give_the_same_index(tmp_path, monkeypatch):
    documents = corpus(2, 20)
    one, other = (write_run(tmp_path / dtype, documents, dtype=dtype) for dtype in ("uint16", "uint32"))
    manifest = other / "tokens/manifest.json"
    manifest.write_text(manifest.read_text().replace(str(2**31), str(2**17)))
    for passage in (documents[3][4:9], documents[9][:2], [5, 5, 5, 5]):
        assert places_in(indexed(one), passage) == places_in(indexed(other), passage)


def test_both_pieces_of_a_document_longer_than_a_part_belong_to_it(tmp_path):
    documents = [[7] * 5, list(range(1, 101)), [8] * 5, [9]]
    index = indexed(write_run(tmp_path / "run", documents), 40)
    for token in range(10, 101):
        assert {number for number, _ in places_in(index, [token])} == {1}
    assert [number for number, _ in places_in(index, [8] * 5)] == [2]
    assert sum(one["tokens"] for one in index.splits().values()) == 111


def test_repetitive_documents_are_sorted(tmp_path):
    index = indexed(write_run(tmp_path / "run", [[5] * 20_000, *[[3, 4] * 500] * 40], length=4096))
    assert index.find([5] * 19_999).count == 2 and index.find([5] * 20_001).count == 0
    assert index.find([3, 4] * 498 + [3]).count == 80


def test_spots_are_spread_over_all_matches(tmp_path):
    index = indexed(write_run(tmp_path / "run", [[2, 1, n] for n in range(3, 103)]), 50)
    spots = list(index.find([2, 1]).spots(10))
    numbers = [index.document_at(spot).number for spot in spots]
    assert len(set(numbers)) == 10 and max(numbers) - min(numbers) > 80
    assert len(list(index.find([2, 1]).spots(1000))) == 100


def test_a_killed_build_leaves_no_index_and_reuses_its_complete_parts(tmp_path):
    run = write_run(tmp_path / "run", corpus(3, 60), length=64)
    program = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom lm.corpus_index import build\n"
        "whole = build.suffix_array\ncalls = []\n"
        "def suffix_array(*given):\n    calls.append(1)\n"
        "    if len(calls) == 3: os.kill(os.getpid(), signal.SIGKILL)\n    return whole(*given)\n"
        "build.suffix_array = suffix_array\n"
        f"build.build_index(Path({str(run / 'tokens')!r}), Path({str(run / 'corpus_index')!r}), part_tokens=1000)\n"
    )
    killed = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, env=os.environ, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    with pytest.raises(InputError, match=r"There is no index .* python -m launch.index_corpus"):
        CorpusIndex(run)
    first = run / "corpus_index/train-00000.positions.npy"
    before, made = first.stat().st_mtime_ns, []
    build_index(run / "tokens", run / "corpus_index", part_tokens=1000, say=made.append)
    assert first.stat().st_mtime_ns == before and made[0].startswith("train-00002")
    build_index(run / "tokens", tmp_path / "other/corpus_index", part_tokens=1000)
    for path in sorted((tmp_path / "other/corpus_index").iterdir()):
        assert path.read_bytes() == (run / "corpus_index" / path.name).read_bytes()
    assert not list((run / "corpus_index").glob("*.partial")) and not list((run / "corpus_index").glob("train*.json"))


@pytest.mark.parametrize("interrupted", [[("b", "Header")], [("a", "Header"), ("b", "crc32_of")]], ids=["one", "two"])
def test_parts_of_other_shards_are_rebuilt_after_interrupted_builds(tmp_path, interrupted):
    """If interrupted before the header, the notes of all parts remain; at a checksum, arrays without a note."""
    runs = {name: write_run(tmp_path / name, corpus(seed, 60), length=64) for name, seed in (("a", 3), ("b", 4))}
    out = tmp_path / "index"
    for name, function in interrupted:
        with pytest.raises(KeyboardInterrupt), pytest.MonkeyPatch.context() as patch:
            patch.setattr(build, function, lambda *given: (_ for _ in ()).throw(KeyboardInterrupt))
            build_index(runs[name] / "tokens", out, part_tokens=1000)
    assert list(out.glob("train*.json"))
    for folder in (out, tmp_path / "fresh"):
        build_index(runs["a"] / "tokens", folder, part_tokens=1000)
    for path in (tmp_path / "fresh").iterdir():
        assert path.read_bytes() == (out / path.name).read_bytes()


@pytest.mark.parametrize("note", ["", "[]", "{}", '{"shards": null}', '{"shards": "", "part": 3}'])
def test_a_part_with_a_damaged_note_is_rebuilt(tmp_path, note):
    run = write_run(tmp_path / "run", corpus(3, 20), length=64)
    out = tmp_path / "index"
    out.mkdir()
    (out / "train-00000.json").write_text(note)
    assert len(build_index(run / "tokens", out, part_tokens=1000).parts) > 1
    assert not (out / "train-00000.json").exists()


def test_a_second_concurrent_build_is_rejected(tmp_path):
    run, told = write_run(tmp_path / "run", corpus(6, 40), length=64), []
    make = lambda say: build_index(run / "tokens", run / "corpus_index", part_tokens=1000, say=say)

    def second(_: str) -> None:
        with pytest.raises(InputError, match=r"is building the index in .*run/corpus_index\. Wait for it to end"):
            make(told.append)

    make(second)
    assert not told and sum(one["documents"] for one in CorpusIndex(run).splits().values()) == 40
    make(told.append)  # the lock is free again
    assert told


def test_damaged_files_are_named_with_the_remedy(tmp_path):
    run = write_run(tmp_path / "run", corpus(4, 10))
    folder = run / "corpus_index"
    indexed(run)
    for path in sorted(folder.iterdir()):
        whole = path.read_bytes()
        for broken in (whole[:-2], b"", b"\0" * len(whole)):
            path.write_bytes(broken)
            with pytest.raises(InputError, match=rf"(?s){path.name}.*python -m launch.index_corpus"):
                CorpusIndex(run)
        path.unlink()
        with pytest.raises(InputError, match=r"python -m launch\.index_corpus"):
            CorpusIndex(run)
        path.write_bytes(whole)
    CorpusIndex(run).check()
    path = folder / "train-00000.positions.npy"
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match=path.name):
        CorpusIndex(run).check()


def test_an_index_of_other_shards_is_out_of_date(tmp_path):
    run = write_run(tmp_path / "run", corpus(5, 10))
    indexed(run)
    manifest = run / "tokens/manifest.json"
    manifest.write_text(manifest.read_text() + "\n")
    with pytest.raises(InputError, match=r"out of date.*python -m launch.index_corpus"):
        CorpusIndex(run)
