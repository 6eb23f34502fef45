"""Evaluate a trained model with EleutherAI's lm-evaluation-harness. Writes results to lm_eval/ of the run folder.

    python -m launch.lm_eval runs/demo --tasks hellaswag lambada_openai --limit 200

Datasets are downloaded from Hugging Face's hub, or read from files (--data, --include-path). The rest of the run is not
changed.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.experiment import Experiment
from configs.experiment.command_line import Flag
from launch.evaluate import table
from launch.run_folder.checks import refuse_links
from launch.stages.command import run_command
from launch.stages.processes import require_one_process
from launch.stages.trained import load_trained, say
from lm.errors import UsageError
from lm.run_paths import RunPaths
from lm.storage import shown_place, write_json


@dataclass(frozen=True)
class Options:
    tasks: tuple[str, ...] = ()
    """Tasks, groups or patterns of lm-eval."""
    num_fewshot: int | None = None
    """Few-shot examples per question; default: the task's own number."""
    limit: int = 0
    """Use only the first N examples of each task; 0: all."""
    include_path: str = ""
    """Folder with your tasks, in the format of lm-eval."""
    data: str = ""
    """Folder with datasets, with the hub's columns: TASK/SPLIT.jsonl or .parquet; default: the hub."""
    apply_chat_template: Flag = 0
    """Ask in conversations, by the chat template of the run's tokenizer; few-shot examples are earlier questions."""
    run_code: Flag = 0
    """Allow HumanEval to run programs that the model writes, in processes that can only compute and read files."""
    add_bos_token: bool | None = None
    """Begin each context with BOS; default: if the tokenizer adds it to prompts (not for an imported model whose
    tokenizer does not)."""
    step: int | None = None
    """Step of the checkpoint; default: the newest."""


def on_the_side(experiment: Experiment, workdir: Path, options: Options) -> bool:
    """Evaluate tasks of lm-eval, print a table, and write the results to lm_eval/ of the run, also if it is in a
    bucket. Returns True. Raises UsageError for several processes, and the errors of `load_trained` and
    `run_harness`."""
    if not options.tasks:
        raise UsageError("--tasks is empty. Give a task of lm-eval, such as --tasks hellaswag.")
    require_one_process("lm-eval", "launch.evaluate --tasks runs the built-in tasks in several.")
    refuse_links(workdir)
    from lm.chat.harness import ChatLM
    from lm.evaluation.harness import HarnessLM, run_harness
    from lm.evaluation.held_out import rows_on
    from lm.terminal import LiveLine

    config, line = experiment.evaluate, LiveLine()
    run = load_trained(experiment, workdir, config.batch_size, "evaluate.batch_size", options.step)
    model = (ChatLM if options.apply_chat_template else HarnessLM)(
        run.model, experiment.model, run.tokenizer, run.mesh, rows_on(run.mesh, config.batch_size),
        add_bos_token=options.add_bos_token, show=lambda text: line.show(f"lm_eval: {text}"),
    )  # fmt: skip
    found = run_harness(
        model, options.tasks, options.num_fewshot, options.limit, options.include_path, options.data,
        bool(options.run_code),
    )  # fmt: skip
    line.end()
    kept = shown_place(RunPaths(workdir).harness_results(run.step))
    try:
        before = json.loads(kept.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        before = {}
    merged = {name: before.get(name, {}) | values for name, values in found.items()}  # keeps results of other tasks
    write_json(kept, {"step": run.step, **merged})
    say(f"\nThe model at step {run.step:,}:\n{harness_table(found)}\nwritten to {kept}")
    return True


def harness_table(found: dict[str, dict[str, Any]]) -> str:
    """Table of the results of `run_harness`, a line per task and metric, with the name of lm-eval's answer filter."""
    rows = [("task", "few-shot", "figure", "value", "+-")]
    for task, figures in found["results"].items():
        for key, value in figures.items():
            figure, comma, by = key.partition(",")
            if comma and not figure.endswith("_stderr"):
                error = figures.get(f"{figure}_stderr,{by}")
                named = figure if by == "none" else f"{figure} ({by})"
                shown = [f"{one:.4g}" if isinstance(one, int | float) else "" for one in (value, error)]
                rows.append((task, str(found["n-shot"].get(task, "")), named, *shown))
    return table(rows)


if __name__ == "__main__":
    run_command(
        "launch.lm_eval",
        None,
        ("evaluate.batch_size",),
        options=Options,
        on_the_side=on_the_side,
    )
