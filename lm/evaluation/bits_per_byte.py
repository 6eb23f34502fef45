"""Bits per byte on held-out documents, compared with general-purpose compressors.

A language model with an arithmetic coder is a compressor: a token of probability p takes -log2 p bits (Shannon 1948;
Delétang et al., arXiv:2309.10668). Bits per byte of text do not depend on the tokenizer, so any two models can be
compared.

Axes: B windows, T positions, N tokens of the whole stream.
"""

import dataclasses
import gzip
import lzma
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import zstandard
from jax.sharding import Mesh

from lm.config import EvaluateConfig, ModelConfig
from lm.data.batches import Batch, document_stream, host_batch
from lm.data.records import read_manifest
from lm.errors import InputError
from lm.evaluation.evaluator import EvaluatorConfig
from lm.evaluation.held_out import HeldOutLoss, Validation, byte_lengths, count_text_bytes, rows_on
from lm.model.transformer import Transformer
from lm.parallel import one_device_mesh
from lm.tokenizer import Tokenizer


def strided_windows(
    tokens_N: np.ndarray, segments_N: np.ndarray, context: int, stride: int, batch_size: int
) -> Iterator[Batch]:
    """Yield batches of overlapping windows in which every token except the first is a target of weight 1 exactly once.

    Each window starts `stride` tokens after the previous one. Only its last `stride` targets have weight 1; in the
    first window, all have. So a target sees at least context - stride earlier tokens of its document, if the document
    has as many. The last batch is padded with rows of weight 0.
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
    """Return the size of `text` after gzip -9, xz -9e and zstd -19 in bits per byte: {"gzip_bits_per_byte": compressed
    bits / `content_bytes`, ...}."""
    sizes = {
        "gzip_bits_per_byte": len(gzip.compress(text, compresslevel=9, mtime=0)),
        "xz_bits_per_byte": len(lzma.compress(text, preset=9 | lzma.PRESET_EXTREME)),
        "zstd_bits_per_byte": len(zstandard.ZstdCompressor(level=19).compress(text)),
    }
    return {name: 8 * size / content_bytes for name, size in sizes.items()}


class BitsPerByte:
    """Evaluator `bits_per_byte`: loss and bits per byte of the whole validation split; bits per byte of compressors. If
    the split is conversations, only the loss on the replies."""

    def __init__(self, config: EvaluatorConfig):
        self.config, self.loss = config, HeldOutLoss(config)

    def run(self, model: Transformer, mesh: Mesh) -> dict[str, float]:
        config = self.config
        if read_manifest(config.tokens).is_packed("val"):
            return Validation(dataclasses.replace(config, batches=None)).run(model, mesh)
        tokens_N, documents_N = document_stream(config.tokens, "val", config.tokenizer.fingerprint)
        segments_N = np.cumsum(np.diff(documents_N.astype(np.int64), prepend=documents_N[0].astype(np.int64)) != 0)
        heads_N = np.diff(segments_N, prepend=-1) != 0
        text_bytes = count_text_bytes(byte_lengths(config.tokenizer), tokens_N, heads_N)
        # Compressors get a newline between documents, as the model gets BOS.
        pieces = np.split(tokens_N, np.flatnonzero(heads_N))
        text = b"\n".join(config.tokenizer.decode_bytes(piece[1:].tolist()) for piece in pieces if len(piece))
        windows = strided_windows(tokens_N, segments_N, config.model.context_length, config.stride, config.batch_size)
        return {
            **self.loss.figures(model, mesh, windows, text_bytes),
            "validation_tokens": len(tokens_N),
            "validation_documents": int(heads_N.sum()),
            "validation_bytes": text_bytes,
            **compressed_bits_per_byte(text, text_bytes),
        }


def evaluate_texts(
    model: Transformer,
    model_config: ModelConfig,
    config: EvaluateConfig,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    mesh: Mesh | None = None,
) -> dict[str, float]:
    """Return metrics of a model on documents: "documents", "loss" (nats per token), "bits_per_byte", "tokens" (without
    BOS), "bytes" (UTF-8), and the bits per byte of gzip, xz and zstd. `mesh` is the mesh that the model is sharded over
    (None: one device); all processes must make the same call. Raises InputError if all texts are empty, or the
    tokenizer cannot encode one."""
    documents = [np.array([tokenizer.bos_id, *tokenizer.encode(text)], np.int64) for text in texts]
    tokens_N = np.concatenate([np.zeros(0, np.int64), *documents])
    tokens = len(tokens_N) - len(documents)
    if not tokens:
        raise InputError("The text is empty. Give at least one character.")
    segments_N = np.repeat(np.arange(len(documents)), [len(one) for one in documents])
    mesh = mesh or one_device_mesh(model_config)
    rows = rows_on(mesh, config.batch_size)
    windows = strided_windows(tokens_N, segments_N, model_config.context_length, config.stride, rows)
    loss = HeldOutLoss(EvaluatorConfig(model_config, tokenizer, Path(), rows, config.stride))
    data = [text.encode() for text in texts]
    text_bytes = sum(map(len, data))
    figures = loss.figures(model, mesh, windows, text_bytes)
    return {
        "documents": len(documents),
        "loss": figures["validation_loss"],
        "bits_per_byte": figures["validation_bits_per_byte"],
        "tokens": tokens,
        "bytes": text_bytes,
        **compressed_bits_per_byte(b"\n".join(data), text_bytes),
    }
