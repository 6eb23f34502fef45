"""Base class of tasks: examples become scoring requests, and scores are counted as in lm-eval.

Your own task is a class like those in this folder, given with its module in train.evaluators.
"""

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
from jax.sharding import Mesh

from lm.config.evaluation import HUB
from lm.errors import MALFORMED, InputError, shown
from lm.evaluation.evaluator import EvaluatorConfig
from lm.evaluation.evaluators import task_files
from lm.evaluation.log_likelihood import LogLikelihoods, Request, Score, encode_pair
from lm.evaluation.tasks.hub import hub_files
from lm.evaluation.tasks.sources import SOURCES, Example, local_files, read_rows
from lm.model.transformer import Transformer


class Question(NamedTuple):
    """Multiple-choice question: answers as (context, continuation) pairs, and the index of the right one."""

    pairs: Sequence[tuple[str, str]]
    """(context, continuation) of each answer."""
    right: int
    """Index of the right answer."""
    lengths: Sequence[int]
    """Characters of each answer, without the leading blank."""

    @classmethod
    def of(cls, prompt: str, answers: Sequence[str], right: int) -> "Question":
        """Return the question that continues `prompt` by each of the answers, after a blank."""
        return cls([(prompt, f" {one}") for one in answers], right, [len(one) for one in answers])


class Figure(NamedTuple):
    """A metric's value and its `standard_error`, in the same unit."""

    value: float
    standard_error: float


class Task:
    """Base class of multiple-choice benchmarks, which are evaluators. Subclasses implement `question`."""

    name: ClassVar[str]
    """Name in lm-eval, and prefix of the results."""
    normalized: ClassVar[bool] = True
    """Whether acc_norm is reported too."""

    def __init__(self, config: EvaluatorConfig):
        """Read the examples. Raises UsageError if there are none, InputError if a row is malformed."""
        self.config = config
        task_files((self.name,), config.tasks, "tasks.data")
        self.questions = list(self.first(config.tasks.limit))
        if not self.questions:
            raise InputError(f"{', '.join(map(str, self.files()))} has no example of {self.name}. Download it again.")
        self.requests: list[Request] = [
            encode_pair(config.tokenizer, *pair) for one in self.questions for pair in one.pairs
        ]
        self.log_likelihoods = LogLikelihoods(
            config.model, config.batch_size, lambda text: config.show(f"{self.name}: {text}"), config.should_stop
        )

    def files(self) -> list[Path]:
        """Return the files with the task's examples, from the folder in tasks.data or downloaded from the hub."""
        source, data = SOURCES[self.name], self.config.tasks.data
        return hub_files(source) if data == HUB else local_files(source, Path(data), "tasks.data")

    def first(self, limit: int) -> Iterator[Question]:
        """Yield the first `limit` questions in the order of the files; 0: all."""
        of_files = (self.questions_in(path, self.rows(path)) for path in self.files())
        return itertools.islice(itertools.chain.from_iterable(of_files), limit or None)

    def rows(self, path: Path) -> Iterable[Example]:
        """Yield the rows of a .parquet or .jsonl file. Override it for other formats."""
        return read_rows(path)

    def questions_in(self, path: Path, rows: Iterable[Example]) -> Iterator[Question]:
        """Convert rows of the file `path` to questions. Raises InputError for a row of another format."""
        for number, row in enumerate(rows):
            try:
                question = self.question(row)
                if not 0 <= question.right < max(1, len(question.pairs)):
                    raise ValueError(f"the right answer is {question.right}, of {len(question.pairs)}")
            except (IndexError, *MALFORMED) as error:
                raise InputError(
                    f"{path}, row {number}, is not an example of {self.name}: {type(error).__name__}: {error}, in "
                    f"{shown(row)}. Give the file that docs/evaluation.md describes."
                ) from error
            yield question

    def question(self, row: Example) -> Question:
        """Convert a row to a question. A malformed row may raise KeyError, ValueError, TypeError, AttributeError or
        IndexError."""
        raise NotImplementedError

    def score(self, model: Transformer, mesh: Mesh) -> dict[str, Figure]:
        """Return the metrics of `model`, by default "acc", the share of questions whose right answer has the highest
        log-likelihood, and "acc_norm", the same with log-likelihoods divided by the answer's number of characters.
        Raises EvaluationInterrupted if the process was asked to stop."""
        scores = iter(self.log_likelihoods.score(model, mesh, self.requests))
        return self.count([[next(scores) for _ in one.pairs] for one in self.questions])

    def count(self, scores: Sequence[Sequence[Score]]) -> dict[str, Figure]:
        """Compute the metrics from the scores of the answers to each question."""
        right, right_by_length = [], []
        for question, of_answers in zip(self.questions, scores, strict=True):
            nats = np.array([one.log_likelihood for one in of_answers])
            right.append(int(nats.argmax()) == question.right)
            right_by_length.append(int((nats / np.maximum(question.lengths, 1)).argmax()) == question.right)
        figures = {"acc": share(right)}
        return figures | {"acc_norm": share(right_by_length)} if self.normalized else figures

    def run(self, model: Transformer, mesh: Mesh) -> dict[str, float]:
        """Return the metrics with the task's name as prefix, such as "hellaswag_acc"."""
        return {f"{self.name}_{name}": figure.value for name, figure in self.score(model, mesh).items()}


def share(right: Sequence[bool]) -> Figure:
    """Return the fraction of True, with its standard error as in lm-eval (of the sample, n - 1)."""
    mean = sum(right) / len(right)
    return Figure(mean, math.sqrt(mean * (1 - mean) / max(1, len(right) - 1)))
