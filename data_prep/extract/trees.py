"""Boosted oblivious trees (every node of a level asks the same question), evaluated for all blocks at once.

A tree of depth d asks d questions "feature > threshold"; the answers are the bits of a leaf's number. Leaves hold whole
thousandths of log-odds, so that a score is a sum of integers: exact, and the same on every machine.
"""

import functools
import itertools
import json
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from lm.errors import InputError

MODEL = Path(__file__).with_name("model.json")
SCALE = 1000
"""Units of a leaf per unit of log-odds."""
CHUNK = 4096
"""Blocks scored at once: bounds the memory that a page of very many takes."""


def floats(rows: dict[str, np.ndarray], names: Iterable[str]) -> np.ndarray:
    """These rows one after the other."""
    chosen = [rows[name] for name in names]
    return np.concatenate(chosen, dtype=np.float32, casting="unsafe") if chosen else np.empty(0, np.float32)


@dataclass(frozen=True)
class Trees:
    """T trees of depth D over named features."""

    features: tuple[str, ...]
    feature: np.ndarray
    """(T, D) indices into `features`."""
    threshold: np.ndarray
    """(T, D)."""
    leaves: np.ndarray
    """(T, L), L = 2 ** D."""
    bias: int

    def score(self, rows: dict[str, np.ndarray]) -> np.ndarray:
        """Log-odds of each block, times SCALE, int64; `rows` has (at least) the features, all of one length or of 1."""
        wide = tuple([len(rows[name]) > 1 for name in self.features])
        if not any(wide):
            wide = (True,) * len(wide)
        # All rows by one call, and what is of the page compared once and not for each block: a tenth of the time.
        values_FN = floats(rows, itertools.compress(self.features, wide)).reshape(sum(wide), -1)
        page_F = floats(rows, itertools.compress(self.features, [not one for one in wide]))
        parts = range(0, values_FN.shape[1], CHUNK)
        return np.concatenate([self.score_part(wide, values_FN[:, at : at + CHUNK], page_F) for at in parts])

    def score_part(self, wide: tuple[bool, ...], values_FN: np.ndarray, page_F: np.ndarray) -> np.ndarray:
        of_blocks, feature_Q, threshold_Q1, question_DT = self.parted_questions(wide)
        answers_QN = np.empty((len(feature_Q), values_FN.shape[1]), np.bool_)
        np.greater(values_FN.take(feature_Q[:of_blocks], 0), threshold_Q1[:of_blocks], out=answers_QN[:of_blocks])
        answers_QN[of_blocks:] = page_F.take(feature_Q[of_blocks:])[:, None] > threshold_Q1[of_blocks:]
        answers_QN = answers_QN.view(np.uint8)
        leaf_TN = answers_QN.take(question_DT[-1], 0)
        for depth in reversed(range(len(question_DT) - 1)):
            leaf_TN += leaf_TN  # as a shift by a bit, and NumPy adds several bytes at once
            leaf_TN += answers_QN.take(question_DT[depth], 0)
        pairs, offset, leaves = self.pairs
        number_PN = leaf_TN[:pairs].astype(np.uint16)
        number_PN <<= len(question_DT)
        number_PN += leaf_TN[-pairs:]
        place_PN = number_PN.astype(np.int32)  # step by step: a sum of two types is slower than a copy of one
        place_PN += offset
        return leaves.take(place_PN).sum(0, dtype=np.int32).astype(np.int64) + self.bias

    @functools.cached_property
    def pairs(self) -> tuple[int, np.ndarray, np.ndarray]:
        """How many pairs the trees make (P), where the sums of each pair's leaves begin (P, 1), and all the sums: of
        each pair for every leaf of the one with every leaf of the other.

        Half of the time went to looking up leaves, each anywhere in the table: so there are half as many of them. Of an
        odd number of trees the middle one is in two pairs, and counts in the first.
        """
        trees, size = self.leaves.shape
        pairs = (trees + 1) // 2
        other = self.leaves[-pairs:].copy()
        if trees % 2:
            other[0] = 0
        sums = self.leaves[:pairs, :, None] + other[:, None, :]
        small = np.abs(sums).max() < 1 << 15
        offset = np.arange(0, sums.size, size * size, dtype=np.int32)[:, None]
        return pairs, offset, sums.ravel().astype(np.int16 if small else np.int32)

    @functools.cached_property
    def questions(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Each different question once: its feature (Q) and its threshold (Q, 1); and which question each node (D, T)
        asks."""
        pairs = np.stack([self.feature.ravel(), self.threshold.ravel()], 1)
        unique, which = np.unique(pairs, axis=0, return_inverse=True)
        return (
            unique[:, 0].astype(np.int64),
            unique[:, 1].astype(np.float32)[:, None],
            which.reshape(self.feature.shape).T.copy(),
        )

    def parted_questions(self, wide: tuple[bool, ...]) -> tuple[int, np.ndarray, np.ndarray, np.ndarray]:
        """Where features have a value for each block or one for the page: how many questions are about those of blocks,
        and `questions` in an order in which these come first, by each feature's number among its like.
        """
        found = self.parted.get(wide)
        if found is None:
            feature_Q, threshold_Q1, question_DT = self.questions
            wide_F = np.array(wide)
            number_F = np.where(wide_F, np.cumsum(wide_F), np.cumsum(~wide_F)) - 1
            order_Q = np.argsort(~wide_F[feature_Q], kind="stable")
            of_blocks = int(np.count_nonzero(wide_F[feature_Q]))
            found = of_blocks, number_F[feature_Q[order_Q]], threshold_Q1[order_Q], np.argsort(order_Q)[question_DT]
            self.parted[wide] = found
        return found

    @functools.cached_property
    def parted(self) -> dict[tuple[bool, ...], tuple[int, np.ndarray, np.ndarray, np.ndarray]]:
        """What `parted_questions` found: two, as pages of one block have all features alike."""
        return {}

    @classmethod
    def from_content(cls, content: dict) -> "Trees":
        """The trees in an object of model.json."""
        feature, threshold, leaves = zip(*content["trees"], strict=True)
        return cls(
            tuple(content["features"]), np.array(feature), np.array(threshold, np.float64),
            np.array(leaves, np.int32), content["bias"],
        )  # fmt: skip


@dataclass(frozen=True)
class Model:
    """The trees of model.json."""

    kind: Trees
    """Log-odds that a page is an article, by what is alike in all of its blocks."""
    article: Trees
    """Log-odds that a block of an article is main text."""
    other: Trees
    """The same of pages of other kinds."""

    @classmethod
    def from_json(cls, text: str) -> "Model":
        content = json.loads(text)
        return cls(*(Trees.from_content(content[one.name]) for one in fields(cls)))


@functools.cache
def load_model() -> Model:
    """The trees that tests/bench/extract_fit has fitted. Raises InputError if the file is missing or damaged."""
    try:
        return Model.from_json(MODEL.read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"The model of the extraction engine, {MODEL}, cannot be read: {error!r}. It is part of the repository: "
            "bring it back (git checkout, or a new copy on a worker)."
        ) from error
