"""Boosted oblivious trees (all nodes of a level ask the same question), evaluated for all blocks at once.

A tree of depth d asks d questions "feature > threshold"; the answers are the bits of the index of a leaf. Leaves are
log-odds in thousandths, so a score is a sum of integers: exact, and the same on every machine.
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
"""Blocks to score at once; bounds the memory for very large pages."""


def floats(rows: dict[str, np.ndarray], names: Iterable[str]) -> np.ndarray:
    """Return the named rows, joined end to end, as float32."""
    chosen = [rows[name] for name in names]
    return np.concatenate(chosen, dtype=np.float32, casting="unsafe") if chosen else np.empty(0, np.float32)


@dataclass(frozen=True, eq=False)
class Trees:
    """Ensemble of T oblivious decision trees of depth D over F named features."""

    features: tuple[str, ...]
    feature: np.ndarray
    """(T, D) index into `features` for the question of each level."""
    threshold: np.ndarray
    """(T, D) threshold of each question."""
    leaves: np.ndarray
    """(T, 2 ** D) value of each leaf: log-odds times SCALE."""
    bias: int
    """Added to the sum of the leaves, in their unit."""

    def score(self, rows: dict[str, np.ndarray]) -> np.ndarray:
        """Return (N,) the sum of all trees for each block: log-odds times SCALE, int64. `rows` maps each name in
        `features` to (N,) values per block, or (1,) if the feature describes the page. Other names are ignored."""
        wide = tuple([len(rows[name]) > 1 for name in self.features])
        if not any(wide):
            wide = (True,) * len(wide)
        # Copy all rows in one call, and compare features of the page once, not for each block: faster.
        values_FN = floats(rows, itertools.compress(self.features, wide)).reshape(sum(wide), -1)
        page_F = floats(rows, itertools.compress(self.features, [not one for one in wide]))
        of_blocks, feature_Q, threshold_Q1, question_DT = self.parted_questions(wide)
        pairs, offset, leaves = self.pairs
        sums = []
        for start in range(0, values_FN.shape[1], CHUNK):
            part_FN = values_FN[:, start : start + CHUNK]
            answers_QN = np.empty((len(feature_Q), part_FN.shape[1]), np.bool_)
            np.greater(part_FN.take(feature_Q[:of_blocks], 0), threshold_Q1[:of_blocks], out=answers_QN[:of_blocks])
            answers_QN[of_blocks:] = page_F.take(feature_Q[of_blocks:])[:, None] > threshold_Q1[of_blocks:]
            answers_QN = answers_QN.view(np.uint8)
            leaf_TN = answers_QN.take(question_DT[-1], 0)
            for depth in reversed(range(len(question_DT) - 1)):
                leaf_TN += leaf_TN  # shift by one bit; NumPy adds several bytes at once
                leaf_TN += answers_QN.take(question_DT[depth], 0)
            number_PN = leaf_TN[:pairs].astype(np.uint16)
            number_PN <<= len(question_DT)
            number_PN += leaf_TN[-pairs:]
            place_PN = number_PN.astype(np.int32)  # in steps: adding two types is slower than copying one
            place_PN += offset
            sums.append(leaves.take(place_PN).sum(0, dtype=np.int32).astype(np.int64) + self.bias)
        return np.concatenate(sums)

    @functools.cached_property
    def pairs(self) -> tuple[int, np.ndarray, np.ndarray]:
        """(number of pairs of trees, P; (P, 1) start of each pair in the sums; sums of all pairs, joined). A pair has a
        sum for every combination of a leaf of one tree with a leaf of the other.

        Random lookups of leaves took half of the time; pairs halve their number. If the number of trees is odd, the
        middle one is in two pairs and counts only in the first.
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
        """The Q distinct questions of all trees: (Q,) feature, (Q, 1) threshold; and (D, T) question at each level."""
        pairs = np.stack([self.feature.ravel(), self.threshold.ravel()], 1)
        unique, which = np.unique(pairs, axis=0, return_inverse=True)
        return (
            unique[:, 0].astype(np.int64),
            unique[:, 1].astype(np.float32)[:, None],
            which.reshape(self.feature.shape).T.copy(),
        )

    @functools.lru_cache(maxsize=8)  # noqa: B019 - trees live as long as their process
    def parted_questions(self, wide: tuple[bool, ...]) -> tuple[int, np.ndarray, np.ndarray, np.ndarray]:
        """Return `questions` in another order, those about blocks before those about the page: (number of questions
        about blocks, features, thresholds, questions of the levels). `wide`: whether each feature is per block."""
        feature_Q, threshold_Q1, question_DT = self.questions
        wide_F = np.array(wide)
        number_F = np.where(wide_F, np.cumsum(wide_F), np.cumsum(~wide_F)) - 1
        order_Q = np.argsort(~wide_F[feature_Q], kind="stable")
        of_blocks = int(np.count_nonzero(wide_F[feature_Q]))
        return of_blocks, number_F[feature_Q[order_Q]], threshold_Q1[order_Q], np.argsort(order_Q)[question_DT]

    @classmethod
    def from_content(cls, content: dict) -> "Trees":
        """Return the trees in the parsed JSON object `content` of model.json."""
        feature, threshold, leaves = zip(*content["trees"], strict=True)
        return cls(
            tuple(content["features"]), np.array(feature), np.array(threshold, np.float64),
            np.array(leaves, np.int32), content["bias"],
        )  # fmt: skip


@dataclass(frozen=True)
class Model:
    """The three ensembles of trees in model.json, and what they predict."""

    kind: Trees
    """Log-odds that a page is an article, from features of the whole page."""
    article: Trees
    """Log-odds that a block of an article is main text."""
    other: Trees
    """Log-odds that a block of another page is main text."""

    @classmethod
    def from_json(cls, text: str) -> "Model":
        content = json.loads(text)
        return cls(*(Trees.from_content(content[one.name]) for one in fields(cls)))


@functools.cache
def load_model() -> Model:
    """Load the fitted trees (docs/extraction.md). Raises InputError if the file is missing or damaged."""
    try:
        return Model.from_json(MODEL.read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"The model of the extraction engine, {MODEL}, cannot be read: {error!r}. It is part of the repository: "
            "restore it (git checkout, or a new copy on a worker)."
        ) from error
