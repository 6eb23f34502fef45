"""The table of evaluators. A new evaluation is one file, with a class as lm/evaluation/evaluator.py describes it, and
one line here; or no line, where train.evaluators and evaluate.evaluators name the class by its module.

No jax until an evaluator is made: names are checked before the first stage.
"""

import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lm.config import EvaluateConfig, ModelConfig, TasksConfig
from lm.config.evaluation import HUB
from lm.errors import UsageError, shown
from lm.evaluation.tasks.sources import SOURCES, local_files
from lm.storage import Place
from lm.trusted_code import module_code

if TYPE_CHECKING:
    from jax.sharding import Mesh

    from lm.evaluation.evaluator import Evaluator, EvaluatorConfig
    from lm.model.transformer import Transformer
    from lm.tokenizer import Tokenizer

EVALUATORS: dict[str, str] = {
    "validation": "lm.evaluation.held_out.Validation",
    "bits_per_byte": "lm.evaluation.bits_per_byte.BitsPerByte",
    "hellaswag": "lm.evaluation.tasks.hellaswag.HellaSwag",
    "lambada_openai": "lm.evaluation.tasks.lambada.Lambada",
    "arc_easy": "lm.evaluation.tasks.arc.ArcEasy",
    "arc_challenge": "lm.evaluation.tasks.arc.ArcChallenge",
    "winogrande": "lm.evaluation.tasks.winogrande.WinoGrande",
    "piqa": "lm.evaluation.tasks.piqa.Piqa",
    "blimp": "lm.evaluation.tasks.blimp.Blimp",
}
"""{name: module and class}."""
HELD_OUT = ("validation", "bits_per_byte")
"""Those that read the run's own held-out documents."""
TASKS = tuple(SOURCES)
"""Those that read a benchmark's examples, under the names that lm-eval gives them."""


def check_tasks(names: Sequence[str], tasks: TasksConfig, option: str) -> None:
    """Raises UsageError where a task is named and its examples are not in tasks.data; `option` is the name of that.
    Nothing is downloaded."""
    for name in [name for name in names if name in TASKS]:
        if not tasks.data:
            raise UsageError(
                f"The task {name} needs its examples, but {option} is empty. Give a folder that has them, or "
                f"{option} = {HUB} to download them from Hugging Face's hub."
            )
        if tasks.data != HUB:
            local_files(SOURCES[name], Path(tasks.data), option)


def task_files(names: Sequence[str], tasks: TasksConfig) -> list[Path]:
    """The files of a folder with the examples of the tasks among the evaluators; none where they are from the hub.
    Raises as `check_tasks`."""
    check_tasks(names, tasks, "evaluate.tasks.data")
    if tasks.data == HUB:
        return []
    found = [local_files(SOURCES[name], Path(tasks.data), "evaluate.tasks.data") for name in names if name in TASKS]
    return [path for of_one in found for path in of_one]


def check_evaluators(names: Sequence[str], option: str) -> None:
    """Raises UsageError for a name that is neither in the table nor that of a class in a module that exists, and for
    two whose figures have the same names."""
    for name in names:
        try:
            module_code(EVALUATORS.get(name, name).rpartition(".")[0])
        except ImportError:
            raise UsageError(
                f"{option} names {name!r}, but the evaluators are {', '.join(EVALUATORS)}. Name one of them, or a "
                "class as my_package.my_module.MyEvaluator, in a module that can be imported."
            ) from None
    if len(both := [name for name in names if name in HELD_OUT]) > 1:
        raise UsageError(f"{option} names {' and '.join(both)}, whose figures have the same names. Name only one.")


def make_evaluators(names: Sequence[str], config: "EvaluatorConfig", option: str) -> "dict[str, Evaluator]":
    """{name: evaluator}, made in this order. Raises UsageError for a name that is none."""
    check_evaluators(names, option)
    return {name: class_of(name, option)(config) for name in names}


def class_of(name: str, option: str) -> "Callable[[EvaluatorConfig], Evaluator]":
    """Import the class of an evaluator. Raises UsageError if the name is none, and ImportError as its module does."""
    path, _, attribute = EVALUATORS.get(name, name).rpartition(".")
    kind = getattr(importlib.import_module(path), attribute, None)
    if kind is None:
        raise UsageError(f"{option} names {name!r}, but the module {path} has no {attribute}.")
    if not isinstance(kind, type) or not callable(getattr(kind, "run", None)):
        raise UsageError(
            f"{option} names {name!r}, which is no evaluator: a class with run(model, mesh) is one "
            "(lm/evaluation/evaluator.py)."
        )
    return kind


def check_classes(names: Sequence[str], option: str) -> None:
    """Import the classes of evaluators, which may start JAX. Raises UsageError for a name that is none."""
    for name in names:
        try:
            class_of(name, option)
        except ImportError as error:
            raise UsageError(f"{option} names {name!r}, whose module cannot be imported: {error}.") from error


TAKEN = {
    "step", "run", "tokens", "loss", "gradient_norm", "learning_rate", "skipped", "tokens_per_second", "parameters",
    "train_flops",
}  # fmt: skip
"""Names in metrics.jsonl and evaluation.json that say something else."""


def numbers_of(evaluator: str, figures: object) -> dict[str, int | float]:
    """The figures as plain numbers. Raises UsageError for what is none, and for a name in TAKEN."""
    if not isinstance(figures, Mapping):
        raise UsageError(f"The evaluator {evaluator} gave {shown(repr(figures))}, and not a dict of figures.")
    import jax

    found = {}
    for name, figure in figures.items():
        if name in TAKEN or not isinstance(name, str):
            raise UsageError(
                f"The evaluator {evaluator} calls a figure {name!r}, which is taken. Give it another name."
            )
        value = jax.device_get(figure)  # asked for, since the training loop refuses any other transfer
        try:
            found[name] = value if isinstance(value, int) else float(value)
        except (TypeError, ValueError) as error:
            raise UsageError(
                f"The evaluator {evaluator} gave {name} = {shown(repr(value))}, which is no number."
            ) from error
    return found


def run_evaluators(evaluators: "Mapping[str, Evaluator]", model: "Transformer", mesh: "Mesh") -> dict[str, float]:
    """The figures of all. Raises UsageError for a name that is taken or a figure that is no number, and
    EvaluationInterrupted as they do."""
    figures: dict[str, float] = {}
    for name, evaluator in evaluators.items():
        new = numbers_of(name, evaluator.run(model, mesh))
        if both := sorted(new.keys() & figures.keys()):
            raise UsageError(f"{both[0]} is a figure of the evaluator {name}, and of one before it. Name only one.")
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
    """The figures of config.evaluators, of the shards in `tokens`. The devices of `mesh`, over which the model is laid
    out, share the work (one device, if no mesh is given); of several processes all must ask."""
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
