import importlib.util
import tarfile
from pathlib import Path

import pytest

from data_prep.config import LanguageConfig
from data_prep.language import detect_language, reject_reason
from tests.data_prep.pages import GERMAN, PROSE, document

SENTENCES = Path(__file__).parents[2] / "../shared/data/langid/sentences-75-languages.tar.xz"
CONFIG = LanguageConfig(languages=("en", "fr"), min_score=0.65)


def test_detects():
    english, german = detect_language(document(PROSE)), detect_language(document(GERMAN))
    assert (english.language, german.language) == ("en", "de")
    assert english.text == PROSE
    assert 0.9 < english.language_score <= 1
    assert english.language_score == round(english.language_score, 6)


def test_line_breaks_and_odd_characters_do_not_stop_it():
    assert detect_language(document(PROSE.replace(" ", "\n"))).language == "en"
    assert detect_language(document("")).language_score <= 1
    assert detect_language(document("\u2028\u2029\x0b 漢字 \U0001f600")).language_score <= 1


def test_low_language_score_at_the_threshold():
    assert reject_reason(document("", language="en", language_score=0.65), CONFIG) == "low_language_score"
    assert reject_reason(document("", language="en", language_score=0.650001), CONFIG) is None


def test_other_language():
    assert reject_reason(document("", language="de", language_score=0.99), CONFIG) == "other_language"
    assert reject_reason(document("", language="fr", language_score=0.99), CONFIG) is None


def test_one_fasttext_module_only():
    """Two packages bring a module of this name; the other one cannot load without a compiler's numpy."""
    spec = importlib.util.find_spec("fasttext")
    assert spec
    assert importlib.util.find_spec("fasttext_pybind")


@pytest.mark.skipif(not SENTENCES.is_file(), reason=f"{SENTENCES} is not there")
def test_accuracy_on_real_sentences():
    with tarfile.open(SENTENCES) as archive:
        for language in ("en", "de", "fr", "ru", "ja"):
            file = archive.extractfile(f"./{language}.txt")
            assert file
            lines = file.read().decode().splitlines()[:200]
            found = [detect_language(document(line)).language for line in lines]
            assert found.count(language) / len(lines) > 0.9, language
