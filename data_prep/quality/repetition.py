"""Gopher's repetition rules (Rae et al. 2021, arXiv:2112.11446, table A1), as DataTrove implements them for FineWeb.

Lines are separated by line breaks (several count as one without `count_blank_lines`), paragraphs by blank lines. Those
that equal an earlier one are duplicates. All occurrences of the most frequent n-gram count, with blanks between words;
if several are as frequent, the first is used. Longer n-grams that repeat an earlier one count without overlap.

N-grams are equal if their words are equal. (DataTrove joins the words of 5- to 10-grams without blanks, so it treats "1
23" and "12 3" as equal.)
"""

import bisect
import collections
import itertools
import re
from dataclasses import dataclass, fields

import numpy as np

from data_prep.config.filters import Filter, Rule, Signal
from data_prep.text.nltk_words import punkt_inputs
from data_prep.text.passage import Passage, Splitter
from lm.fields import measured, within

LINE_BREAKS = re.compile(r"\n+")
BLANK_LINES = re.compile(r"\n{2,}")
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
"""2^64 over the golden ratio, made odd: products with it have well-distributed upper bits (Knuth, TAOCP 6.4)."""
TOP, DUPLICATE = (2, 3, 4), (5, 6, 7, 8, 9, 10)
NUMBERS = {3: "three", 4: "four", 5: "five", 6: "six", 7: "seven", 8: "eight", 9: "nine", 10: "ten"}


@dataclass(frozen=True)
class GopherRepetitionFilter(Filter):
    """Repetition rules of Gopher (arXiv:2112.11446, table A1). Shares of characters are shares of the whole text."""

    max_duplicate_lines: float
    """Maximum share of lines that repeat an earlier line."""
    max_duplicate_paragraphs: float
    """Maximum share of paragraphs (separated by blank lines) that repeat an earlier one."""
    max_duplicate_line_characters: float
    """Maximum share of characters in lines that repeat an earlier line."""
    max_duplicate_paragraph_characters: float
    """Maximum share of characters in paragraphs that repeat an earlier one."""
    max_top_ngram_characters: tuple[float, float, float]
    """Maximum share of characters in all occurrences of the most frequent 2-, 3- and 4-gram of tokens."""
    max_duplicate_ngram_characters: tuple[float, float, float, float, float, float]
    """Maximum share of characters in 5-, 6-, 7-, 8-, 9- and 10-grams of tokens that repeat earlier ones."""
    words: Splitter = measured(default="spacy")  # noqa: RUF009
    """Tokenizer: spaCy's or NLTK's."""
    count_blank_lines: bool = measured(default=False)
    """Count blank lines as lines, which are then duplicates of each other."""

    name = "gopher_repetition"
    title = "Gopher: repetition"
    summary = (
        "Rules of the model Gopher (Rae et al. 2021, arXiv:2112.11446, table A1). A repetitive text is mostly a "
        "menu, a list or machine-made, and a model trained on it repeats itself too."
    )
    signals = (
        Signal(
            "duplicate_paragraphs",
            "Repeated paragraphs",
            "Share of paragraphs that repeat an earlier one of the document.",
        ),
        Signal(
            "duplicate_paragraph_characters",
            "Text in repeated paragraphs",
            "Characters of repeated paragraphs, as a share of the text.",
        ),
        Signal("duplicate_lines", "Repeated lines", "Share of lines that repeat an earlier one of the document."),
        Signal(
            "duplicate_line_characters",
            "Text in repeated lines",
            "Characters of repeated lines, as a share of the text.",
        ),
        Signal(
            "top_2_gram",
            "Most frequent pair of words",
            "The characters of all its occurrences, as a share of the text.",
        ),
        *(
            Signal(
                f"top_{n}_gram",
                f"Most frequent {NUMBERS[n]} words in a row",
                "The characters of all their occurrences, as a share of the text.",
            )
            for n in TOP[1:]
        ),
        *(
            Signal(
                f"duplicate_{n}_grams",
                f"Repeated runs of {NUMBERS[n]} words",
                f"Characters in repeated runs of {NUMBERS[n]} words, as a share of the text.",
            )
            for n in DUPLICATE
        ),
    )
    rules = (
        Rule("gopher_duplicate_paragraphs", "duplicate_paragraphs", "above", "max_duplicate_paragraphs",
             datatrove="dup_para_frac"),
        Rule("gopher_duplicate_paragraph_characters", "duplicate_paragraph_characters", "above",
             "max_duplicate_paragraph_characters", datatrove="dup_para_char_frac"),
        Rule("gopher_duplicate_lines", "duplicate_lines", "above", "max_duplicate_lines", datatrove="dup_line_frac"),
        Rule("gopher_duplicate_line_characters", "duplicate_line_characters", "above", "max_duplicate_line_characters",
             datatrove="dup_line_char_frac"),
        *(
            Rule(f"gopher_top_{n}_gram", f"top_{n}_gram", "above", "max_top_ngram_characters", place,
                 datatrove=f"top_{n}_gram")
            for place, n in enumerate(TOP)
        ),
        *(
            Rule(f"gopher_duplicate_{n}_grams", f"duplicate_{n}_grams", "above", "max_duplicate_ngram_characters",
                 place, datatrove=f"duplicated_{n}_n_grams")
            for place, n in enumerate(DUPLICATE)
        ),
    )  # fmt: skip

    def check_values(self):
        within(self, self.path(), 0, 1, *(field.name for field in fields(self) if field.name.startswith("max_")))

    def external_inputs(self) -> dict[str, object]:
        return punkt_inputs(self.words)

    def measure(self, passage: Passage) -> list[float]:
        return measure(passage.text, passage.words_by(self.words), self.count_blank_lines)


