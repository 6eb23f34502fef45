"""Multiply gradients by any factor at chosen steps of the real training step."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from lm.data.batches import BatchSource
from lm.training import step as train_step


def poisoned(source: BatchSource, factors: Mapping[int, float]) -> Callable:
    """The real function with its gradients multiplied by {step: factor}; the tokens identify the step of a batch."""
    real = train_step.loss_and_gradients
    marks = np.stack([source.batch(step - 1).inputs_BT for step in factors])
    values = np.array(list(factors.values()), np.float32)

    def spoiled(model, batch, *others):
        loss, gradients = real(model, batch, *others)
        hit = jnp.all(batch.inputs_BT[None] == marks, axis=(1, 2))
        factor = jnp.where(jnp.any(hit), jnp.sum(jnp.where(hit, values, 0)), 1.0)
        return loss, jax.tree.map(lambda x: x * factor, gradients)

    return spoiled
