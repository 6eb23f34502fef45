"""Next-token cross-entropy. Axes: B batch, T position, V vocabulary."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def cross_entropy(logits_BTV: Float[Array, "B T V"], targets_BT: Int[Array, "B T"]) -> Float[Array, "B T"]:
    """-log softmax(logits)[target] in nats, float32."""
    target_BT = jnp.take_along_axis(logits_BTV, targets_BT[..., None], axis=-1)[..., 0]
    return jax.nn.logsumexp(logits_BTV, axis=-1) - target_BT


def weighted_mean(values_BT: Float[Array, "B T"], weights_BT: Float[Array, "B T"]) -> Float[Array, ""]:
    """sum(values * weights) / sum(weights); 0 where all weights are 0."""
    return jnp.sum(values_BT * weights_BT) / jnp.maximum(jnp.sum(weights_BT), 1.0)
