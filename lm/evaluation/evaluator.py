"""What an evaluator is: something with a name, a config, and figures that it finds about a model."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from jax.sharding import Mesh

from lm.config import ModelConfig, TasksConfig
from lm.model.transformer import Transformer
from lm.storage import Place
from lm.tokenizer import Tokenizer


class EvaluationInterrupted(Exception):  # noqa: N818  (nothing went wrong)
    """`should_stop` became true: the process is asked to end, and the figures are not complete."""


@dataclass(frozen=True)
class EvaluatorConfig:
    """What an evaluator is made from. Each takes what it needs."""

    model: ModelConfig
    tokenizer: Tokenizer
    tokens: Place
    """Folder of the run's shards."""
    batch_size: int
    """Sequences at once; the mesh's data axes divide it."""
    stride: int
    """New tokens scored in a window, where windows overlap (evaluate.stride)."""
    batches: int | None = None
    """At most so many batches of held-out windows (train.validation_batches); None for all of them."""
    tasks: TasksConfig = TasksConfig()  # noqa: RUF009
    """What tasks read (train.tasks, evaluate.tasks)."""
    show: Callable[[str], None] = lambda text: None
    """Called with the progress so far, for a line on the terminal."""
    say: Callable[[str], None] = lambda text: None
    """Called with a line for the log when the evaluator is made."""
    should_stop: Callable[[], bool] = lambda: False
    """Whether to raise EvaluationInterrupted; asked between batches."""


class Evaluator(Protocol):
    """One evaluation. A class with `__init__(config: EvaluatorConfig)`, which reads what has to be read once."""

    config: EvaluatorConfig

    def run(self, model: Transformer, mesh: Mesh) -> dict[str, float]:
        """{name of a figure: its value} of `model`, whose arrays are on `mesh`. All processes call it together.

        The names become keys of metrics.jsonl and evaluation.json. May raise EvaluationInterrupted.
        """
        ...
