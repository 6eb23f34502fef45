"""Next-token cross-entropy. Axes: B batch, T position, V vocabulary, D width; N = B * T tokens of one device."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from lm.model.arrays import OutputTable, ResidualStream, TokenInts
from lm.model.layers import logits_of
from lm.parallel import TOKENS, gather_width, manual_axes, on_each_device, reduce_scatter_width, when_ready

TABLE, WHOLE_TABLE = ("vocab", "width"), ("vocab", None)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5, 6, 7))
def summed_cross_entropy(
    x_BTD: ResidualStream,
    table_VD: OutputTable,
    targets_BT: TokenInts,
    weights_BT: Float[Array, "B T"],
    parts: int,
    softcap: float | None = None,
    z_loss: float = 0.0,
    skip_untrained: bool = False,
    whole_VD: OutputTable | None = None,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Return (objective to minimize, loss to report), in nats, float32, without storing the logits of all positions.

    The loss is the sum of weights * -log softmax(softcapped(x @ table.T))[target]. The objective adds z_loss * weights
    * logsumexp(logits)**2, which prevents logits from drifting (PaLM, arXiv:2204.02311, section 5). Only the objective
    is differentiable, and only in x and table.

    The tokens of each device are split into `parts` parts (more if they do not divide evenly), whose logits are
    computed one after the other: V * B * T / parts float32 values. Their gradients with respect to x and table are
    computed immediately, in the forward pass, because later operations only scale them: so no logits are stored or
    recomputed (as in Liger-Kernel, arXiv:2410.10989). Products have the type of x, sums are float32. With
    `skip_untrained`, tokens of weight 0 come last, and parts that have no others are not computed.

    On a mesh, each device computes its tokens and its shard of the vocabulary. The table is gathered once and its
    gradient is reduced once, independent of the number of parts. With `whole_VD`, the result of `gathered_table`, the
    table is not gathered here; `whole_VD` gets no gradient.
    """
    return summed_forward(x_BTD, table_VD, targets_BT, weights_BT, parts, softcap, z_loss, skip_untrained, whole_VD)[0]


def gathered_table(table_VD: OutputTable, dtype: str) -> OutputTable:
    """All-gather the width of the output table in type `dtype`, for several micro-batches. Its vocabulary stays
    sharded."""
    whole = on_each_device((TABLE,), WHOLE_TABLE)(lambda table_VD: gather_width(table_VD, 1))
    return jax.lax.stop_gradient(whole(table_VD.astype(dtype)))


def summed[Values](values: Values, *axes: str) -> Values:
    """Sum over the devices along these logical axes."""
    names = manual_axes(*axes)
    return jax.lax.psum(values, names) if names else values


def table_gradient(gradient_VD: OutputTable, dtype: jnp.dtype) -> Float[Array, "V W"]:
    """Sum the gradient of the table over the tokens of all devices, and return this device's shard of the width. The
    gradient is communicated in the type of the products, like all gradients of weights."""
    width = manual_axes("width")
    others = tuple(name for name in manual_axes(*TOKENS) if name not in width)
    gradient_VW = gradient_VD
    if width:  # without the barrier, XLA converts to float32 before the last sum: twice the bytes
        scattered_VW = reduce_scatter_width(gradient_VD.astype(dtype), 1)
        gradient_VW = jax.lax.optimization_barrier(scattered_VW).astype(jnp.float32)
    return jax.lax.psum(gradient_VW, others) if others else gradient_VW


