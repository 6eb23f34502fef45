"""fastText's lid.176.ftz (Joulin et al. 2016, arXiv:1607.01759 and arXiv:1612.03651) by NumPy, a text at a time.

fastText takes up n-gram after n-gram, and takes twice as long: a twentieth of all that is done to a page. Sums are made
in its order and of 32 bits, so that the probabilities are its own to the last bit (tests/data_prep/test_lid_176.py).
The file is read as fastText 0.9.2 writes it (dictionary.cc, quantmatrix.cc, productquantizer.cc, loss.cc).

Array axes: B bytes, C characters, G words and n-grams of 2 to 4 characters that begin there, W words, D values of a
vector, L languages, N inner nodes of the tree of languages, S steps down from them, P steps from the root.
"""

import itertools
import math
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

MAGIC, VERSION, HIERARCHICAL_SOFTMAX = 793712314, 12, 1
WORD = re.compile(rb"([^\0]+)\0(.{8})(.)", re.DOTALL)
END_OF_LINE, LABEL = b"</s>", b"__label__"
SHORTEST, LONGEST = 2, 4
"""Characters of an n-gram."""
OFFSET, PRIME = np.uint32(2166136261), np.uint32(16777619)
"""Of the FNV-1a hash, which fastText takes of bytes with their sign."""
NONE = np.uint16(2**16 - 1)
"""The row of what the model does not know."""
END = np.zeros(1, np.uint16)
"""The row of a line's end, which is a word: the model's first."""
WORDS_AT_ONCE = 20_000
"""Bounds the memory that a long text takes."""
LEAST = np.float32(math.log(1e-5))
"""Of the logarithms of probabilities: what is less likely fastText does not tell."""
Rest = tuple[tuple[np.ndarray, np.ndarray], ...]
"""Of the characters of more than one byte: which they are, and their second byte; then the same of the third."""


