"""Score a text token by token: loss, rank and the most likely alternatives.

Axes: N tokens of a text, B windows, T positions of a window, V vocabulary, K alternatives.
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
"""Windows are as long as the text, rounded up to whole blocks: attention kernels need round lengths."""


class TokenView(NamedTuple):
    """Scores of every token of a text except the first, which is only context: M = N - 1 rows."""

    losses: np.ndarray
    """(M,) float32: -log p of the token, in nats."""
    ranks: np.ndarray
    """(M,) int32: 1 if no token is more likely, 2 if one is, and so on."""
    alternatives: np.ndarray
    """(M, K) int32: ids of the most likely tokens at this position, best first."""
    probabilities: np.ndarray
    """(M, K) float32: their probabilities."""


def view_tokens(
    model: Transformer, config: ModelConfig, ids: np.ndarray, stride: int, alternatives: int, symbols: int
) -> TokenView:
    """Score `ids` (N,), the first of which is the document head, as bits_per_byte.py scores a split of one document.

    Windows are those of `strided_windows`: each token is scored once, with at least context_length - stride tokens of
    context if the text has as many. The K `alternatives` are among the first `symbols` ids, because further rows of the
    embedding are unused. Raises ValueError for fewer than two ids.
    """
    targets = len(ids) - 1
    if targets < 1:
        raise ValueError(f"{len(ids)} ids hold no token to predict; give BOS and at least one more")
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
    """Return the fields of a TokenView for every position of a batch: (B, T), (B, T), (B, T, K), (B, T, K).

    The logits of only one window exist at a time.
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
