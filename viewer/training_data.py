"""Read the training data of a run: curves, samples, compression. Does not import JAX."""

import json
import re
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lm.data.records import read_manifest
from lm.errors import MALFORMED, InputError

MOST = 1e300
"""Maximum absolute value of a number: JavaScript reads longer integers as infinity."""


@dataclass(frozen=True)
class Curves:
    """Lines of metrics.jsonl. If a step was logged twice, before and after a crash, the later line counts."""

    train: tuple[dict, ...]
    """Lines with "step", "loss" (nats per token), "gradient_norm", "learning_rate", "tokens",
    "tokens_per_second", "mfu" or "cpu_matmul_share", "data_wait_share", …"""
    validation: tuple[dict, ...]
    """Lines with "step", "validation_loss" (nats per token), "validation_bits_per_byte"."""
    evaluated: tuple[dict, ...] = ()
    """Lines with "step" that are not from training steps: the metrics of all evaluators."""

    @property
    def steps(self) -> int:
        """Last logged step; 0 if there is none."""
        return max((line["step"] for line in (*self.train, *self.validation)), default=0)

    @property
    def train_flops(self) -> int | None:
        """FLOPs of all training steps so far, counted from the config (lm/model/cost.py), without evaluation and
        recomputation; None if not logged."""
        values = finite_values(self.train, "train_flops")
        return int(values[-1]) if values else None

    def median(self, key: str) -> int | float | None:
        """Median of a metric, such as "mfu", over the training steps; None if not logged. A slow start hardly
        counts."""
        values = finite_values(self.train, key)
        return statistics.median(values) if values else None


@dataclass(frozen=True)
class Sample:
    """A text that the model generated, during training or at its end."""

    step: int | None
    """Training step; None at the end."""
    prompt: str
    temperature: float
    """Sampling temperature; 0: always the most likely token."""
    continuation: str
    """Text without the prompt."""


def read_json(path: Path, script: str) -> dict:
    """Return the JSON object in a file. Raises InputError if the file cannot be read or contains no JSON object; the
    message names `script`, which writes the file."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} is needed and cannot be read ({error.strerror}). First run {script}.") from error
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{path} is not JSON ({error}). Delete the file and its marker under stages/, and run {script}."
        ) from error
    if not isinstance(value, dict):
        raise InputError(f"{path} holds a {type(value).__name__}, not a JSON object. Delete the file and run {script}.")
    return value


def changed_at(path: Path) -> tuple[int, int] | None:
    """Return (modification time in ns, size) of a file, to notice changes; None if it does not exist."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size


