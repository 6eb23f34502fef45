"""Repeated token sequences are removed except for the first occurrence, as by a plain search."""

import itertools
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.config import LineDedupConfig, SubstringDedupConfig
from data_prep.dedup.lines import remove_lines
from data_prep.dedup.substrings import (
    groups_of,
    places_by_file,
    remove_substrings,
    repeated_earlier,
    sequence_ranks,
    words_of,
)
from data_prep.dedup.survivors import Edit, Survivor, SurvivorFile, with_gaps
from data_prep.parquet import read_rows
from lm.errors import UsageError
from tests.data_prep.survivors import after, survivor, written
from tests.growth import superlinear

CONFIG = SubstringDedupConfig(length=5, max_removed=1.0, min_words_left=0)
TOKENS = st.lists(st.integers(0, 3), max_size=60).map(lambda numbers: np.array(numbers, np.uint32))


def plain_ranks(tokens: list[int], length: int) -> list[tuple[int, ...]]:
    """The sequence at each position; () if it is truncated, contains a 0 or occurs only once."""
    runs = [tuple(tokens[start : start + length]) for start in range(len(tokens))]
    whole = [run if len(run) == length and 0 not in run else () for run in runs]
    return [run if whole.count(run) > 1 else () for run in whole]


def plain_search(tokens: list[int], length: int) -> list[bool]:
    """Flags of tokens in a sequence that also begins at least `length` tokens earlier."""
    covered, first = [False] * len(tokens), {}
    for start, run in enumerate(plain_ranks(tokens, length)):
        if run and start >= first.setdefault(run, start) + length:
            covered[start : start + length] = [True] * length
    return covered


@given(tokens=TOKENS, length=st.integers(1, 9))
@settings(max_examples=300, deadline=None)
def test_repeated_runs_equal_those_of_a_plain_search(tokens, length):
    if length > 1:
        ranks, plain = sequence_ranks(tokens, length).tolist(), plain_ranks(tokens.tolist(), length)
        assert [rank > 0 for rank in ranks] == [bool(run) for run in plain]
        assert len(set(ranks)) == len(set(plain)) == len(set(zip(ranks, plain, strict=True)))
        assert repeated_earlier(tokens, length).tolist() == plain_search(tokens.tolist(), length)


WORDS = st.lists(st.sampled_from(["a", "b,", "C", "dé", "漢字", "\n", "e\n\nf"]), max_size=25).map(" ".join)
CORPORA = st.lists(st.lists(st.tuples(WORDS, st.integers(1, 3)), max_size=3), min_size=1, max_size=3)


def corpus_of(drawn) -> list[list[Survivor]]:
    return [[survivor(file, row, text, day) for row, (text, day) in enumerate(rows)] for file, rows in enumerate(drawn)]


def left_by_plain_search(corpus: list[list[Survivor]], length: int) -> dict[str, list[str]]:
    """{id: remaining words}, for documents in node order."""
    places = sorted((one.when, file, one.row, one) for file, rows in enumerate(corpus) for one in rows)
    numbers: dict[str, int] = {}
    tokens: list[int] = []
    for *_, one in places:
        tokens += [numbers.setdefault(word, len(numbers) + 1) for word in words_of(one.text)] + [0]
    goes = iter(plain_search(tokens, length))
    left = {}
    for *_, one in places:
        left[one.id] = [word for word in words_of(one.text) if not next(goes)]
        next(goes)
    return left


@given(drawn=CORPORA)
@settings(max_examples=20, deadline=None)
def test_removed_text_equals_that_of_a_plain_search(tmp_path_factory, drawn):
    corpus = corpus_of(drawn)
    left = after(remove_substrings, corpus, CONFIG, tmp_path_factory.mktemp("corpus"))
    expected = left_by_plain_search(corpus, CONFIG.length)
    assert {name: words_of(text) for name, text in left.items()} == expected
    texts = {one.id: one.text for rows in corpus for one in rows}
    assert all(text == texts[name] for name, text in left.items() if words_of(text) == words_of(texts[name]))


def passage(number: int, words: int = 60) -> str:
    return " ".join(f"w{number}x{place}" for place in range(words))


def test_the_earliest_by_date_is_kept_and_lines_are_preserved(tmp_path):
    long, config = passage(0), SubstringDedupConfig(min_words_left=3)
    late = survivor(0, 0, f"{passage(1)} tail\n{long}\nThe end of it.", day=9)
    early = survivor(1, 0, f"{passage(2)}\nBegin {long} and on.", day=2)
    nearly = survivor(1, 1, f"{passage(3)} {' '.join(long.split()[:49])}", day=9)
    left = after(remove_substrings, [[late], [early, nearly]], config, tmp_path)
    assert left == {late.id: f"{passage(1)} tail\nThe end of it.", early.id: early.text, nearly.id: nearly.text}
    totals = json.loads((tmp_path / "dropped/_substring_dedup.json").read_text())
    assert totals == {
        "documents_changed": 1, "documents_dropped": 0, "spans_removed": 1, "characters_removed": len(long) + 1,
    }  # fmt: skip


