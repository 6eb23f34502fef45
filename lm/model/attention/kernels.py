"""Table of the attention implementations. All return the same values up to rounding; they differ in speed and memory.

All support grouped queries and the AttentionMask. Axes: B batch, T query position, S key position, H query heads, K
key-value heads, C channels of a head.
"""

from collections.abc import Callable

import jax
import numpy as np
from jax.ad_checkpoint import checkpoint_name

from lm.model.arrays import Keys, Queries
from lm.model.attention.choice import SPLASH_LENGTH, packs_documents
from lm.model.attention.cudnn import masked, packed
from lm.model.attention.mask import AttentionMask
from lm.model.attention.pairs import KEPT
from lm.model.attention.plain import filled_up, xla
from lm.parallel import context, on_each_device

BY_HEAD = ("batch", None, "heads", None)
OF_ITS_HEADS = (BY_HEAD, BY_HEAD, BY_HEAD, ("batch",)), BY_HEAD
"""Sharding over sequences and heads; XLA cannot partition a kernel."""


@on_each_device(*OF_ITS_HEADS)
def cudnn(
    q_BTHC: Queries,
    k_BTKC: Keys,
    v_BTKC: Keys,
    mask: AttentionMask,
) -> Queries:
    """cuDNN's attention: over packed documents if the GPU supports it and there is no prefix; else with a T x T mask.
    It has not run on a GPU yet."""
    attend = packed if mask.prefix_B is None and packs_documents(context().target) else masked
    return attend(q_BTHC, k_BTKC, v_BTKC, mask)


@on_each_device(*OF_ITS_HEADS)
def splash(
    q_BTHC: Queries,
    k_BTKC: Keys,
    v_BTKC: Keys,
    mask: AttentionMask,
    interpret: bool = False,
) -> Queries:
    """JAX's splash attention for TPU. Does not support a prefix. `interpret` runs it on any device, slowly, for
    tests."""
    from lm.model.attention.splash import attend_by_splash, splash_kernel

    length, heads = q_BTHC.shape[1:3]
    q_BTHC, k_BTKC, v_BTKC = (filled_up(x, SPLASH_LENGTH, axis=1) for x in (q_BTHC, k_BTKC, v_BTKC))
    segment_ids_BT = filled_up(mask.segment_ids_BT, SPLASH_LENGTH, axis=1, value=-1)
    positions_T = np.arange(q_BTHC.shape[1], dtype=np.int32)
    kernel = splash_kernel(heads, positions_T, mask.window, interpret=interpret)
    return attend_by_splash(kernel, q_BTHC, k_BTKC, v_BTKC, segment_ids_BT, segment_ids_BT)[:, :length]


def named(implementation: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """Wrap an attention implementation so that its output has the name that remat policies use (checkpoint_name).
    Splash names its own output and the other values that its backward pass needs."""
    return lambda *arguments: checkpoint_name(implementation(*arguments), KEPT)


ATTENTION: dict[str, Callable[..., jax.Array]] = {"xla": named(xla), "cudnn": named(cudnn), "splash": splash}
"""By the names in lm.model.attention.choice: (q_BTHC, k_BTKC, v_BTKC, AttentionMask) -> out_BTHC."""
