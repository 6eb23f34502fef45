"""The implementations of attention, in one table. All give the same within rounding; they differ in speed and memory.

Each has grouped queries, and shows a query what its AttentionMask says.
Axes: B batch, T query position, S key position, H query heads, K key-value heads, C channels of a head.
"""

from collections.abc import Callable

import jax
import numpy as np
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

from lm.model.attention.mask import AttentionMask
from lm.model.attention.plain import xla
from lm.parallel import on_each_device

BY_HEAD = ("batch", None, "heads", None)
OF_ITS_HEADS = (BY_HEAD, BY_HEAD, BY_HEAD, ("batch",)), BY_HEAD
"""Each device's sequences and heads: XLA cannot cut a kernel."""


@on_each_device(*OF_ITS_HEADS)
def cudnn(
    q_BTHC: Float[Array, "B T H C"],
    k_BTKC: Float[Array, "B T K C"],
    v_BTKC: Float[Array, "B T K C"],
    mask: AttentionMask,
) -> Float[Array, "B T H C"]:
    """cuDNN's fused attention (FlashAttention-2, arXiv:2307.08691), which never holds the scores. The mask reaches it
    as T x T values for each sequence, the same for all heads; without a prefix, what lies above the diagonal is not
    computed."""
    return jax.nn.dot_product_attention(
        q_BTHC, k_BTKC, v_BTKC, mask=mask.all_visible()[:, None], is_causal=mask.prefix_B is None,
        implementation="cudnn",
    )  # fmt: skip


@on_each_device(*OF_ITS_HEADS)
def splash(
    q_BTHC: Float[Array, "B T H C"],
    k_BTKC: Float[Array, "B T K C"],
    v_BTKC: Float[Array, "B T K C"],
    mask: AttentionMask,
    interpret: bool = False,
) -> Float[Array, "B T H C"]:
    """JAX's splash attention for TPU. It has no prefix. `interpret` runs it on any device, slowly, for tests."""
    from lm.model.attention.splash import attend_by_splash, splash_kernel

    length, heads = q_BTHC.shape[1:3]
    kernel = splash_kernel(heads, np.arange(length, dtype=np.int32), mask.window, interpret=interpret)
    return attend_by_splash(kernel, q_BTHC, k_BTKC, v_BTKC, mask.segment_ids_BT, mask.segment_ids_BT)


def named(implementation: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """With its result under the name that remat policies have for it. Splash names its own, beside what else its
    backward pass needs."""
    return lambda *arguments: checkpoint_name(implementation(*arguments), "context")


ATTENTION: dict[str, Callable[..., jax.Array]] = {"xla": named(xla), "cudnn": named(cudnn), "splash": splash}
"""By the names of lm.model.attention.choice: (q_BTHC, k_BTKC, v_BTKC, AttentionMask) -> out_BTHC."""
