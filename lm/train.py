"""A training run, read from top to bottom: data, state, resume, loop."""

import contextlib
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from lm.batches import BatchSource
from lm.checkpoint import Checkpoints
from lm.chips import peak_rate
from lm.compiled_step import compile_ahead
from lm.config import TrainConfig
from lm.errors import InputError, UsageError
from lm.evaluate import bits_per_byte, byte_lengths, compile_token_losses
from lm.files import write_json
from lm.flops import count_parameters
from lm.generate import check_prompt, sample_texts
from lm.metrics import LiveLine, Meter, MetricsLog, for_terminal, live_text, memory
from lm.mixture import mixture_of
from lm.model.config import ModelConfig
from lm.model.transformer import Transformer
from lm.optimizer import make_optimizer
from lm.profiling import Profiler
from lm.schedule import learning_rate
from lm.sharding import batch_sharding, make_mesh, traced_on
from lm.sinks import import_wandb
from lm.tokenizer import Tokenizer, load
from lm.train_state import abstract_state, initial_state
from lm.train_step import compile_step

SAMPLE_TEMPERATURE = 0.8  # of the samples on the way; those of the finished model have temperatures in the config


def train(model_config: ModelConfig, config: TrainConfig, run: Path) -> None:
    """Trains from `run`/tokens and `run`/tokenizer up to config.steps, going on from the newest checkpoint in `run`.

    The folders of config.mixture are trained on too, as config.own_weight and their weights say. Leaves checkpoints/,
    metrics.jsonl, tensorboard/ and samples/step-*.json in `run`, wandb/ and profile/ if asked. The parameters at every
    step are the same, to the bit, whether or not the run was interrupted. Raises InputError or UsageError on shards or
    a checkpoint that do not fit the config.
    """
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
    optimizer = make_optimizer(config.optimizer, config.steps)
    abstract = abstract_state(model_config, optimizer, mesh)
    rate = learning_rate(config.optimizer, config.steps)
    tokens_per_step = config.batch_size * model_config.context_length
    parameters = count_parameters(model_config)
    print(
        f"train: {parameters:,} parameters, {config.steps:,} steps of {tokens_per_step:,} tokens, "
        f"{mesh.devices.size} x {mesh.devices.flat[0].device_kind}",
        flush=True,
    )
    for one in source.sources:
        epochs = config.steps * config.batch_size * one.share / len(one.windows)
        print(
            f"train: {one.share:.1%} of the sequences from {one.folder}, {one.tokens_per_epoch:,} tokens an epoch, "
            f"{epochs:.2f} epochs",
            flush=True,
        )

    # Cost
    jitted = compile_step(optimizer, abstract, mesh, config)
    step_function, cost = compile_ahead(jitted, abstract, validation.batches[0], mesh, model_config)
    peak, meaning = peak_rate(list(mesh.devices.flat), model_config, tokens_per_step)
    print(f"train: {cost}\ntrain: the peak rate for MFU is {meaning}", flush=True)

    # Resume
    settings = {"model": asdict(model_config), "train": asdict(config)}
    with (
        contextlib.closing(Checkpoints(run / "checkpoints", config.checkpoints_kept)) as checkpoints,
        contextlib.closing(MetricsLog(run, checkpoints.latest_step() or 0, config.wandb_project, settings)) as log,
        contextlib.closing(Profiler(run / "profile", config.profile_step, config.profile_steps)) as profiler,
    ):
        first = checkpoints.latest_step() or 0
        if first:
            state = checkpoints.restore(first, abstract)
            print(f"train: going on from the checkpoint at step {first:,}", flush=True)
        else:
            state = initial_state(model_config, optimizer, config.seed, mesh)
        remove_later_samples(run / "samples", first)

        # Loop
        batches = source.iterate(first)
        line, meter = LiveLine(), Meter(first, config.steps, tokens_per_step, cost.flops, peak)
        told_once = cost.row()
        for step in range(first + 1, config.steps + 1):
            last = step == config.steps
            logged, saved = (step % every == 0 or last for every in (config.log_every, config.checkpoint_every))
            with profiler.step(step), meter.training():
                batch = jax.device_put(meter.next(batches), batch_sharding(mesh))
                state, metrics = step_function(state, batch)
                if logged or saved:  # nothing is saved of a run that has diverged
                    loss, norm = float(metrics["loss"]), float(metrics["gradient_norm"])  # waits for the device
                    check_finite(loss, norm, step, config)
            if profile := profiler.after(step, metrics):
                line.end()
                print(f"train: {profile}", flush=True)
            if logged:
                row = {
                    "loss": loss,
                    "gradient_norm": norm,
                    "learning_rate": float(jnp.asarray(rate(step - 1))),
                }
                row |= meter.row(step) | memory(mesh.local_devices) | told_once
                told_once = {}
                log.write(step, row)
                line.show(f"train: {live_text(step, config.steps, row)}")
            if step % config.validate_every == 0 or last:
                loss, bits = validation.run(state.model, mesh)
                log.write(step, {"validation_loss": loss, "validation_bits_per_byte": bits})
                line.end()
                print(f"train: step {step:,}  validation loss {loss:.3f} nats/token, {bits:.3f} bits/byte", flush=True)
            if step % config.sample_every == 0 or last:
                text = sample(state.model, model_config, config, tokenizer, step, run / "samples")
                line.end()
                print(f"train: step {step:,}  sample: {for_terminal(' '.join(text.split())[:300])}", flush=True)
            # Last: whoever goes on from this checkpoint finds all that was to be told of its step.
            if saved:
                checkpoints.save(step, state)
        line.end()


