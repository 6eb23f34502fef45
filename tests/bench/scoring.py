"""Scoring of benchmarks: launch.evaluate compared with lm-eval on transformers, whole processes on the same questions.

    python -m tests.bench.scoring --peer PYTHON [--limit 100] [--rounds 3] [--data ../shared/data/eval]

PYTHON has torch, transformers 5, lm_eval and accelerate: `../shared/bench/peers.sh torch`, then
`~/.cache/gristmill-peers/torch/bin/pip install lm_eval accelerate`. The model is SmolLM2-135M-Instruct of the package
index, in float32 on both sides. The processes take turns: ours with an empty cache of compiled programs, ours again,
and the peer at each batch size. Prints one JSON line: medians of seconds and of CPU seconds, ratios to the fastest
peer, both sides' scores, and computed tokens for each token of the questions.
"""

import argparse
import bz2
import contextlib
import itertools
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from configs.experiment.run_folder import RunFolder
from launch.import_model import Command, run
from launch.release.formats import ExportOptions, export
from launch.release.stored_run import open_run
from lm.config import TasksConfig
from lm.evaluation.evaluator import EvaluatorConfig
from lm.evaluation.evaluators import make_evaluators
from lm.evaluation.log_likelihood import LogLikelihoods
from lm.evaluation.packing import computed
from lm.evaluation.tasks.task import Task
from lm.parallel import one_device_mesh
from tests.smollm2 import write_gguf_of_package

REPOSITORY = Path(__file__).parents[2]
TASKS = ("hellaswag", "arc_easy")
BATCH_SIZES = ("1", "8")
THERE = """
import json, sys
from lm_eval.evaluator import simple_evaluate
from lm_eval.tasks import TaskManager
from lm_eval.tasks._yaml_loader import load_yaml

folder, data, batch_size, limit, *names = sys.argv[1:]
manager, tasks = TaskManager(), []
for name in names:
    task = load_yaml(manager.task_index[name].yaml_path, resolve_func=True)
    kind, split = ("test_split", "test") if task.get("test_split") else ("validation_split", "validation")
    others = {f"{one}_split": None for one in ("training", "validation", "test")}
    files = {"data_files": {split: f"{data}/{name}.jsonl"}}
    source = {"dataset_path": "json", "dataset_name": None, "dataset_kwargs": files}
    tasks.append({**task, **others, **source, "task": name, kind: split})
found = simple_evaluate(
    model="hf", model_args=f"pretrained={folder},dtype=float32", tasks=tasks, limit=int(limit) or None,
    batch_size=int(batch_size), bootstrap_iters=0, log_samples=False, device="cpu")
of = lambda values: {name: values[name + ",none"] for name in ("acc", "acc_norm")}
print(json.dumps({task: of(values) for task, values in found["results"].items()}))
"""


def write_questions(shared: Path, folder: Path) -> None:
    """The questions with the hub's columns, which lm-eval reads too."""
    with bz2.open(shared / "hellaswag_val_full.txt.bz2", "rt", encoding="utf-8") as lines:
        stripped = (line.rstrip("\n") for line in lines)
        with (folder / "hellaswag.jsonl").open("w", encoding="utf-8") as out:
            for query, right, *endings in itertools.batched(stripped, 6):
                label, _, context = query.partition(": ")
                row = {"activity_label": label, "ctx_a": context, "ctx_b": "", "endings": endings, "label": right}
                out.write(json.dumps(row) + "\n")
    with (folder / "arc_easy.jsonl").open("w", encoding="utf-8") as out:
        for line in (shared / "arc_easy.jsonl").read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            labels = list("ABCDE"[: len(row["choices"])])
            choices = {"text": row["choices"], "label": labels}
            question = row["query"].removeprefix("Question: ")
            out.write(json.dumps({"question": question, "choices": choices, "answerKey": labels[row["gold"]]}) + "\n")


def timed(command: list[str], environment: dict[str, str]) -> tuple[float, float, str]:
    """(seconds, CPU seconds, what the process printed)."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | environment, cwd=REPOSITORY)
    seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{' '.join(command[:4])} failed:\n{done.stderr[-2000:]}")
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done.stdout


def computed_per_token(folder: Path, data: Path, limit: int) -> dict[str, float]:
    """{task: tokens that the model computes for each token of the questions}."""
    stored = open_run(RunFolder(folder))
    made = EvaluatorConfig(stored.config, stored.tokenizer, folder, 16, 1, tasks=TasksConfig(str(data), limit))
    found = {}
    for name, task in make_evaluators(TASKS, made, "--tasks").items():
        assert isinstance(task, Task)
        requests = task.requests
        layouts = LogLikelihoods(stored.config, 16).lay_out(one_device_mesh(stored.config), requests)
        asked = sum(len(one.context) + len(one.continuation) - 1 for one in requests)
        found[name] = round(computed(layouts) / asked, 3)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--peer", required=True)
    parser.add_argument("--limit", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--data", type=Path, default=REPOSITORY / "../shared/data/eval")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        write_questions(asked.data, place)
        with contextlib.redirect_stdout(sys.stderr):
            run(Command(str(write_gguf_of_package(place)), str(place / "run")))
        export(open_run(RunFolder(place / "run")), place / "folder", "hugging_face", ExportOptions())
        ours = [sys.executable, "-m", "launch.evaluate", str(place / "run"), "--tasks", *TASKS, "--json"]
        ours += ["--task-data", str(place), "--limit", str(asked.limit)]
        there = lambda size: [
            asked.peer,
            "-c",
            THERE,
            str(place / "folder"),
            str(place),
            size,
            str(asked.limit),
            *TASKS,
        ]
        commands = {"ours, first time": ours, "ours": ours}
        commands |= {f"lm-eval, batch size {size}": there(size) for size in BATCH_SIZES}
        taken: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
        scores: dict[str, dict[str, dict[str, float]]] = {}
        cache = place / "cache"
        for _ in range(asked.rounds):
            shutil.rmtree(cache, ignore_errors=True)
            for name, command in commands.items():
                seconds, cpu, out = timed(command, {"XDG_CACHE_HOME": str(cache), "HF_HUB_OFFLINE": "1"})
                taken[name].append((seconds, cpu))
                answer = json.loads(out[out.index("{") :])
                answer = answer.get("tasks", answer)
                scores[name] = {task: {key: answer[task][key] for key in ("acc", "acc_norm")} for task in TASKS}
        median = lambda figures: round(statistics.median(figures), 1)
        medians = {name: [*map(median, zip(*rounds, strict=True))] for name, rounds in taken.items()}
        peer = min(values[0] for name, values in medians.items() if name.startswith("lm-eval"))
        result = {
            "benchmark": "scoring", "questions": asked.limit, "rounds": asked.rounds,
            "seconds_and_cpu_seconds": medians,
            "ratio_first_time": round(medians["ours, first time"][0] / peer, 3),
            "ratio": round(medians["ours"][0] / peer, 3), "scores": scores,
            "equal_scores": len({json.dumps(one) for one in scores.values()}) == 1,
            "computed_per_token": computed_per_token(place / "run", place, asked.limit),
        }  # fmt: skip
        print(json.dumps(result))


if __name__ == "__main__":
    main()
