"""Split text into words and marks by language, as datatrove's tokenizers do (utils/word_tokenizers.py).

FineWeb-2's thresholds were computed from datatrove's words, so each language uses the same library or an equivalent:
jieba's dictionary in Rust for Chinese, Sudachi in mode A for Japanese, newmm for Thai, pyvi for Vietnamese, Kiwi for
Korean. Scripts of India are split at spaces and at every mark; all others like English (data_prep/text/words.py)
without contractions, with the language's rules for hyphens and elided articles. Khmer, Lao, Burmese and Tibetan use ICU
instead of datatrove's libraries. docs/benchmarks.md has the agreement of the words.

The libraries are in requirements-languages.lock; each is loaded with the first text of its language.
"""

import functools
import importlib.util
import re
import string
import warnings
from collections.abc import Callable, Iterable

from data_prep.text.words import EXCEPTIONS, Memo, split_marks
from lm.errors import InputError

Splitter = Callable[[str], list[str]]
"""Function from a text to its words and marks, in order, without white space at their ends."""

HYPHENS_WHOLE = frozenset(
    "cat dan deu ell fin hun kir ltz nld nno nob por ron spa srp swe tat".split()  # noqa: SIM905 - read more easily
)
"""Languages in which a hyphenated word is one word, as in spaCy."""
ELIDED = frozenset(["cat", "fra", "ita", "lij"])
"""Languages in which an apostrophe ends a word: "l'" "homme"."""
INDIC_SCRIPTS = frozenset(["Deva", "Beng", "Gujr", "Guru", "Knda", "Mlym", "Orya", "Sinh", "Taml", "Telu"])
INDIC_MARKS = re.escape(string.punctuation) + "\u0964\u0965\uaaf0\uaaf1\uabeb-\uabef\u1c7e\u1c7f"
"""ASCII punctuation, and marks that end sentences in scripts of India."""
INDIC_MARK = re.compile(rf"([{INDIC_MARKS}])")
INDIC_NUMBER = re.compile(r"(?<![0-9])[0-9]++(?: ++[,.:/] ++[0-9]++)+")
"""Digits with marks between them, after spaces were inserted around marks."""
ELISION = re.compile(r"^([^\W\d_]{1,8}['’])(?=[^\W\d_])")
ASCII_WORD = re.compile(r"([a-zA-Z0-9]+(?:\.\d+)?%?)")
"""ASCII words of jieba ("mod", "2.4", "5%"); its Rust version returns longer ones ("mod_ssl")."""
JAPANESE_PARTS = re.compile(r"(?s:.{0,10000}[\n。]|.{1,10000})")
"""Input for one call of Sudachi, whole sentences if possible: it rejects more than 49,149 bytes, and a character can
have four."""
BY_LANGUAGE = {"vie_Latn": "pyvi"}
BY_SCRIPT = {
    "Hani": "jieba", "Jpan": "sudachi", "Hang": "kiwi", "Thai": "newmm", "Khmr": "icu", "Laoo": "icu", "Mymr": "icu",
    "Tibt": "icu", **dict.fromkeys(INDIC_SCRIPTS, "indic"),
}  # fmt: skip
PACKAGES = {
    "jieba": ("rjieba",), "sudachi": ("sudachipy", "sudachidict_core"), "kiwi": ("kiwipiepy",), "icu": ("icu4py",),
    "newmm": ("pythainlp",), "pyvi": ("pyvi", "sklearn_crfsuite"),
}  # fmt: skip


def splitter_name(label: str) -> str:
    """Return the key in SPLITTERS for a language such as "tha_Thai"; by default "spaces"."""
    return BY_LANGUAGE.get(label) or BY_SCRIPT.get(label[4:], "spaces")


def check_splitters(labels: Iterable[str]) -> None:
    """Raise InputError if a library for splitting words of one of these languages ("tha_Thai", …) is not installed."""
    missing = {
        package: label
        for label in labels
        for package in PACKAGES.get(splitter_name(label), ())
        if importlib.util.find_spec(package) is None
    }
    if missing:
        missing_packages = ", ".join(f"{package} ({label})" for package, label in sorted(missing.items()))
        raise InputError(
            "The words of some languages are found by libraries that are not installed: "
            f"{missing_packages}. Install them (make languages), or leave these languages out of "
            "documents.language.languages."
        )


