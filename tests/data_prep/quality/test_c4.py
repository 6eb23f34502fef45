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


def test_sentences_are_counted_in_the_kept_lines():
    assert counts("One is here. Two is here.\nToo short.\nThree is here")[2] == 3
    assert counts("Too short.")[2] == 0


@pytest.mark.parametrize("text", ["", "Too short.", "[1] [2] [edit]\n[] [edit] [3]", f"{KEPT}\n[1] [2] [edit]", KEPT])
def test_characters_are_counted_in_the_remaining_text(text):
    assert counts(text)[3] == len(clean_lines(text, C4))


def test_an_empty_or_capitalized_phrase_is_rejected():
    with pytest.raises(UsageError, match="write 'javascript'"):
        dataclasses.replace(C4, script_phrases=("JavaScript",))
    with pytest.raises(UsageError, match="leave it out"):
        dataclasses.replace(C4, policy_phrases=("",))


def plain_clean(text: str, config: C4Filter) -> Cleaned:
    """The rules applied one by one, line by line."""
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
    ["a", " ", "\n", "Lorem ", "ipsum", "java", "[1]", "[edit]", "[citation needed]", "[note 1]", "script", "{",
     "use cookies", "Terms of Use", "xxxxxxx", "\r", "\u2028", "\t"]
)  # fmt: skip


@given(st.lists(PARTS, max_size=40).map("".join))
def test_result_equals_that_of_a_plain_loop(text):
    config = dataclasses.replace(C4, max_word_length=12, min_words_per_line=2)
    assert parts_of(clean(text, config)) == parts_of(plain_clean(text, config))
