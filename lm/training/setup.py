"""Build everything a training run needs before its first step: data, mesh, compiled step, state, logs, hooks."""

import bisect
import contextlib
import functools
import importlib.metadata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from lm.checkpoints.manager import NO_HOOKS, Checkpoints, Parameters, SaveHooks, Snapshots
from lm.checkpoints.manifest import RetentionPolicy, folders_of, lengths, steps_in
from lm.config import ModelConfig, Stage, TrainConfig
from lm.data.batches import Batches, training_batches
from lm.devices import target_of
from lm.evaluation.evaluator import Evaluator, EvaluatorConfig
from lm.evaluation.evaluators import make_evaluators
from lm.fields import code_names
from lm.gpu_memory import gpu_memory_note
from lm.inference.requests import check_prompt
from lm.metrics.hardware import peak_rate
from lm.metrics.meter import Meter, MetricsLog
from lm.metrics.profiling import Profiler
from lm.metrics.writers import import_wandb
from lm.model.attention.choice import attention_spec_of, choose, explain
from lm.model.cost import count_parameters, flops_before
from lm.model.transformer import check_cache
from lm.parallel import own_rows, shard_batch, training_mesh
from lm.resilience.goodput import Goodput
from lm.resilience.multihost import settle
from lm.resilience.preemption import PreemptionHandler
from lm.resilience.stragglers import HostTimes
from lm.run_paths import TRAINING_LOGS, RunPaths
from lm.storage import local_copy_of, shown_place
from lm.terminal import LiveLine, duration, quantity
from lm.tokenizer import Tokenizer, load
from lm.training import hooks
from lm.training.aot_compile import (
    Step,
    StepCost,
    agree_on_program,
    compile_ahead,
    example_batch,
    measure_step_seconds,
    options_of,
    worth_measuring,
)
from lm.training.memory import check_training_memory
from lm.training.optimizer import make_optimizer
from lm.training.restore_or_init import check_start, restore_or_init
from lm.training.shard_verification import WAIT_SECONDS, ShardVerification
from lm.training.skipped_steps import SkippedSteps
from lm.training.state import TrainState, abstract_state, initializer
from lm.training.step import Gradients, compile_step, token_gradients
from lm.trusted_code import code_hashes

Say = Callable[[str], None]
MOST_EPOCHS = 4
"""Number of epochs up to which repeated text is nearly as useful as new text (Muennighoff et al. 2023,
arXiv:2305.16264)."""


@dataclass
class Data:
    """Training batches, and evaluators on held-out data."""

    tokenizer: Tokenizer
    source: Batches
    evaluators: Callable[[int], Mapping[str, Evaluator]]
    """Returns the evaluators to run after a number of steps; they use the context length of the last of these steps."""
    gradients_of: Gradients = token_gradients
    example: Callable[[Stage], Any] = lambda stage: example_batch(*stage.shape)
    """Returns a batch with the shapes and types that batches have in a stage."""


@dataclass
class Program:
    """Training step compiled for one batch shape."""

    step: Step
    batch: Any
    """Example batch of that shape."""
    cost: StepCost
    rows: np.ndarray
    """Rows of a batch that this process reads."""


class Programs:
    """Training steps compiled for all batch shapes of a run, and the shapes of its state."""

    def __init__(self, model: ModelConfig, config: TrainConfig, data: Data, mesh: Mesh):
        self.model, self.config, self.data, self.mesh = model, config, data, mesh
        self.stages = data.source.stages
        self.optimizer = make_optimizer(config.optimizer, config.steps)
        choices = config.spikes, config.mesh.zero1, config.ema_decay > 0, config.lora
        self.abstract = abstract_state(model, self.optimizer, mesh, *choices)
        """ShapeDtypeStructs with shardings, to restore into."""
        self.fresh: Any = initializer(model, self.optimizer, config.seed, mesh, *choices)
        """Jitted function that returns the state at step 0."""
        if jax.process_count() > 1:
            agree_on_program("initializer", self.fresh.lower())
        self._compiled: dict[tuple[int, int, int], Program] = {}

    def at(self, step: int) -> Program:
        """Return the compiled program for the batch shape at `step`. Each shape is compiled once."""
        stage = self.stages.at(step)
        key = (*stage.shape, stage.micro_batches)
        if key not in self._compiled:
            batch, config = self.data.example(stage), self.config.of_stage(stage)
            program = compile_step(self.optimizer, self.abstract, self.mesh, config, self.data.gradients_of)
            compiled = compile_ahead(
                program, self.abstract, batch, self.mesh, stage.model(self.model), config.xla_options, stage.tokens
            )
            self._compiled[key] = Program(compiled[0], batch, compiled[1], own_rows(self.mesh, *stage.shape))
        return self._compiled[key]


