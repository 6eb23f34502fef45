"""Next-token cross-entropy. Axes: B batch, T position, V vocabulary, D width; N tokens of one part of the
sequence: B * T / parts of them or, where devices cut the sequence, (B, T / parts)."""

import functools
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from lm.parallel import constrain, devices_of, length_is_cut


def softcapped(logits: jax.Array, softcap: float | None) -> jax.Array:
    """softcap * tanh(logits / softcap) (Gemma 2, arXiv:2408.00118), or the logits as they are."""
    return logits if softcap is None else softcap * jnp.tanh(logits / softcap)


def cross_entropy(logits_BTV: Float[Array, "B T V"], targets_BT: Int[Array, "B T"]) -> Float[Array, "B T"]:
    """-log softmax(logits)[target] in nats, float32."""
    target_BT = jnp.take_along_axis(logits_BTV, targets_BT[..., None], axis=-1)[..., 0]
    return jax.nn.logsumexp(logits_BTV, axis=-1) - target_BT


def logits_of(x_ND: Float[Array, "*N D"], table_VD: Float[Array, "V D"], softcap: float | None) -> Float[Array, "*N V"]:
    """softcapped(x @ table.T): operands in the type of x, sums in float32, for the loss must not see logits that were
    rounded."""
    logits_NV = jnp.einsum("...D,VD->...V", x_ND, table_VD.astype(x_ND.dtype), preferred_element_type=jnp.float32)
    return softcapped(on_devices(logits_NV, "vocab"), softcap)


def on_devices(values_NX: Float[Array, "*N X"], axis: str) -> Float[Array, "*N X"]:
    """Cut as the batch is, and in its last axis as `axis` is."""
    return constrain(values_NX, *("batch", "length")[: values_NX.ndim - 1], axis)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5, 6))
