"""Training loop: build the run (setup.py), then execute its steps and call its hooks (hooks.py) after each."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax

from lm.config import ModelConfig, TrainConfig
from lm.errors import InputError
from lm.metrics.writers import Row
from lm.parallel import own_rows, shard_batch
from lm.resilience.goodput import Goodput
from lm.resilience.watchdog import Watchdog
from lm.run_paths import RunPaths
from lm.training.hooks import Hook
from lm.training.setup import Data, Program, Run, describe, open_shards, setup
from lm.training.state import TrainState


def train(
    model: ModelConfig,
    config: TrainConfig,
    folder: Path,
    goodput: Goodput | None = None,
    open_data: Callable[..., Data] = open_shards,
) -> None:
    """Train on `folder`/tokens with `folder`/tokenizer up to config.steps, resuming from the newest checkpoint in
    `folder`.

    Folders in config.mixture are trained on too, with weights from config.mixture and config.own_weight. Writes
    checkpoints/, metrics.jsonl, tensorboard/, samples/step-*.json, goodput.json and heartbeat.json to `folder`, and if
    needed skipped_steps.jsonl, hangs/, wandb/ and profile/. Parameters at each step are bit-identical whether or not
    the run was interrupted. `goodput` counts the time, by default from now on. `open_data`, called like `open_shards`,
    can open other data than shards.

    Raises InputError or UsageError if shards or a checkpoint do not match the config, and Stopped, after saving, if the
    process was asked to stop.
    """
    with contextlib.ExitStack() as stack:
        loop(setup(model, config, folder, goodput, stack, open_data))


def loop(run: Run) -> None:
    """Execute the remaining steps of `run`. Raises the same errors as `train`."""
    state, step, tools, progress = run.state, run.first_step, run.tools, run.progress
    tools.preemption.training = True
    tools.goodput.begin(step)
    tools.hosts.begin(step)
    hangs = RunPaths(run.folder).hangs
    with contextlib.closing(Watchdog(tools.goodput, hangs, run.config.hang_seconds, run.step_seconds)):
        if run.evaluation_pending:
            run_pending_evaluation(run)
        rows = functools.partial(own_rows, run.mesh)
        batches = run.source.iterate(step, rows, run.config.steps, lambda: state)
        stages = run.programs.stages
        stage, program = stages.at(step), run.programs.at(min(step, run.config.steps - 1))
        # An implicit transfer would make the host wait for the devices at every step.
        with jax.transfer_guard("disallow"):
            if run.snapshotting.due(step):
                run.snapshotting.run(state, step)
            while step < progress.steps and not progress.stopping:
                if stages.at(step) is not stage:
                    stage, program = stages.at(step), begin_stage(run, step)
                with tools.profiler.step(step + 1), tools.meter.training(), tools.goodput.phase("steps"):
                    batch = next_batch(run, batches, program, state, step)
                    if run.logging.due(step + 1):
                        tools.hosts.publish(step + 1)
                    state, progress.metrics = program.step(state, batch)
                    step, progress.figures = step + 1, {}
                    tools.skipped.record(step, progress.metrics)
                for hook in run.hooks:
                    if hook.due(step) and (row := run_hook(run, hook, state, step)):
                        tools.log.write(step, row)
        finish(run, step)


@jax.transfer_guard("allow")
def begin_stage(run: Run, step: int) -> Program:
    """Report that batch shape or mixture change after `step` steps; return the compiled step for the new shape."""
    program = run.programs.at(step)
    run.progress.cost = program.cost.row()
    run.tools.line.print(f"train: from step {step:,} on: {run.programs.stages.at(step).describe()}")
    run.tools.log.write_run(step, describe(run.programs, step))
    return program


def next_batch(run: Run, batches: Iterator[Any], program: Program, state: TrainState, step: int) -> Any:
    """Return the batch after `step` steps, on the devices. `batches` yields the rows of this process. If data is
    damaged, saves `state` and raises InputError."""
    try:
        with run.tools.goodput.phase("steps" if run.source.are_sampled else "data"):
            return shard_batch(run.tools.meter.next(batches), run.mesh, len(program.batch[0]), program.rows)
    except InputError:
        run.checkpointing.save_before_error(state, step)
        raise


def run_hook(run: Run, hook: Hook, state: TrainState, step: int) -> Row | None:
    """Run a hook and return its metrics. If an evaluation or sample fails, `state` is saved before the error."""
    try:
        return hook.run(state, step)
    except Exception:
        if hook in run.evaluations:
            run.checkpointing.save_before_error(state, step, evaluated=False)
        raise


def run_pending_evaluation(run: Run) -> None:
    """Run the evaluations and samples that the previous process left out at its last step because it was asked to stop.
    Raises Stopped if this process is asked to stop too."""
    for hook in run.evaluations if run.first_step else run.evaluations[:1]:  # before the first step, the evaluators
        if hook.due(run.first_step) and (row := hook.run(run.state, run.first_step)):
            run.tools.log.write(run.first_step, row)
    if run.progress.stopping:
        run.tools.goodput.beat(run.first_step, "stopped")
        raise run.tools.preemption.stopped(run.first_step)
    if run.first_step:
        run.checkpoints.amend(run.first_step, run.progress.found() | {"evaluated": True})


def finish(run: Run, step: int) -> None:
    """Wait for the last saves, and report where the time went. Raises Stopped if the process was asked to stop."""
    tools = run.tools
    tools.line.end()
    with tools.goodput.phase("saving"):
        run.snapshotting.snapshots.close(raising=False)
        run.checkpoints.close()
    if run.progress.stopping or tools.preemption.requested_here():
        tools.goodput.beat(step, "stopped")
        raise tools.preemption.stopped(step)
    if (best := run.progress.best) is not None:
        run.checkpoints.delete_after(best.step)
        run.say(f"train: the result is step {best.step:,}, whose validation loss of {best.loss:.4f} is the lowest")
    tools.goodput.beat(step, "done")
    run.say(f"train: {tools.goodput.table()}")
