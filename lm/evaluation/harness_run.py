"""Run tasks of lm-evaluation-harness with a loaded model."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lm.errors import InputError, UsageError
from lm.evaluation.harness import HarnessLM
from lm.evaluation.tasks.sources import SOURCES, all_kinds, local_files
from lm.storage import Place, write_json

if TYPE_CHECKING:
    from lm_eval.tasks import TaskManager

KEPT = ("results", "groups", "n-shot", "n-samples", "versions", "higher_is_better", "configs")
"""Parts of the harness's results that are about tasks; the rest is about the machine."""
BOOTSTRAPS = 1000
"""Samples for standard errors of metrics that are not means; the harness's default of 100,000 takes longer than small
models."""


def run_harness(
    model: HarnessLM, tasks: Sequence[str], few_shot: int | None, limit: int, include_path: str, data: str
) -> dict[str, Any]:
    """Return {part: {task: results}} for the parts in KEPT. `few_shot` examples precede each question; None: the
    default of the task. `limit` is the maximum number of examples per task, 0: all. `include_path` is a folder with
    your tasks, `data` one with datasets (see `with_data`); both may be empty.

    Raises UsageError for unknown tasks, InputError if a dataset is not available.
    """
    # Otherwise it forks for standard errors, which can deadlock because JAX's threads may hold locks.
    os.environ.setdefault("DISABLE_MULTIPROC", "1")
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=include_path or None)
    if unknown := [name for name in tasks if not manager.match_tasks([name])]:
        near = [name for name in manager.all_tasks if unknown[0].lower() in name.lower()][:5]
        raise UsageError(
            f"--tasks names {unknown[0]!r}, which lm-eval does not know"
            f"{f'; it has {", ".join(near)}' if near else ''}. `lm_eval ls tasks` lists all; --include-path adds yours."
        )
    asked = [with_data(manager, name, data) if data else name for name in manager.match_tasks(list(tasks))]
    try:
        found = simple_evaluate(
            model=model, tasks=asked, num_fewshot=few_shot, limit=limit or None, task_manager=manager,
            log_samples=False, bootstrap_iters=BOOTSTRAPS,
        )  # fmt: skip
    except (OSError, ConnectionError) as error:
        raise InputError(
            f"A data set of {', '.join(tasks)} cannot be downloaded: {error}. Check the network, or put it into a "
            "folder and give that as --data."
        ) from error
    assert found is not None  # None only in distributed runs of the harness itself
    return {name: json.loads(json.dumps(found.get(name) or {}, default=str)) for name in KEPT}


def with_data(manager: "TaskManager", task: str, data: str) -> dict[str, Any]:
    """Return the task definition of the harness with the dataset replaced by files in the folder `data`, which have the
    columns of the hub; few-shot examples come from the same files. Raises UsageError for a task whose file names are
    not known here."""
    from lm_eval.tasks._yaml_loader import load_yaml  # a task given by name cannot get another dataset

    if task.startswith("blimp_"):
        source, paradigm = SOURCES["blimp"], task.removeprefix("blimp_")
        every = local_files(source, Path(data), "--data")
        files = [path for path in every if paradigm in (path.parent.name, path.name.split(".")[0])]
    elif task in SOURCES and task != "blimp":
        source, files = SOURCES[task], local_files(SOURCES[task], Path(data), "--data")
    else:
        source, files = None, []
    if source is None or not files:
        known = ", ".join(name for name in SOURCES if name != "blimp")
        raise UsageError(
            f"--data {data} has no files of {task}. --data works for {known} and blimp_PARADIGM. For other data, "
            "write your own task (--include-path), or omit --data."
        )
    assert all(path.name.endswith(all_kinds()) for path in files)
    kind = "parquet" if files[0].name.endswith(".parquet") else "json"
    described = manager.task_index[task].yaml_path
    assert described is not None
    task_of = load_yaml(described, resolve_func=True)
    splits = {f"{one}_split": None for one in ("training", "validation", "test")}
    (scored, *_) = [name for name in ("test_split", "validation_split") if task_of.get(name) == source.split]
    return {
        **task_of, "task": task, "dataset_path": kind, "dataset_name": None, **splits, scored: source.split,
        "dataset_kwargs": {"data_files": {source.split: [str(path) for path in files]}},
    }  # fmt: skip


def add_results(file: Place, step: int, found: dict[str, dict[str, Any]]) -> None:
    """Write the results to `file`. Results of other tasks there are kept; those of the same tasks are replaced."""
    try:
        before = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        before = {}
    parts = {name: {**before.get(name, {}), **values} for name, values in found.items()}
    write_json(file, {"step": step, **parts})
