"""Word splitters of each language, by the libraries that FineWeb-2's thresholds were computed with."""

import importlib.util

import pytest

from configs.recipes.fineweb_2 import TEN_LANGUAGES
from data_prep.by_language import splitters
from data_prep.by_language.splitters import PACKAGES, check_splitters, splitter_name, splitter_of
from data_prep.text.passage import Passage
from lm.errors import InputError

MISSING = [one for many in PACKAGES.values() for one in many if importlib.util.find_spec(one) is None]
needs_libraries = pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)} (make languages)")


@pytest.mark.parametrize(
    ("label", "text", "words"),
    [
        ("deu_Latn", "Im Hof (ca. 1998) steht's.", "Im|Hof|(|ca|.|1998|)|steht|'s|."),
        ("deu_Latn", "Die live-erfahrene E-Mail-Gruppe, z. B. -", "Die|live-erfahrene|E-Mail-Gruppe|,|z.|B.|-"),
        ("pol_Latn", "biało-czerwony", "biało|-|czerwony"),
        ("fra_Latn", "L'homme d’eau, l'arrière-plan", "L'|homme|d’|eau|,|l'|arrière|-|plan"),
        ("rus_Cyrl", "Мельница стояла у реки; вода шла.", "Мельница|стояла|у|реки|;|вода|шла|."),
        ("arb_Arab", "ذهب الطحان، ثم عاد؟", "ذهب|الطحان|،|ثم|عاد|؟"),
        ("hin_Deva", "चक्की 29.2, नदी पर है। (हाँ)", "चक्की|29.2|,|नदी|पर|है|।|(|हाँ|)"),
        ("tam_Taml", "ஆலை; ஆறு.", "ஆலை|;|ஆறு|."),
    ],
)
def test_words_separated_by_spaces(label, text, words):
    assert splitter_of(label)(text) == words.split("|")


@pytest.mark.slow
@needs_libraries
@pytest.mark.parametrize(
    ("label", "text", "words"),
    [
        ("cmn_Hani", "磨坊主在天亮之前出发了。", "磨坊主|在|天亮|之前|出发|了|。"),
        ("jpn_Jpan", "粉屋は夜明け前に出発した。", "粉屋|は|夜明け|前|に|出発|し|た|。"),
        ("tha_Thai", "ผมรักประเทศไทย และแม่น้ำ", "ผม|รัก|ประเทศ|ไทย|และ|แม่น้ำ"),
        ("vie_Latn", "Việt Nam có nhiều sông.", "Việt Nam|có|nhiều|sông|."),
        ("lao_Laoo", "ພາສາລາວ", "ພາສາ|ລາວ"),
    ],
)
def test_words_found_by_a_library(label, text, words):
    assert splitter_of(label)(text) == words.split("|")


@pytest.mark.slow
@needs_libraries
@pytest.mark.parametrize("label", TEN_LANGUAGES)
def test_words_are_not_empty_have_no_blanks_and_keep_all_letters(label):
    text = "Miller 12.5 % — «磨坊主在 天亮» المطحنة\n\nचक्की। โรงสี мельница được粉屋 " * 3
    words = splitter_of(label)(text)
    assert all(word and word == word.strip() for word in words)
    assert "".join("".join(words).split()) == "".join(text.split())
    kinds = Passage(text, words_of=splitter_of(label)).kinds_by("spacy")
    assert len(kinds) == len(words)


@pytest.mark.slow
@needs_libraries
def test_a_long_japanese_text_is_split_in_chunks():
    sentence = ["夜明け", "前", "に", "。"]
    assert splitter_of("jpn_Jpan")("".join(sentence) * 5_000) == sentence * 5_000
    assert "".join(splitter_of("jpn_Jpan")("夜明け" * 20_000)) == "夜明け" * 20_000


def test_a_missing_package_is_named_with_its_language(monkeypatch):
    monkeypatch.setattr(splitters.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pythainlp \(tha_Thai\).*rjieba \(cmn_Hani\).*make languages"):
        check_splitters(("deu_Latn", "tha_Thai", "cmn_Hani"))
    check_splitters(("deu_Latn", "hin_Deva", "swh_Latn"))


def test_every_splitter_has_its_packages():
    names = {splitter_name(label) for label in (*TEN_LANGUAGES, "kor_Hang", "khm_Khmr", "pol_Latn")}
    assert names - {"spaces"} == splitters.SPLITTERS.keys()
    assert splitters.PACKAGES.keys() | {"indic"} == splitters.SPLITTERS.keys()