@dataclass
class Run:
    """Training run that is ready for its next step."""

    config: TrainConfig
    folder: Path
    mesh: Mesh
    source: Batches
    programs: Programs
    state: TrainState
    """Initial state of the loop."""
    first_step: int
    """Number of steps done before."""
    evaluation_pending: bool
    """The evaluations and samples of first_step were omitted because the process was asked to stop."""
    checkpoints: Checkpoints
    progress: hooks.Progress
    tools: hooks.Instruments
    logging: hooks.Logging
    evaluations: list[hooks.Hook]
    snapshotting: hooks.Snapshotting
    """Also called before the first step."""
    checkpointing: hooks.Checkpointing
    hooks: list[hooks.Hook]
    """Called in this order after every step for which they are due."""
    say: Say
    step_seconds: float
    """Time of a step, measured before training; 0.0 if it was not measured."""


def setup(
    model: ModelConfig, config: TrainConfig, folder: Path, goodput: Goodput | None, stack: contextlib.ExitStack,
    open_data: Callable[..., Data],
) -> Run:  # fmt: skip
    """Build the run in `folder`, ready for its next step. `stack` closes its resources. Raises as `train` does."""
    config.check_model(model)
    primary, paths = jax.process_index() == 0, RunPaths(folder)
    checkpoint_folder, snapshot_folder = folders_of(paths)
    say: Say = functools.partial(print, flush=True) if primary else lambda text: None
    closing = lambda resource: stack.enter_context(contextlib.closing(resource))
    goodput = closing(goodput or Goodput(folder, process=jax.process_index()))
    preemption = stack.enter_context(PreemptionHandler(jax.process_count(), goodput.stop_before_training))
    profiler = closing(Profiler(paths.profile, config.profile_step, config.profile_steps))
    if served := profiler.serve():
        print(f"train: {served}", flush=True)  # in every process: each has its own server

    data = open_data(model, config, folder, preemption, say)
    check_training_memory(model, config, jax.local_devices(), jax.process_count(), data.source.stages)
    if config.sample_every:
        check_cache(model)
        check_prompt(data.tokenizer, config.sample_prompt, config.sample_tokens)
    if config.wandb_project:
        import_wandb(config.wandb_project)
    mesh = training_mesh(config, model)
    if config.start.checkpoint and not steps_in(checkpoint_folder):
        with goodput.phase("verifying"):
            check_start(model, config, data.tokenizer.fingerprint, files=True)
    # Shards that no earlier start has verified are verified while the step is compiled.
    splits = [(one.folder, "train") for one in data.source.sources]
    splits += [(shown_place(paths.tokens), "val")] if config.validate_every else []
    verified = ShardVerification(splits if config.verify_shards else [], paths.verified_shards, stack)

    if mesh.devices.flat[0].platform == "gpu" and (note := gpu_memory_note()):
        say(f"train: {note}")
    say(f"train: compiling the step for {mesh.devices.size} x {mesh.devices.flat[0].device_kind}")
    newest = settle("newest checkpoint", None, lambda _: max(steps_in(checkpoint_folder), default=0))
    likely = min(newest, config.steps - 1)  # the first step, unless that checkpoint is damaged
    programs = Programs(model, config, data, mesh)
    goodput.work = programs.stages.windows_before
    with goodput.phase("compiling"):
        # Compile all later stages too: one that does not fit into memory is rejected before the first step.
        for stage in programs.stages.between(likely, config.steps):
            programs.at(stage.first_step)
            goodput.beat_start()
        flops, program = flops_before(model, programs.stages), programs.at(likely)
        peak = peak_rate(list(mesh.devices.flat), model, programs.stages.at(0).tokens)
    for text in description_texts(describe(programs, likely), config, data.source):
        say(f"train: {text}")
    say(f"train: {program.cost}\ntrain: {peak.meaning}")
    step_seconds = None  # if the run is too short for a forecast, the first logged row shows the speed
    with goodput.phase("compiling"):
        if not data.source.are_sampled and worth_measuring(flops(config.steps), mesh.devices.flat[0].platform):
            batch = shard_batch(program.batch, mesh, program.batch.inputs_BT.shape[0])
            step_seconds = measure_step_seconds(program.step, programs.fresh, batch)
    with goodput.phase("verifying"):
        verified.check(WAIT_SECONDS)
    if not verified.finished:
        say("train: the shards are still being compared with their SHA-256; training continues meanwhile")

    save_hooks = NO_HOOKS
    if (copy := local_copy_of(folder)) is not None:  # in a bucket: check write access before a save, upload the logs
        save_hooks = SaveHooks(copy.may_write, lambda: copy.push(copy.here(TRAINING_LOGS)))
    kept = RetentionPolicy(config.checkpoints_kept, config.checkpoints_kept_every, config.checkpoints_kept_best)
    checkpoints = Checkpoints(
        checkpoint_folder, kept, sidecars=(paths.metrics, paths.skipped_steps), hooks=save_hooks
    )  # fmt: skip
    stack.callback(checkpoints.close, raising=False)
    own = identity(model, config, data.tokenizer, data.source, mesh)
    with goodput.phase("restoring"):
        state, found = restore_or_init(
            checkpoints,
            config.start,
            programs.abstract,
            programs.fresh,
            own,
            say=say,
            has_resumed=goodput.has_resumed(),
        )
        checkpoints.prepare(state)
    first = int(state.step)
    pending = not found.get("evaluated", first > 0 or not data.source.are_sampled)
    metadata = own | lengths(found, config.steps)
    if found.get("steps", config.steps) != config.steps:
        say(
            f"train: so far a run of {found['steps']:,} steps; from step {first:,} on, the learning rate is that of a "
            f"run of {config.steps:,}"
        )
    if step_seconds is not None and first < config.steps:
        left = flops(config.steps) - flops(first)
        seconds = step_seconds * left / program.cost.flops
        say(
            f"train: {config.steps - first:,} steps are {quantity(left, 'FLOP')} and take about {duration(seconds)} "
            f"here, at {seconds / (config.steps - first):.3g} s a step, measured just now; validation and samples come "
            "on top"
        )

    meter = Meter(first, config.steps, programs.stages.tokens_before, flops, peak)
    settings = {"model": asdict(model), "train": asdict(config)}
    log = closing(MetricsLog(folder, first, config.wandb_project, settings, primary, pending))  # drops later rows
    skipped = closing(SkippedSteps(folder, data.source.documents, config, first))
    goodput.busy = skipped.running
    line = LiveLine(quiet=not primary)
    tools = hooks.Instruments(goodput, HostTimes(goodput), preemption, skipped, meter, profiler, log, line)
    log.write_run(first, describe(programs, min(first, config.steps - 1)))
    if primary:
        hooks.remove_later_samples(RunPaths(folder).samples, first)
    progress = hooks.Progress(config.steps, cost=programs.at(min(first, config.steps - 1)).cost.row())
    best = hooks.Best.stored(found) if config.patience else None
    if best is not None and best.step in settle("best checkpoint", None, lambda _: checkpoints.steps()):
        progress.best = best
        if not pending and best.waited(first, config.validate_every) >= config.patience:
            progress.steps = first  # it had ended, and was killed before it deleted later checkpoints

    snapshots = Snapshots(snapshot_folder, hooks=save_hooks)
    stack.callback(snapshots.close, raising=False)
    wanted = {step for step in config.snapshot_steps if first <= step <= config.steps}
    wanted -= snapshots.of_run(first, metadata)  # those of this run are kept
    if wanted:
        snapshots.prepare(Parameters(state.model_to_use))
    snapshotting = hooks.Snapshotting(wanted, tools, checkpoints, snapshots, metadata)
    checkpointing = hooks.Checkpointing(
        config.checkpoint_every, progress, tools, checkpoints, snapshots, config, metadata, saved_at=first
    )
    evaluations: list[hooks.Hook] = [
        hooks.Evaluation(config.validate_every, progress, tools, data.evaluators, mesh),
        hooks.Patience(config.validate_every if config.patience else 0, progress, tools, config.patience),
        hooks.Samples(config.sample_every, progress, tools, model, config, data.tokenizer, paths),
        *hooks.own_hooks(hooks.HookConfig(model, config, data.tokenizer, mesh, paths), progress, tools),
    ]
    logging = hooks.Logging(config.log_every, progress, tools, mesh.local_devices)
    in_order = [
        hooks.Heartbeat(1, progress, tools), hooks.Profile(1 if config.profile_step else 0, progress, tools), logging,
        hooks.Preemption(1, progress, tools), *evaluations, snapshotting,
        hooks.Verifying(config.checkpoint_every, progress, tools, verified), checkpointing,
    ]  # fmt: skip
    return Run(
        config, folder, mesh, data.source, programs, state, first, pending, checkpoints, progress, tools, logging,
        evaluations, snapshotting, checkpointing, in_order, say, step_seconds or 0.0,
    )  # fmt: skip


