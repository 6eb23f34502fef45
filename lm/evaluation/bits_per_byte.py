"""The model as a zip file of its corpus: bits per byte on held-out documents, beside what general compressors need.

A language model and an arithmetic coder are a compressor: a token of probability p takes -log2 p bits (Shannon 1948;
Delétang et al., arXiv:2309.10668). Bits per byte of text do not depend on the tokenizer, so that any two models can
be compared.

Axes: B windows, T positions, N tokens of the whole stream.
"""

import gzip
import lzma
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np
import zstandard
from jax.sharding import Mesh
from jaxtyping import Array, Float

from lm.config import EvaluateConfig, MeshConfig, ModelConfig
from lm.data.batches import Batch, document_stream, host_batch
from lm.errors import InputError
from lm.model.loss import token_losses
from lm.model.transformer import Transformer
from lm.parallel import devices_of, make_mesh, on_host, place, traced_on
from lm.terminal import LiveLine
from lm.tokenizer.encoding import Tokenizer


def compile_token_losses() -> Callable[[Transformer, Batch], Float[Array, "B T"]]:
    """A jitted (model, batch) -> -log p of every target in nats, 0 where its weight is 0."""

    def losses(model: Transformer, batch: Batch) -> Float[Array, "B T"]:
        x_BTD = model.read(batch.inputs_BT, batch.segment_ids_BT)
        return token_losses(x_BTD, model.output_table(), batch.targets_BT, model.logit_softcap) * batch.weights_BT

    return jax.jit(losses)


def byte_lengths(tokenizer: Tokenizer) -> np.ndarray:
    """(vocabulary,) int64: bytes of text that each id stands for; 0 for special tokens, which are no text."""
    lengths = np.array([len(tokenizer.token_bytes(i)) for i in range(tokenizer.vocabulary_size)], np.int64)
    lengths[list(tokenizer.special_tokens.values())] = 0
    return lengths


def count_text_bytes(lengths: np.ndarray, tokens: np.ndarray, heads: np.ndarray) -> int:
    """UTF-8 bytes of text that `tokens` stand for, given `byte_lengths` of their tokenizer.

    `heads`, of the shape of `tokens`, is True where a token is the head of a document. Heads are not text, even where
    they are an ordinary symbol, such as the newline of a `characters` tokenizer. Every figure in bits per byte, in the
    training loop and in the evaluation, divides by this count.
    """
    return int(lengths[tokens[~heads]].sum())


def bits_per_byte(nats: float, text_bytes: int) -> float:
    """Bits per byte of text from a summed loss. The heads of documents cost bits too, but add no bytes."""
    return nats / math.log(2) / text_bytes


def strided_windows(
    tokens_N: np.ndarray, segments_N: np.ndarray, context: int, stride: int, batch_size: int
) -> Iterator[Batch]:
    """Batches of overlapping windows in which every token but the stream's first is a target with weight 1 exactly
    once.

    Each window moves on by `stride`; all its tokens but the last `stride` are only read as context, so that every
    target but the first few sees at least context - stride tokens (where its document has as many). The last batch is
    filled up with rows of weight 0.
    """
    starts = [0]
    while starts[-1] + context < len(tokens_N) - 1:
        starts.append(starts[-1] + stride)
    for first in range(0, len(starts), batch_size):
        shape = (batch_size, context)
        inputs_BT, targets_BT = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
        segments_BT, weights_BT = np.zeros(shape, np.int32), np.zeros(shape, np.float32)
        for row, start in enumerate(starts[first : first + batch_size]):
            window = tokens_N[start : start + context + 1]
            real = len(window) - 1
            inputs_BT[row, :real], targets_BT[row, :real] = window[:-1], window[1:]
            segments = segments_N[start : start + real]
            segments_BT[row, :real] = segments - segments[0] + 1
            weights_BT[row, 0 if start == 0 else context - stride : real] = 1.0
        yield host_batch(inputs_BT, targets_BT, segments_BT, weights_BT)


