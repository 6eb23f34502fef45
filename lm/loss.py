"""Next-token cross-entropy. Axes: B batch, T position, V vocabulary, D width; N tokens of one part of the sequence."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def cross_entropy(logits_BTV: Float[Array, "B T V"], targets_BT: Int[Array, "B T"]) -> Float[Array, "B T"]:
    """-log softmax(logits)[target] in nats, float32."""
    target_BT = jnp.take_along_axis(logits_BTV, targets_BT[..., None], axis=-1)[..., 0]
    return jax.nn.logsumexp(logits_BTV, axis=-1) - target_BT


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def summed_cross_entropy(
    x_BTD: Float[Array, "B T D"],
    table_VD: Float[Array, "V D"],
    targets_BT: Int[Array, "B T"],
    weights_BT: Float[Array, "B T"],
    parts: int,
) -> Float[Array, ""]:
    """sum(weights * cross_entropy(x @ table.T, targets)), in nats, float32, without the logits of all positions.

    The sequence is cut into `parts` (a divisor of T), whose logits exist one after the other: V * B * T / parts values
    of float32. The gradients of x and table are made of them on the spot, in the forward pass, since the sum is all
    that comes behind and scales them: so no logits are kept, nor made a second time (as in Liger-Kernel,
    arXiv:2410.10989). Products have the type of x and sums float32. Nothing is differentiated by the weights.
    """
    total, _ = jax.lax.scan(
        lambda total, part: (total + weighted_losses(part, table_VD)[0], None),
        jnp.zeros((), jnp.float32),
        cut(x_BTD, targets_BT, weights_BT, parts),
    )
    return total


def cut(
    x_BTD: Float[Array, "B T D"], targets_BT: Int[Array, "B T"], weights_BT: Float[Array, "B T"], parts: int
) -> tuple[Float[Array, "parts N D"], Int[Array, "parts N"], Float[Array, "parts N"]]:
    """The sequence in parts, each with some positions of every row, so that a batch that is cut over devices stays
    so."""

    def part(values: jax.Array) -> jax.Array:
        batch, length, *rest = values.shape
        split = values.reshape(batch, parts, length // parts, *rest).swapaxes(0, 1)
        return split.reshape(parts, batch * (length // parts), *rest)

    return part(x_BTD), part(targets_BT), part(weights_BT)


def weighted_losses(
    part: tuple[Float[Array, "N D"], Int[Array, " N"], Float[Array, " N"]], table_VD: Float[Array, "V D"]
) -> tuple[Float[Array, ""], Float[Array, "N V"], Float[Array, "N 1"]]:
    """(the weighted sum of losses, exp(logits - their greatest), the sums of these) of one part."""
    x_ND, targets_N, weights_N = part
    logits_NV = jnp.einsum("ND,VD->NV", x_ND, table_VD.astype(x_ND.dtype), preferred_element_type=jnp.float32)
    greatest_N1 = jnp.max(logits_NV, axis=-1, keepdims=True)
    powers_NV = jnp.exp(logits_NV - greatest_N1)
    sums_N1 = jnp.sum(powers_NV, axis=-1, keepdims=True)
    target_N1 = jnp.take_along_axis(logits_NV, targets_N[:, None], axis=-1)
    losses_N = (jnp.log(sums_N1) + greatest_N1 - target_N1)[:, 0]
    return jnp.sum(losses_N * weights_N), powers_NV, sums_N1


def summed_forward(x_BTD, table_VD, targets_BT, weights_BT, parts):
    """The sum, and its gradients by x and table."""

    def add_part(carry, part):
        total, gradient_VD = carry
        x_ND, targets_N, weights_N = part
        loss, powers_NV, sums_N1 = weighted_losses(part, table_VD)
        is_target_NV = jnp.arange(table_VD.shape[0])[None, :] == targets_N[:, None]
        by_logits_NV = ((powers_NV / sums_N1 - is_target_NV) * weights_N[:, None]).astype(x_ND.dtype)
        by_x_ND = by_logits_NV @ table_VD.astype(x_ND.dtype)
        by_table_VD = jnp.einsum("NV,ND->VD", by_logits_NV, x_ND, preferred_element_type=jnp.float32)
        return (total + loss, gradient_VD + by_table_VD), by_x_ND

    start = jnp.zeros((), jnp.float32), jnp.zeros(table_VD.shape, jnp.float32)
    (total, by_table_VD), by_x = jax.lax.scan(add_part, start, cut(x_BTD, targets_BT, weights_BT, parts))
    batch, length, width = x_BTD.shape
    by_x_BTD = by_x.reshape(parts, batch, length // parts, width).swapaxes(0, 1).reshape(x_BTD.shape)
    return total, (by_x_BTD, by_table_VD, jnp.zeros((), table_VD.dtype))


def summed_backward(parts, residuals, scale):
    by_x_BTD, by_table_VD, like_table = residuals
    return scale.astype(by_x_BTD.dtype) * by_x_BTD, (scale * by_table_VD).astype(like_table.dtype), None, None


summed_cross_entropy.defvjp(summed_forward, summed_backward)
