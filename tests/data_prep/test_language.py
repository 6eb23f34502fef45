import dataclasses

import pyarrow as pa
import pytest

from configs.demo import get_config
from configs.recipes import gristmill
from data_prep.config import LanguageConfig
from data_prep.config.language import LANGUAGES
from data_prep.language import (
    NO_LETTERS,
    OTHER_SCRIPTS,
    detect_language,
    is_mostly_not_latin,
    letters_of,
    likeliest,
)
from data_prep.measure.row import text_schema
from data_prep.verdict import verdicts
from tests.data_prep.measured import verdict_on
from tests.data_prep.pages import GERMAN, PROSE, SENTENCES, demo_config, document, labelled_sentences

CONFIG = LanguageConfig(languages=("en", "fr"), min_score=0.65, letters_only=True)


def reason(language: str, score: float) -> str | None:
    row = {"language": language, "language_score": score}
    verdict = verdict_on(row, demo_config(steps=(), language=CONFIG))
    return verdict[1] if verdict else None


def test_detects():
    english, german = detect_language(document(PROSE), CONFIG), detect_language(document(GERMAN), CONFIG)
    assert (english.language, german.language) == ("en", "de")
    assert english.text == PROSE
    assert 0.9 < english.language_score <= 1
    assert english.language_score == round(english.language_score, 6)


def test_line_breaks_and_unusual_characters_raise_no_error():
    assert detect_language(document(PROSE.replace(" ", "\n")), CONFIG).language == "en"
    assert detect_language(document(""), CONFIG).language_score <= 1
    assert detect_language(document("\u2028\u2029\x0b 漢字 \U0001f600"), CONFIG).language_score <= 1


def test_low_language_score_at_the_threshold():
    assert reason("en", 0.65) == "low_language_score"
    assert reason("en", 0.650001) is None


def test_digits_and_punctuation_do_not_count():
    plain = detect_language(document(PROSE), CONFIG)
    cited = detect_language(document(PROSE.replace(" and ", " [12] (1998), 3:45–67; and ")), CONFIG)
    assert plain.language_score == cited.language_score
    raw = dataclasses.replace(CONFIG, letters_only=False)
    assert detect_language(document("12, 34; " * 9 + PROSE), raw).language_score < plain.language_score


def test_letters_by_the_table_equal_those_by_the_regex():
    """Every character, isolated and between letters, including characters beyond the first plane."""
    for start in range(0, 0x110000, 4096):
        text = "a".join(map(chr, range(start, start + 4096)))
        assert letters_of(text).split() == NO_LETTERS.sub(" ", text).split(), hex(start)


def test_marks_and_joiners_stay_with_their_letters():
    """As punctuation, the vowel signs of Hindi and the joiners of Persian would be removed from words."""
    hindi = "यह एक लंबा वाक्य है जिसमें कई मात्राएँ और संयुक्त अक्षर आते हैं"
    persian = "این نوشته‌ها را می‌خوانیم و نمی‌دانیم که چه کسی آن‌ها را نوشته‌است"
    for text, language in ((hindi, "hi"), (persian, "fa")):
        found = detect_language(document(text), CONFIG)
        assert found.language == language
        assert found.language_score > 0.9


CHINESE = "磨坊主在天亮之前就带着两袋粮食出发了，通往村子的路上结满了白霜。"
CHEROKEE = "ᎣᏏᏲ ᏙᎯᏧ ᏣᎳᎩ ᎦᏬᏂᎯᏍᏗ ᎠᏂᏴᏫᏯ ᎤᎾᏓᏤᎵᎦ "
TIFINAGH = "ⵉⵎⴷⴰⵏⵏ ⴰⴽⴽⵯ ⵜⵜⵍⴰⵍⴰⵏ ⴷ ⵉⵍⴻⵍⵍⵉⵢⵏ ⵎⵙⴰⵡⴰⵏ ⴳ ⵡⴰⴷⴷⵓⵔ ⴷ ⵉⵣⵔⴼⴰⵏ "


@pytest.mark.parametrize("letters_only", [True, False])
@pytest.mark.parametrize("text", [CHINESE * 9, CHEROKEE * 20, TIFINAGH * 10], ids=["chinese", "cherokee", "tifinagh"])
def test_a_page_in_another_script_than_latin_is_not_english(text, letters_only):
    """Without the check, the model detects English in each of these with a passing probability."""
    config = dataclasses.replace(CONFIG, letters_only=letters_only)
    mixed = "The miller set out before dawn with two sacks of grain on his cart. " * 3 + text
    ((language, score),) = likeliest(mixed, 1)
    assert reason(language, score) is None
    found = detect_language(document(mixed), config)
    assert found.language in OTHER_SCRIPTS
    assert reason(found.language, found.language_score) is not None
    assert 0 <= found.language_score <= 1


def test_letters_of_other_scripts_must_outnumber_the_latin_ones():
    assert is_mostly_not_latin("abc где а")
    assert not is_mostly_not_latin("abcd где а")
    assert not is_mostly_not_latin("æßø é ﬁ 😀 12 …")  # Latin nonetheless, or no letters
    assert not is_mostly_not_latin("𝐇𝐞𝐥𝐥𝐨")  # letters of formulas belong to no script
    assert not is_mostly_not_latin("")


def test_letters_of_other_scripts_do_not_change_the_score_of_english():
    """The check of scripts changes a score only if it rejects the page."""
    text = f"{PROSE} {CHINESE} {PROSE}"
    assert not is_mostly_not_latin(text)
    assert detect_language(document(text), CONFIG).language == "en"


def test_the_languages_of_other_scripts_are_those_of_the_model():
    assert OTHER_SCRIPTS < LANGUAGES
    assert {"ru", "el", "zh", "yue", "ar", "th", "ka", "sr"} < OTHER_SCRIPTS
    assert OTHER_SCRIPTS.isdisjoint(("en", "de", "fr", "vi", "tr", "eo"))


@pytest.mark.skipif(not SENTENCES.is_file(), reason=f"{SENTENCES} is not there")
def test_english_is_kept_and_other_languages_are_dropped():
    """At least 99 % of the English sentences over 100 characters are kept, at most 0.5 % of every 6th of the others."""
    config = dataclasses.replace(get_config().documents, steps=(), language=gristmill.LANGUAGE)

    def kept(texts: list[str]) -> list[bool]:
        rows = [dataclasses.asdict(detect_language(document(text), gristmill.LANGUAGE)) for text in texts]
        return [verdict is None for verdict in verdicts(pa.Table.from_pylist(rows, text_schema(config)), config)]

    sentences = labelled_sentences()
    english = kept([text for language, text in sentences if language == "en" and len(text) > 100])
    others = kept([text for number, (language, text) in enumerate(sentences) if language != "en" and number % 6 == 0])
    assert len(english) == 505
    assert len(others) > 12_000
    assert sum(english) / len(english) >= 0.99
    assert sum(others) / len(others) <= 0.005


@pytest.mark.skipif(not SENTENCES.is_file(), reason=f"{SENTENCES} is not there")
@pytest.mark.parametrize("language", ["de", "fr", "ru", "ja", "hi", "fa", "ca"])
def test_other_languages_are_distinguished(language):
    found = [
        detect_language(document(sentence), CONFIG).language
        for label, sentence in labelled_sentences()
        if label == language
    ]
    assert found.count(language) / len(found) > (0.8 if language == "ca" else 0.95)
