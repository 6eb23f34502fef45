"""Reinforcement learning: exactness of log-probabilities, cost of the sampler, and what three tasks gain.

    python -m tests.bench.reinforce [--base runs/demo] [--workdir FOLDER] [--what exactness cost tasks]

The base is finetuned on the formats of the tasks only: answers have the given words or numbers in any order, and calls
of the calculator have any operator. Reinforcement must find out what is right. Minutes are of CPU time.
"""

import itertools
import json
import math
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from configs.experiment.run_folder import Loaded, RunFolder
from lm.compilation_cache import keep_compiled_programs
from lm.config import ReinforceConfig
from lm.inference.engine import Engine
from lm.inference.requests import GenerationRequest, SamplingParams
from lm.parallel import one_device_mesh, traced_on
from lm.reinforcement.sampler import answer_batch
from lm.reinforcement.scoring import AnswerBatch, answer_logprobs, objective
from lm.reinforcement.tasks import TASKS, instance_at
from tests.bench.runner import require_model, run_benchmark

EXAMPLES = 3000
FINETUNING = ("--train.steps", "400", "--train.batch-size", "8", "--train.checkpoint-every", "200")
STEPS = {"reverse_words": 500, "sort_numbers": 500, "calculator": 300}
HELD_OUT = 500
SLOTS, CONTEXT, NEW = 32, 96, 32
"""As in the runs of the tasks, but longer replies."""
PAIRS = 5
PART = 320
"""Requests at once."""


def format_example(name: str, number: int) -> list[dict[str, Any]]:
    """A conversation that shows the format of an answer, not the right answer."""
    chance = random.Random(f"2/{number}")  # not that of the instance
    question = instance_at(TASKS[name], 1, number, held_out=False).question
    messages = [{"role": "user", "content": question}]
    words = question.rstrip(".?").split()
    if name == "calculator":
        a, b = chance.sample([word for word in words if word.isdecimal()], 2)
        function = {"name": "calculator", "arguments": {"expression": f"{a} {chance.choice('+-*/')} {b}"}}
        return [*messages, {"role": "assistant", "content": "", "tool_calls": [{"function": function}]}]
    return [*messages, {"role": "assistant", "content": " ".join(chance.sample(words[1:], 3))}]


def write_examples(path: Path) -> None:
    talks = [format_example(name, number) for name in TASKS for number in range(EXAMPLES)]
    random.Random(0).shuffle(talks)
    path.write_text("".join(json.dumps({"messages": one}) + "\n" for one in talks), encoding="utf-8")


def requests(part: int, logprobs: int | None = 0) -> list[GenerationRequest]:
    """Prompts of random tokens and replies, all of mixed lengths."""
    draw, found = np.random.default_rng(part), []
    for number in range(PART):
        prompt = tuple(draw.integers(4, 4000, draw.integers(1, CONTEXT - NEW)).tolist())
        params = SamplingParams(int(draw.integers(1, NEW + 1)), seed=part * PART + number, logprobs=logprobs)
        found.append(GenerationRequest(prompt, params))
    return found


def sampled(engine: Engine, part: int) -> list[AnswerBatch]:
    """Batches of SLOTS replies, all of weight 1."""
    asked, config = requests(part), ReinforceConfig(context=CONTEXT, max_tokens=NEW)
    replies = [((one, [*done.logprobs]), 1.0) for one, done in zip(asked, engine.complete(asked), strict=True)]
    return [answer_batch(SLOTS, config, some) for some in itertools.batched(replies, SLOTS)]


def exactness(loaded: Loaded, engine: Engine, wanted: int) -> Iterator[dict[str, Any]]:
    """Differences in units in the last place: of log-probabilities computed together with their gradients, for a fifth
    of the tokens, and of those computed alone, for all."""
    shape = engine.shape
    on_mesh = lambda function: traced_on(loaded.mesh, jax.jit(function), training=True)
    alone = on_mesh(lambda model, batch: answer_logprobs(model, shape, batch))
    both = on_mesh(jax.value_and_grad(lambda model, batch: objective(model, shape, batch), has_aux=True))
    functions = {"alone": alone, "with gradients": lambda model, batch: both(model, batch)[0][1]}
    found = {name: {"tokens": 0, "differing": 0, "largest_ulp": 0} for name in functions}
    seconds, part = dict.fromkeys(("sampler", *functions), 0.0), 0
    while found["alone"]["tokens"] < wanted:
        start = time.process_time()
        found_batches = sampled(engine, part)
        seconds["sampler"] += (time.process_time() - start) * (part == 1)  # the first compiles
        for name, function in functions.items():
            if name == "with gradients" and part > 1 and found[name]["tokens"] >= wanted / 5:
                continue
            start, total = time.process_time(), found[name]
            for batch in found_batches:
                scores_BN, drawn_BN = np.asarray(function(loaded.model, batch)), batch.weights_RN > 0
                pair = scores_BN[drawn_BN], np.asarray(batch.logprobs_RN)[drawn_BN]
                one, other = (x.view(np.int32).astype(np.int64) for x in pair)
                total["tokens"] += one.size
                total["differing"] += int(np.sum(one != other))
                total["largest_ulp"] = max(total["largest_ulp"], int(np.max(np.abs(one - other))))
            seconds[name] += (time.process_time() - start) * (part == 1)
        part += 1
    for name, row in found.items():
        ratio = seconds[name] / seconds["sampler"] if seconds["sampler"] else None
        yield {"what": f"exactness, {name}", **row, "time_by_that_of_the_sampler": ratio and round(ratio, 2)}


