"""Evaluate bits per byte on the held-out documents, compared with gzip, xz and zstd, and benchmark tasks.

    python -m launch.evaluate runs/demo --text notes.txt 'more.parquet'
    python -m launch.evaluate runs/demo --tasks hellaswag piqa --task-data hf://

With one of the options below, results are only printed, and the run is not changed.
"""

import contextlib
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from configs.experiment import Experiment
from configs.experiment.command_line import Flag
from configs.experiment.run_folder import Loaded, RunFolder
from data_prep.sources.formats import FORMATS
from launch.stages.command import run_stage_command
from launch.stages.processes import process_index
from launch.stages.stage import Stage
from launch.stages.trained import leave_together, load_trained, read_text, say
from lm.config import TasksConfig
from lm.errors import InputError, UsageError, print_untrusted
from lm.evaluation.evaluators import check_evaluators, task_files
from lm.evaluation.tasks.sources import SOURCES
from lm.fields import code_names
from lm.run_paths import RunPaths
from lm.storage import file_sha256, shown_place, write_json
from lm.terminal import counted
from lm.trusted_code import code_hashes

COMPRESSORS = ("gzip", "zstd", "xz")
TABLES = tuple(ending for one in FORMATS if one.begins for ending in one.all_endings)


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of launch.evaluate for evaluations that change no run."""

    text: tuple[str, ...] = ()
    """Evaluate these files: each is one text, or a table of documents (.parquet, .jsonl, .json; .gz and .zst too)."""
    column: str = "text"
    """The column of a table that holds the documents."""
    tasks: tuple[str, ...] = ()
    """Evaluate these tasks: arc_challenge, arc_easy, blimp, hellaswag, lambada_openai, piqa, winogrande."""
    task_data: str = ""
    """Folder of the tasks' datasets, or hf://; default: that of evaluate.tasks.data."""
    limit: int = 0
    """The first N examples of each task and documents of each table; 0 for all."""
    step: int | None = None
    """Evaluate the model at this step, which must have a checkpoint or a snapshot."""
    json: Flag = 0
    """Print one JSON object, and no tables."""

    def check(self, experiment: Experiment) -> TasksConfig:
        """Return where the tasks' examples are, and how many to use. Raises UsageError for invalid options."""
        if any(not name.strip() for name in self.text):
            raise UsageError(f"--text has an empty name: {list(self.text)}. Give paths of text files.")
        check_evaluators(self.tasks, "--tasks")
        if self.limit < 0:
            raise UsageError(f"--limit is {self.limit}; it must be at least 0 (0: all).")
        own = experiment.evaluate.tasks
        config = TasksConfig(self.task_data or own.data, self.limit or own.limit)
        task_files(self.tasks, config, "--task-data")
        return config


def on_the_side(experiment: Experiment, workdir: Path, options: Options) -> bool:
    """Evaluate texts and tasks as the options request, without changing the run. Prints tables, or one JSON object:
    {"step", "texts": {file: {metric: value}}, "tasks": {task: {metric: value}}}. With only --step or --json, evaluates
    the held-out text like the stage does. Returns False if no option is set. Raises UsageError or InputError if the
    model, a file or a task cannot be used."""
    tasks = options.check(experiment)
    if options == Options():
        return False
    texts = {name: documents_of(Path(name), options) for name in options.text}
    found: dict[str, Any] = {}
    with contextlib.redirect_stdout(sys.stderr if options.json else sys.stdout):  # progress messages
        if texts or options.tasks:
            run = load_trained(experiment, workdir, experiment.evaluate.batch_size, "evaluate.batch_size", options.step)
            found["step"] = run.step
            if texts:
                from lm.evaluation.bits_per_byte import evaluate_texts

                config = run.experiment
                found["texts"] = {
                    name: evaluate_texts(run.model, config.model, config.evaluate, run.tokenizer, documents, run.mesh)
                    for name, documents in texts.items()
                }
            if options.tasks:
                found["tasks"] = evaluate_tasks(run, workdir, options.tasks, tasks)
            leave_together()
        else:
            found |= evaluate(experiment, workdir, options.step)
    if options.json:
        say(json.dumps(found, indent=1))
        return True
    if texts:
        compared = "bits per byte, compared with compressors"
        say(f"\nThe model at step {found['step']:,}, {compared}:\n{text_table(found['texts'])}")
    if options.tasks:
        say(f"\nThe model at step {found['step']:,}, scores of tasks:\n{task_table(found['tasks'])}")
    return True


def documents_of(path: Path, options: Options) -> list[str]:
    """Texts of the rows of a table, or the text of any other file as the only document. Raises InputError if there are
    none."""
    if not path.name.lower().endswith(TABLES):
        return [read_text(path)]
    from data_prep.sources.tables import read_table

    if not path.expanduser().is_file():
        raise InputError(f"{path} is not a file. Give the path of a text, a Parquet or a JSONL file.")
    found, unread = [], []
    for document in read_table(path.expanduser(), text_field=options.column, on_quarantine=unread.append):
        found.append(document.text)
        if len(found) == options.limit:
            break
    first = f"the first: {unread[0].place}, {unread[0].reason} {unread[0].detail}".rstrip() if unread else ""
    if not found and unread:
        raise InputError(f"{path}: none of its rows can be read; {first}. Give another file.")
    if not found:
        raise InputError(f"{path} has no text in its column {options.column}. Give the column as --column.")
    if unread:
        print_untrusted(f"{path}: {counted(len(unread), 'row')} skipped, which cannot be read; {first}", sys.stderr)
    return found


