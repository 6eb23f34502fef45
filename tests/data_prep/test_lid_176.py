"""lid.176 by NumPy against fastText itself, which reads the same file."""

import random
from collections.abc import Callable

import pytest

from data_prep.config.language import LANGUAGES
from data_prep.language import model, model_file
from data_prep.lid_176 import WORDS_AT_ONCE
from tests.data_prep.pages import GERMAN, PROSE

OTHERS = (
    "Мельник выехал до рассвета с двумя мешками зерна. ",
    "磨坊主在天亮之前就带着两袋粮食出发了，通往村子的路上结满了白霜。",
    "यह एक लंबा वाक्य है जिसमें कई मात्राएँ और संयुक्त अक्षर आते हैं ",
    "این نوشته‌ها را می‌خوانیم و نمی‌دانیم که چه کسی آن‌ها را نوشته‌است ",
    "Ça coûte très cher, l’été à Zürich; 𝐇𝐞𝐥𝐥𝐨 😀 𠀀𠀁 … ",
)
ODD = (
    "", " ", "a", "é", "漢", "\0", "a\0b", "<", "><", "<b> a > b", "x" * 5000, "é" * 5000, "\u2028\xa0\u3000", "\t\r\f",
    "__label__en", "__label__de Die Mühle", "a __label__ b", "a __label__en b", "The mill </s> Die Mühle", "a</s>",
    "ナイルス家の", "ある日の暮方の事である。",  # as sure as 32 bits can be
)  # fmt: skip


@pytest.fixture(scope="module")
def by_fasttext() -> Callable[[str, int], list[tuple[str, float]]]:
    import fasttext

    loaded = fasttext.load_model(str(model_file()))

    def likeliest(line: str, number: int) -> list[tuple[str, float]]:
        labels, scores = loaded.predict(line, k=number)
        return [
            (label.removeprefix("__label__"), float(score)) for label, score in zip(labels, scores, strict=True)
        ]  # fmt: skip

    return likeliest


def lines() -> list[str]:
    """Texts of many scripts, whole and in pieces, their words and their characters mixed."""
    drawn = random.Random(0)
    found = [*ODD, PROSE, GERMAN, *OTHERS, *(text[:size] for text in (PROSE, *OTHERS) for size in range(1, 60, 7))]
    words = " ".join((PROSE, GERMAN, *OTHERS)).split()
    found += [" ".join(drawn.choices(words, k=drawn.randint(1, 300))) for _ in range(40)]
    found.append(" ".join(drawn.choices(words, k=2 * WORDS_AT_ONCE + 1)))
    codes = [*range(1, 0xD800), *range(0xE000, 0x11000), *range(0x20000, 0x20100)]
    found += ["".join(map(chr, drawn.choices(codes, k=200))) for _ in range(20)]
    return [line.replace("\n", " ") for line in found]


def test_it_tells_the_likeliest_language_and_its_probability_to_the_last_bit(by_fasttext):
    for line in lines():
        assert model().likeliest(line, 1) == by_fasttext(line, 1), line[:60]


def test_it_tells_every_language_that_fasttext_tells(by_fasttext):
    for line in lines():
        told = model().likeliest(line, len(LANGUAGES))
        assert dict(told) == dict(by_fasttext(line, len(LANGUAGES))), line[:60]
        assert [score for _, score in told] == sorted((score for _, score in told), reverse=True)