def measure(text: str, words: list[str], count_blank_lines: bool = False) -> list[float]:
    """Return the values of GopherRepetitionFilter.signals for a non-empty text. `words` includes punctuation marks."""
    lines = text.splitlines() if count_blank_lines else LINE_BREAKS.split(text)
    paragraphs = BLANK_LINES.split(text.strip())
    return [
        count_duplicates(paragraphs) / len(paragraphs),
        duplicate_characters(paragraphs) / len(text),
        count_duplicates(lines) / len(lines),
        duplicate_characters(lines) / len(text),
        *(characters / len(text) for characters in ngram_characters(words)),
    ]


def count_duplicates(items: list[str]) -> int:
    """Return the number of items that equal an earlier one."""
    return len(items) - len(set(items))


def duplicate_characters(items: list[str]) -> int:
    """Return the number of characters in items that equal an earlier one."""
    distinct = set(items)
    return 0 if len(distinct) == len(items) else sum(map(len, items)) - sum(map(len, distinct))


def ngram_characters(words: list[str]) -> list[int]:
    """Return a number of characters for each n from 2 to 10: those in all occurrences of the most frequent n-gram (n =
    2, 3, 4), or those in n-grams that repeat an earlier one (n = 5 to 10).

    An n-gram can be repeated only if both (n-1)-grams in it are, so each n searches only the repeated (n-1)-grams, of
    which prose soon has none. Equal n-grams have the same ID: the position of one of them.
    """
    ends = np.concatenate(([0], np.cumsum(np.fromiter(map(len, words), np.int64, len(words)))))
    numbers = collections.defaultdict(itertools.count().__next__)  # equal words have equal numbers
    numbered, longest = np.fromiter(map(numbers.__getitem__, words), np.int32, len(words)), DUPLICATE[-1]
    following = np.concatenate((numbered, np.full(longest, -1, np.int32)))  # so that every n-gram has a next word
    place = np.zeros(len(words), np.int32)
    place[numbered[::-1]] = np.arange(len(words))[::-1]  # the first among equal words
    classes = np.where(np.bincount(numbered, minlength=1)[numbered] > 1, place[numbered], np.int32(-1))
    result = []
    for n in range(TOP[0], longest + 1):
        places, ngrams = repeated_ngrams(classes, following[n - 1 :])
        characters = top_characters if n in TOP else greedy_duplicate_characters
        result.append(characters(n, places, ngrams, ends))
        classes = np.full(max(len(classes) - 1, 0), -1, np.int32)
        classes[places] = ngrams
    return result


def repeated_ngrams(classes: np.ndarray, following: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (sorted positions of the n-grams that occur more than once, their IDs). Equal n-grams have the same ID.

    classes: the ID of each (n-1)-gram, or -1 if it occurs once; following: the ID of the word after it.
    """
    places = np.flatnonzero((classes[:-1] | classes[1:]) >= 0)  # neither is -1
    if not len(places):
        return places, places
    # `take` is up to twice as fast here as indexing.
    numbers, last = classes.take(places), following.take(places)
    others = np.flatnonzero(last != following.take(numbers))  # differ from the n-gram at the position of their number
    if len(others):
        numbers[others] = places[others[equals(numbers[others].astype(np.int64) * len(following) + last[others])]]
    repeated = (np.bincount(numbers) > 1).take(numbers)
    return places[repeated], numbers[repeated]


def equals(keys: np.ndarray) -> np.ndarray:
    """Return for each of the non-negative `keys` the index of an equal key, the same index for all equal ones.

    Each key writes its index into a slot of a hash table; keys that read the index of a different key are sorted.
    """
    bits = len(keys).bit_length() + 1
    slots = (keys.astype(np.uint64) * MULTIPLIER) >> np.uint64(64 - bits)
    table = np.empty(1 << bits, np.int32)
    table[slots[::-1]] = np.arange(len(keys))[::-1]
    result = table[slots]
    collided = np.flatnonzero(keys[result] != keys)
    _, first, inverse = np.unique(keys[collided], return_index=True, return_inverse=True)
    result[collided] = collided[first[inverse]]
    return result


def top_characters(n: int, places: np.ndarray, numbers: np.ndarray, ends: np.ndarray) -> int:
    """Return the length of the most frequent n-gram, with blanks between words, times its occurrences; 0 for fewer than
    n words. `places`, `numbers`: from `repeated_ngrams`; `ends`: cumulative lengths of the words, from 0."""
    if len(ends) <= n:
        return 0
    first, count = 0, 1
    if len(places):
        counts = np.bincount(numbers)[numbers]
        count = int(counts.max())
        first = int(places[np.argmax(counts)])
    return count * int(ends[first + n] - ends[first] + n - 1)


def greedy_duplicate_characters(n: int, places: np.ndarray, numbers: np.ndarray, ends: np.ndarray) -> int:
    """Return the number of characters, without blanks, in non-overlapping n-grams that repeat an earlier one.
    Arguments: see `top_characters`."""
    if not len(places):
        return 0
    where, what = memoryview(places), memoryview(numbers)  # faster to read than arrays, and not copies like lists
    count = len(where)
    dense = (places[n:] - places[:-n] == n).tobytes() + bytes(n)  # whether the n-th next position is the next free one
    seen, counted = bytearray(len(ends)), bytearray(count)
    index = 0
    while index < count:
        number = what[index]
        if not seen[number]:
            seen[number] = True
            index += 1
            continue
        counted[index] = True
        if dense[index]:
            index += n
        else:
            index = bisect.bisect_left(where, where[index] + n, index + 1, min(index + n, count))
    begins = places[np.frombuffer(counted, bool)]
    return int((ends[begins + n] - ends[begins]).sum())