def check_finite(loss: float, norm: float, step: int, config: TrainConfig) -> None:
    """Raises InputError when the run has diverged."""
    if not math.isfinite(loss) or not math.isfinite(norm):
        raise InputError(
            f"The loss at step {step} is {loss}, with a gradient norm of {norm}: the run has diverged, with "
            f"train.optimizer.learning_rate = {config.optimizer.learning_rate} and warmup_steps = "
            f"{config.optimizer.warmup_steps}. "
            "Lower the one or raise the other, and start in another --workdir."
        )


@dataclass
class Validation:
    """The same few batches of held-out documents at every call."""

    model_config: ModelConfig
    config: TrainConfig
    tokens: Path
    tokenizer: Tokenizer

    def __post_init__(self):
        source = BatchSource(
            self.tokens, "val", self.model_config.context_length, self.config.batch_size, seed=0, loader_threads=1,
            tokenizer_fingerprint=self.tokenizer.fingerprint,
        )  # fmt: skip
        available = -(-source.windows // self.config.batch_size)
        if self.config.validation_batches > available:
            raise UsageError(
                f"train.validation_batches = {self.config.validation_batches}, but the validation split holds "
                f"{available} batches of {self.config.batch_size}. Ask for at most {available}, or hold out more "
                "(shards.validation_fraction)."
            )
        self.batches = [source.batch(i) for i in range(self.config.validation_batches)]
        self.token_losses = compile_token_losses()
        self.byte_lengths = byte_lengths(self.tokenizer)

    def run(self, model: Transformer, mesh: Mesh) -> tuple[float, float]:
        """(mean loss in nats per token, bits per byte of text)."""
        nats = tokens = text_bytes = 0.0
        token_losses = traced_on(mesh, self.token_losses)
        for batch in self.batches:
            losses_BT = np.asarray(token_losses(model, jax.device_put(batch, batch_sharding(mesh))))
            nats += float(np.sum(losses_BT, dtype=np.float64))
            tokens += float(np.sum(batch.weights_BT))
            text_bytes += float(np.sum(self.byte_lengths[batch.targets_BT] * batch.weights_BT))
        return nats / tokens, bits_per_byte(nats, text_bytes)


def sample(
    model: Transformer, model_config: ModelConfig, config: TrainConfig, tokenizer: Tokenizer, step: int, folder: Path
) -> str:
    """Saves and returns a sample; its randomness depends on the seed and the step alone."""
    key = jax.random.fold_in(jax.random.key(config.seed), step)
    (text,) = sample_texts(
        model, model_config, tokenizer, [config.sample_prompt], [SAMPLE_TEMPERATURE], config.sample_tokens, key
    )
    row = {"step": step, "prompt": config.sample_prompt, "temperature": SAMPLE_TEMPERATURE, "text": text}
    write_json(folder / f"step-{step:08d}.json", row)
    return text


def remove_later_samples(folder: Path, step: int) -> None:
    """Takes away samples that an interrupted run took after its last checkpoint; they are taken again."""
    for path in folder.glob("step-*.json"):
        if int(path.stem.removeprefix("step-")) > step:
            path.unlink()