@dataclass(frozen=True)
class Lid176:
    """The model."""

    languages: tuple[str, ...]
    words: dict[bytes, int]
    """{word: its row}."""
    row_of_hash: np.ndarray
    """(buckets,) uint16: the row of each n-gram's hash."""
    vectors: np.ndarray
    """(rows, D) float32: those of the words, then those of the n-grams."""
    nodes: np.ndarray
    """(D, N) float32."""
    paths: np.ndarray
    """(P, L): the steps to each language: n to the left of node n, n + N to its right, 2 N stands for none."""

    @property
    def buckets(self) -> np.uint32:
        return np.uint32(len(self.row_of_hash))

    @classmethod
    def read(cls, path: Path) -> "Lid176":
        """Raises OSError, and ValueError where the file is no such model, or damaged."""
        content = path.read_bytes()
        try:
            return cls.of(Reader(content))
        except (struct.error, IndexError) as error:
            raise ValueError(f"it is damaged ({error})") from error

    @classmethod
    def of(cls, reader: "Reader") -> "Lid176":
        magic, version, dim, _, _, _, _, ngrams, loss, _, buckets, shortest, longest, _ = reader.numbers("14i")
        found = magic, version, ngrams, loss, shortest, longest
        wanted = MAGIC, VERSION, 1, HIERARCHICAL_SOFTMAX, SHORTEST, LONGEST
        if found != wanted:
            raise ValueError(f"its settings are {found}, but those of lid.176 are {wanted}")
        reader.numbers("d")
        size, words, labels, _, pruned = reader.numbers("3i2q")
        entries = reader.entries(size)
        hash_H, row_H = reader.array(np.int32, 2 * pruned).reshape(pruned, 2).T
        row_of_hash = np.full(buckets, NONE)
        row_of_hash[hash_H] = words + row_H
        vectors = reader.quantized()
        if entries[0][0] != END_OF_LINE:
            raise ValueError(f"its first word is {entries[0][0]!r}, but should be {END_OF_LINE!r}")
        if reader.numbers("?2q") != (False, labels, dim) or len(entries) != words + labels:
            raise ValueError("its parts have other sizes than their heads say")
        return cls(
            tuple(name.removeprefix(LABEL).decode() for name, _ in entries[words:]),
            {name: row for row, (name, _) in enumerate(entries[:words])},
            row_of_hash,
            vectors,
            reader.array(np.float32, labels * dim).reshape(labels, dim)[: labels - 1].T.copy(),
            paths([count for _, count in entries[words:]]),
        )  # fmt: skip

    def likeliest(self, line: str, number: int) -> list[tuple[str, float]]:
        """The `number` likeliest languages of a text and their probabilities, the likeliest first; of those below LEAST
        none."""
        parts = map(self.rows_of, itertools.batched(words_of(line), WORDS_AT_ONCE))
        hidden_1D, size = np.zeros((1, len(self.nodes)), np.float32), 0
        for rows in itertools.chain(parts, [END]):
            # Along the first axis NumPy adds one after the other, as fastText does.
            hidden_1D = np.concatenate((hidden_1D, self.vectors.take(rows, 0))).sum(0, keepdims=True)
            size += len(rows)
        product_N = (self.nodes * (hidden_1D.T * np.float32(1 / size))).sum(0)
        right_N = np.float32(1) / (np.float32(1) + exp(-product_N))
        taken_S = np.concatenate((np.float32(1) - right_N, right_N)).astype(np.float64) + 1e-5
        step_S = np.append(np.log(taken_S).astype(np.float32), np.float32(0))
        score_L = step_S.take(self.paths).sum(0)
        best = np.argsort(-score_L, kind="stable")[:number] if number > 1 else score_L.argmax(keepdims=True)
        best = best[score_L[best] >= LEAST]
        return [(self.languages[n], one) for n, one in zip(best.tolist(), exp(score_L[best]).tolist(), strict=True)]

    def rows_of(self, words: Sequence[bytes]) -> np.ndarray:
        """The rows of words and of their n-grams, in fastText's order, uint16."""
        marked = b"<" + b"><".join(words) + b">"
        length_W = np.fromiter(map(len, words), np.intp, len(words)) + 2
        end_W = length_W.cumsum()
        begin_W = end_W - length_W
        code_C, rest = np.frombuffer(marked, np.int8).astype(np.int32).view(np.uint32), ()
        if not marked.isascii():
            code_C, rest, number_B = characters(code_C)
            begin_W, end_W = number_B.take(begin_W), number_B.take(end_W)
        row_CG = np.empty((len(code_C), LONGEST), np.uint16)
        row_CG[:, 0] = NONE
        row_CG[begin_W, 0] = [self.words.get(word, NONE) for word in words]
        hash_C = extended(np.full(len(code_C) + 1, OFFSET), code_C, rest, 0)
        for more in range(1, LONGEST):
            hash_C = extended(hash_C, code_C, rest, more)
            bucket_C = hash_C - hash_C // self.buckets * self.buckets  # twice as fast as %
            row_CG[: len(hash_C), more] = self.row_of_hash.take(bucket_C)
            for before in range(1, more + 1):  # what would go on behind the end of its word
                row_CG[end_W - before, more] = NONE
        rows = row_CG.ravel()
        return rows[rows != NONE]


def words_of(line: str) -> list[bytes]:
    """What fastText takes for words."""
    content = line.encode().replace(b"\0", b" ")
    words = content.split()
    if END_OF_LINE in content or LABEL in content:
        words = [word for word in words[: [*words, END_OF_LINE].index(END_OF_LINE)] if not word.startswith(LABEL)]
    return words


def exp(x_N: np.ndarray) -> np.ndarray:
    """e to the power of x, float32, with the error of the C library that fastText calls (glibc since 2.28: a polynomial
    of third degree over 32nds of powers of 2). By the true value one text in 500 has another last bit."""
    power_N = x_N.astype(np.float64) * (32 / math.log(2))
    whole_N = np.rint(power_N)
    rest_N = power_N - whole_N
    linear_N = 0.6931471806916203 / 32 * rest_N + 1
    cubic_N = (0.05550361559341535 / 32**3 * rest_N + 0.2402284522445722 / 32**2) * (rest_N * rest_N)
    with np.errstate(over="ignore"):  # infinity, as there
        return ((cubic_N + linear_N) * np.exp2(whole_N / 32)).astype(np.float32)