def evaluate_tasks(run: Loaded, workdir: Path, names: Sequence[str], tasks: TasksConfig) -> dict[str, dict[str, float]]:
    """Return {task: {metric: value}}; for the built-in tasks also the number of "examples" and standard errors, such as
    "acc_stderr"."""
    from lm.evaluation.evaluator import EvaluatorConfig
    from lm.evaluation.evaluators import make_evaluators, numbers_of
    from lm.evaluation.held_out import rows_on
    from lm.evaluation.tasks.task import Task
    from lm.terminal import LiveLine

    line, config = LiveLine(quiet=process_index() > 0), run.experiment.evaluate
    made = make_evaluators(
        names,
        EvaluatorConfig(
            run.experiment.model, run.tokenizer, RunPaths(workdir).tokens, rows_on(run.mesh, config.batch_size),
            config.stride, tasks=tasks, show=lambda text: line.show(f"evaluate: {text}"),
        ),
        "--tasks",
    )  # fmt: skip
    found: dict[str, dict[str, float]] = {}
    for name, evaluator in made.items():
        if isinstance(evaluator, Task):
            figures = evaluator.score(run.model, run.mesh)
            found[name] = {"examples": len(evaluator.questions)}
            found[name] |= {key: figure.value for key, figure in figures.items()}
            found[name] |= {f"{key}_stderr": figure.standard_error for key, figure in figures.items()}
        else:
            found[name] = dict(numbers_of(name, evaluator.run(run.model, run.mesh)))
    line.end()
    return found


def text_table(texts: dict[str, dict[str, float]]) -> str:
    heads = ("file", "documents", "bytes", "tokens", "nats/token", "model", *COMPRESSORS)
    rows = [
        (
            name, f"{one['documents']:,}", f"{one['bytes']:,}", f"{one['tokens']:,}", f"{one['loss']:.4f}",
            f"{one['bits_per_byte']:.3f}", *(f"{one[f'{name_}_bits_per_byte']:.3f}" for name_ in COMPRESSORS),
        )
        for name, one in texts.items()
    ]  # fmt: skip
    return table([heads, *rows])


def task_table(tasks: dict[str, dict[str, float]]) -> str:
    """Table of scores, a line per task and metric (such as acc), with the score of random guessing as "chance"."""
    rows = [("task", "examples", "figure", "value", "+-", "chance")]
    for name, figures in tasks.items():
        for key, value in figures.items():
            if key == "examples" or key.endswith("_stderr"):
                continue
            error, chance = figures.get(f"{key}_stderr"), SOURCES[name].chance if name in SOURCES else None
            rows.append(
                (
                    name, f"{figures['examples']:,}" if "examples" in figures else "", key, f"{value:.4g}",
                    "" if error is None else f"{error:.2g}", f"{chance:g}" if chance and key.startswith("acc") else "",
                )
            )  # fmt: skip
    return table(rows)


def table(rows: Sequence[Sequence[str]]) -> str:
    """Align the columns of a table: the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    aligned = lambda row: [row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]
    return "\n".join("  ".join(aligned(row)).rstrip() for row in rows)


def evaluate(experiment: Experiment, workdir: Path, step: int | None = None) -> dict[str, float]:
    """Evaluate the model on the held-out text; print and return {metric: value}. Raises the errors of
    `load_trained`."""
    from lm.evaluation.evaluators import evaluate
    from lm.model.cost import count_parameters

    config = experiment.evaluate
    run = load_trained(experiment, workdir, config.batch_size, "evaluate.batch_size", step)
    tokens = shown_place(RunFolder(workdir).tokens)
    figures = evaluate(run.model, experiment.model, config, run.tokenizer, tokens, run.mesh)
    bits = {name.removesuffix("_bits_per_byte"): value for name, value in figures.items() if "bits_per_byte" in name}
    if bits:
        say("evaluate: bits per byte: " + ", ".join(f"{name} {value:.3f}" for name, value in bits.items()))
    others = {name: value for name, value in figures.items() if "bits_per_byte" not in name}
    shown = {name: f"{value:,}" if isinstance(value, int) else f"{value:,.4g}" for name, value in others.items()}
    say("evaluate: " + ", ".join(f"{name} {value}" for name, value in shown.items()))
    leave_together()
    return {**figures, "parameters": count_parameters(experiment.model)}


def make(experiment: Experiment, run: Path) -> None:
    figures = evaluate(experiment, run)
    if process_index() == 0:
        write_json(RunPaths(run).evaluation, figures)


def external_inputs(experiment: Experiment) -> dict[str, object]:
    """Return {name: SHA-256} of the tasks' data files, and of the user's own modules that affect the results."""
    config = experiment.evaluate
    own = code_names(experiment.model, "model.") | code_names(config, "evaluate.")
    return code_hashes(own) | {
        f"SHA-256 of {path}": file_sha256(path)
        for path in task_files(config.evaluators, config.tasks, "evaluate.tasks.data")
    }


STAGE = Stage(
    name="evaluate",
    script="launch.evaluate",
    after=("launch.train_tokenizer:STAGE", "launch.write_shards:STAGE", "launch.train:STAGE"),
    after_finetuning=("launch.finetune:CONVERSATIONS", "launch.finetune:TRAIN"),
    settings=lambda experiment: {"evaluate": experiment.evaluate},
    external_inputs=external_inputs,
    make=make,
    outputs=(RunPaths.evaluation,),
    checked=(RunPaths.evaluation,),
    multi_process=True,
)

if __name__ == "__main__":
    run_stage_command(STAGE, "evaluate", options=Options, on_the_side=on_the_side)
