"""The implementations of attention, in one table. All give the same within rounding; they differ in speed and memory.

Each has grouped queries, and shows a query what its AttentionMask says.
Axes: B batch, T query position, S key position, H query heads, K key-value heads, C channels of a head.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
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
    """JAX's splash attention for TPU (jax.experimental.pallas.ops.tpu.splash_attention): FlashAttention-2 that skips
    the blocks above the diagonal and before the window. It has no prefix. `interpret` runs it on any device, slowly,
    for tests."""
    from jax.experimental.pallas.ops.tpu import splash_attention as tpu  # half a second, for TPUs alone

    length, heads, channels = q_BTHC.shape[1:]
    shape, window = (length, length), mask.window
    of_head = tpu.CausalMask(shape) if window is None else tpu.LocalMask(shape, (window - 1, 0), offset=0)
    block = next(size for size in (512, 256, 128) if length % size == 0)
    kernel = tpu.make_splash_mha(
        tpu.MultiHeadMask([of_head] * heads),
        block_sizes=tpu.BlockSizes(
            block_q=block, block_kv=block, block_q_dkv=block, block_kv_dkv=block, block_q_dq=block, block_kv_dq=block
        ),
        head_shards=1,
        q_seq_shards=1,
        interpret=interpret,
        residual_checkpoint_name="context",  # of what its backward pass needs too
    )
    scaled_BHTC = (q_BTHC.astype(jnp.float32) * channels**-0.5).astype(q_BTHC.dtype).transpose(0, 2, 1, 3)
    k_BKTC, v_BKTC = k_BTKC.transpose(0, 2, 1, 3), v_BTKC.transpose(0, 2, 1, 3)
    segments = tpu.SegmentIds(mask.segment_ids_BT, mask.segment_ids_BT)
    out_BHTC = jax.vmap(kernel)(scaled_BHTC, k_BKTC, v_BKTC, segments)
    return out_BHTC.transpose(0, 2, 1, 3)


def named(implementation: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """With its result under the name that remat policies have for it. Splash names its own, beside what else its
    backward pass needs."""
    return lambda *arguments: checkpoint_name(implementation(*arguments), "context")


ATTENTION: dict[str, Callable[..., jax.Array]] = {"xla": named(xla), "cudnn": named(cudnn), "splash": splash}
"""By the names of lm.model.attention.choice: (q_BTHC, k_BTKC, v_BTKC, AttentionMask) -> out_BTHC."""
