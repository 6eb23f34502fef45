"""A training run, read from top to bottom: data, state, resume, loop."""

import contextlib
import functools
import importlib.metadata
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from lm.checkpoints.manager import Checkpoints
from lm.checkpoints.manifest import Kept, lengths, steps_in
from lm.config import ModelConfig, TrainConfig
from lm.data.batches import BatchSource
from lm.data.mixture import manifest_sha256, mixture_of
from lm.data.verify_shards import verify_shards
from lm.devices import target_of
from lm.errors import InputError
from lm.inference.generate import check_prompt
from lm.metrics.meter import Meter, MetricsLog, live_text, memory
from lm.metrics.profiling import Profiler
from lm.metrics.writers import import_wandb
from lm.model.attention_choice import explain, workload_of
from lm.parallel import make_mesh, own_rows, place
from lm.planning.flops import count_parameters
from lm.planning.hardware import peak_rate
from lm.planning.memory import check_training_memory
from lm.resilience.goodput import Timeline
from lm.resilience.multihost import all_agree
from lm.resilience.preemption import Stops
from lm.resilience.watchdog import Watchdog
from lm.terminal import LiveLine, duration, quantity
from lm.tokenizer import Tokenizer, load
from lm.training.aot_compile import compile_ahead, measure_step_seconds, worth_measuring
from lm.training.hooks import Telling, Validation, remove_later_samples
from lm.training.optimizer import make_optimizer
from lm.training.restore_or_init import begin, check_start
from lm.training.schedule import learning_rate
from lm.training.skipped_steps import BadSteps, diverged
from lm.training.state import TrainState, abstract_state, initial_state
from lm.training.step import compile_step


