"""Table of evaluators. To add one, write a class as described in lm/evaluation/evaluator.py, and list it here or name
it with its module in train.evaluators or evaluate.evaluators.

JAX is not imported until an evaluator is created, because names are checked before the first stage.
"""

import importlib
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lm.config import EvaluateConfig, ModelConfig, TasksConfig
from lm.config.evaluation import HUB
from lm.errors import UsageError, shown
from lm.evaluation.tasks.sources import SOURCES, local_files
from lm.storage import Place
from lm.trusted_code import load_named, module_code

if TYPE_CHECKING:
    from jax.sharding import Mesh

    from lm.evaluation.evaluator import Evaluator, EvaluatorConfig
    from lm.model.transformer import Transformer
    from lm.tokenizer import Tokenizer

EVALUATORS: dict[str, str] = {
    "validation": "lm.evaluation.held_out.Validation",
    "bits_per_byte": "lm.evaluation.bits_per_byte.BitsPerByte",
    "hellaswag": "lm.evaluation.tasks.benchmarks.HellaSwag",
    "lambada_openai": "lm.evaluation.tasks.benchmarks.Lambada",
    "arc_easy": "lm.evaluation.tasks.benchmarks.ArcEasy",
    "arc_challenge": "lm.evaluation.tasks.benchmarks.ArcChallenge",
    "winogrande": "lm.evaluation.tasks.benchmarks.WinoGrande",
    "piqa": "lm.evaluation.tasks.benchmarks.Piqa",
    "blimp": "lm.evaluation.tasks.benchmarks.Blimp",
}
"""{name: module and class}."""
HELD_OUT = ("validation", "bits_per_byte")
"""Evaluators that read the run's held-out documents."""
TASKS = tuple(SOURCES)
"""Evaluators that read benchmark examples, named as in lm-eval."""


def task_files(names: Sequence[str], tasks: TasksConfig, option: str) -> list[Path]:
    """Return the local example files of the benchmark tasks among `names`; none for tasks read from the hub. Downloads
    nothing. Raises UsageError if tasks.data, named `option` in messages, is empty or lacks a task's files."""
    found = []
    for name in [name for name in names if name in TASKS]:
        if not tasks.data:
            raise UsageError(
                f"The task {name} needs its examples, but {option} is empty. Give a folder that has them, or "
                f"{option} = {HUB} to download them from Hugging Face's hub."
            )
        if tasks.data != HUB:
            found += local_files(SOURCES[name], Path(tasks.data), option)
    return found


def check_evaluators(names: Sequence[str], option: str) -> None:
    """Raise UsageError if a name is neither a key of EVALUATORS nor a class in a module that exists, or if two
    evaluators report metrics of the same names. `option` is the name of the option in messages."""
    for name in names:
        try:
            module_code(EVALUATORS.get(name, name).rpartition(".")[0])
        except ImportError:
            raise UsageError(
                f"{option} names {name!r}, but the evaluators are {', '.join(EVALUATORS)}. Name one of them, or a "
                "class as my_package.my_module.MyEvaluator, in a module that can be imported."
            ) from None
    if len(both := [name for name in names if name in HELD_OUT]) > 1:
        raise UsageError(f"{option} names {' and '.join(both)}, which report metrics of the same names. Name only one.")


def make_evaluators(names: Sequence[str], config: "EvaluatorConfig", option: str) -> "dict[str, Evaluator]":
    """Create {name: evaluator}, in the order of `names`. Raises UsageError for an invalid name."""
    check_evaluators(names, option)
    return {name: class_of(name, option)(config) for name in names}


def class_of(name: str, option: str) -> "Callable[[EvaluatorConfig], Evaluator]":
    """Import the class of an evaluator: a key of EVALUATORS, or a name such as my_package.my_module.MyEvaluator. Raises
    UsageError if there is no such evaluator, and what `load_named` raises."""
    if name in EVALUATORS:
        path, _, attribute = EVALUATORS[name].rpartition(".")
        return getattr(importlib.import_module(path), attribute)
    kind = load_named(name, option)
    methods = ("run", "run_in_training") if option == "train.evaluators" else ("run",)
    if not isinstance(kind, type) or not any(callable(getattr(kind, method, None)) for method in methods):
        raise UsageError(
            f"{option} names {name!r}, which is not an evaluator. Name a class with run(model, mesh)"
            f"{' or run_in_training(state, mesh)' if methods[1:] else ''} (lm/evaluation/evaluator.py)."
        )
    return kind


