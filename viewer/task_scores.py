"""Benchmark scores over the steps of a run: from its evaluators (metrics.jsonl, evaluation.json) and from lm-eval
(lm_eval/). Does not import JAX."""

from dataclasses import dataclass

from lm.evaluation.tasks.sources import SOURCES
from lm.run_paths import RunPaths
from viewer.training_data import Curves, files_by_step, finite, read_json

FIGURES = ("acc", "acc_norm", "perplexity")
"""Metrics of a task to show, in lm-eval's naming."""


@dataclass(frozen=True)
class Score:
    """Values of one metric of a benchmark task."""

    task: str
    figure: str
    points: tuple[tuple[int, float], ...]
    """(step, value), ascending, from training or from the checkpoints that lm-eval evaluated."""
    final: float | None = None
    """Value of the finished model, from evaluation.json."""
    by_harness: bool = False
    """Whether lm-eval measured it."""

    @property
    def guessing(self) -> float | None:
        """Value of the metric for random guessing; None if unknown."""
        chance = SOURCES[self.task].chance if self.task in SOURCES else 0.0
        return chance if chance and self.figure.startswith("acc") else None


def read_scores(paths: RunPaths, curves: Curves) -> tuple[Score, ...]:
    """Return the scores of all tasks that the run was evaluated on, first those of its own evaluators, then those of
    lm-eval. Raises InputError for a damaged file."""
    final = read_json(paths.evaluation, "launch.evaluate")
    own = []
    for task in SOURCES:
        for figure in FIGURES:
            key = f"{task}_{figure}"
            points = tuple((line["step"], line[key]) for line in curves.evaluated if finite(line.get(key)) is not None)
            value = finite(final.get(key))
            if points or value is not None:
                own.append(Score(task, figure, points, value))
    found: dict[tuple[str, str], list[tuple[int, float]]] = {}
    for step, path in files_by_step(paths.lm_eval).items():
        for task, figures in read_json(path, "launch.lm_eval").get("results", {}).items():
            for figure in FIGURES:
                if (value := finite(figures.get(f"{figure},none"))) is not None:
                    found.setdefault((task, figure), []).append((step, value))
    return (*own, *(Score(*key, tuple(points), by_harness=True) for key, points in sorted(found.items())))
