"""Boosted oblivious trees (every node of a level asks the same question), evaluated for all blocks at once.

A tree of depth d asks d questions "feature > threshold"; the answers are the bits of a leaf's number. Leaves hold whole
thousandths of log-odds, so that a score is a sum of integers: exact, and the same on every machine.
"""

import functools
import json
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from lm.errors import InputError

MODEL = Path(__file__).with_name("model.json")
SCALE = 1000
"""Units of a leaf per unit of log-odds."""
CHUNK = 4096
"""Blocks scored at once: bounds the memory that a page of very many takes."""


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
        values_FN = np.empty((len(self.features), max(len(rows[name]) for name in self.features)), np.float32)
        for feature, name in enumerate(self.features):
            values_FN[feature] = rows[name]
        parts = range(0, values_FN.shape[1], CHUNK)
        return np.concatenate([self.score_part(values_FN[:, start : start + CHUNK]) for start in parts])

    def score_part(self, values_FN: np.ndarray) -> np.ndarray:
        feature, threshold, question_DT = self.questions
        answers_QN = (values_FN.take(feature, 0) > threshold).view(np.uint8)
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

    def to_json(self) -> str:
        """One tree a line: its features' numbers, thresholds and leaves."""
        lines = [
            json.dumps([feature.tolist(), threshold.tolist(), leaves.tolist()])
            for feature, threshold, leaves in zip(self.feature, self.threshold, self.leaves, strict=True)
        ]
        head = f'{{"features": {json.dumps(self.features)},\n"bias": {self.bias},\n"trees": [\n'
        return head + ",\n".join(lines) + "\n]}"

    @classmethod
    def from_content(cls, content: dict) -> "Trees":
        """The trees in what json reads of `to_json`."""
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

    def to_json(self) -> str:
        parts = ",\n".join(f'"{one.name}": {getattr(self, one.name).to_json()}' for one in fields(self))
        return f"{{{parts}}}\n"

    @classmethod
    def from_json(cls, text: str) -> "Model":
        content = json.loads(text)
        return cls(*(Trees.from_content(content[one.name]) for one in fields(cls)))


@functools.cache
def load_model() -> Model:
    """The trees that tell main text, as fit.py made them. Raises InputError where the file is missing or damaged."""
    try:
        return Model.from_json(MODEL.read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"The model of the extraction engine, {MODEL}, cannot be read: {error!r}. It is part of the repository: "
            "bring it back (git checkout, or a new copy on a worker)."
        ) from error
