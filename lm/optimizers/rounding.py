"""Updates of bfloat16 parameters, which are too coarse to be added to.

bfloat16 has 8 bits of precision: an update below 1/512 of a parameter is lost where the sum is rounded to the nearest,
and towards the end of a training run most are. There are two ways out. A float32 master copy in the optimizer's state
takes 4 bytes a parameter: with AdamW 14 bytes of state in place of the 12 that float32 parameters take, which compute
in bfloat16 just as well (model.compute_dtype). Stochastic rounding (arXiv:1502.02551; for language models
arXiv:2502.20566) takes none, 10 in all, and each sum is right on average. So it is what parameters in bfloat16 get. In
a small run measured here (docs/benchmarks.md) it ends where the master copy ends, and rounding to the nearest does not.
"""

from typing import cast

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float


def apply_updates[Tree](parameters: Tree, updates: Tree, key: jax.Array) -> Tree:
    """Parameters plus updates, computed in float32; each parameter in its own type, bfloat16 rounded stochastically.

    The same key gives the same bits, on whatever mesh.
    """
    leaves, structure = jax.tree.flatten(parameters)

    def changed(place: int, parameter: jax.Array, update: jax.Array) -> jax.Array:
        if parameter.dtype != jnp.bfloat16:
            return cast(jax.Array, optax.apply_updates(parameter, update))
        wide = parameter.astype(jnp.float32) + update.astype(jnp.float32)
        return stochastic_bfloat16(wide, jax.random.fold_in(key, place))

    pairs = zip(leaves, jax.tree.leaves(updates), strict=True)
    return jax.tree.unflatten(structure, [changed(place, *pair) for place, pair in enumerate(pairs)])


def stochastic_bfloat16(x: Float[Array, "*any"], key: jax.Array) -> Float[Array, "*any"]:
    """float32 to one of the two bfloat16 around each value, the nearer one the likelier, so that the mean is the value.

    A bfloat16 is the upper half of a float32's bits. A random number added to the lower half carries over into the
    upper one as often as the lower half is large. Infinities and NaN stay what they are.
    """
    bits = jax.lax.bitcast_convert_type(x, jnp.uint32)
    carried = (bits + jax.random.bits(key, x.shape, jnp.uint16)) & jnp.uint32(0xFFFF0000)
    rounded = jax.lax.bitcast_convert_type(carried, jnp.float32)
    return jnp.where(jnp.isfinite(x), rounded, x).astype(jnp.bfloat16)
