"""Models with a known output, and the outputs of any model by a plain forward pass."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from lm.model.transformer import Transformer


def always_predicting(model: Transformer, token: int) -> Transformer:
    """Return a model of the same shapes whose every prediction is `token`."""
    width = model.embedding.shape[1]
    constant = jax.tree.map(jnp.zeros_like, model)
    constant.embedding[...] = constant.embedding[...].at[token].set(1.0) + 0.01
    constant.norm.scale[...] = jnp.ones(width)
    return constant


def log_probabilities(model: Transformer, context: int) -> Callable[[Sequence[int]], np.ndarray]:
    """Return a function of ids -> (len(ids), vocabulary) float64: log p of the token after each id, by one forward pass
    padded to `context` positions."""
    forward = jax.jit(lambda ids_1T: jax.nn.log_softmax(model.logits(model.read(ids_1T, jnp.ones_like(ids_1T)))[0]))

    def of(ids: Sequence[int]) -> np.ndarray:
        ids_1T = np.zeros((1, context), np.int32)
        ids_1T[0, : len(ids)] = ids
        return np.asarray(forward(ids_1T), np.float64)[: len(ids)]

    return of
