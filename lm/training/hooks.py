"""Periodic hooks. The loop calls them after each step, in the order of Run.hooks.

The loop runs under jax.transfer_guard("disallow"): hooks read values with jax.device_get. Hooks that evaluate, sample
or save block the devices anyway, and allow transfers for themselves.
"""

import contextlib
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from lm.checkpoints.manager import Checkpoints, Parameters, Snapshots
from lm.config import ModelConfig, TrainConfig
from lm.errors import UsageError, for_terminal, shown
from lm.evaluation.evaluator import EvaluationInterrupted, Evaluator
from lm.evaluation.evaluators import RESERVED, numbers_of, run_evaluators
from lm.inference.generate import sample_texts
from lm.metrics.meter import Meter, MetricsLog, live_text, memory
from lm.metrics.profiling import Profiler
from lm.metrics.writers import Row
from lm.model.transformer import Transformer
from lm.resilience.goodput import Goodput
from lm.resilience.multihost import settle
from lm.resilience.preemption import PreemptionHandler
from lm.resilience.stragglers import HostTimes
from lm.run_paths import RunPaths
from lm.storage import write_json
from lm.terminal import LiveLine
from lm.tokenizer import Tokenizer
from lm.training.shard_verification import ShardVerification
from lm.training.skipped_steps import SkippedSteps, diverged
from lm.training.state import TrainState
from lm.training.step import OWN, Metrics
from lm.trusted_code import load_named


class Best(NamedTuple):
    """State of train.patience, which checkpoints store so that a resumed run ends at the same step."""

    step: int
    """First step with the lowest validation loss so far."""
    loss: float

    @staticmethod
    def stored(about: Mapping[str, Any]) -> "Best | None":
        """Return the state in the metadata of a checkpoint; None if it has none."""
        return Best(**about["best"]) if about.get("best") else None

    def waited(self, step: int, every: int) -> int:
        """Return the number of evaluations up to `step` since the lowest loss, one every `every` steps."""
        return (step - self.step) // every


@dataclass
class Progress:
    """Current state of the training loop, shared with the hooks."""

    steps: int
    """Last step of the run; train.patience can make it an earlier one."""
    metrics: Metrics = field(default_factory=dict)
    """Metrics of the current step, on the devices, which may still be computing them."""
    cost: Row = field(default_factory=dict)
    """Cost of a step, for the next row of metrics; set when the process starts and when a new stage begins."""
    figures: Row = field(default_factory=dict)
    """Results of the evaluators at this step."""
    best: "Best | None" = None
    """With train.patience, the step with the lowest validation loss so far; None before the first evaluation."""
    stopping: bool = False
    """The process was asked to stop: save a checkpoint, and leave evaluations and samples to the run that resumes."""

    def found(self) -> dict[str, Any]:
        """Return the metadata of a checkpoint of this step that its evaluations determine."""
        return {**self.figures, **({} if self.best is None else {"best": self.best._asdict()})}


@dataclass
class Instruments:
    """Measurements and logs of a run, shared by the hooks."""

    goodput: Goodput
    hosts: HostTimes
    preemption: PreemptionHandler
    skipped: SkippedSteps
    meter: Meter
    profiler: Profiler
    log: MetricsLog
    line: LiveLine

    def wait_for_step(self) -> None:
        """Wait for the devices to finish the step; the time counts as training. Raises InputError if the run has
        diverged."""
        with self.meter.training(), self.goodput.phase("steps"):
            self.skipped.wait()


class Hook(Protocol):
    every: int
    """Steps between two calls; 0: disabled."""

    def due(self, step: int) -> bool:
        """Return whether to call `run` after `step` steps. Does not access any device."""
        ...

    def run(self, state: TrainState, step: int) -> Row | None:
        """Act after `step` steps. `state` is valid until the next step. Return metrics for metrics.jsonl, or None."""
        ...


@dataclass
class Periodic:
    """Base class of hooks that run every `every` steps and after the last step."""

    every: int
    progress: Progress
    tools: Instruments

    def due(self, step: int) -> bool:
        return self.every > 0 and (step % self.every == 0 or step == self.progress.steps)


@dataclass
class Heartbeat(Periodic):
    """Hook that writes heartbeat.json, from which a supervisor sees that the process is alive."""

    def run(self, state: TrainState, step: int) -> None:
        self.tools.goodput.beat(step)