def check_classes(names: Sequence[str], option: str) -> None:
    """Raise UsageError if a name is not an evaluator. Imports the classes, which may initialize JAX."""
    for name in names:
        class_of(name, option)


TAKEN = {
    "step", "run", "tokens", "loss", "gradient_norm", "learning_rate", "skipped", "tokens_per_second", "parameters",
    "train_flops", "data_wait_share", "seconds", "seconds_left", "mfu", "cpu_matmul_share", "goodput", "host_seconds",
    "slowest_process", "slowest_host_seconds", "device_bytes_in_use", "device_bytes_peak", "process_bytes_in_use",
    "process_bytes_peak", "step_flops", "compile_seconds", "step_state_bytes", "step_temporary_bytes",
}  # fmt: skip
"""Names of the program's own metrics in metrics.jsonl and evaluation.json."""
RESERVED = TAKEN | {"validation_loss", "validation_bits_per_byte"}
"""Names that hooks and step metrics may not return: also the metrics of held-out text."""


def numbers_of(source: str, figures: object, taken: Collection[str] = TAKEN) -> dict[str, int | float]:
    """Convert metrics returned by `source`, such as "evaluator NAME", to plain numbers. Raises UsageError if `figures`
    is not a dict of numbers, or a metric's name is in `taken`."""
    if not isinstance(figures, Mapping):
        raise UsageError(f"The {source} returned {shown(repr(figures))} instead of a dict. Return {{name: number}}.")
    import jax

    found = {}
    for name, figure in figures.items():
        if not isinstance(name, str):
            raise UsageError(
                f"The {source} returned the metric {name!r}, which is not a string. Return {{name: number}}."
            )
        if name in taken:
            raise UsageError(f"The {source} returned the metric {name!r}, but another metric has that name. Rename it.")
        value = jax.device_get(figure)  # explicit, since the training loop disallows implicit transfers
        try:
            found[name] = value if isinstance(value, int) else float(value)
        except (TypeError, ValueError) as error:
            raise UsageError(f"The {source} returned {name} = {shown(repr(value))}, which is not a number.") from error
    return found


def run_evaluators(
    evaluators: "Mapping[str, Evaluator]", model: "Transformer", mesh: "Mesh", state: Any = None
) -> dict[str, float]:
    """Run all evaluators and merge their metrics: {metric: value}. `state` is the TrainState during training. Raises
    UsageError if two evaluators return the same metric or a value is not a number, EvaluationInterrupted if stopped."""
    figures: dict[str, float] = {}
    for name, evaluator in evaluators.items():
        in_training = None if state is None else getattr(evaluator, "run_in_training", None)
        new = numbers_of(f"evaluator {name}", in_training(state, mesh) if in_training else evaluator.run(model, mesh))
        if both := sorted(new.keys() & figures.keys()):
            raise UsageError(f"{both[0]} is a metric of the evaluator {name} and of an earlier one. Name only one.")
        figures |= new
    return figures


def evaluate(
    model: "Transformer",
    model_config: ModelConfig,
    config: EvaluateConfig,
    tokenizer: "Tokenizer",
    tokens: Place,
    mesh: "Mesh | None" = None,
) -> dict[str, float]:
    """Run the evaluators in config.evaluators and return their metrics. `tokens` is the run's folder of token shards,
    `mesh` the mesh that the model is sharded over (None: one device). All processes must make the same call."""
    import jax

    from lm.evaluation.evaluator import EvaluatorConfig
    from lm.evaluation.held_out import rows_on
    from lm.parallel import one_device_mesh
    from lm.terminal import LiveLine

    line = LiveLine(quiet=jax.process_index() > 0)
    show = lambda text: line.show(f"evaluate: {text}")
    mesh = mesh or one_device_mesh(model_config)
    rows = rows_on(mesh, config.batch_size)
    made = EvaluatorConfig(model_config, tokenizer, tokens, rows, config.stride, tasks=config.tasks, show=show)
    figures = run_evaluators(make_evaluators(config.evaluators, made, "evaluate.evaluators"), model, mesh)
    line.end()
    return figures
