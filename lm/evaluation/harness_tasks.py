"""Definitions of lm-eval's tasks, with local data sets and with our scorer of programs."""

import dataclasses
from pathlib import Path
from typing import Any

from lm_eval.tasks._factory import TaskFactory
from lm_eval.tasks._index import Entry, Kind

from lm.errors import UsageError
from lm.evaluation.programs import build_predictions, build_predictions_instruct, pass_at_k, passes
from lm.evaluation.tasks.sources import SOURCES, Source, in_dataset, local_files

SPLITS = ("test_split", "validation_split", "training_split", "fewshot_split")
"""Fields of lm-eval's tasks with names of splits; the first that is set is scored."""


class Definitions(TaskFactory):
    """Reads lm-eval's definitions of tasks, and gives them local data and our scorer of programs."""

    def __init__(self, data: str = "", few_shot: int | None = None, run_code: bool = False):
        """The arguments are those of `run_harness`."""
        super().__init__()
        self.data, self.few_shot, self.run_code = data, few_shot, run_code

    def _load_full_config(self, entry: Entry, overrides: dict[str, Any] | None = None) -> dict[str, Any]:
        if entry.kind is Kind.GROUP:
            return super()._load_full_config(entry, overrides)
        if entry.cfg and entry.cfg.get("unsafe_code"):
            entry = dataclasses.replace(entry, yaml_path=None, cfg=with_own_scorer(entry.cfg, self.run_code))
        task = super()._load_full_config(entry, overrides)
        if not self.data:
            return task
        usual = task.get("num_fewshot")  # lm-eval never replaces 0
        return with_data(task, self.data, (usual if self.few_shot is None or usual == 0 else self.few_shot) or 0)


def with_own_scorer(task: dict[str, Any], run_code: bool) -> dict[str, Any]:
    """Return the definition of a HumanEval task with functions of lm.evaluation.programs instead of Hugging Face's
    code_eval, which is downloaded and runs programs without restrictions. `task` names functions by their paths. Raises
    UsageError for tasks that run other programs, unless `run_code`, or if processes cannot be restricted here."""
    name, metrics = task["task"], task.get("metric_list") or [{}]
    if not str(metrics[0].get("metric")).endswith("humaneval/utils.pass_at_k"):
        raise UsageError(f"{name} runs programs of the model without restrictions. Only humaneval can be restricted.")
    if not run_code:
        raise UsageError(
            f"{name} runs programs of the model, in processes that can only compute and read files. Allow it by "
            "--run-code."
        )
    if not passes(""):
        raise UsageError(
            f"{name} runs programs of the model in restricted processes, which need Linux with seccomp on x86_64 or "
            "aarch64. Omit it here."
        )
    (filters,) = task["filter_list"]
    instruct = filters["filter"][0]["filter_fn"].endswith("_instruct")
    build = {"function": "custom", "filter_fn": build_predictions_instruct if instruct else build_predictions}
    return {
        **task, "metric_list": [{**metrics[0], "metric": pass_at_k}], "filter_list": [{**filters, "filter": [build]}],
        "unsafe_code": False,
    }  # fmt: skip


def with_data(task: dict[str, Any], data: str, few_shot: int) -> dict[str, Any]:
    """Return lm-eval's definition of a task with its dataset replaced by local files in the folder `data`.

    Files of the tasks in SOURCES are those of `local_files`, and few-shot examples come from the same files. Other
    tasks have a file TASK/SPLIT.jsonl or .parquet for each split, or the hub's layout OWNER/NAME/SUBSET/SPLIT-*. Raises
    UsageError if the scored split has no file, or that of the `few_shot` examples.
    """
    name, repository = task["task"], task.get("dataset_path") or ""
    known = SOURCES.get("blimp" if name.startswith("blimp_") else name)
    if "class" in task:
        raise UsageError(f"{name} reads its data set in Python, so --data cannot replace it. Omit --data or {name}.")
    if known:
        found = local_files(known, Path(data), "--data")
        if known.file == "blimp":
            paradigm = name.removeprefix("blimp_")
            found = [path for path in found if paradigm in (path.parent.name, path.name.split(".")[0])]
        files = {known.split: found} if found else {}
        task = {**task, **dict.fromkeys(SPLITS), "test_split": known.split, "fewshot_split": known.split}
    else:
        source = lambda split: Source(repository, task.get("dataset_name") or "default", split, name, 0.0)
        roots = [Path(data).expanduser() / one for one in (name, repository)]
        splits = {task[key] for key in SPLITS if task.get(key)}
        files = {one: next(filter(None, (in_dataset(source(one), root) for root in roots)), []) for one in splits}
        files = {split: paths for split, paths in files.items() if paths}
    scored = next((task[key] for key in SPLITS if task.get(key)), "test")
    examples = next((task[key] for key in reversed(SPLITS) if task.get(key)), scored)
    needed = [scored, *([examples] if few_shot and "samples" not in (task.get("fewshot_config") or {}) else [])]
    if missing := [split for split in needed if split not in files]:
        reason = "" if missing[0] == scored else f" for {few_shot} few-shot examples (--num-fewshot 0: none)"
        raise UsageError(
            f"--data {data} has no {name}/{missing[0]}.jsonl or .parquet, which {name} needs{reason}. Put the split "
            f"{missing[0]} of {repository} there, or omit --data."
        )
    kinds = {"parquet" if path.name.endswith(".parquet") else "json" for some in files.values() for path in some}
    if len(kinds) > 1:
        raise UsageError(f"--data {data} has {name} both as .jsonl and as .parquet. Keep one of them.")
    return {
        **task, **{key: task.get(key) if task.get(key) in files else None for key in SPLITS},
        "dataset_path": kinds.pop(), "dataset_name": None, "custom_dataset": None,
        "dataset_kwargs": {"data_files": {split: [str(path) for path in paths] for split, paths in files.items()}},
    }  # fmt: skip
