"""What all tasks share: examples are requests and the right answer, scores are counted as lm-eval counts them.

A task of your own is a class as those beside this file, named by its module in train.evaluators.
"""

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
from jax.sharding import Mesh

from lm.config.evaluation import HUB
from lm.errors import InputError, shown
from lm.evaluation.evaluator import EvaluatorConfig
from lm.evaluation.evaluators import check_tasks
from lm.evaluation.log_likelihood import LogLikelihoods, Request, Score, encode_pair
from lm.evaluation.tasks.hub import hub_files
from lm.evaluation.tasks.sources import SOURCES, Example, local_files, read_rows
from lm.model.transformer import Transformer


class Question(NamedTuple):
    """An example: its answers, of which one is right."""

    pairs: Sequence[tuple[str, str]]
    """(context, continuation) of each answer."""
    right: int
    """The number of the right one."""
    lengths: Sequence[int]
    """Characters of each answer, without the blank before it."""


class Figure(NamedTuple):
    """A score, and how far another draw of examples would move it."""

    value: float
    standard_error: float


class Task:
    """A multiple-choice task; an evaluator (lm/evaluation/evaluator.py)."""

    name: ClassVar[str]
    """That of lm-eval, which figures begin with."""
    normalized: ClassVar[bool] = True
    """Whether acc_norm is told too."""

    def __init__(self, config: EvaluatorConfig):
        """Reads the examples. Raises UsageError where there are none, InputError where a row is not as it should be."""
        self.config = config
        check_tasks((self.name,), config.tasks, "tasks.data")
        self.questions = list(self.first(config.tasks.limit))
        if not self.questions:
            raise InputError(f"{', '.join(map(str, self.files()))} has no example of {self.name}. Bring it anew.")
        self.requests: list[Request] = [
            encode_pair(config.tokenizer, *pair) for one in self.questions for pair in one.pairs
        ]
        self.log_likelihoods = LogLikelihoods(
            config.model, config.batch_size, lambda text: config.show(f"{self.name}: {text}"), config.should_stop
        )

    def files(self) -> list[Path]:
        """Those with the examples."""
        source, data = SOURCES[self.name], self.config.tasks.data
        return hub_files(source) if data == HUB else local_files(source, Path(data), "tasks.data")

    def first(self, limit: int) -> Iterator[Question]:
        """The first `limit` questions; all, where it is 0."""
        return itertools.islice(self.read(), limit or None)

    def read(self) -> Iterator[Question]:
        """All questions, in the order of the files."""
        for path in self.files():
            yield from self.questions_in(path, self.rows(path))

    def rows(self, path: Path) -> Iterable[Example]:
        """The rows of a file; a task that has a format of its own reads it here."""
        return read_rows(path)

    def questions_in(self, path: Path, rows: Iterable[Example]) -> Iterator[Question]:
        """Raises InputError for a row that lacks what the task needs."""
        for number, row in enumerate(rows):
            try:
                question = self.question(row)
                if not 0 <= question.right < max(1, len(question.pairs)):
                    raise ValueError(f"the right answer is {question.right}, of {len(question.pairs)}")
            except (KeyError, ValueError, TypeError, AttributeError, IndexError) as error:
                raise InputError(
                    f"{path}, row {number}, is no example of {self.name}: {type(error).__name__}: {error}, in "
                    f"{shown(row)}. Give the file that docs/evaluation.md describes."
                ) from error
            yield question

    def question(self, row: Example) -> Question:
        """Raises KeyError, ValueError, TypeError, AttributeError or IndexError for a row that is not the task's."""
        raise NotImplementedError

    def score(self, model: Transformer, mesh: Mesh) -> dict[str, Figure]:
        """{"acc": ...}: "acc", the share of questions whose right answer has the highest likelihood, and "acc_norm",
        where likelihoods are divided by the answer's characters. Raises EvaluationInterrupted."""
        scores = iter(self.log_likelihoods.score(model, mesh, self.requests))
        return self.count([[next(scores) for _ in one.pairs] for one in self.questions])

    def count(self, scores: Sequence[Sequence[Score]]) -> dict[str, Figure]:
        """The figures of each question's scores."""
        right, right_by_length = [], []
        for question, of_answers in zip(self.questions, scores, strict=True):
            nats = np.array([one.log_likelihood for one in of_answers])
            right.append(int(nats.argmax()) == question.right)
            right_by_length.append(int((nats / np.maximum(question.lengths, 1)).argmax()) == question.right)
        figures = {"acc": share(right)}
        return figures | {"acc_norm": share(right_by_length)} if self.normalized else figures

    def run(self, model: Transformer, mesh: Mesh) -> dict[str, float]:
        """The figures by their whole names: "hellaswag_acc"."""
        return {f"{self.name}_{name}": figure.value for name, figure in self.score(model, mesh).items()}


def share(right: Sequence[bool]) -> Figure:
    """The mean, and its standard error as lm-eval has it (of the sample, n - 1)."""
    mean = sum(right) / len(right)
    return Figure(mean, math.sqrt(mean * (1 - mean) / max(1, len(right) - 1)))