@functools.cache
def splitter_of(label: str) -> Splitter:
    """Load the word splitter of a language such as "tha_Thai". Raises InputError if its library is not installed."""
    check_splitters((label,))
    name = splitter_name(label)
    if name == "spaces":
        return SpaceSplitter(label[:3] in HYPHENS_WHOLE, label[:3] in ELIDED)
    words = SPLITTERS[name]()
    return lambda text: [word for word in map(str.strip, words(text)) if word]


class SpaceSplitter:
    """Word splitter at white space and around marks as in English, but without English contractions ("don't")."""

    def __init__(self, hyphens_whole: bool, elided: bool):
        self.hyphens_whole, self.elided = hyphens_whole, elided
        self.chunks = Memo(self.split_chunk)

    def __call__(self, text: str) -> list[str]:
        return [word for chunk in text.split() for word in self.chunks[chunk]]

    def split_chunk(self, chunk: str) -> tuple[str, ...]:
        """Return the words and marks of a chunk, a text without white space."""
        words = (chunk,) if chunk.isalpha() else split_marks(chunk, SIGNS)
        if self.hyphens_whole and "-" in words:
            words = join_hyphens(words)
        if self.elided:
            words = tuple(part for word in words for part in ELISION.sub("\\1 ", word).split(" "))
        return words


SIGNS = {sign: words for sign, words in EXCEPTIONS.items() if not any(map(str.isalpha, sign))} | {
    f"{letter}.": (f"{letter}.",) for letter in f"{string.ascii_lowercase}äöü"
}
"""Exceptions that stay whole in all languages: emoticons and similar, and single letters with a period."""


def join_hyphens(words: tuple[str, ...]) -> tuple[str, ...]:
    """Return the words of a chunk, with those that were split at hyphens joined again: "e", "-", "mail" to "e-mail"."""
    joined = [words[0]]
    for place, word in enumerate(words[1:], 1):
        inside = place + 1 < len(words) and words[place + 1][0].isalnum() and joined[-1][-1].isalnum()
        if (word == "-" and inside) or (joined[-1][-1] == "-" and len(joined[-1]) > 1 and word[0].isalnum()):
            joined[-1] += word
        else:
            joined.append(word)
    return tuple(joined)


def indic_words(text: str) -> list[str]:
    """Split text in a script of India at spaces, and around marks except those within numbers.

    Line breaks do not separate words, because FineWeb-2's thresholds were computed from such words.
    """
    spaced = INDIC_MARK.sub(r" \1 ", text.replace("\t", " "))
    return INDIC_NUMBER.sub(lambda found: found[0].replace(" ", ""), spaced).split(" ")


def jieba() -> Splitter:
    import rjieba  # ty: ignore[import-not-found]

    return lambda text: [
        part
        for word in rjieba.cut(text, True)
        for part in (ASCII_WORD.split(word) if len(word) > 1 and word.isascii() else (word,))
    ]


def sudachi() -> Splitter:
    import sudachipy  # ty: ignore[import-not-found]

    tokenizer = sudachipy.Dictionary().tokenizer(mode=sudachipy.SplitMode.A)
    return lambda text: [found.surface() for part in JAPANESE_PARTS.findall(text) for found in tokenizer.tokenize(part)]


def newmm() -> Splitter:
    from pythainlp.tokenize import word_tokenize  # ty: ignore[import-not-found]

    return lambda text: word_tokenize(text, keep_whitespace=False, engine="newmm-safe")


def pyvi() -> Splitter:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)  # invalid escapes in its strings
        from pyvi import ViTokenizer  # ty: ignore[import-not-found]

    return lambda text: [word.replace("_", " ") for word in ViTokenizer.spacy_tokenize(text)[0]]


def kiwi() -> Splitter:
    from kiwipiepy import Kiwi  # ty: ignore[import-not-found]

    model = Kiwi()
    return lambda text: [text[found.start : found.end] for found in model.tokenize(text)]


def icu() -> Splitter:
    from icu4py.breakers import WordBreaker  # ty: ignore[import-not-found]

    return lambda text: list(WordBreaker(text, "und"))


SPLITTERS: dict[str, Callable[[], Splitter]] = {
    "indic": lambda: indic_words, "jieba": jieba, "sudachi": sudachi, "newmm": newmm, "pyvi": pyvi,
    "kiwi": kiwi, "icu": icu,
}  # fmt: skip
