"""Traced passages follow the rule, implemented here by naive search."""

import math
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from lm.corpus_index.lookups import overlap, texts_of, usual_ngram
from lm.corpus_index.spans import TraceRule, chosen, longest_spans, word_edges
from lm.tokenizer.characters import CharacterTokenizer
from tests.lm.corpus_index.corpora import indexed, naive_places, write_run

tokens = st.lists(st.integers(1, 4), min_size=1, max_size=14)


def by_the_rule(documents, passage, edges, rule) -> list[tuple[int, int, int]]:
    """(start, end, count), by the definition of the rule."""
    size, places = len(passage), [n for n in range(len(passage) + 1) if edges[n]]
    total = sum(map(len, documents))
    frequency = lambda token: max(1, sum(list(one).count(token) for one in documents)) / total
    kept, reach = [], 0
    for start in (one for one in places if one < size):
        ends = [end for end in places if end > start and naive_places(documents, passage[start:end])]
        if not ends:
            continue
        count = len(naive_places(documents, passage[start : max(ends)]))
        if max(ends) - start >= rule.least_tokens and count <= rule.most_count and max(ends) > reach:
            reach = max(ends)
            kept.append((start, reach, count))
    weight = lambda one: sum(math.log(frequency(token)) for token in passage[one[0] : one[1]])
    return sorted(sorted(kept, key=lambda one: round(weight(one), 9))[: math.ceil(rule.share * size)])


@given(
    st.lists(tokens, min_size=2, max_size=6), tokens, st.lists(st.booleans(), min_size=15, max_size=15),
    st.sampled_from([TraceRule(), TraceRule(2, 3, 0.3), TraceRule(1, 1, 1.0), TraceRule(3, 10, 0.5)]),
)  # fmt: skip
@settings(max_examples=20, deadline=None)
def test_spans_follow_the_rule(documents, passage, inner, rule):
    edges = np.array([True, *inner[: len(passage) - 1], True])
    with tempfile.TemporaryDirectory() as folder:
        index = indexed(write_run(Path(folder) / "run", documents), 20)
        found = chosen(longest_spans(index, passage, edges, "train"), len(passage), rule)
    expected = by_the_rule(documents, passage, edges, rule)
    if rule.share == 1.0:
        assert [(one.start, one.end, one.count) for one in found] == expected
    else:  # equal weights may differ in the last bits
        assert len(found) == len(expected)
        weights = [
            sum(np.log([max(1, index.counts[t]) / index.counts.sum() for t in passage[a:b]])) for a, b, _ in expected
        ]
        assert np.allclose(sorted(one.log_probability for one in found), sorted(weights))


def test_word_edges_are_between_words():
    flour = (b" \xe9\xba", b"\xa6\xe7\xb2\x89")
    pieces = [b"The", b" mil", b"ler", b"'s", *flour, b" 12", b"3", b".", b"\n", b"\xc3\xa9t"]
    edges = word_edges(pieces).tolist()
    #        The   mil   ler    's    |      |flour  12    3      .     \n    ét    end
    assert edges == [True, True, False, True, True, False, True, False, True, True, True, True]


def test_an_overlap_covers_all_ngrams_in_the_corpus(tmp_path):
    index = indexed(write_run(tmp_path / "run", [[1, 2, 3, 4, 5, 6, 7], [9, 8]]))
    found = overlap(index, [1, 2, 3, 4, 11, 4, 5, 6, 11, 9], 3)
    assert (found.ngrams, found.found) == (8, 3)
    assert [(start, end, matches.count) for start, end, matches in found.spans] == [(0, 4, 1), (5, 8, 1)]
    assert overlap(index, [9, 8], 13).share == 1.0 and overlap(index, [8, 9], 13).share == 0.0
    assert overlap(index, [], 13).share == 0.0


def test_ngrams_of_characters_are_longer():
    assert usual_ngram(CharacterTokenizer("\nab")) == 64


def test_texts_are_read_from_the_field_of_each_line(tmp_path):
    path = tmp_path / "questions.jsonl"
    path.write_text('{"question": "a"}\n\n{"question": "b"}\n')
    assert [text for _, text in texts_of(path, "question")] == ["a", "b"]