def open_shards(model: ModelConfig, config: TrainConfig, folder: Path, preemption: PreemptionHandler, say: Say) -> Data:
    """Open tokenizer, batches and evaluators. Raises UsageError or InputError if one is invalid."""
    tokenizer = load(RunPaths(folder).tokenizer)
    tokens = shown_place(RunPaths(folder).tokens)
    source = training_batches(model, config, tokens, tokenizer.fingerprint, config.loader_threads)
    if warning := source.warning():
        say(f"train: {warning}")

    reached = source.stages.between(0, config.steps)

    @functools.cache
    def evaluators_of(context: int) -> dict[str, Evaluator]:
        if not config.validate_every:
            return {}
        # As many rows as a micro-batch: more would need more memory here than in the step.
        rows = max(stage.shape[0] // stage.micro_batches for stage in reached if stage.context_length == context)
        batches = -(-config.validation_batches * source.stages.largest(config.steps).tokens // (rows * context))
        made = EvaluatorConfig(
            replace(model, context_length=context), tokenizer, tokens, rows, context, batches, config.tasks,
            say=lambda text: say(f"train: {text}"), should_stop=preemption.requested_here,
        )  # fmt: skip
        return make_evaluators(config.evaluators, made, "train.evaluators")

    for stage in reached:
        evaluators_of(stage.context_length)
    return Data(tokenizer, source, lambda step: evaluators_of(source.stages.at(max(step - 1, 0)).context_length))


def describe(programs: Programs, step: int) -> dict[str, Any]:
    """Return the "run" row of metrics.jsonl: model, mesh, batch shape and hardware from `step` on."""
    model, config, mesh, stage = programs.model, programs.config, programs.mesh, programs.stages.at(step)
    device, spec = mesh.devices.flat[0], attention_spec_of(stage.model(model), mesh.shape["context"])
    return {
        "parameters": count_parameters(model),
        "steps": config.steps,
        "tokens_per_step": stage.tokens,
        "context_length": stage.context_length,
        "step_flops": programs.at(step).cost.flops,
        "attention": choose(model.attention, target_of(device), spec),
        "attention_choice": explain(model.attention, target_of(device), spec),
        "remat": config.remat,
        "scan_layers": model.scan_layers,
        "micro_batches": stage.micro_batches,
        "mesh": dict(mesh.shape),
        "devices": mesh.devices.size,
        "device_kind": device.device_kind,
        "processes": jax.process_count(),
        "xla_options": options_of(config.xla_options, target_of(device).platform),
    }


def description_texts(run: dict[str, Any], config: TrainConfig, source: Batches) -> Iterator[str]:
    """Yield lines for the terminal that describe a run and its data, from `run`, the result of `describe`."""
    stages = source.stages.between(0, config.steps)
    each = f"steps of {run['tokens_per_step']:,} tokens"
    if len(stages) > 1:
        each = f"steps, {source.stages.tokens_before(config.steps):,} tokens in all"
    yield f"{run['parameters']:,} parameters, {run['steps']:,} {each}, {run['devices']} x {run['device_kind']}"
    mesh = " x ".join(f"{axis} {size}" for axis, size in run["mesh"].items())
    layers = "scanned" if run["scan_layers"] else "unrolled"
    yield f"mesh {mesh}, layers {layers}, remat {run['remat']}, micro-batches {run['micro_batches']}"
    if used := run.get("xla_options"):
        yield f"XLA options: {' '.join(used)}"
    yield run["attention_choice"]
    for stage in stages if len(stages) > 1 else ():
        yield f"from step {stage.first_step:,} on: {stage.describe()}"
    read = source.windows_read(config.steps)
    for index, one in enumerate(source.sources):
        epochs = read[index] / len(one.windows)
        yield (
            f"{read[index] / sum(read):.1%} of the sequences from {one.folder}, {one.tokens_per_epoch:,} tokens an "
            f"epoch, {epochs:.2f} epochs"
        )
        if epochs > MOST_EPOCHS and not config.patience:
            windows = MOST_EPOCHS * len(one.windows)
            of_source = lambda step, index=index: source.windows_read(step)[index]
            fewer = max(bisect.bisect_right(range(config.steps), windows, key=of_source) - 1, 1)
            yield (
                f"warning: {epochs:.1f} epochs of {one.folder}. From {MOST_EPOCHS} on, repeated text helps less, and "
                f"the model begins to memorize it (arXiv:2305.16264). Add text, or --train.steps {fewer}"
            )


def identity(
    model: ModelConfig, config: TrainConfig, tokenizer: Tokenizer, source: Batches, mesh: Mesh
) -> dict[str, Any]:
    """Return checkpoint metadata that identifies the run: seed, tokenizer, data, mesh, versions. Resuming compares the
    seed, tokenizer and data (lm/training/restore_or_init.py)."""
    code = code_hashes(code_names(model, "model."))
    versions = {name: importlib.metadata.version(name) for name in ("jax", "flax", "optax", "orbax-checkpoint")}
    return {
        "seed": config.seed,
        "tokenizer": tokenizer.fingerprint,
        "data": source.identity(),
        "mesh": dict(mesh.shape),
        "processes": jax.process_count(),
        "versions": versions,
    } | ({"model_code": code} if code else {})
