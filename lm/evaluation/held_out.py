"""Loss and bits per byte of held-out text, and the evaluator used during training, which evaluates the same few batches
every time.

Axes: B windows, T positions.
"""

import math
from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float

from lm.data.batches import Batch, BatchSource
from lm.evaluation.evaluator import EvaluationInterrupted, EvaluatorConfig
from lm.model.loss import token_losses
from lm.model.transformer import Transformer
from lm.parallel import constrain, devices_of, on_host, shard_batch, traced_on
from lm.tokenizer import Tokenizer


def batch_losses(model: Transformer, batch: Batch) -> Float[Array, "B T"]:
    """Return -log p of every target in nats, 0 where its weight is 0. Not differentiable."""
    x_BTD = model.read(batch.inputs_BT, batch.segment_ids_BT)
    losses_BT = token_losses(x_BTD, model.output_table(), batch.targets_BT, model.logit_softcap)
    return losses_BT * batch.weights_BT


def compile_row_losses() -> Callable[[Transformer, Batch], Float[Array, " B"]]:
    """Return a jitted function (model, batch) -> sum of each row's losses in nats, (B,), replicated on all devices.

    Callers add the rows up in float64: a float32 sum over millions of tokens would lose digits.
    """
    return jax.jit(lambda model, batch: constrain(jnp.sum(batch_losses(model, batch), axis=-1), None))


def rows_on(mesh: Mesh, batch_size: int) -> int:
    """Return `batch_size` rounded up to a multiple of the number of data-parallel devices in `mesh`."""
    devices = devices_of("batch", mesh)
    return devices * math.ceil(batch_size / devices)


def byte_lengths(tokenizer: Tokenizer) -> np.ndarray:
    """Return the number of text bytes that each token id stands for: (vocabulary,) int64; 0 for special tokens."""
    lengths = np.array([len(tokenizer.token_bytes(i)) for i in range(tokenizer.vocab_size)], np.int64)
    lengths[list(tokenizer.special_tokens.values())] = 0
    return lengths


def count_text_bytes(lengths: np.ndarray, tokens: np.ndarray, heads: np.ndarray) -> int:
    """Return the number of UTF-8 bytes of text in `tokens`, the divisor of all bits per byte in training and
    evaluation. `lengths` is `byte_lengths` of the tokenizer.

    `heads`, of the shape of `tokens`, is True for the BOS token at the start of each document. It is not counted as
    text, even if it is an ordinary character, such as the newline of a `characters` tokenizer.
    """
    return int(lengths[tokens[~heads]].sum())


class HeldOutLoss:
    """Computes mean loss and bits per byte over batches. Compiles once."""

    def __init__(self, config: EvaluatorConfig):
        self.config, self.row_losses = config, compile_row_losses()

    def figures(self, model: Transformer, mesh: Mesh, batches: Iterable[Batch], text_bytes: int) -> dict[str, float]:
        """Return {"validation_loss": nats per target, "validation_bits_per_byte": bits per byte of text}.

        `text_bytes` is the number of UTF-8 bytes of text in the targets (`count_text_bytes`). BOS targets count in the
        loss and the bits, but have no bytes. Raises EvaluationInterrupted if `config.should_stop()` returns True.
        """
        nats = targets = 0.0
        row_losses = traced_on(mesh, self.row_losses)
        for batch in batches:
            if self.config.should_stop():
                raise EvaluationInterrupted
            nats += float(
                np.sum(on_host(row_losses(model, shard_batch(batch, mesh, self.config.batch_size))), dtype=float)
            )
            targets += float(np.sum(batch.weights_BT))
            self.config.show(f"{targets:,.0f} tokens  loss {nats / targets:.3f}")
        return {"validation_loss": nats / targets, "validation_bits_per_byte": nats / math.log(2) / text_bytes}


class Validation:
    """Evaluator `validation`: loss and bits per byte of the first config.batches batches of held-out windows."""

    def __init__(self, config: EvaluatorConfig):
        """If there are fewer than config.batches batches, uses all and reports that."""
        self.config, self.loss = config, HeldOutLoss(config)
        source = BatchSource(
            config.tokens, "val", config.model.context_length, config.batch_size, seed=0, loader_threads=1,
            tokenizer_fingerprint=config.tokenizer.fingerprint,
        )  # fmt: skip
        available = -(-source.windows // config.batch_size)
        wanted = available if config.batches is None else min(config.batches, available)
        if config.batches is not None and wanted < config.batches:
            asked = config.batches * config.batch_size
            config.say(
                f"train.validation_batches asks for {asked:,} sequences, but the validation split holds "
                f"{source.windows:,} of {config.model.context_length:,} tokens; all are used"
            )
        self.batches = list(source.iterate(stop_step=wanted))
        lengths = byte_lengths(config.tokenizer)
        self.text_bytes = 0
        for i, batch in enumerate(self.batches):
            scored_BT = np.asarray(batch.weights_BT) > 0
            targets, heads = np.asarray(batch.targets_BT)[scored_BT], source.heads(i)[scored_BT]
            self.text_bytes += count_text_bytes(lengths, targets, heads)

    def run(self, model: Transformer, mesh: Mesh) -> dict[str, float]:
        return self.loss.figures(model, mesh, self.batches, self.text_bytes)