def train(model_config: ModelConfig, config: TrainConfig, run: Path, began: float | None = None) -> None:
    """Trains from `run`/tokens and `run`/tokenizer up to config.steps, going on from the newest checkpoint in `run`.

    The folders of config.mixture are trained on too, as config.own_weight and their weights say. Leaves checkpoints/,
    metrics.jsonl, tensorboard/, samples/step-*.json, goodput.json and heartbeat.json in `run`; bad_steps.jsonl, hangs/,
    wandb/ and profile/ where there is cause. The parameters at every step are the same, to the bit, whether or not the
    run was interrupted. `began` is when the process did, in seconds since 1970, if its time is to count from then.

    Raises InputError or UsageError on shards or a checkpoint that do not fit the config, and Stopped when the run was
    asked to end, and has saved.
    """
    check_training_memory(model_config, config, jax.local_devices(), jax.process_count())
    primary = jax.process_index() == 0
    say = functools.partial(print, flush=True) if primary else lambda text: None
    with contextlib.ExitStack() as stack:
        timeline = stack.enter_context(contextlib.closing(Timeline(run, began, jax.process_index())))
        stops = stack.enter_context(Stops(jax.process_count(), timeline.leave))

        # Data
        tokenizer = load(run / "tokenizer")
        source = BatchSource(
            mixture_of(config, run / "tokens"), "train", model_config.context_length, config.batch_size, config.seed,
            config.loader_threads, tokenizer.fingerprint,
        )  # fmt: skip
        validation = Validation(model_config, config, run / "tokens", tokenizer)
        check_prompt(tokenizer, config.sample_prompt, config.sample_tokens)  # now, not at the first sample
        if config.wandb_project:
            import_wandb(config.wandb_project)

        # State
        mesh = make_mesh(config.mesh, model_config, config.batch_size, micro_batches=config.micro_batches)
        if config.start.checkpoint and not steps_in(run / "checkpoints"):
            with timeline.doing("verifying"):
                check_start(model_config, config, tokenizer.fingerprint, files=True)
        optimizer = make_optimizer(config.optimizer, config.steps)
        given_up = threading.Event()
        share = jax.process_index(), jax.process_count()
        folders = [(one.folder, "train") for one in source.sources] + [(run / "tokens", "val")]
        reading = stack.enter_context(ThreadPoolExecutor(1, "verify"))  # while the step is compiled
        stack.callback(given_up.set)
        verified = reading.submit(verify_shards, folders if config.verify_shards else [], share, given_up)
        abstract = abstract_state(model_config, optimizer, mesh, config.spikes)
        rate = jax.jit(learning_rate(config.optimizer, config.steps))
        tokens_per_step = config.batch_size * model_config.context_length
        say(
            f"train: {count_parameters(model_config):,} parameters, {config.steps:,} steps of {tokens_per_step:,} "
            f"tokens, {mesh.devices.size} x {mesh.devices.flat[0].device_kind}"
        )
        work = workload_of(model_config, mesh.shape["context"])
        say(f"train: {explain(model_config.attention, target_of(mesh.devices.flat[0]), work)}")
        for one in source.sources:
            epochs = config.steps * config.batch_size * one.share / len(one.windows)
            say(
                f"train: {one.share:.1%} of the sequences from {one.folder}, {one.tokens_per_epoch:,} tokens an epoch, "
                f"{epochs:.2f} epochs"
            )

        # Cost
        with timeline.doing("compiling"):
            jitted = compile_step(optimizer, abstract, mesh, config)
            step_function, cost = compile_ahead(jitted, abstract, validation.batches[0], mesh, model_config)
        peak = peak_rate(list(mesh.devices.flat), model_config, tokens_per_step)
        say(f"train: {cost}\ntrain: {peak.meaning}")
        fresh = lambda: initial_state(model_config, optimizer, config.seed, mesh, config.spikes)
        step_seconds = None
        # Elsewhere the first logged line tells.
        if worth_measuring(config.steps * cost.flops, mesh.devices.flat[0].platform):
            with timeline.doing("compiling"):
                example = place(validation.batches[0], mesh, config.batch_size)
                step_seconds = measure_step_seconds(step_function, fresh, example)
        with timeline.doing("verifying"):
            all_verified(verified)

        # Resume
        about = identity(config, tokenizer, source, mesh)
        kept = Kept(config.checkpoints_kept, config.checkpoints_kept_every, config.checkpoints_kept_best)
        logs = run / "metrics.jsonl", run / "bad_steps.jsonl"
        checkpoints = Checkpoints(run / "checkpoints", kept, beside=logs)
        stack.callback(checkpoints.close, raising=False)
        with timeline.doing("restoring"):
            state, about_it = begin(checkpoints, config.start, abstract, fresh, about, say, timeline.went_on())
            first, untold = int(state.step), not about_it.get("told", True)
            if about_it.get("steps", config.steps) != config.steps:
                say(
                    f"train: a run of {about_it['steps']:,} steps until now; from step {first:,} on, the learning rate "
                    f"is that of a run of {config.steps:,}"
                )
            about |= lengths(about_it, config.steps)
            checkpoints.prepare(state)
        if step_seconds is not None and first < config.steps:
            left = config.steps - first
            say(
                f"train: {left:,} steps are {quantity(left * cost.flops, 'FLOP')} and take about "
                f"{duration(left * step_seconds)} here, at {step_seconds:.3g} s a step, measured just now; validation "
                "and samples come on top"
            )
        settings = {"model": asdict(model_config), "train": asdict(config)}
        log = stack.enter_context(
            contextlib.closing(MetricsLog(run, first, config.wandb_project, settings, primary, untold))
        )
        profiler = stack.enter_context(
            contextlib.closing(Profiler(run / "profile", config.profile_step, config.profile_steps))
        )
        bad_steps = stack.enter_context(contextlib.closing(BadSteps(run, source, config, first)))
        if primary:
            remove_later_samples(run / "samples", first)
        line, meter = LiveLine(quiet=not primary), Meter(first, config.steps, tokens_per_step, cost.flops, peak)
        telling = Telling(validation, mesh, log, line, timeline, stops, run)

        def save(step: int, told: dict[str, float] | None, certain: bool) -> bool:
            """Begins a checkpoint of `step`; what was not told, whoever goes on from it tells."""
            bad_steps.settle()
            check_parameters(state, step, config)
            with timeline.doing("saving"):
                return checkpoints.save(step, state, about | {"told": told is not None} | (told or {}), certain)

        # Loop
        timeline.busy = bad_steps.running
        stops.training = True
        timeline.begin(first)
        stack.enter_context(contextlib.closing(Watchdog(timeline, run / "hangs", config.hang_seconds)))
        told: dict[str, float] | None = {}
        if untold:
            told = telling.tell(first, state.model)
            if told is None:
                timeline.beat(first, "stopped")
                raise stops.stopped(first)
            checkpoints.amend(first, told | {"told": True})
        rows, told_once, due = own_rows(mesh, *validation.batches[0].inputs_BT.shape), cost.row(), False
        batches = source.iterate(first, rows)
        for step in range(first + 1, config.steps + 1):
            last = step == config.steps
            logged = step % config.log_every == 0 or last
            due = due or step % config.checkpoint_every == 0 or last
            # A save that was left out is tried again when the writer is free; until then it costs the steps nothing.
            saves = due and not checkpoints.held_up()
            with profiler.step(step), meter.training(), timeline.doing("steps"):
                try:
                    with timeline.doing("data"):
                        batch = meter.next(batches)
                except InputError:
                    # The steps before the damage are not lost. (Several processes would wait for those without it.)
                    if jax.process_count() == 1 and checkpoints.settled() and step - 1 not in {0, *checkpoints.steps()}:
                        save(step - 1, told, certain=True)
                    raise
                state, metrics = step_function(state, place(batch, mesh, config.batch_size, rows.start))
                bad_steps.see(step, metrics)
                if logged or saves:
                    bad_steps.settle()
            timeline.beat(step)
            if profile := profiler.after(step, metrics):
                line.print(f"train: {profile}")
            if logged:
                row = {name: float(metrics[name]) for name in ("loss", "gradient_norm")}
                left_out, taken = int(metrics["left_out"]), int(metrics["taken"])  # the optimizer counts those taken
                row |= {"left_out": left_out, "learning_rate": float(rate(step - left_out - taken))}
                row |= meter.row(step) | memory(mesh.local_devices) | told_once | timeline.shares()
                told_once = {}
                log.write(step, row)
                timeline.write()
                line.show(f"train: {live_text(step, config.steps, row)}")
            asked = stops.asked(step)
            told = None if asked else telling.tell(step, state.model)
            # Last, so that a run that goes on from this checkpoint finds all of its step logged. Not after a step that
            # was left out: checkpoints of a run that diverges must not push out those before it.
            certain = told is None or last
            if (certain or (saves and not bad_steps.in_row)) and save(step, told, certain):
                due = False
            if told is None:
                line.end()
                with timeline.doing("saving"):
                    checkpoints.close()
                timeline.beat(step, "stopped")
                raise stops.stopped(step)
        line.end()
        with timeline.doing("saving"):
            checkpoints.close()
        if stops.alone_asked():  # during the last save; there may be more to do than training
            timeline.beat(config.steps, "stopped")
            raise stops.stopped(config.steps)
        timeline.beat(config.steps, "done")
        say(f"train: {timeline.table()}")