def in_parts[Arrays](arrays: Arrays, parts: int) -> Arrays:
    """Split the tokens of arrays (B, T, ...) into the smallest number of equal parts that is at least `parts`: arrays
    (parts, tokens per part, ...)."""

    def split(values_BT: jax.Array) -> jax.Array:
        tokens = values_BT.shape[0] * values_BT.shape[1]
        count = next(n for n in range(min(parts, tokens), tokens + 1) if tokens % n == 0)
        return values_BT.reshape(count, tokens // count, *values_BT.shape[2:])

    return jax.tree.map(split, arrays)


def part_losses(
    x_ND: Float[Array, "N D"], targets_N: Int[Array, " N"], table_VD: OutputTable, softcap: float | None
) -> tuple[Float[Array, " N"], Float[Array, " N"], Float[Array, "N V"], Float[Array, "N V"]]:
    """Return (losses, logsumexp of the logits, probabilities, logits) of N tokens, one of the parts into which the
    tokens of a batch are split to save memory. If the vocabulary is sharded, probabilities and logits are those of this
    device's shard."""
    logits_NV = logits_of(x_ND, table_VD, softcap)
    greatest_N1 = jnp.max(logits_NV, axis=-1, keepdims=True)
    if names := manual_axes("vocab"):
        greatest_N1 = jax.lax.pmax(greatest_N1, names)
    powers_NV = jnp.exp(logits_NV - greatest_N1)
    sums_N1 = summed(jnp.sum(powers_NV, axis=-1, keepdims=True), "vocab")
    log_sums_N1 = jnp.log(sums_N1) + greatest_N1
    return (
        log_sums_N1[..., 0] - target_logits(logits_NV, targets_N),
        log_sums_N1[..., 0],
        powers_NV / sums_N1,
        logits_NV,
    )


def first_symbol(symbols: int) -> jax.Array | int:
    """Return the first token id of this device's vocabulary shard, which has `symbols` ids."""
    names = manual_axes("vocab")
    return jax.lax.axis_index(names) * symbols if names else 0


def target_logits(logits_NV: Float[Array, "N V"], targets_N: Int[Array, " N"]) -> Float[Array, " N"]:
    """Return the logit of each token's target. If the vocabulary is sharded, it comes from the device that has it."""
    if not manual_axes("vocab"):
        return jnp.take_along_axis(logits_NV, targets_N[:, None], axis=-1)[:, 0]
    symbols = logits_NV.shape[1]
    own_N = targets_N - first_symbol(symbols)
    is_own_N = (own_N >= 0) & (own_N < symbols)
    found_N = jnp.take_along_axis(logits_NV, jnp.clip(own_N, 0, symbols - 1)[:, None], axis=-1)[:, 0]
    return summed(jnp.where(is_own_N, found_N, 0.0), "vocab")


def summed_forward(x_BTD, table_VD, targets_BT, weights_BT, parts, softcap, z_loss, skip_untrained, whole_VD=None):
    """Return (objective, loss), and the gradients of the objective with respect to x and table."""

    by_token = (*TOKENS, None)

    @on_each_device((by_token, TABLE, TOKENS, TOKENS, WHOLE_TABLE), (((), ()), by_token, TABLE))
    def total_and_gradients(x_BTD, table_VD, targets_BT, weights_BT, whole_VD):
        table_VD = gather_width(table_VD.astype(x_BTD.dtype), 1) if whole_VD is None else whole_VD

        def add_part(carry, part):
            (objective, loss), gradient_VD = carry
            x_ND, targets_N, weights_N = part
            losses_N, log_sums_N, p_NV, logits_NV = part_losses(x_ND, targets_N, table_VD, softcap)
            symbols_V = first_symbol(table_VD.shape[0]) + jnp.arange(table_VD.shape[0])
            is_target_NV = symbols_V[None, :] == targets_N[:, None]
            if z_loss:
                by_logits_NV = p_NV * (1.0 + 2.0 * z_loss * log_sums_N)[:, None] - is_target_NV
            else:
                by_logits_NV = p_NV - is_target_NV
            if softcap is not None:
                by_logits_NV = by_logits_NV * (1.0 - jnp.square(logits_NV / softcap))
            by_logits_NV = (by_logits_NV * weights_N[:, None]).astype(x_ND.dtype)
            by_table_VD = jnp.einsum("NV,ND->VD", by_logits_NV, x_ND, preferred_element_type=jnp.float32)
            of_part = jnp.sum(losses_N * weights_N)
            penalty = z_loss * jnp.sum(jnp.square(log_sums_N) * weights_N) if z_loss else 0.0
            totals = objective + of_part + penalty, loss + of_part
            return (totals, gradient_VD + by_table_VD), summed(by_logits_NV @ table_VD, "vocab")

        def add_trained_part(carry, part):
            skip = lambda carry, part: (carry, jnp.zeros_like(part[0]))
            return jax.lax.cond(jnp.any(part[2] != 0), add_part, skip, carry, part)

        zero = jnp.zeros((), jnp.float32)
        start = (zero, zero), jnp.zeros(table_VD.shape, jnp.float32)
        tokens = x_BTD, targets_BT, weights_BT
        if skip_untrained:
            order_N = jnp.argsort(weights_BT.reshape(-1) == 0, stable=True)
            tokens = jax.tree.map(lambda values: values.reshape(1, -1, *values.shape[2:])[:, order_N], tokens)
        step = add_trained_part if skip_untrained else add_part
        (totals, by_table_VD), by_x = jax.lax.scan(step, start, in_parts(tokens, parts))
        if skip_untrained:
            by_x = by_x.reshape(-1, by_x.shape[-1])[jnp.argsort(order_N)]
        return summed(totals, *TOKENS), by_x.reshape(x_BTD.shape), table_gradient(by_table_VD, x_BTD.dtype)

    totals, by_x_BTD, by_table_VD = total_and_gradients(x_BTD, table_VD, targets_BT, weights_BT, whole_VD)
    return totals, (by_x_BTD, by_table_VD, jnp.zeros((), table_VD.dtype))


def summed_backward(parts, softcap, z_loss, skip_untrained, residuals, scales):
    by_x_BTD, by_table_VD, like_table = residuals
    scale, _ = scales
    return scale.astype(by_x_BTD.dtype) * by_x_BTD, (scale * by_table_VD).astype(like_table.dtype), None, None, None


summed_cross_entropy.defvjp(summed_forward, summed_backward)

LOGITS_AT_ONCE = 1 << 26  # per device: 256 MB of float32, if no config sets the number of parts


def token_losses(
    x_BTD: ResidualStream, table_VD: OutputTable, targets_BT: TokenInts, softcap: float | None
) -> Float[Array, "B T"]:
    """-log p of each target in nats, float32. Tokens are computed in parts, so that only a bounded number of logits is
    in memory at once."""
    return token_scores(x_BTD, table_VD, targets_BT, softcap)[0]


def token_scores(
    x_BTD: ResidualStream, table_VD: OutputTable, targets_BT: TokenInts, softcap: float | None
) -> tuple[Float[Array, "B T"], Bool[Array, "B T"]]:
    """Return (`token_losses`, True where no token is more likely than the target), with the same bound on memory."""

    x_BTD, table_VD = when_ready(x_BTD, table_VD)

    @on_each_device(((*TOKENS, None), TABLE, TOKENS), (TOKENS, TOKENS))
    def scores_of(x_BTD, table_VD, targets_BT):
        table_VD = gather_width(table_VD.astype(x_BTD.dtype), 1)

        def scores(part):
            losses_N, _, _, logits_NV = part_losses(*part, table_VD, softcap)
            greatest_N = jnp.max(logits_NV, axis=-1)
            if names := manual_axes("vocab"):
                greatest_N = jax.lax.pmax(greatest_N, names)
            return losses_N, target_logits(logits_NV, part[1]) >= greatest_N

        parts = -(-targets_BT.size * table_VD.shape[0] // LOGITS_AT_ONCE)
        found = jax.lax.map(scores, in_parts((x_BTD, targets_BT), parts))
        return jax.tree.map(lambda values: values.reshape(targets_BT.shape), found)

    return scores_of(x_BTD, table_VD, targets_BT)