@dataclass
class Profile(Periodic):
    """Hook that stops the profiler after the last step to profile."""

    def run(self, state: TrainState, step: int) -> None:
        if said := self.tools.profiler.after(step, self.progress.metrics):
            self.tools.line.print(f"train: {said}")


@dataclass
class Logging(Periodic):
    """Hook that returns a step's metrics, such as the loss. Runs after the last step even if `every` is 0."""

    devices: Sequence[jax.Device]

    def due(self, step: int) -> bool:
        return step == self.progress.steps or super().due(step)

    def run(self, state: TrainState, step: int) -> Row:
        self.tools.wait_for_step()
        metrics = self.progress.metrics
        names = (
            "loss",
            "gradient_norm",
            "skipped",
            "learning_rate",
            *(name for name in metrics if name.startswith(OWN)),
        )
        found = jax.device_get({name: metrics[name] for name in names})
        row: Row = {
            name.removeprefix(OWN): int(value) if name == "skipped" else float(value) for name, value in found.items()
        }
        row |= self.tools.meter.row(step) | memory(self.devices) | self.progress.cost | self.tools.goodput.shares()
        self.progress.cost = {}
        hosts, warning = self.tools.hosts.collect(step)
        row |= hosts
        if warning:
            self.tools.line.print(f"train: {warning}")
        self.tools.goodput.write()
        self.tools.line.show(f"train: {live_text(step, self.progress.steps, row)}")
        return row


@dataclass
class Preemption(Periodic):
    """Hook that checks whether the process was asked to stop. All processes notice that at the same step."""

    def run(self, state: TrainState, step: int) -> None:
        self.progress.stopping = self.tools.preemption.requested(step)


@dataclass
class Evaluation(Periodic):
    """Hook that runs the evaluators of train.evaluators."""

    evaluators: Callable[[int], Mapping[str, Evaluator]]
    """Returns {name: evaluator} for a step."""
    mesh: Mesh

    @jax.transfer_guard("allow")
    def run(self, state: TrainState, step: int) -> Row | None:
        if self.progress.stopping:
            return None
        try:
            with self.tools.goodput.phase("validation"):
                found = run_evaluators(self.evaluators(step), state.model_to_use, self.mesh, state)
        except EvaluationInterrupted:
            self.progress.stopping = True
            return None
        self.progress.figures |= found
        shown = [FIGURES[k].format(v) if k in FIGURES else f"{k} {v:.4g}" for k, v in found.items()]
        self.tools.line.print(f"train: step {step:,}  {', '.join(shown)}")
        return found


@dataclass
class Patience(Periodic):
    """Hook that ends training after `patience` evaluations in a row without a lower validation loss. Runs after the
    evaluation of the same step. To run it again at the same step, after an error, changes nothing."""

    patience: int

    def run(self, state: TrainState, step: int) -> None:
        loss, best = self.progress.figures.get("validation_loss"), self.progress.best
        if self.progress.stopping or loss is None:
            return
        if math.isfinite(loss) and (best is None or loss < best.loss):
            best = self.progress.best = Best(step, loss)
        waited = 0 if best is None else best.waited(step, self.every)
        if waited >= self.patience and step < self.progress.steps:
            self.progress.steps = step
            self.tools.line.print(
                f"train: step {step:,} is the last: no lower validation loss in {waited} evaluations (train.patience)"
            )


FIGURES = {
    "validation_loss": "validation loss {:.3f} nats/token", "validation_bits_per_byte": "{:.3f} bits/byte",
    "validation_pass_at_1": "{:.1%} solved",
}  # fmt: skip


@dataclass(frozen=True)
class HookConfig:
    """Constructor arguments shared by all user-defined hooks; each uses those that it needs."""

    model: ModelConfig
    train: TrainConfig
    tokenizer: Tokenizer
    mesh: Mesh
    run: RunPaths
    """The run folder. A hook must not change the program's files in it."""


@dataclass
class OwnHook(Periodic):
    """Hook that calls a user-defined one (train.hooks): an object with `every`, the steps between calls, and run(state,
    step), which returns a dict of metrics or None. The object must not change the state."""

    name: str
    hook: Any

    @jax.transfer_guard("allow")
    def run(self, state: TrainState, step: int) -> Row | None:
        if self.progress.stopping:
            return None
        self.tools.wait_for_step()
        with self.tools.goodput.phase("validation"):
            found = self.hook.run(state, step)
        return None if found is None else numbers_of(f"hook {self.name}", found, RESERVED)