def finite(value: object) -> int | float | None:
    """Return `value` if it is a number that JSON and JavaScript can represent, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not -MOST <= value <= MOST:
        return None
    return value


def finite_values(lines: tuple[dict, ...], key: str) -> list[int | float]:
    """Values of `key` in these lines that are finite numbers."""
    return [value for line in lines if (value := finite(line.get(key))) is not None]


def metrics_in(line: bytes) -> dict | None:
    """Return the values in a line of metrics.jsonl; None if it is not a JSON object with a step."""
    try:
        values = json.loads(line)
        return values if type(values["step"]) is int and 0 <= values["step"] < 2**53 else None
    except MALFORMED:
        return None


def read_curves(path: Path) -> Curves:
    """Read metrics.jsonl, in the order of steps; empty curves if there is no file. Skips an incomplete last line, cut
    off by a crash. Raises InputError for any other line without metrics."""
    train = {}
    validation = {}
    evaluated = {}
    *lines, _cut_off = (path.read_bytes() if path.is_file() else b"").split(b"\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        if (values := metrics_in(line)) is None:
            text = line[:80].decode("utf-8", "replace")
            raise InputError(f"{path}, line {number}, is not a line of metrics: {text!r}. Repair or delete the line.")
        step = values["step"]
        if "loss" in values:
            train[step] = values
        elif "run" not in values:
            evaluated[step] = evaluated.get(step, {}) | values  # evaluators and hooks write separate lines
        if "validation_loss" in values:
            validation[step] = values
    in_order = lambda lines: tuple(lines[step] for step in sorted(lines))
    return Curves(in_order(train), in_order(validation), in_order(evaluated))


def files_by_step(folder: Path) -> dict[int, Path]:
    """Return {step: file} of the files step-STEP.json in a folder, in the order of steps."""
    found = {path.stem.removeprefix("step-"): path for path in sorted(folder.glob("step-*.json"))}
    return {int(step): path for step, path in found.items() if step.isdecimal()}


def read_samples(folder: Path, most: int = sys.maxsize) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """Return (samples during training in the order of steps, samples of the final model) from the folder samples/.
    Either may be empty. Of more than `most` steps, every second, third, … is read, always including the last. Raises
    InputError for an invalid file."""
    files = [*files_by_step(folder).items()]
    files = files[:: -max(1, -(-len(files) // most))][::-1]
    during, final = [], []
    for step, path in [*files, (None, folder / "final.json")]:
        if step is None and not path.is_file():
            break
        try:
            values = read_json(path, "launch.sample")["samples"] if step is None else [read_json(path, "launch.train")]
            for one in values:
                text = one["text"].removeprefix(one["prompt"])
                sample = Sample(step, one["prompt"], float(one["temperature"]), text)
                (final if step is None else during).append(sample)
        except MALFORMED as error:
            raise InputError(
                f"{path} is not a sample ({type(error).__name__}: {error}). Restore it from a copy, or delete it."
            ) from error
    return tuple(during), tuple(final)


def read_splits(path: Path) -> dict[str, float]:
    """Return the counts in tokens/manifest.json: {"train_tokens", "train_documents", "train_bytes" (UTF-8), the same
    three of "validation", and "bytes_per_token" over both splits}. Raises InputError if it is missing or damaged."""
    splits, counts = read_manifest(path.parent).splits, {}
    for name, split in (("train", "train"), ("validation", "val")):
        if split not in splits:
            raise InputError(f"{path} has no split {split}. Restore the file from a copy.")
        one = splits[split]
        counts |= {f"{name}_tokens": one.tokens, f"{name}_documents": one.documents, f"{name}_bytes": one.text_bytes}
    size, tokens = (counts[f"train_{unit}"] + counts[f"validation_{unit}"] for unit in ("bytes", "tokens"))
    return counts | {"bytes_per_token": size / max(1, tokens)}


def read_compression(path: Path) -> dict[str, Any]:
    """Return {"rates": {name: bits per byte} of compressors and, last, of the model, on the same held-out text;
    "validation_loss": nats per token, "validation_bytes" (UTF-8) of that text, "parameters": number of the model} from
    evaluation.json. Raises InputError if it is missing or damaged, or lacks a value."""
    values = read_json(path, "launch.evaluate")
    names = {"gzip -9": "gzip", "xz -9e": "xz", "zstd -19": "zstd", "this model": "validation"}
    try:
        rates = {name: values[f"{key}_bits_per_byte"] for name, key in names.items()}
        return {"rates": rates} | {name: values[name] for name in ("validation_loss", "validation_bytes", "parameters")}
    except KeyError as error:
        raise InputError(
            f"{path} has no {error}. Delete the file and its marker under stages/, and run launch.evaluate."
        ) from error


def visible(token: bytes) -> str:
    r"""Return the text of a token with invisible characters made visible: symbols for space, newline, tab and carriage
    return, and \xNN for each byte of an incomplete UTF-8 character."""
    text = token.decode("utf-8", "backslashreplace")
    text = text.replace(" ", "␣").replace("\n", "⏎").replace("\t", "⇥").replace("\r", "␍")
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text)


def short(text: str) -> str:
    """Abbreviate runs of 8 or more equal characters: 40 times "=" becomes "=×40"."""
    return re.sub(r"(.)\1{7,}", lambda run: f"{run[1]}×{len(run[0])}", text)


def has_letter(token: bytes) -> bool:
    return any(c.isalpha() for c in token.decode("utf-8", "ignore"))