def all_verified(verified: Future[int]) -> None:
    """Waits for the shards to be read through, in all processes. Raises InputError where one of them is not whole."""
    error = None
    try:
        verified.result()
    except InputError as raised:
        error = raised
    if jax.process_count() > 1 and not all_agree(error is None):
        error = error or InputError("Another process found a shard that is not whole; see what it says.")
    if error is not None:
        raise error


def identity(config: TrainConfig, tokenizer: Tokenizer, source: BatchSource, mesh: Mesh) -> dict[str, Any]:
    """What a checkpoint says of its run: restore_or_init.py compares some of it with the run that goes on from it."""
    versions = {name: importlib.metadata.version(name) for name in ("jax", "flax", "optax", "orbax-checkpoint")}
    data = [{"manifest": manifest_sha256(one.folder), "share": one.share} for one in source.sources]
    return {
        "seed": config.seed,
        "tokenizer": tokenizer.fingerprint,
        "data": data,
        "mesh": dict(mesh.shape),
        "processes": jax.process_count(),
        "versions": versions,
    }


@jax.jit
def all_finite(tree: object) -> jax.Array:
    return jnp.all(jnp.array([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]))


def check_parameters(state: TrainState, step: int, config: TrainConfig) -> None:
    """Raises InputError when the last update made a parameter that is not finite: nothing is saved of that."""
    if not all_finite(state.model):
        raise diverged(f"The parameters after step {step} are not all finite", config)