def own_hooks(config: HookConfig, progress: Progress, tools: Instruments) -> list[Hook]:
    """Create the user-defined hooks of train.hooks. Raises UsageError for one that lacks `every` or `run`."""
    found: list[Hook] = []
    for name in config.train.hooks:
        hook = load_named(name, "train.hooks")(config)
        every = getattr(hook, "every", None)
        if not isinstance(every, int) or every < 1 or not callable(getattr(hook, "run", None)):
            raise UsageError(
                f"train.hooks has {name}, with every = {shown(repr(every), quotes=False)}. A hook is a class with "
                "every, a number of steps of at least 1, and run(state, step)."
            )
        found.append(OwnHook(every, progress, tools, name, hook))
    return found


@dataclass
class Samples(Periodic):
    model: ModelConfig
    config: TrainConfig
    tokenizer: Tokenizer
    run_folder: RunPaths

    @jax.transfer_guard("allow")
    def run(self, state: TrainState, step: int) -> None:
        self.progress.stopping = self.progress.stopping or self.tools.preemption.requested_here()
        if self.progress.stopping:
            return
        with self.tools.goodput.phase("samples"):
            text = sample(state.model_to_use, self.model, self.config, self.tokenizer, step, self.run_folder)
        self.tools.line.print(f"train: step {step:,}  sample: {for_terminal(' '.join(text.split())[:300])}")


@dataclass
class Snapshotting:
    """Hook that saves snapshots (checkpoints of only the parameters) at train.snapshot_steps, which may include 0."""

    wanted: set[int]
    """Steps whose snapshot is still missing."""
    tools: Instruments
    checkpoints: Checkpoints
    snapshots: Snapshots
    metadata: Mapping[str, Any]
    """Description of the run, stored in each snapshot."""
    every: int = 0
    """0, as `due` names the steps."""

    def due(self, step: int) -> bool:
        return step in self.wanted

    @jax.transfer_guard("allow")
    def run(self, state: TrainState, step: int) -> None:
        self.tools.wait_for_step()
        self.wanted.discard(step)
        with self.tools.goodput.phase("saving"):
            self.checkpoints.settled()  # processes exchange messages in the same order
            self.snapshots.save(step, Parameters(state.model_to_use), self.metadata, certain=True)


@dataclass
class Verifying(Periodic):
    """Hook that raises InputError if a shard on disk is damaged. Runs before a checkpoint is saved."""

    verification: ShardVerification

    def due(self, step: int) -> bool:
        return not self.verification.finished and (super().due(step) or step == self.progress.steps)

    def run(self, state: TrainState, step: int) -> None:
        with self.tools.goodput.phase("verifying"):
            self.verification.check()


