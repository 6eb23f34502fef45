"""What is told on the way beside the loss: the loss of a few held-out batches, and samples."""

import json
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh

from lm.config import ModelConfig, TrainConfig
from lm.data.batches import BatchSource
from lm.errors import UsageError
from lm.evaluation.bits_per_byte import bits_per_byte, byte_lengths, compile_token_losses, count_text_bytes
from lm.inference.generate import sample_texts
from lm.metrics.meter import MetricsLog
from lm.model.transformer import Transformer
from lm.parallel import on_host, place, traced_on
from lm.resilience.goodput import Timeline
from lm.resilience.preemption import Stops
from lm.storage import write_json
from lm.terminal import LiveLine, for_terminal
from lm.tokenizer import Tokenizer

SAMPLE_TEMPERATURE = 0.8  # of the samples on the way; those of the finished model have temperatures in the config


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
        lengths = byte_lengths(self.tokenizer)
        self.text_bytes = 0
        for i, batch in enumerate(self.batches):
            scored_BT = np.asarray(batch.weights_BT) > 0
            self.text_bytes += count_text_bytes(
                lengths, np.asarray(batch.targets_BT)[scored_BT], source.heads(i)[scored_BT]
            )

    def run(self, model: Transformer, mesh: Mesh, stops: Stops | None = None) -> tuple[float, float] | None:
        """(mean loss in nats per token, bits per byte of text); None when `stops` has come between."""
        nats = tokens = 0.0
        token_losses = traced_on(mesh, self.token_losses)
        for batch in self.batches:
            if stops is not None and stops.alone_asked():
                return None
            losses_BT = on_host(token_losses(model, place(batch, mesh, self.config.batch_size)))
            nats += float(np.sum(losses_BT, dtype=np.float64))
            tokens += float(np.sum(batch.weights_BT))
        return nats / tokens, bits_per_byte(nats, self.text_bytes)


def sample(
    model: Transformer, model_config: ModelConfig, config: TrainConfig, tokenizer: Tokenizer, step: int, folder: Path
) -> str:
    """Saves and returns a sample; its randomness depends on the seed and the step alone. A full disk ends no run."""
    key = jax.random.fold_in(jax.random.key(config.seed), step)
    (text,) = sample_texts(
        model, model_config, tokenizer, [config.sample_prompt], [SAMPLE_TEMPERATURE], config.sample_tokens, key
    )
    row = {"step": step, "prompt": config.sample_prompt, "temperature": SAMPLE_TEMPERATURE, "text": text}
    if jax.process_index() == 0:
        try:
            write_json(folder / f"step-{step:08d}.json", row)
        except OSError as error:
            print(f"train: the sample at step {step:,} is not saved, and training goes on: {error}", flush=True)
    return text


@dataclass
class Telling:
    """Tells of a step, where it is due: on the terminal, in the metrics, in samples/."""

    validation: Validation
    mesh: Mesh
    log: MetricsLog
    line: LiveLine
    timeline: Timeline
    stops: Stops
    run: Path

    def tell(self, step: int, model: Transformer) -> dict[str, float] | None:
        """What was found, by name; None when the run is to end before all is told."""
        config, told = self.validation.config, {}
        last = step == config.steps
        if step % config.validate_every == 0 or last:
            with self.timeline.doing("validation"):
                losses = self.validation.run(model, self.mesh, self.stops)
            if losses is None:
                return None
            told = dict(zip(("validation_loss", "validation_bits_per_byte"), losses, strict=True))
            self.log.write(step, told)
            self.line.print(
                f"train: step {step:,}  validation loss {losses[0]:.3f} nats/token, {losses[1]:.3f} bits/byte"
            )
        if step % config.sample_every == 0 or last:
            if self.stops.alone_asked():
                return None
            with self.timeline.doing("samples"):
                model_config, tokenizer = self.validation.model_config, self.validation.tokenizer
                text = sample(model, model_config, config, tokenizer, step, self.run / "samples")
            self.line.print(f"train: step {step:,}  sample: {for_terminal(' '.join(text.split())[:300])}")
        return told


def remove_later_samples(folder: Path, step: int) -> None:
    """Takes away samples that an interrupted run took after its last checkpoint; they are taken again. A file that
    holds anything else is no sample of the run, and stays."""
    for path in folder.glob("step-*.json"):
        number = path.stem.removeprefix("step-")
        if number.isdecimal() and int(number) > step and is_sample(path, int(number)):
            path.unlink()


def is_sample(path: Path, step: int) -> bool:
    """Whether the file is what `sample` writes of this step."""
    try:
        row = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return False
    return isinstance(row, dict) and row.keys() == {"step", "prompt", "temperature", "text"} and row["step"] == step
