"""Each rule at both sides of its threshold, on texts that keep all other rules."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.config import DocumentsConfig
from data_prep.measure.row import measure
from data_prep.quality.gopher import GopherQualityFilter
from lm.errors import UsageError
from tests.data_prep.measured import verdict_on
from tests.data_prep.pages import demo_config

CONFIG = GopherQualityFilter(
    min_words=10,
    max_words=100,
    min_mean_word_length=3,
    max_mean_word_length=10,
    max_symbols_per_word=0.1,
    max_bullet_lines=0.9,
    max_ellipsis_lines=0.3,
    min_words_with_letter=0.8,
    stop_words=("the", "be", "to", "of"),
    min_stop_words=2,
)


def documents_config(config: GopherQualityFilter = CONFIG) -> DocumentsConfig:
    return demo_config(steps=("gopher_quality",), gopher_quality=config)


def reason(text: str, config: GopherQualityFilter = CONFIG) -> str | None:
    verdict = verdict_on(measure(text, documents_config(config)), documents_config(config))
    return verdict[1] if verdict else None


def words(*repeated: tuple[int, str], stop: str = "the of") -> str:
    """Stop words, then each word as often as asked."""
    return " ".join([stop, *(word for number, word in repeated for _ in range(number))])


def lines(number: int, special: int, form: str) -> str:
    return "\n".join(form if i < special else "the price of bread rose" for i in range(number))


@pytest.mark.parametrize(
    ("kept", "dropped", "name"),
    [
        # punctuation is not counted: 10 words and 9
        (words((8, "bread"), (2, ",")), words((7, "bread"), (2, ",")), "gopher_short_document"),
        (words((98, "bread"), (9, ",")), words((99, "bread"), (9, ",")), "gopher_long_document"),
        # 3 + 2 letters, then 13 words: 30 letters in 10 words, and 29
        (words((5, "abc"), (2, "at"), (1, "bakers")), words((5, "abc"), (2, "at"), (1, "baker")),
         "gopher_below_mean_word_length"),
        (words((8, "understandi"), (1, "seventeenlettersw")), words((8, "understandi"), (1, "eighteenlettersssw")),
         "gopher_above_mean_word_length"),
        # 2 in 20 tokens, and 2 in 19
        (words((16, "bread"), (2, "#")), words((15, "bread"), (2, "#")), "gopher_too_many_hashes"),
        (words((1, "..."), (1, "…"), (16, "bread")), words((1, "..."), (1, "…"), (15, "bread")),
         "gopher_too_many_ellipses"),
        (lines(10, 9, "- the price of bread"), lines(10, 10, "- the price of bread"), "gopher_too_many_bullet_lines"),
        (lines(10, 9, "  • the price of bread"), lines(10, 10, "  • the price of bread"),
         "gopher_too_many_bullet_lines"),
        (lines(10, 3, "the rising price of the daily bread... "),
         lines(10, 4, "the rising price of the daily bread... "),
         "gopher_too_many_ellipsis_lines"),
        # 16 with a letter in 20 tokens, and in 21; a number is a word, but has none
        (words((14, "bread"), (2, "2026"), (2, ",")), words((14, "bread"), (3, "2026"), (2, ",")),
         "gopher_too_few_words_with_letter"),
        (words((10, "bread")), words((10, "bread"), stop="the the The OF"), "gopher_too_few_stop_words"),
    ],
)  # fmt: skip
def test_both_sides_of_the_threshold(kept, dropped, name):
    assert reason(kept) is None
    assert reason(dropped) == name


@given(st.lists(st.sampled_from(["bread", "2026", "•", "‘", ",", "...", "$", ".", "é", "1st", "€"]), min_size=1))
def test_words_and_their_mean_length_by_a_plain_loop(tokens):
    counted = [token for token in tokens if token not in (",", "...", "$", ".")]
    values = measure(" ".join(tokens), documents_config())
    assert values["words"] == len(counted)
    assert values["mean_word_length"] == (sum(map(len, counted)) / len(counted) if counted else 0)
    assert values["words_with_letter"] == sum(token in ("bread", "é", "1st") for token in tokens) / len(tokens)


def test_ellipsis_lines_may_end_in_either_sign():
    assert reason(lines(10, 4, "the rising price of the daily bread …")) == "gopher_too_many_ellipsis_lines"


@pytest.mark.parametrize("text", ["   ", "\n", "###", "… … …"])
def test_wordless_texts_are_short(text):
    assert reason(text) == "gopher_short_document"


def test_no_rule_divides_by_zero():
    lenient = dataclasses.replace(CONFIG, min_words=0, min_mean_word_length=0, min_stop_words=0)
    assert reason(" ", lenient) == "gopher_too_few_words_with_letter"
    assert reason(" ", dataclasses.replace(lenient, min_words_with_letter=0)) is None


@pytest.mark.parametrize("impossible", [{"min_words": 101}, {"min_mean_word_length": 10.5}, {"min_stop_words": 5}])
def test_rules_that_nothing_can_pass_are_refused(impossible):
    with pytest.raises(UsageError, match="nothing could pass"):
        dataclasses.replace(CONFIG, **impossible)
