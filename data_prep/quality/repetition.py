"""Repetition in Gopher's sense (Rae et al. 2021, arXiv:2112.11446, table A1), as FineWeb's DataTrove reads it.

Lines part at runs of line breaks, paragraphs at blank lines; each that stood before counts. The most frequent n-gram
counts with all its occurrences, the words joined by blanks; of n-grams equally frequent, the one that is met first.
Longer n-grams that stood before count without overlap: after one, reading goes on behind it.

N-grams are told apart by their words. (DataTrove joins the words of 5- to 10-grams without blanks, so that to it "1 23"
and "12 3" are the same.)
"""

import bisect
import collections
import itertools
import re

import numpy as np

LINE_BREAKS = re.compile(r"\n+")
BLANK_LINES = re.compile(r"\n{2,}")
TOP, DUPLICATE = (2, 3, 4), (5, 6, 7, 8, 9, 10)
SIGNALS = (
    "duplicate_paragraphs",
    "duplicate_paragraph_characters",
    "duplicate_lines",
    "duplicate_line_characters",
    *(f"top_{n}_gram" for n in TOP),
    *(f"duplicate_{n}_grams" for n in DUPLICATE),
)


def measure(text: str, words: list[str]) -> list[float]:
    """The values of SIGNALS of a text that is not empty, split into `words`: shares of the count, or of characters."""
    paragraphs, lines = BLANK_LINES.split(text.strip()), LINE_BREAKS.split(text)
    return [
        count_duplicates(paragraphs) / len(paragraphs),
        duplicate_characters(paragraphs) / len(text),
        count_duplicates(lines) / len(lines),
        duplicate_characters(lines) / len(text),
        *(characters / len(text) for characters in ngram_characters(words)),
    ]


def count_duplicates(items: list[str]) -> int:
    """How many of `items` are equal to one before."""
    return len(items) - len(set(items))


def duplicate_characters(items: list[str]) -> int:
    """Characters of those of `items` that are equal to one before."""
    distinct = set(items)
    return 0 if len(distinct) == len(items) else sum(map(len, items)) - sum(map(len, distinct))


def ngram_characters(words: list[str]) -> list[int]:
    """Characters of the most frequent n-gram for each n of TOP, then of duplicates for each n of DUPLICATE.

    An n-gram can be repeated only where both (n-1)-grams in it are; so each n looks at what the last one left, which in
    prose is soon nothing. Two n-grams are equal if and only if their two (n-1)-grams are, so a pair of small numbers
    stands for an n-gram of any length.
    """
    ends = np.concatenate(([0], np.cumsum(np.fromiter(map(len, words), np.int64, len(words)))))
    classes = repeated_words(words)
    result = []
    for n in range(TOP[0], DUPLICATE[-1] + 1):
        places, numbers = repeated_ngrams(classes)
        if n in TOP:
            result.append(top_characters(n, places, numbers, ends))
        else:
            result.append(greedy_duplicate_characters(n, places, numbers, ends))
        classes = np.full(max(len(classes) - 1, 0), -1)
        classes[places] = numbers
    return result


def repeated_words(words: list[str]) -> np.ndarray:
    """For each word its number, equal for equal words, or -1 if it occurs once."""
    numbers = collections.defaultdict(itertools.count().__next__)
    classes = np.fromiter(map(numbers.__getitem__, words), np.int64, len(words))
    return np.where(np.bincount(classes, minlength=1)[classes] > 1, classes, -1)


def repeated_ngrams(classes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the n-grams begin that occur more than once, ascending, and the number of each, equal for equal ones.

    classes: for each (n-1)-gram its number, or -1 if it occurs once.
    """
    places = np.flatnonzero((classes[:-1] | classes[1:]) >= 0)  # neither is -1
    if not len(places):
        return places, places
    size = int(classes.max()) + 1
    numbers = classes[places] * size + classes[places + 1]
    if size * size > len(numbers):
        numbers = ranks(numbers)  # so that they stay small
    repeated = np.bincount(numbers)[numbers] > 1
    return places[repeated], numbers[repeated]


def ranks(numbers: np.ndarray) -> np.ndarray:
    """0, 1, 2 and so on for the smallest of `numbers`, the next, and so on; equal for equal ones."""
    order = np.argsort(numbers, kind="stable")
    ordered = numbers[order]
    steps = np.zeros_like(order)
    np.cumsum(ordered[1:] != ordered[:-1], out=steps[1:])
    result = np.empty_like(steps)
    result[order] = steps
    return result


def top_characters(n: int, places: np.ndarray, numbers: np.ndarray, ends: np.ndarray) -> int:
    """Characters of the most frequent n-gram, times its count; 0 where there are fewer than n words."""
    if len(ends) <= n:
        return 0
    first, count = 0, 1
    if len(places):
        counts = np.bincount(numbers)[numbers]
        count = int(counts.max())
        first = int(places[np.argmax(counts)])
    return count * int(ends[first + n] - ends[first] + n - 1)


def greedy_duplicate_characters(n: int, places: np.ndarray, numbers: np.ndarray, ends: np.ndarray) -> int:
    """Characters, without blanks, of n-grams that stood before, none of them overlapping with another."""
    where, what = places.tolist(), numbers.tolist()
    seen: set[int] = set()
    counted: list[int] = []
    index = 0
    while index < len(where):
        if what[index] in seen:
            counted.append(where[index])
            index = bisect.bisect_left(where, where[index] + n, index + 1, min(index + n, len(where)))
        else:
            seen.add(what[index])
            index += 1
    begins = np.array(counted, np.int64)
    return int((ends[begins + n] - ends[begins]).sum())
