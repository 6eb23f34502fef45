"""Index of the n-grams of evaluation examples as sorted hashes, and the search for them in documents.

A hash match is confirmed by comparing the words with the example's. An n-gram is missed if another one has the same
hash: for m n-grams with a probability of about m² / 2^65, or 3e-6 for ten million. Before the binary search, a small
table rejects most windows; one in 16 to 32 passes by chance.
"""

import functools
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from data_prep.config.deduplicate import DecontaminationConfig
from data_prep.decontamination.examples import Example
from data_prep.dedup.words import hashed_ngrams, hashed_words, words_of
from data_prep.npz import load_npz
from lm.storage import Place, write_atomically


@dataclass(frozen=True, eq=False)
class Index:
    """The n-grams of evaluation examples, in the order of their hashes."""

    hashes: np.ndarray
    """uint64 (ngrams,): unique and sorted."""
    text: np.ndarray
    """int64 (ngrams,): index into `texts` of a text that has the n-gram."""
    start: np.ndarray
    """int64 (ngrams,): first word in that text."""
    words: np.ndarray
    """int64 (ngrams,): number of its words."""
    offsets: np.ndarray
    """int64 (ngrams + 1,): the examples that have n-gram i are examples[offsets[i]:offsets[i + 1]]."""
    examples: np.ndarray
    """int64: indices into `names`."""
    texts: tuple[str, ...]
    names: tuple[tuple[str, int, str], ...]
    """(evaluation set, number in the set, id) of each example."""
    skipped: tuple[int, ...]
    """Indices into `names` of examples that are too short to be searched for."""

    @functools.cached_property
    def tables(self) -> dict[int, tuple[np.uint64, np.ndarray]]:
        """{number of words: (shift, table)}: if table[hash >> shift] is False, no n-gram of that length has this
        hash."""
        tables = {}
        for length in np.unique(self.words).tolist():
            hashes = self.hashes[self.words == length]
            bits = min(30, len(hashes).bit_length() + 4)
            table = np.zeros(1 << bits, bool)
            table[hashes >> np.uint64(64 - bits)] = True
            tables[length] = np.uint64(64 - bits), table
        return tables

    @functools.lru_cache(maxsize=10_000)  # noqa: B019 - an index lives as long as its process
    def words_of_text(self, text: int) -> list[str]:
        return words_of(self.texts[text])

    def ngram(self, number: int) -> list[str]:
        start = int(self.start[number])
        return self.words_of_text(int(self.text[number]))[start : start + int(self.words[number])]

    def examples_of(self, number: int) -> list[int]:
        return self.examples[self.offsets[number] : self.offsets[number + 1]].tolist()


def build_index(examples: Iterable[Example], config: DecontaminationConfig) -> Index:
    """Return the index of the n-grams of all examples. Examples that have only texts shorter than min_words are
    skipped."""
    texts: list[str] = []
    names: list[tuple[str, int, str]] = []
    skipped: list[int] = []
    parts: list[tuple[np.ndarray, int, int, int]] = []  # (hashes, text, words, example)
    for example in examples:
        names.append((example.set, example.number, example.id))
        count = len(parts)
        for text in example.texts:
            words = hashed_words(text)
            length = min(len(words), config.ngram_words)
            if length >= config.min_words:
                parts += [(hashes, len(texts), n, len(names) - 1) for n, hashes in hashed_ngrams(words, (length,))]
                texts.append(text)
        if len(parts) == count:
            skipped.append(len(names) - 1)
    sizes = np.array([len(part[0]) for part in parts], np.int64)
    column = lambda place: np.repeat(np.array([part[place] for part in parts], np.int64), sizes)
    hashes = np.concatenate([np.empty(0, np.uint64), *(part[0] for part in parts)])
    text, words, example = column(1), column(2), column(3)
    start = np.arange(len(hashes)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    unique, first, which = np.unique(hashes, return_index=True, return_inverse=True)
    pairs = np.unique(which.astype(np.int64) * len(names) + example)
    offsets = np.searchsorted(pairs, np.arange(len(unique) + 1) * len(names))
    places, holders = (text[first], start[first], words[first]), pairs % max(1, len(names))
    return Index(unique, *places, offsets, holders, tuple(texts), tuple(names), tuple(skipped))


ARRAYS = ("hashes", "text", "start", "words", "offsets", "examples")


def write_index(index: Index, folder: Place) -> None:
    """Write the index to `folder`, for `read_index`; index.json is written last."""
    arrays = io.BytesIO()
    np.savez(arrays, **{name: getattr(index, name) for name in ARRAYS})
    write_atomically(folder / "index.npz", arrays.getvalue())
    rest = {"texts": index.texts, "names": index.names, "skipped": index.skipped}
    write_atomically(folder / "index.json", json.dumps(rest))


@functools.lru_cache(maxsize=1)
def read_index(folder: Place) -> Index:
    """Return the index in `folder`, read once per process."""
    rest = json.loads((folder / "index.json").read_bytes())
    expected = {name: ("<u8" if name == "hashes" else "<i8", (None,)) for name in ARRAYS}
    columns = load_npz(io.BytesIO((folder / "index.npz").read_bytes()), expected)
    names = tuple((one[0], one[1], one[2]) for one in rest["names"])
    return Index(*columns, tuple(rest["texts"]), names, tuple(rest["skipped"]))


def overlaps(texts: Sequence[str], index: Index) -> dict[int, list[int]]:
    """Return {position of a text: sorted indices of the n-grams of the index that the text contains}, without texts
    that have none."""
    hashed = [hashed_words(text) for text in texts]
    ends = np.cumsum([len(words) for words in hashed])
    words = np.concatenate([np.empty(0, np.uint64), *hashed])
    found: dict[int, set[int]] = {}
    own_words: dict[int, list[str]] = {}
    for length, hashes in hashed_ngrams(words, [*index.tables]):
        shift, table = index.tables[length]
        starts = np.flatnonzero(table[hashes >> shift])
        numbers = np.searchsorted(index.hashes, hashes[starts])
        numbers[numbers == len(index.hashes)] = 0
        starts, numbers = (one[index.hashes[numbers] == hashes[starts]] for one in (starts, numbers))
        owners = np.searchsorted(ends, starts, side="right")
        inside = starts + length <= ends[owners]  # not crossing into the next text
        for start, number, owner in zip(*(one[inside].tolist() for one in (starts, numbers, owners)), strict=True):
            if owner not in own_words:
                own_words[owner] = words_of(texts[owner])
            begin = start - int(ends[owner]) + len(hashed[owner])
            if own_words[owner][begin : begin + length] == index.ngram(number):
                found.setdefault(owner, set()).add(number)
    return {owner: sorted(numbers) for owner, numbers in sorted(found.items())}
