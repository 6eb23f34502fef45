"""Interface of evaluators."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from jax.sharding import Mesh

from lm.config import ModelConfig, TasksConfig
from lm.model.transformer import Transformer
from lm.storage import Place
from lm.tokenizer import Tokenizer


class EvaluationInterrupted(Exception):  # noqa: N818  (nothing went wrong)
    """An evaluation was stopped by `should_stop` (the process was asked to stop); it has no results."""


@dataclass(frozen=True)
class EvaluatorConfig:
    """Constructor arguments shared by all evaluators; each uses those that it needs."""

    model: ModelConfig
    tokenizer: Tokenizer
    tokens: Place
    """Folder with the shards of the run."""
    batch_size: int
    """Sequences per batch; a multiple of the mesh's data axes."""
    stride: int
    """New tokens scored per window, if windows overlap (evaluate.stride)."""
    batches: int | None = None
    """Maximum number of batches of held-out windows (train.validation_batches); None: all."""
    tasks: TasksConfig = TasksConfig()  # noqa: RUF009
    """Data of the tasks (train.tasks, evaluate.tasks)."""
    show: Callable[[str], None] = lambda text: None
    """Called with the progress, for a status line on the terminal."""
    say: Callable[[str], None] = lambda text: None
    """Called with log messages when the evaluator is created."""
    should_stop: Callable[[], bool] = lambda: False
    """Called between batches; if True, the evaluator raises EvaluationInterrupted."""


class Evaluator(Protocol):
    """Interface of evaluators: classes that are created once as `cls(EvaluatorConfig)` and load their data then."""

    config: EvaluatorConfig

    def run(self, model: Transformer, mesh: Mesh) -> dict[str, float]:
        """Return {metric: value} of `model`, which is sharded over `mesh`. All processes call it together.

        The names become keys of metrics.jsonl and evaluation.json. May raise EvaluationInterrupted.

        If the class has a method run_in_training(state, mesh), training calls that method instead, with the TrainState.
        """
        ...
