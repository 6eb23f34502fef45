import dataclasses
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.recipes.gristmill import C4
from data_prep.quality.c4 import C4Filter, Cleaned, clean
from data_prep.text.passage import Passage
from lm.errors import UsageError

KEPT = "This line is long enough."


def counts(text: str, config: C4Filter = C4) -> list[float]:
    return config.measure(Passage(text))


def clean_lines(text: str, config: C4Filter) -> str:
    return clean(text, config).text


def parts_of(cleaned: Cleaned) -> tuple[list[str] | None, int, int]:
    return cleaned.lines, cleaned.lorem_ipsum, cleaned.curly_brackets


@pytest.mark.parametrize(
    "line",
    [
        "Two words",
        "",
        "a word of " + "x" * 1001 + " characters",
        "Please enable JavaScript in your browser",
        "Read our Terms of Use here",
        "We value your PRIVACY POLICY wishes",
        "By the use of cookies we live",
    ],
)
def test_lines_that_are_left_out(line):
    assert clean_lines(f"{KEPT}\n{line}\n{KEPT}", C4) == f"{KEPT}\n{KEPT}"


def test_at_its_limits_a_line_stays():
    text = "three words here\na word of " + "x" * 1000
    assert clean_lines(text, C4) == text


def test_lines_are_stripped_and_blank_ones_go():
    assert clean_lines(f"  {KEPT} \r\n\n\u2028\t{KEPT}\t", C4) == f"{KEPT}\n{KEPT}"


def test_citations_are_taken_out_after_words_were_counted():
    assert clean_lines("Water is wet.[1][23][edit][citation needed] []", C4) == "Water is wet."
    assert clean_lines("two words [1]", C4) == "two words"
    assert clean_lines("It [note 1] stays [a].", C4) == "It [note 1] stays [a]."
    assert clean_lines("Water is wet.[1]", dataclasses.replace(C4, remove_citations=False)) == "Water is wet.[1]"


def test_a_phrase_may_be_joined_by_a_citation_that_goes():
    assert clean_lines("all about java[1]script here", C4) == ""


def test_order_of_the_line_rules():
    assert counts("lorem ipsum")[:3] == [0, 0, 0]  # too short to be looked at
    assert counts("Lorem Ipsum and JavaScript in a line")[:3] == [1, 0, 0]
    assert counts("a javascript { in a line")[:3] == [0, 0, 0]
    assert counts("a privacy policy { in a line")[:3] == [0, 1, 0]
    assert counts("code } and { more {{")[:3] == [0, 1, 1]


def test_sentences_are_those_of_the_lines_that_stay():
    assert counts("One is here. Two is here.\nToo short.\nThree is here")[2] == 3
    assert counts("Too short.")[2] == 0


@pytest.mark.parametrize("text", ["", "Too short.", "[1] [2] [edit]\n[] [edit] [3]", f"{KEPT}\n[1] [2] [edit]", KEPT])
def test_characters_are_those_of_the_text_that_is_left(text):
    assert counts(text)[3] == len(clean_lines(text, C4))


def test_an_empty_phrase_or_one_with_capitals_is_refused():
    with pytest.raises(UsageError, match="write 'javascript'"):
        dataclasses.replace(C4, script_phrases=("JavaScript",))
    with pytest.raises(UsageError, match="leave it out"):
        dataclasses.replace(C4, policy_phrases=("",))


def plain_clean(text: str, config: C4Filter) -> Cleaned:
    """The rules one after the other, line by line."""
    kept, lorem_ipsum, curly_brackets = [], 0, 0
    for line in text.splitlines():
        line = line.strip()
        words = line.split()
        if any(len(word) > config.max_word_length for word in words) or len(words) < config.min_words_per_line:
            continue
        line = re.sub(r"\[\d*\]|\[edit\]|\[citation needed\]", "", line)
        lorem_ipsum += "lorem ipsum" in line.lower()
        if any(phrase in line.lower() for phrase in config.script_phrases):
            continue
        curly_brackets += "{" in line
        if any(phrase in line.lower() for phrase in config.policy_phrases):
            continue
        kept.append(line)
    return Cleaned(kept, lorem_ipsum, curly_brackets)


PARTS = st.sampled_from(
    ["a", " ", "\n", "Lorem ", "ipsum", "java", "[1]", "script", "{", "use cookies", "xxxxxxx", "\r"]
)


@given(st.lists(PARTS, max_size=40).map("".join))
def test_as_a_plain_loop(text):
    config = dataclasses.replace(C4, max_word_length=12, min_words_per_line=2)
    assert parts_of(clean(text, config)) == parts_of(plain_clean(text, config))
