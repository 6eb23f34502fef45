"""How the run learned: its curves, also while it trains; the samples that it took; what a step's model writes."""

import time
from collections.abc import Iterator
from pathlib import Path

from lm.checksums import log_damage
from lm.errors import InputError, UsageError
from lm.inference.engine import Engine
from lm.inference.requests import GenerationRequest, SamplingParams
from lm.inference.running import Draft
from lm.inspect.inspector import Inspector
from lm.run_paths import RunPaths
from lm.serving.errors import wrong
from lm.serving.fields import Fields
from lm.serving.inspections import Inspection
from viewer.training_data import as_sample, read_json
from viewer.window.curve_log import CurveLog, finite
from viewer.window.model_views import RECORDED_STEPS, spread
from viewer.window.window_run import WindowRun

SILENT_SECONDS = 120
"""Without a sign of life, after which training is told as silent."""
MOST_TEXT, MOST_SAMPLES = 4_000, 200
"""Characters of a sample that are sent; samples of steps that are sent, spread over all."""
MOST_PROMPT, MOST_NEW, NEW = 20_000, 128, 48
"""Characters of a prompt; tokens that are written at most, and by default."""
TEMPERATURE = 0.8


def inspections(run: WindowRun) -> list[Inspection]:
    logs: dict[Path, CurveLog] = {}
    spoilt: dict[Path, tuple[object, list[str]]] = {}

    def curves(fields: Fields) -> dict[str, object]:
        asked = run.of(fields)
        path = asked.paths.metrics
        log = logs.setdefault(path, CurveLog(path))
        after = fields.integer("after", -1, -1, 2**31)
        read, versions = log.read(after), [changed_at(one) for one in (path, asked.paths.marker("train"))]
        if path not in spoilt or spoilt[path][0] != versions:  # the checksum of a whole log is not for every poll
            spoilt[path] = versions, log_damage(asked.paths.root, (RunPaths.metrics,))
        return read | state_of(asked.paths) | {
            "name": asked.name,
            "steps": asked.experiment.train.steps,
            "checkpoints": asked.steps(),
            "samples": sorted(sampled_steps(asked.paths)),
            "damaged": [*log.damaged, *spoilt[path][1]],
        }  # fmt: skip

    def write(fields: Fields) -> dict[str, object]:
        return written(run.at(fields), fields)

    return [
        Inspection("curves", ("run", "after"), curves, "loss, learning rate and speed by step, after a step if given"),
        Inspection("samples", ("run",), lambda fields: samples(run.of(fields)), "the texts that training took"),
        Inspection("runs", (), lambda fields: {"runs": [one.about() for one in run.all_runs()]}, "the runs here"),
        Inspection(
            "write", ("text", "step", "tokens", "temperature", "seed"), write, "what a step's model goes on with"
        ),
    ]  # fmt: skip


def to_record(run: WindowRun) -> Iterator[tuple[str, dict]]:
    """The curves, the samples, and how the model of each step goes on from the run's first prompt."""
    yield "curves", {}
    yield "samples", {}
    yield "runs", {}
    prompt = next(iter(run.experiment.sample.prompts), "")
    for step in spread(run.steps(), RECORDED_STEPS):
        yield "write", {"text": prompt, "step": step}


def state_of(paths: RunPaths) -> dict[str, object]:
    """{"state", "at", "seconds_since"}: what training does, by its last sign of life; "" where there is none."""
    try:
        heart = read_json(paths.heartbeat(), "launch.train")
        since, at, state = finite(time.time() - heart["time"]), finite(heart["step"]), str(heart["state"])[:200]
    except (InputError, KeyError, TypeError, OverflowError):
        since, at, state = None, None, ""
    if since is None:
        return {"state": "", "at": None, "seconds_since": None}
    if state not in ("done", "stopped") and since > SILENT_SECONDS:
        state = "silent"
    return {"state": state, "at": at, "seconds_since": round(since, 1)}


def changed_at(path: Path) -> tuple[int, int] | None:
    """What changes whenever the file does; None if there is none."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size


def sampled_steps(paths: RunPaths) -> dict[int, Path]:
    """{step: its sample} of those taken during training."""
    found = {path.stem.removeprefix("step-"): path for path in paths.samples.glob("step-*.json")}
    return {int(step): path for step, path in sorted(found.items()) if step.isdecimal()}


def samples(run: WindowRun) -> dict[str, object]:
    """{"during": by step, "final": of the finished model}, each with prompt, temperature, text and its full length."""
    taken = sampled_steps(run.paths)
    every = max(1, -(-len(taken) // MOST_SAMPLES))
    steps = [*taken][::-every][::-1]  # the last is always among them
    during = [read_json(taken[step], "launch.train") | {"step": step} for step in steps]
    path = run.paths.final_samples
    final = read_json(path, "launch.sample").get("samples", []) if path.is_file() else []
    try:
        return {
            "during": [shown(one, one["step"]) for one in during],
            "final": [shown(one, None) for one in final],
            "damaged": log_damage(run.paths.root, [f"{RunPaths.samples}/{path.name}" for path in taken.values()]),
        }
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{run.paths.samples} holds what is no sample: {error}. Delete or mend it.") from error


def shown(value: dict, step: int | None) -> dict[str, object]:
    one = as_sample(value, step)
    return {
        "step": step,
        "prompt": one.prompt[:MOST_TEXT],
        "temperature": finite(one.temperature),
        "text": one.continuation[:MOST_TEXT],
        "characters": len(one.continuation),
    }


def written(inspector: Inspector, fields: Fields) -> dict[str, object]:
    """{"text", "tokens": new ones, "finish_reason"}: how the model goes on; of a prompt that is longer than its
    context the end is read. The same seed gives the same text. Raises ApiError 400 for fields that cannot be."""
    prompt = fields.string("text", "")
    if len(prompt) > MOST_PROMPT:
        raise wrong("text", prompt, f"of at most {MOST_PROMPT:,} characters here")
    tokenizer, context = inspector.tokenizer, inspector.config.context_length
    wanted = min(fields.integer("tokens", NEW, 1, MOST_NEW), context // 2)
    params = SamplingParams(
        wanted, fields.number("temperature", TEMPERATURE, 0, 100), seed=fields.integer("seed", 0, 0, 2**32 - 1)
    )
    ids = tokenizer.encode(prompt)
    room = context - wanted - 1
    row = (tokenizer.bos_id, *ids[-room:]) if room else (tokenizer.bos_id,)
    longest = 1 << (len(row) + wanted - 1).bit_length()  # few lengths: what was compiled for one fits the next text
    try:
        engine = Engine(
            inspector.model, inspector.config, tokenizer, slots=1, context=min(context, max(longest, 128)),
            mesh=inspector.mesh,
        )  # fmt: skip
        draft = Draft()
        fields.go_on()
        for event in engine.generate([GenerationRequest(row, params)]):
            fields.go_on()
            draft.add(event)
    except UsageError as error:
        raise wrong("text", prompt, f"one that this model can go on from: {error}") from error
    done = draft.completion()
    return {"text": done.text, "tokens": len(done.tokens), "finish_reason": done.finish_reason}
