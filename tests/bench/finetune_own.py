"""Own conversations, one command each: 200 questions about a made-up company with 150 different answers.

    python -m tests.bench.finetune_own [--only demo]

Runs `launch.finetune BASE configs/finetune.py --chat.conversations tests/fixtures/handbook.jsonl` on the demo
(runs/demo), SmolLM2-135M-Instruct, which is downloaded, and stories260K. A row for each: the share of trained and of
held-out questions whose greedy answer equals the one in the file, the losses of the held-out conversations before and
at the kept step, and CPU minutes of the command (user and system, all processes, compilation included).
"""

import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from configs.experiment.run_folder import RunFolder
from data_prep.conversations import Conversation, read_conversations
from launch.release.imported import write_run
from launch.release.sources import open_source
from lm.chat.template import ChatTemplate
from lm.checkpoints.manifest import folders_of, read_manifest, steps_in
from lm.checkpoints.reading import read_parameters
from lm.evaluation.evaluator import EvaluatorConfig
from lm.evaluation.held_out import Validation
from lm.inference.engine import Engine
from lm.inference.requests import GenerationRequest, SamplingParams
from tests.bench.finetune import tokenizer
from tests.bench.interop_greedy import STORIES
from tests.bench.runner import REPOSITORY, require_file, require_model, run_benchmark
from tests.smollm2 import write_gguf_of_package

CONVERSATIONS = REPOSITORY / "tests/fixtures/handbook.jsonl"


def base_of(name: str, folder: Path) -> Path:
    """Return the run folder of a base, after importing it into `folder`."""
    if name == "demo":
        return require_model(REPOSITORY / "runs/demo")
    if name == "stories260K":
        source = open_source(require_file(STORIES / "hf/config.json").parent, tokenizer())
    else:
        source = open_source(write_gguf_of_package(folder), None)
    write_run(source, folder / name, name)
    return folder / name


def right(run: RunFolder, asked: list[Conversation]) -> list[bool]:
    """Return whether the greedy answer to each question equals the one in the conversation."""
    loaded = run.load()
    template = ChatTemplate(loaded.tokenizer)
    engine = Engine(loaded.model, loaded.experiment.model, loaded.tokenizer, slots=16, mesh=loaded.mesh)
    params = SamplingParams(max_tokens=64, temperature=0.0)
    prompts = [template.encode(one.messages[:1], one.tools, reply=True).ids.tolist() for one in asked]
    found = engine.complete([GenerationRequest(tuple(prompt), params) for prompt in prompts])
    return [done.text.strip() == one.messages[1]["content"] for done, one in zip(found, asked, strict=True)]


def loss_before(run: RunFolder) -> float:
    """Return the loss of the held-out conversations with the parameters that training started from."""
    loaded = run.load()
    model, start = loaded.experiment.model, loaded.experiment.train.start.folder()
    config = EvaluatorConfig(model, loaded.tokenizer, run.tokens, 1, model.context_length)
    return Validation(config).run(read_parameters(model, start, loaded.mesh), loaded.mesh)["validation_loss"]


def measure(base: Path, work: Path) -> dict[str, Any]:
    command = ["-m", "launch.finetune", base, "configs/finetune.py", "--chat.conversations", CONVERSATIONS]
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": ""}  # all programs are compiled
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, *map(str, command), "--workdir", str(work)], cwd=REPOSITORY, env=environment, check=True,
        stdout=sys.stderr,
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    run = RunFolder(work)
    step = steps_in(folders_of(run)[0])[-1]
    splits = pq.read_table(run.tokens / "documents", columns=["url", "split"]).to_pylist()
    split_of = {row["url"]: row["split"] for row in splits}
    conversations = list(read_conversations(CONVERSATIONS, lambda *row: None))
    answers: dict[str, list[bool]] = {"train": [], "val": []}
    for one, found in zip(conversations, right(run, conversations), strict=True):
        answers[split_of[one.place]].append(found)
    train = run.experiment().train
    return {
        "trained_right": round(sum(answers["train"]) / len(answers["train"]), 3), "trained": len(answers["train"]),
        "held_out_right": round(sum(answers["val"]) / len(answers["val"]), 3), "held_out": len(answers["val"]),
        "loss_before": round(loss_before(run), 3),
        "loss_kept": round(read_manifest(run.checkpoint(step))["about"]["validation_loss"], 3), "kept_step": step,
        "steps_of_epoch": train.validate_every, "learning_rate": train.optimizer.learning_rate,
        "cpu_minutes": round((after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / 60, 1),
    }  # fmt: skip


def main(only: str = "") -> Iterator[dict[str, Any]]:
    """Args:
    only: Run the base with this in its name.
    """
    with tempfile.TemporaryDirectory() as folder:
        for name in ("stories260K", "demo", "SmolLM2"):
            if only in name:
                yield {"what": name, **measure(base_of(name, Path(folder)), Path(folder) / f"{name}-mine")}


if __name__ == "__main__":
    run_benchmark(main)