STEPS: dict[str, tuple[Callable, Any, str]] = {
    "lines": (remove_lines, LineDedupConfig(max_removed=0.4, min_words_left=30), "Home and news and about us and more"),
    "substrings": (
        remove_substrings, SubstringDedupConfig(length=50, max_removed=0.5, min_words_left=60), passage(0, 50),
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("what", "own", "reason"),
    [
        ("lines", 40, ""), ("lines", 8, "repeated_lines"), ("lines", 20, "short_after_line_dedup"),
        ("substrings", 80, ""), ("substrings", 40, "repeated_substrings"),
        ("substrings", 55, "short_after_substring_dedup"),
    ],
)  # fmt: skip
def test_documents_that_lose_too_much_or_keep_too_little_are_dropped(tmp_path, what, own, reason):
    remove, config, repeated = STEPS[what]
    corpus = [[survivor(0, row, f"{repeated}\n{passage(row, 20 + row * (own - 20))}", row + 1) for row in (0, 1)]]
    left = after(remove, corpus, config, tmp_path)
    assert left.get(corpus[0][1].id) == (None if reason else passage(1, own))
    assert len(left) == (1 if reason else 2)
    step = f"{what.removesuffix('s')}_dedup"
    assert json.loads((tmp_path / f"dropped/_{step}.json").read_text()) == {
        "documents_changed": int(not reason), "documents_dropped": int(bool(reason)),
        "spans_removed": int(not reason), "characters_removed": 0 if reason else len(repeated) + 1,
    }  # fmt: skip
    (edit,) = read_rows(tmp_path / f"parts/{step}/edits/0.parquet")
    assert edit["reason"] == reason


def test_removing_a_span_preserves_lines():
    def left(text: str) -> str:
        """The text without the parts in brackets."""
        spans, plain = [], ""
        for part in text.replace("]", "[").split("["):
            spans.append((len(plain), len(plain) + len(part)))
            plain += part
        return Edit(tuple(with_gaps(plain, spans[1::2]))).applied(plain)

    assert left("a\n[b c]\nd") == "a\nd" and left("[b c]\nd") == "d" and left("a\n[b c]") == "a"
    assert left("a [b] c") == "a c" and left("a [b\nc] d") == "a d" and left("a [b]\n\nc") == "a\n\nc"
    assert left("a\n  [b]\nc") == "a\nc" and left("[a b]") == "" and left("a\n\n[b]\n\n[c] d") == "a\n\nd"


def test_groups_are_bounded_and_cover_every_row_group(tmp_path):
    corpus = [[survivor(file, row, passage(row, 30)) for row in range(2500)] for file in range(2)]
    files = written(corpus, tmp_path)
    size = sum(len(one.text) for one in corpus[0][:1000])
    groups = groups_of(files, size * 3 // 2, tmp_path)
    covered = [(file.id, number) for group in groups for file, numbers in group.parts for number in numbers]
    assert covered == list(itertools.product(range(2), range(3)))
    assert len(groups) > 2 and all(group.bytes <= size * 3 // 2 for group in groups)
    with pytest.raises(
        UsageError, match=r"group_bytes is 10,000,000,000; a worker would take more than 1\.2 GB"
    ) as over:
        SubstringDedupConfig(group_bytes=10**10)
    most = int(str(over.value).rpartition("at most ")[2].strip(".").replace(",", ""))
    assert SubstringDedupConfig(group_bytes=most).group_bytes == most
    with pytest.raises(UsageError, match=f"Give at most {most:,}"):
        SubstringDedupConfig(group_bytes=most + 1)


def test_grouping_many_files_takes_linear_steps_and_opens_none(tmp_path):
    """No file is opened, and files are not compared with every group."""

    def files_of(size: int) -> list[SurvivorFile]:
        return [SurvivorFile(tmp_path / f"{n}.parquet", 9, "", {"text_bytes": [5, 4]}, n) for n in range(size)]

    groups = groups_of(files_of(100), 18, tmp_path)
    assert [[file.id for file, _ in group.parts] for group in groups] == [[n, n + 1] for n in range(0, 100, 2)]
    found = places_by_file(groups)
    assert [found[n] for n in range(100)] == [[groups[n // 2].run_file] for n in range(100)]
    assert not superlinear(lambda files: places_by_file(groups_of(files, 18, tmp_path)), files_of, 200)


def test_memory_for_a_group_of_copies_is_bounded():
    """The bound covers ranks when every run occurs twice; the tokens come on top."""
    import tracemalloc

    from data_prep.config.deduplicate import BYTES_PER_TOKEN

    some = np.random.default_rng(1).integers(1, 50_000, 200_000, dtype=np.uint32)
    for tokens in (np.concatenate([some, some]), np.ones(400_000, np.uint32)):
        tracemalloc.start()
        repeated_earlier(tokens, 50)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak / len(tokens) < BYTES_PER_TOKEN - 3, peak / len(tokens)
