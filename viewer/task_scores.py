"""Scores of benchmarks over the steps of a run: by its evaluators (metrics.jsonl, evaluation.json) and by lm-eval
(lm_eval/). No jax: it only reads files."""

import math
from dataclasses import dataclass

from lm.evaluation.tasks.sources import SOURCES
from lm.run_paths import RunPaths
from viewer.training_data import Curves, read_json

FIGURES = ("acc", "acc_norm", "perplexity")
"""Of a task, those that are shown, as lm-eval names them."""
STEP = "step-"


@dataclass(frozen=True)
class Score:
    """One figure of a task."""

    task: str
    figure: str
    points: tuple[tuple[int, float], ...]
    """(step, value), rising; those during training, or of the checkpoints that lm-eval was given."""
    final: float | None = None
    """Of the finished model, by evaluation.json."""
    by_harness: bool = False
    """Whether lm-eval gave it."""

    @property
    def guessing(self) -> float | None:
        """What a model that knows nothing reaches; None where that is not known."""
        chance = SOURCES[self.task].chance if self.task in SOURCES else 0.0
        return chance if chance and self.figure.startswith("acc") else None


def read_scores(paths: RunPaths, curves: Curves) -> tuple[Score, ...]:
    """Of every task that the run was evaluated on, those of its own evaluators first; () where there are none.

    Raises InputError for a file that is damaged.
    """
    final = read_json(paths.evaluation, "launch.evaluate")
    own = []
    for task in SOURCES:
        for figure in FIGURES:
            key = f"{task}_{figure}"
            points = tuple((line["step"], line[key]) for line in curves.evaluated if is_number(line.get(key)))
            if points or is_number(final.get(key)):
                own.append(Score(task, figure, points, final[key] if is_number(final.get(key)) else None))
    return (*own, *harness_scores(paths))


def harness_scores(paths: RunPaths) -> list[Score]:
    """What lm_eval/ has, by task, each over the steps that it was run for."""
    found: dict[tuple[str, str], list[tuple[int, float]]] = {}
    for path in sorted(paths.lm_eval.glob(f"{STEP}*.json")):
        step = path.stem.removeprefix(STEP)
        results = read_json(path, "launch.lm_eval").get("results", {})
        for task, figures in results.items() if step.isdecimal() else ():
            for figure in FIGURES:
                if is_number(value := figures.get(f"{figure},none")):
                    found.setdefault((task, figure), []).append((int(step), value))
    return [Score(*key, tuple(points), by_harness=True) for key, points in sorted(found.items())]


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