def compressed_bits_per_byte(text: bytes, content_bytes: int) -> dict[str, float]:
    """What gzip -9, xz -9e and zstd -19 need for `text`, in bits for each of its `content_bytes`."""
    sizes = {
        "gzip_bits_per_byte": len(gzip.compress(text, compresslevel=9, mtime=0)),
        "xz_bits_per_byte": len(lzma.compress(text, preset=9 | lzma.PRESET_EXTREME)),
        "zstd_bits_per_byte": len(zstandard.ZstdCompressor(level=19).compress(text)),
    }
    return {name: 8 * size / content_bytes for name, size in sizes.items()}


def summed_loss(
    model: Transformer,
    model_config: ModelConfig,
    config: EvaluateConfig,
    tokens_N: np.ndarray,
    segments_N: np.ndarray,
    mesh: Mesh | None = None,
) -> float:
    """-log p of every token of the stream but the first, in nats, summed over the windows of `strided_windows`.

    The devices of `mesh`, over which the model is laid out, share the windows (one device, if no mesh is given); of
    several processes all must ask. The sum is the same within rounding on every mesh.
    """
    mesh = mesh or make_mesh(MeshConfig(), model_config, 1, jax.local_devices()[:1])
    rows = devices_of("batch", mesh) * math.ceil(config.batch_size / devices_of("batch", mesh))
    losses, line = traced_on(mesh, compile_token_losses()), LiveLine(quiet=jax.process_index() > 0)
    nats = scored = 0.0
    for batch in strided_windows(tokens_N, segments_N, model_config.context_length, config.stride, rows):
        losses_BT = on_host(losses(model, place(batch, mesh, rows)))
        nats += float(np.sum(losses_BT, dtype=np.float64))
        scored += float(np.sum(batch.weights_BT))
        line.show(f"evaluate: {scored:,.0f}/{len(tokens_N) - 1:,} tokens  loss {nats / scored:.3f}")
    line.end()
    return nats


def evaluate(
    model: Transformer,
    model_config: ModelConfig,
    config: EvaluateConfig,
    tokenizer: Tokenizer,
    tokens: Path,
    mesh: Mesh | None = None,
) -> dict[str, float]:
    """Loss and bits per byte over the whole validation split in `tokens`, and the compressors' figures for the same
    bytes. `mesh` is as of `summed_loss`."""
    tokens_N, documents_N = document_stream(tokens, "val", tokenizer.fingerprint)
    segments_N = np.cumsum(np.diff(documents_N.astype(np.int64), prepend=documents_N[0].astype(np.int64)) != 0)
    nats = summed_loss(model, model_config, config, tokens_N, segments_N, mesh)
    heads = np.diff(segments_N, prepend=-1) != 0
    content_bytes = count_text_bytes(byte_lengths(tokenizer), tokens_N, heads)
    # A newline stands between documents for the compressors, as a document's head does for the model.
    pieces = np.split(tokens_N, np.flatnonzero(heads))
    text = b"\n".join(tokenizer.decode_bytes(piece[1:].tolist()) for piece in pieces if len(piece))
    return {
        "validation_loss": nats / (len(tokens_N) - 1),
        "validation_bits_per_byte": bits_per_byte(nats, content_bytes),
        "validation_tokens": len(tokens_N),
        "validation_documents": int(heads.sum()),
        "validation_bytes": content_bytes,
        **compressed_bits_per_byte(text, content_bytes),
    }


def evaluate_text(
    model: Transformer,
    model_config: ModelConfig,
    config: EvaluateConfig,
    tokenizer: Tokenizer,
    text: str,
    mesh: Mesh | None = None,
) -> dict[str, float]:
    """The same of one text, as one document: "loss" (nats a token), "bits_per_byte", "tokens" (without the document's
    head), "bytes" (UTF-8) and the compressors' figures. `mesh` is as of `summed_loss`.

    Raises InputError for an empty text, and where the tokenizer cannot encode it.
    """
    data, ids = text.encode(), tokenizer.encode(text)
    if not ids:
        raise InputError("The text is empty: there is nothing to evaluate. Give a text of one character at least.")
    tokens_N = np.array([tokenizer.start_of_text, *ids], np.int64)
    nats = summed_loss(model, model_config, config, tokens_N, np.zeros_like(tokens_N), mesh)
    return {
        "loss": nats / len(ids),
        "bits_per_byte": bits_per_byte(nats, len(data)),
        "tokens": len(ids),
        "bytes": len(data),
        **compressed_bits_per_byte(data, len(data)),
    }
