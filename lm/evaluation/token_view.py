"""What a model makes of a text, token by token: the loss, and which tokens it would rather have had.

Axes: N tokens of a text, B windows, T positions of one, V vocabulary, K alternatives.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lm.config import ModelConfig
from lm.data.batches import Batch
from lm.evaluation.bits_per_byte import strided_windows
from lm.model.loss import cross_entropy, logits_of
from lm.model.transformer import Transformer

BLOCK = 128
"""A window is no longer than the text, in whole blocks: attention kernels want round lengths."""


class TokenView(NamedTuple):
    """Of every token of a text but the first, which is only read: M = N - 1 rows."""

    losses: np.ndarray
    """(M,) float32: -log p of the token, in nats."""
    ranks: np.ndarray
    """(M,) int32: 1 where no token was more likely, 2 where one was, and so on."""
    alternatives: np.ndarray
    """(M, K) int32: ids of the likeliest tokens in its place, the likeliest first."""
    probabilities: np.ndarray
    """(M, K) float32: their probabilities."""


def view_tokens(
    model: Transformer, config: ModelConfig, ids: np.ndarray, stride: int, alternatives: int, symbols: int
) -> TokenView:
    """Scores `ids` (N,), of which the first is the document's head, as bits_per_byte.py scores a split of
    this one document.

    The windows are those of `strided_windows`: each token is scored once, with at least context_length - stride tokens
    before it in view, where the text has as many. `alternatives` (K) are drawn from the first `symbols` ids alone:
    rows of the embedding beyond the tokenizer's symbols stand for nothing. Raises ValueError for fewer than two ids.
    """
    targets = len(ids) - 1
    if targets < 1:
        raise ValueError(f"{len(ids)} ids hold no token to predict; give the document's head and at least one more")
    context = min(config.context_length, BLOCK * math.ceil(targets / BLOCK))
    stride = min(stride, context)
    windows = 1 + max(0, math.ceil((targets - context) / stride))
    (batch,) = strided_windows(np.asarray(ids, np.int64), np.zeros(len(ids), np.int64), context, stride, windows)
    scored = np.asarray(batch.weights_BT) == 1
    return TokenView(
        *(np.asarray(values)[scored] for values in score(model, batch, min(alternatives, symbols), symbols))
    )


@functools.partial(jax.jit, static_argnums=(2, 3))
def score(
    model: Transformer, batch: Batch, alternatives: int, symbols: int
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """The fields of a TokenView for every position of a batch: (B, T), (B, T), (B, T, K), (B, T, K).

    The logits of one window exist at a time.
    """
    x_BTD = model.read(batch.inputs_BT, batch.segment_ids_BT)
    table_VD = model.output_table()

    def one_window(window: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
        x_TD, targets_T = window
        logits_TV = logits_of(x_TD, table_VD, model.logit_softcap)
        loss_T = cross_entropy(logits_TV[None], targets_T[None])[0]
        target_T1 = jnp.take_along_axis(logits_TV, targets_T[:, None], axis=-1)
        rank_T = 1 + jnp.sum(logits_TV[:, :symbols] > target_T1, axis=-1, dtype=jnp.int32)
        best_TK, ids_TK = jax.lax.top_k(logits_TV[:, :symbols], alternatives)
        return loss_T, rank_T, ids_TK, jnp.exp(best_TK - jax.nn.logsumexp(logits_TV, axis=-1, keepdims=True))

    return jax.lax.map(one_window, (x_BTD, jnp.asarray(batch.targets_BT)))