def characters(code_B: np.ndarray) -> tuple[np.ndarray, Rest, np.ndarray]:
    """Of UTF-8, its bytes as uint32 with their sign: the first byte of each character, the rest of those that have
    more, and how many characters begin before each byte and before the end."""
    number_B, first_B = np.zeros(len(code_B) + 1, np.intp), code_B.view(np.int32) >= -64  # others are of one before
    first_B.cumsum(out=number_B[1:])
    begin_C, later = first_B.nonzero()[0], (~first_B).nonzero()[0]
    of = number_B[later] - 1
    place = later - begin_C[of]
    rest = [(of[place == n], code_B[later[place == n]]) for n in range(1, int(place.max()) + 1)]
    return code_B[begin_C], tuple(rest), number_B


def extended(hash_C: np.ndarray, code_C: np.ndarray, rest: Rest, more: int) -> np.ndarray:
    """The hashes of n-grams of `more` characters, for each character where one begins, with the next character."""
    longer_C = (hash_C[:-1] ^ code_C[more:]) * PRIME
    for which, code in rest:
        first = int(np.searchsorted(which, more))
        at = which[first:] - more
        longer_C[at] = (longer_C[at] ^ code[first:]) * PRIME
    return longer_C


def paths(counts: list[int]) -> np.ndarray:
    """`Lid176.paths`: the Huffman tree of the languages' counts, which descend."""
    many = len(counts)
    weights = [*counts, *[10**15] * (many - 1)]
    steps: list[tuple[int, int]] = [(0, 0)] * len(weights)
    leaf, node = many - 1, many
    for inner in range(many, len(weights)):
        total = 0
        for step in (inner - many, inner - 1):  # to the left, to the right
            if leaf >= 0 and weights[leaf] < weights[node]:
                below, leaf = leaf, leaf - 1
            else:
                below, node = node, node + 1
            steps[below] = inner, step
            total += weights[below]
        weights[inner] = total
    ways = []
    for language in range(many):
        way, at = [], language
        while at != len(weights) - 1:
            at, step = steps[at]
            way.append(step)
        ways.append(way[::-1])
    return np.array(list(itertools.zip_longest(*ways, fillvalue=2 * (many - 1))))


class Reader:
    """A file of fastText, read from its start."""

    def __init__(self, content: bytes):
        self.content, self.at = content, 0

    def numbers(self, form: str) -> tuple:
        form = "<" + form
        found = struct.unpack_from(form, self.content, self.at)
        self.at += struct.calcsize(form)
        return found

    def array(self, kind: type, size: int) -> np.ndarray:
        found = np.frombuffer(self.content, kind, size, self.at)
        self.at += found.nbytes
        return found

    def entries(self, number: int) -> list[tuple[bytes, int]]:
        """(word or label, how often it was there) of the dictionary."""
        found = list(itertools.islice(WORD.finditer(self.content, self.at), number))
        self.at = found[-1].end()
        return [(one[1], int.from_bytes(one[2], "little")) for one in found]

    def quantized(self) -> np.ndarray:
        """The rows of a matrix whose directions and lengths are quantised (product quantisation, Jégou et al. 2011)."""
        _, with_lengths, rows, _, size = self.numbers("2?2qi")
        if not with_lengths:
            raise ValueError("its rows have no lengths")
        code = self.array(np.uint8, size).reshape(rows, -1)
        _, parts, width, _ = self.numbers("4i")
        centre = self.array(np.float32, parts * 256 * width).reshape(parts, 256, width)
        length = self.array(np.uint8, rows)
        self.numbers("4i")
        scale = self.array(np.float32, 256).take(length)
        return centre[np.arange(parts), code].reshape(rows, -1) * scale[:, None]
