"""C4's list of bad words is matched as by C4's regular expression, on word boundaries if requested."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.quality.bad_words import BadWordsFilter, WordList
from data_prep.text.passage import Passage
from lm.errors import InputError, UsageError

ENTRIES = frozenset({"spam", "ham and eggs", "a$$", "グロ", "x-rated"})
TEXTS = st.lists(st.sampled_from([*ENTRIES, "spammer", "ham", "and", "eggs", "a", "$$", " ", "-", "\n", ".", "é"])).map(
    "".join
)


@given(TEXTS)
def test_whole_words_match_where_c4s_expression_does(text):
    c4 = re.compile(r"(?:\W|^)({})(?:\W|$)".format("|".join(map(re.escape, sorted(ENTRIES)))))
    assert bool(WordList(ENTRIES, whole_words=True).count(text.lower())) == bool(c4.search(text.lower()))


@given(TEXTS)
def test_without_word_boundaries_substrings_match(text):
    assert bool(WordList(ENTRIES, whole_words=False).count(text.lower())) == any(one in text.lower() for one in ENTRIES)


def test_lists_are_lower_cased_and_identified_by_their_bytes(tmp_path):
    words = tmp_path / "en"
    words.write_text("# a comment\nSpam\n\nham and eggs\n")
    one = BadWordsFilter(max_bad_words=0, files=(str(words),))
    assert one.measure(Passage("SPAM, spam; spammers. Ham and eggs")) == [3]
    before = one.external_inputs()
    words.write_text("eggs\n")
    assert one.external_inputs().keys() == before.keys() and one.external_inputs() != before


def test_missing_or_empty_lists_are_named(tmp_path):
    with pytest.raises(UsageError, match=r"documents\.bad_words\.files is empty"):
        BadWordsFilter(max_bad_words=0, files=())
    with pytest.raises(InputError, match="nowhere"):
        BadWordsFilter(max_bad_words=0, files=(str(tmp_path / "nowhere"),)).measure(Passage("a"))
    (tmp_path / "blank").write_text("# nothing\n")
    with pytest.raises(InputError, match="has no words"):
        BadWordsFilter(max_bad_words=0, files=(str(tmp_path / "blank"),)).measure(Passage("a"))
