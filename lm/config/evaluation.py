"""What is done with the trained model: evaluation and samples."""

import math
from dataclasses import dataclass

from lm.errors import UsageError
from lm.fields import Config, not_hashed

HUB = "hf://"
"""In the place of a folder: the dataset of each task on Hugging Face's hub."""


@dataclass(frozen=True)
class TasksConfig(Config):
    """What the benchmarks among the evaluators (docs/evaluation.md) read."""

    data: str = ""
    """Folder with the data sets of the tasks, as files or in the layout of the hub; hf:// downloads them from there.
    Empty where no task is evaluated."""
    limit: int = 0
    """The first so many examples of each task; 0 for all."""

    def __post_init__(self):
        super().__post_init__()
        if self.limit < 0:
            raise UsageError(f"tasks.limit is {self.limit}; it must be at least 0, which is all examples.")
        if "://" in self.data and self.data != HUB:
            raise UsageError(
                f"tasks.data = {self.data!r} is neither a folder nor {HUB}, which stands for the data set of each task "
                "on Hugging Face's hub. Give one of them."
            )


@dataclass(frozen=True)
class EvaluateConfig(Config):
    """Evaluation of the trained model, by default bits per byte beside general-purpose compressors."""

    stride: int
    """New tokens scored per window; the rest of the window is context that is read again (at most
    model.context_length)."""
    batch_size: int = not_hashed()
    """Windows scored at once."""
    evaluators: tuple[str, ...] = ("bits_per_byte",)
    """What is evaluated: names of the table in lm/evaluation/evaluators.py, or classes of your own as
    my_package.my_module.MyEvaluator. bits_per_byte is one of them: the report is made of its figures."""
    tasks: TasksConfig = TasksConfig()
    """What the tasks among them read."""

    def __post_init__(self):
        super().__post_init__()
        if self.stride < 1 or self.batch_size < 1:
            raise UsageError(
                f"evaluate.stride = {self.stride} and evaluate.batch_size = {self.batch_size} must be at least 1."
            )
        if "bits_per_byte" not in self.evaluators:
            raise UsageError(
                f"evaluate.evaluators is {' '.join(self.evaluators) or 'empty'}, without bits_per_byte, of whose "
                "figures the report is made. Name it too."
            )


@dataclass(frozen=True)
class SampleConfig(Config):
    """Text from the trained model."""

    prompts: tuple[str, ...]
    """Each is continued once at each temperature; an empty prompt starts a new document."""
    temperatures: tuple[float, ...]
    """0 takes the likeliest token; 1 samples from the model's own distribution."""
    tokens: int
    """Length in tokens, the prompt included (at most model.context_length)."""
    seed: int
    """Seeds the sampling."""

    def __post_init__(self):
        super().__post_init__()
        if not all(0 <= temperature < math.inf for temperature in self.temperatures):
            raise UsageError(f"sample.temperatures = {self.temperatures}; each must be 0 or more.")
        if not self.prompts or not self.temperatures:
            raise UsageError(
                f"sample.prompts = {self.prompts} and sample.temperatures = {self.temperatures}: "
                "give at least one of each."
            )
        if self.tokens < 2 or not 0 <= self.seed < 2**32:
            raise UsageError(
                f"sample.tokens = {self.tokens} must be at least 2, and sample.seed = {self.seed} from 0 to "
                "below 2**32."
            )