def usual_forward_pass(loaded: Loaded, engine: Engine) -> dict[str, Any]:
    """The same differences, of the forward pass over whole rows that training uses."""

    def forward(model, ids_BT, targets_BT):
        logits_BTV = model.logits(model.read(ids_BT, jnp.ones_like(ids_BT)))
        chosen = jnp.take_along_axis(logits_BTV, targets_BT[..., None], axis=-1)[..., 0]
        return chosen - jax.nn.logsumexp(logits_BTV, axis=-1)

    usual = traced_on(loaded.mesh, jax.jit(forward), training=True)
    found, wanted = [], []
    for batch in sampled(engine, 0):
        ids_BT = np.zeros((SLOTS, CONTEXT + 1), np.int32)
        for row, (length,) in enumerate(batch.lengths_R1):
            ids_BT[row, :length] = batch.prompts_RT[row, :length]
            ids_BT[row, length : length + NEW] = batch.tokens_RN[row]
        scores_BT = np.asarray(usual(loaded.model, ids_BT[:, :-1], ids_BT[:, 1:]))
        first_B1, drawn_BN = np.asarray(batch.lengths_R1) - 1, batch.weights_RN > 0
        found.append(np.take_along_axis(scores_BT, first_B1 + np.arange(NEW), axis=1)[drawn_BN])
        wanted.append(np.asarray(batch.logprobs_RN)[drawn_BN])
    differences = np.abs(np.concatenate(found) - np.concatenate(wanted))
    return {
        "what": "usual forward pass", "tokens": differences.size, "differing": int(np.sum(differences > 0)),
        "largest_nats": float(differences.max()),
    }  # fmt: skip


def cost(engine: Engine) -> dict[str, Any]:
    """CPU time of sampling with log-probabilities, as a multiple of ordinary generation, in alternating pairs."""
    ratios = []
    for pair in range(PAIRS + 1):
        times = {}
        for logprobs in (None, 0) if pair % 2 else (0, None):
            start = time.process_time()
            engine.complete(requests(pair, logprobs))
            times[logprobs] = time.process_time() - start
        ratios.append(times[0] / times[None])
    ratios = sorted(ratios[1:])  # the first compiles
    return {"what": "cost of the sampler", "median": round(ratios[PAIRS // 2], 3), "largest": round(ratios[-1], 3)}


def cpu_minutes(*arguments: str | Path) -> float:
    """Run a command of this program; return the minutes of CPU time that it took."""
    before = os.times()
    done = subprocess.run([sys.executable, "-m", *map(str, arguments)], stdout=sys.stderr, check=False)
    if done.returncode:
        raise SystemExit(f"{arguments[0]} ended with {done.returncode}")
    after = os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    return round(spent / 60, 1)


def scores(run: Path) -> list[dict[str, Any]]:
    """The evaluations, with Wilson's 95 % confidence interval of pass@1."""
    found = []
    for row in map(json.loads, (run / "metrics.jsonl").read_text("utf-8").splitlines()):
        if "validation_pass_at_1" in row:
            share, spread = row["validation_pass_at_1"], 1.96**2 / HELD_OUT
            margin = 1.96 * math.sqrt(share * (1 - share) / HELD_OUT + spread / (4 * HELD_OUT))
            interval = [round((share + spread / 2 + sign * margin) / (1 + spread), 3) for sign in (-1, 1)]
            found.append(row | {"interval": interval})
    return found


def tasks(base: Path, folder: Path) -> Iterator[dict[str, Any]]:
    talks, finetuned = folder / "formats.jsonl", folder / "finetuned"
    write_examples(talks)
    minutes = cpu_minutes(
        "launch.finetune", base, "configs/assistant.py", "--workdir", finetuned, "--chat.written-by", "",
        "--chat.conversations", talks, *FINETUNING,
    )  # fmt: skip
    yield {"what": "finetuning", "cpu_minutes": minutes}
    for name, steps in STEPS.items():
        run = folder / name
        minutes = cpu_minutes(
            "launch.reinforce", finetuned, "configs/reinforce.py", "--workdir", run, "--reinforce.task", name,
            "--train.steps", str(steps), "--reinforce.context", "96", "--reinforce.max-tokens", "24",
            "--reinforce.held-out", str(HELD_OUT),
        )  # fmt: skip
        for when, row in (("before", scores(run)[0]), ("after", scores(run)[-1])):
            shown = {key.removeprefix("validation_"): value for key, value in row.items()}
            yield {"what": name, "when": when, "cpu_minutes": minutes if when == "after" else 0.0, **shown}


def figures(
    base: str = "runs/demo", workdir: str = "", tokens: int = 100_000,
    what: tuple[str, ...] = ("exactness", "cost", "tasks"),
) -> Iterator[dict[str, Any]]:  # fmt: skip
    run = RunFolder(require_model(Path(base)))
    keep_compiled_programs()
    if "exactness" in what or "cost" in what:
        loaded = run.load(one_device_mesh(run.experiment().model))
        engine = Engine(
            loaded.model, loaded.experiment.model, loaded.tokenizer, slots=SLOTS, context=CONTEXT, mesh=loaded.mesh
        )
        if "cost" in what:
            yield cost(engine)
        if "exactness" in what:
            yield usual_forward_pass(loaded, engine)
            yield from exactness(loaded, engine, tokens)
    if "tasks" in what:
        with tempfile.TemporaryDirectory() as temporary:
            yield from tasks(run.root, Path(workdir or temporary))


if __name__ == "__main__":
    run_benchmark(figures)