def summed_cross_entropy(
    x_BTD: Float[Array, "B T D"],
    table_VD: Float[Array, "V D"],
    targets_BT: Int[Array, "B T"],
    weights_BT: Float[Array, "B T"],
    parts: int,
    softcap: float | None = None,
    z_loss: float = 0.0,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """(what to descend, the loss to tell), in nats, float32, without the logits of all positions.

    The loss is sum(weights * cross_entropy(softcapped(x @ table.T), targets)). What to descend has z_loss * weights *
    logsumexp(logits)**2 beside it, which keeps logits from drifting (PaLM, arXiv:2204.02311, section 5). Only the first
    may be differentiated, and by x and table alone.

    The sequence is cut into `parts` (a divisor of T), whose logits exist one after the other: V * B * T / parts values
    of float32. The gradients of x and table are made of them on the spot, in the forward pass, since the sum is all
    that comes behind and scales them: so no logits are kept, nor made a second time (as in Liger-Kernel,
    arXiv:2410.10989). Products have the type of x and sums float32.
    """

    def add_part(carry, part):
        losses_N, log_sums_N, _, _ = part_losses(part, table_VD, softcap)
        return add(carry, losses_N, log_sums_N, part[2], z_loss), None

    zero = jnp.zeros((), jnp.float32)
    (objective, loss), _ = jax.lax.scan(add_part, (zero, zero), cut(x_BTD, targets_BT, weights_BT, parts))
    return objective, loss


def add(
    totals: tuple[jax.Array, jax.Array], losses_N: jax.Array, log_sums_N: jax.Array, weights_N: jax.Array, z_loss: float
) -> tuple[jax.Array, jax.Array]:
    """(objective, loss) with those of one part added."""
    objective, loss = totals
    of_part = jnp.sum(losses_N * weights_N)
    penalty = z_loss * jnp.sum(jnp.square(log_sums_N) * weights_N) if z_loss else 0.0
    return objective + of_part + penalty, loss + of_part


def cut(
    x_BTD: Float[Array, "B T D"], targets_BT: Int[Array, "B T"], weights_BT: Float[Array, "B T"], parts: int
) -> tuple[Float[Array, "parts *N D"], Int[Array, "parts *N"], Float[Array, "parts *N"]]:
    """The sequence in parts. Each has every parts-th position of every row, so that every device has its share of each
    part, over whichever axis the batch is cut."""

    def part(values: jax.Array) -> jax.Array:
        batch, length, *rest = values.shape
        split = jnp.moveaxis(values.reshape(batch, length // parts, parts, *rest), 2, 0)
        # One axis of rows is faster on a CPU, but where devices cut the sequence too, it could not be cut as both are.
        return split if length_is_cut() else split.reshape(parts, batch * (length // parts), *rest)

    return part(x_BTD), part(targets_BT), part(weights_BT)


def uncut(values: jax.Array, batch: int) -> jax.Array:
    """(parts, *N, ...) -> (B, T, ...): the parts in the order that they were cut from."""
    parts, *rest = values.shape
    rest = rest[2:] if length_is_cut() else rest[1:]
    split = values.reshape(parts, batch, -1, *rest)
    return jnp.moveaxis(split, 0, 2).reshape(batch, -1, *rest)


def part_losses(
    part: tuple[Float[Array, "*N D"], Int[Array, "*N"], Float[Array, "*N"]],
    table_VD: Float[Array, "V D"],
    softcap: float | None,
) -> tuple[Float[Array, "*N"], Float[Array, "*N"], Float[Array, "*N V"], Float[Array, "*N V"]]:
    """(losses, logsumexp of the logits, probabilities, logits) of one part."""
    x_ND, targets_N, _ = part
    logits_NV = logits_of(x_ND, table_VD, softcap)
    greatest_N1 = jnp.max(logits_NV, axis=-1, keepdims=True)
    powers_NV = jnp.exp(logits_NV - greatest_N1)
    sums_N1 = jnp.sum(powers_NV, axis=-1, keepdims=True)
    target_N1 = jnp.take_along_axis(logits_NV, targets_N[..., None], axis=-1)
    log_sums_N1 = jnp.log(sums_N1) + greatest_N1
    return (log_sums_N1 - target_N1)[..., 0], log_sums_N1[..., 0], powers_NV / sums_N1, logits_NV


def summed_forward(x_BTD, table_VD, targets_BT, weights_BT, parts, softcap, z_loss):
    """(objective, loss), and the objective's gradients by x and table."""

    def add_part(carry, part):
        totals, gradient_VD = carry
        x_ND, targets_N, weights_N = part
        losses_N, log_sums_N, p_NV, logits_NV = part_losses(part, table_VD, softcap)
        vocab_V = jnp.arange(table_VD.shape[0]).reshape((1,) * targets_N.ndim + (-1,))
        is_target_NV = vocab_V == targets_N[..., None]
        if z_loss:
            by_logits_NV = p_NV * (1.0 + 2.0 * z_loss * log_sums_N)[..., None] - is_target_NV
        else:
            by_logits_NV = p_NV - is_target_NV
        if softcap is not None:
            by_logits_NV = by_logits_NV * (1.0 - jnp.square(logits_NV / softcap))
        by_logits_NV = (by_logits_NV * weights_N[..., None]).astype(x_ND.dtype)
        by_x_ND = on_devices(by_logits_NV @ table_VD.astype(x_ND.dtype), "embed")
        rows = tuple(range(x_ND.ndim - 1))
        by_table_VD = jnp.tensordot(by_logits_NV, x_ND, (rows, rows), preferred_element_type=jnp.float32)
        return (add(totals, losses_N, log_sums_N, weights_N, z_loss), gradient_VD + by_table_VD), by_x_ND

    zero = jnp.zeros((), jnp.float32)
    start = (zero, zero), jnp.zeros(table_VD.shape, jnp.float32)
    (totals, by_table_VD), by_x = jax.lax.scan(add_part, start, cut(x_BTD, targets_BT, weights_BT, parts))
    return totals, (uncut(by_x, x_BTD.shape[0]), by_table_VD, jnp.zeros((), table_VD.dtype))


def summed_backward(parts, softcap, z_loss, residuals, scales):
    by_x_BTD, by_table_VD, like_table = residuals
    scale, _ = scales
    return scale.astype(by_x_BTD.dtype) * by_x_BTD, (scale * by_table_VD).astype(like_table.dtype), None, None


summed_cross_entropy.defvjp(summed_forward, summed_backward)

LOGITS_AT_ONCE = 1 << 26  # of a device: 256 MB of float32, where no config says how many parts there shall be


def token_losses(
    x_BTD: Float[Array, "B T D"], table_VD: Float[Array, "V D"], targets_BT: Int[Array, "B T"], softcap: float | None
) -> Float[Array, "B T"]:
    """-log p of every target in nats, float32, with the logits of at most LOGITS_AT_ONCE tokens times symbols at a time
    on each device (or of one position of every row)."""
    batch, length, _ = x_BTD.shape
    mesh = jax.sharding.get_abstract_mesh()
    at_once = LOGITS_AT_ONCE * math.prod(devices_of(axis, mesh) for axis in ("batch", "length", "vocab"))
    fits = [parts for parts in range(1, length + 1) if length % parts == 0]
    parts = next((n for n in fits if batch * length // n * table_VD.shape[0] <= at_once), length)

    losses = lambda part: part_losses(part, table_VD, softcap)[0]
    cuts = cut(x_BTD, targets_BT, jnp.ones(targets_BT.shape, jnp.float32), parts)
    return uncut(jax.lax.map(losses, cuts), batch)