@dataclass
class Checkpointing(Periodic):
    """Hook that saves checkpoints. It is the last hook, so that all metrics up to the saved step are already logged."""

    checkpoints: Checkpoints
    snapshots: Snapshots
    """Snapshots of earlier steps; they are written to disk before a checkpoint is saved."""
    config: TrainConfig
    metadata: Mapping[str, Any]
    """Description of the run, stored in each checkpoint."""
    saved_at: int
    """Step of the newest save."""
    asked: tuple[int, float] = (-1, 0.0)
    """(step, seconds) of the last clock check; (-1, 0.0): none yet."""
    saved_seconds: float = 0.0
    """Clock time in seconds at which the newest save started."""
    ask_at: int = 0
    """Step at which process 0 checks the clock again."""

    def due(self, step: int) -> bool:
        """Return whether to save after `step` steps. A due save that was put off, because the disk is busy or a step
        was skipped, is due again after each step until it succeeds."""
        best = self.progress.best
        if self.progress.stopping or (best is not None and best.step == step):
            return True
        if step == self.progress.steps:
            return best is None  # else the result is an earlier step
        newest = step // self.every * self.every if self.every else 0
        return (newest > self.saved_at or self.overdue(step)) and not self.checkpoints.held_up()

    def overdue(self, step: int) -> bool:
        """Return whether train.checkpoint_every_seconds have passed since the newest save. All processes must call this
        at the same steps. Process 0 decides by its clock, about 20 times per interval, and sends the others its answer
        and the step of the next check; other steps need no message."""
        seconds = self.config.checkpoint_every_seconds
        if not seconds or step < self.ask_at:
            return False

        def look(_: object) -> tuple[bool, int]:
            now, (before, moment) = time.monotonic(), self.asked
            if before < 0:
                self.saved_seconds = now
            pace = (step - before) / max(now - moment, 1e-9) if before >= 0 else 0.0
            self.asked = step, now
            return now - self.saved_seconds >= seconds, step + max(1, int(pace * seconds / 20))

        with self.tools.goodput.phase("steps"):  # waiting for process 0 must not count as host time
            passed, self.ask_at = settle("clock", None, look)
        return passed

    @jax.transfer_guard("allow")
    def run(self, state: TrainState, step: int) -> None:
        self.tools.wait_for_step()
        best = self.progress.best
        blocking = self.progress.stopping or step == self.progress.steps or (best is not None and best.step == step)
        # Checkpoints of a diverging run must not replace the sound ones before it.
        if blocking or not self.tools.skipped.in_row:
            self.save(state, step, blocking)

    def save(self, state: TrainState, step: int, blocking: bool, evaluated: bool = True) -> None:
        """Start to save a checkpoint of `step`. With `blocking`, first wait for the previous save, however long it
        takes. Without `evaluated`, a run that resumes from the checkpoint runs the evaluations of this step first.
        Raises InputError, without saving, if a parameter is not finite."""
        if not all_finite(state.trained):
            raise diverged(f"The parameters after step {step} are not all finite", self.config)
        metadata = dict(self.metadata) | {"evaluated": evaluated and not self.progress.stopping} | self.progress.found()
        with self.tools.goodput.phase("saving"):
            self.snapshots.settled()
            if self.checkpoints.save(step, state, metadata, blocking):
                self.saved_at, self.saved_seconds = step, time.monotonic()

    @jax.transfer_guard("allow")
    def save_before_error(self, state: TrainState, step: int, evaluated: bool = True) -> None:
        """Save the current state before the caller raises an error about damaged data or a failed evaluation. Does
        nothing if there are several processes: those without an error would not take part in the save."""
        if jax.process_count() == 1 and self.checkpoints.settled() and step not in {0, *self.checkpoints.steps()}:
            self.tools.skipped.wait()
            self.save(state, step, blocking=True, evaluated=evaluated)


@jax.jit
def all_finite(tree: object) -> jax.Array:
    return jnp.all(jnp.array([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]))


SAMPLE_TEMPERATURE = 0.8  # during training; the finished model is sampled at sample.temperatures


def sample(
    model: Transformer, model_config: ModelConfig, config: TrainConfig, tokenizer: Tokenizer, step: int, run: RunPaths
) -> str:
    """Generate a text from train.sample_prompt, write it to samples/ in the run folder, and return it. Depends only on
    the parameters, the seed and the step. I/O errors are printed, not raised."""
    key = jax.random.fold_in(jax.random.key(config.seed), step)
    (text,) = sample_texts(
        model, model_config, tokenizer, [config.sample_prompt], [SAMPLE_TEMPERATURE], config.sample_tokens, key=key
    )
    row = {"step": step, "prompt": config.sample_prompt, "temperature": SAMPLE_TEMPERATURE, "text": text}
    if jax.process_index() == 0:
        try:
            write_json(run.sample(step), row)
        except OSError as error:
            print(f"train: the sample at step {step:,} is not saved; training continues: {error}", flush=True)
    return text


def remove_later_samples(folder: Path, step: int) -> None:
    """Delete the samples of steps after `step`, which an interrupted run wrote after its last checkpoint and the
    resumed run writes again. Files that `sample` did not write are kept."""
    for path in folder.glob("step-*.json"):
        number = path.stem.removeprefix("step-")
        if number.isdecimal() and int(number) > step:
            with contextlib.suppress(ValueError, RecursionError):
                row = json.loads(path.read_text(encoding="utf-8"))
                names = {"step", "prompt", "temperature", "text"}
                if isinstance(row, dict) and row.keys() == names and row["step"] == int(number):
                    path.unlink()
