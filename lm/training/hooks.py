"""What happens beside the steps: periodic hooks, which the loop calls after a step in the order of Run.hooks.

The loop runs under jax.transfer_guard("disallow"): a hook reads a value by jax.device_get, and one that evaluates,
samples or saves, and so stops the devices anyway, allows transfers for itself.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from lm.checkpoints.manager import Checkpoints
from lm.checkpoints.snapshots import Parameters, Snapshots
from lm.config import ModelConfig, TrainConfig
from lm.errors import for_terminal
from lm.evaluation.evaluator import EvaluationInterrupted, Evaluator
from lm.evaluation.evaluators import run_evaluators
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
from lm.training.step import Metrics


@dataclass
class Progress:
    """What the loop leaves for the hooks of a step, and they for one another."""

    steps: int
    """The last step of the run."""
    metrics: Metrics = field(default_factory=dict)
    """Of this step; on the devices, which may still compute it."""
    cost: Row = field(default_factory=dict)
    """What a step takes, for the next row: set at the start of the process and where another stage begins."""
    figures: Row = field(default_factory=dict)
    """What evaluators found at this step."""
    stopping: bool = False
    """The process is asked to end: evaluations and samples are left to the run that resumes, a checkpoint is saved."""


@dataclass
class Instruments:
    """What measures a run, and what it is recorded by."""

    goodput: Goodput
    hosts: HostTimes
    preemption: PreemptionHandler
    skipped: SkippedSteps
    meter: Meter
    profiler: Profiler
    log: MetricsLog
    line: LiveLine

    def wait_for_step(self) -> None:
        """Until the devices have made the step; it is time of training. Raises InputError when the run has diverged."""
        with self.meter.training(), self.goodput.phase("steps"):
            self.skipped.wait()


class Hook(Protocol):
    every: int
    """Steps between two calls; 0 for none."""

    def due(self, step: int) -> bool:
        """Whether to call `run` after this step. Looks at no device."""
        ...

    def run(self, state: TrainState, step: int) -> Row | None:
        """Acts after a step, whose `state` is valid until the next one; returns a row for the metrics, or None."""
        ...


@dataclass
class Periodic:
    """Every so many steps, and after the last."""

    every: int
    progress: Progress
    tools: Instruments

    def due(self, step: int) -> bool:
        return self.every > 0 and (step % self.every == 0 or step == self.progress.steps)


@dataclass
class Heartbeat(Periodic):
    """A sign of life, for whoever watches the process."""

    def run(self, state: TrainState, step: int) -> None:
        self.tools.goodput.beat(step)


@dataclass
class Profile(Periodic):
    """Ends the profile after the last step that it is to have."""

    def run(self, state: TrainState, step: int) -> None:
        if said := self.tools.profiler.after(step, self.progress.metrics):
            self.tools.line.print(f"train: {said}")


@dataclass
class Logging(Periodic):
    """The row of a training step; also after the last step where `every` is 0."""

    devices: Sequence[jax.Device]

    def due(self, step: int) -> bool:
        return step == self.progress.steps or super().due(step)

    def run(self, state: TrainState, step: int) -> Row:
        self.tools.wait_for_step()
        names = ("loss", "gradient_norm", "skipped", "learning_rate")
        found = jax.device_get({name: self.progress.metrics[name] for name in names})
        row: Row = {name: int(value) if name == "skipped" else float(value) for name, value in found.items()}
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
    """Notices that the process is asked to end; of several processes, all at one step."""

    def run(self, state: TrainState, step: int) -> None:
        self.progress.stopping = self.tools.preemption.requested(step)


@dataclass
class Evaluation(Periodic):
    """The evaluators of train.evaluators."""

    evaluators: Callable[[int], Mapping[str, Evaluator]]
    """Those of a step."""
    mesh: Mesh

    @jax.transfer_guard("allow")
    def run(self, state: TrainState, step: int) -> Row | None:
        if self.progress.stopping:
            return None
        try:
            with self.tools.goodput.phase("validation"):
                found = run_evaluators(self.evaluators(step), state.model, self.mesh)
        except EvaluationInterrupted:
            self.progress.stopping = True
            return None
        self.progress.figures |= found
        self.tools.line.print(f"train: step {step:,}  {', '.join(figure_text(*figure) for figure in found.items())}")
        return found


FIGURES = {"validation_loss": "validation loss {:.3f} nats/token", "validation_bits_per_byte": "{:.3f} bits/byte"}


def figure_text(name: str, value: float) -> str:
    return FIGURES[name].format(value) if name in FIGURES else f"{name} {value:.4g}"


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
            text = sample(state.model, self.model, self.config, self.tokenizer, step, self.run_folder)
        self.tools.line.print(f"train: step {step:,}  sample: {for_terminal(' '.join(text.split())[:300])}")


@dataclass
class Snapshotting:
    """The parameters alone at train.snapshot_steps, before the first step too."""

    wanted: set[int]
    """The steps whose snapshot is not there yet."""
    tools: Instruments
    checkpoints: Checkpoints
    snapshots: Snapshots
    metadata: Mapping[str, Any]
    """What a snapshot says of its run."""
    every: int = 0

    def due(self, step: int) -> bool:
        return step in self.wanted

    @jax.transfer_guard("allow")
    def run(self, state: TrainState, step: int) -> None:
        self.tools.wait_for_step()
        self.wanted.discard(step)
        with self.tools.goodput.phase("saving"):
            self.checkpoints.settled()  # several processes settle one thing after the other
            self.snapshots.save(step, Parameters(state.model), self.metadata, certain=True)


@dataclass
class Verifying(Periodic):
    """Ends the run if a shard was found damaged, before a checkpoint would be made."""

    verification: ShardVerification

    def due(self, step: int) -> bool:
        return not self.verification.finished and (super().due(step) or step == self.progress.steps)

    def run(self, state: TrainState, step: int) -> None:
        with self.tools.goodput.phase("verifying"):
            self.verification.check()


@dataclass
class Checkpointing(Periodic):
    """Saves, last of all hooks, so that a run that resumes from this step finds all of it logged."""

    checkpoints: Checkpoints
    snapshots: Snapshots
    """Those of earlier steps are on disk before a checkpoint is."""
    config: TrainConfig
    metadata: Mapping[str, Any]
    """What a checkpoint says of its run."""
    saved_at: int
    """The step of the newest save."""
    asked: tuple[int, float] = (-1, 0.0)
    """When the clock was last looked at: step and seconds. (-1, 0.0): never."""
    saved_seconds: float = 0.0
    """When the newest save began."""
    ask_at: int = 0
    """The step at which process 0 looks at the clock again."""

    def due(self, step: int) -> bool:
        """A save that was left out, for a slow disk or a skipped step, is tried again after each step; while the disk
        is still busy, that costs the steps nothing."""
        if self.progress.stopping or step == self.progress.steps:
            return True
        newest = step // self.every * self.every if self.every else 0
        return (newest > self.saved_at or self.overdue(step)) and not self.checkpoints.held_up()

    def overdue(self, step: int) -> bool:
        """Whether train.checkpoint_every_seconds have passed since the newest save. Process 0 decides, and tells all
        processes the answer and the step of the next check, about 20 checks in that time, so that most steps need no
        message. All processes call this at the same steps."""
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

        with self.tools.goodput.phase("steps"):  # a process that waits here for process 0 is no straggler
            passed, self.ask_at = settle("clock", None, look)
        return passed

    @jax.transfer_guard("allow")
    def run(self, state: TrainState, step: int) -> None:
        self.tools.wait_for_step()
        blocking = self.progress.stopping or step == self.progress.steps
        # Checkpoints of a run that diverges must not push out those before it.
        if blocking or not self.tools.skipped.in_row:
            self.save(state, step, blocking)

    def save(self, state: TrainState, step: int, blocking: bool, evaluated: bool = True) -> None:
        """Begins a checkpoint of `step`, waiting for the one before it for as long as it takes if `blocking`. Unless
        `evaluated`, a run that resumes from it evaluates first. Raises InputError when the last update made a parameter
        that is not finite: nothing is saved of that."""
        if not all_finite(state.model):
            raise diverged(f"The parameters after step {step} are not all finite", self.config)
        metadata = dict(self.metadata) | {"evaluated": evaluated and not self.progress.stopping} | self.progress.figures
        with self.tools.goodput.phase("saving"):
            self.snapshots.settled()
            if self.checkpoints.save(step, state, metadata, blocking):
                self.saved_at, self.saved_seconds = step, time.monotonic()

    @jax.transfer_guard("allow")
    def save_before_error(self, state: TrainState, step: int, evaluated: bool = True) -> None:
        """Saves what was made before damaged data or a failed evaluation. Several processes would wait for those in
        which nothing failed."""
        if jax.process_count() == 1 and self.checkpoints.settled() and step not in {0, *self.checkpoints.steps()}:
            self.tools.skipped.wait()
            self.save(state, step, blocking=True, evaluated=evaluated)


@jax.jit
def all_finite(tree: object) -> jax.Array:
    return jnp.all(jnp.array([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]))


SAMPLE_TEMPERATURE = 0.8  # during training; samples of the finished model have temperatures in the config


def sample(
    model: Transformer, model_config: ModelConfig, config: TrainConfig, tokenizer: Tokenizer, step: int, run: RunPaths
) -> str:
    """Saves and returns a sample; its randomness depends on the seed and the step alone. A full disk ends no run."""
    key = jax.random.fold_in(jax.random.key(config.seed), step)
    (text,) = sample_texts(
        model, model_config, tokenizer, [config.sample_prompt], [SAMPLE_TEMPERATURE], config.sample_tokens, key
    )
    row = {"step": step, "prompt": config.sample_prompt, "temperature": SAMPLE_TEMPERATURE, "text": text}
    if jax.process_index() == 0:
        try:
            write_json(run.sample(step), row)
        except OSError as error:
            print(f"train: the sample at step {step:,} is not saved, and training goes on: {error}", flush=True)
    return text


def remove_later_samples(folder: Path, step: int) -> None:
    """Removes samples that an interrupted run took after its last checkpoint; they are taken again. A file that holds
    anything else is no sample of the run, and stays."""
    for path in folder.glob("step-*.json"):
        number = path.stem.removeprefix("step-")
        if number.isdecimal() and int(number) > step and is_sample(path, int(number)):
            path.unlink()


def is_sample(path: Path, step: int) -> bool:
    """Whether the file is what `sample` writes of this step."""
    try:
        row = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        return False
    return isinstance(row, dict) and row.keys() == {"step", "prompt", "temperature", "text"} and row["step"] == step
