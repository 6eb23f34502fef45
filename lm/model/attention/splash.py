"""JAX's splash attention for TPU (jax.experimental.pallas.ops.tpu.splash_attention): FlashAttention-2 that skips blocks
without visible keys. Imported only when used, because importing Pallas takes half a second.

Axes: as in lm/model/attention/kernels.py.
"""

from collections.abc import Callable
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.pallas.ops.tpu import splash_attention as tpu
from jax.experimental.pallas.ops.tpu.splash_attention.splash_attention_kernel import SplashAttentionKernel
from jaxtyping import Array, Int

from lm.model.arrays import Queries, SeenKeys, TokenInts
from lm.model.attention.choice import SPLASH_CHANNELS
from lm.model.attention.mask import causal
from lm.model.attention.pairs import KEPT
from lm.model.attention.plain import filled_up

BLOCKS = (512, 256, 128)
"""Block lengths of queries and keys; the largest that fits is used."""


class PositionMask(tpu.Mask):
    """Causal mask, optionally within a window, for queries at arbitrary positions. The kernel first reads `mask[rows,
    keys]` to find the blocks that are entirely visible or entirely hidden. A single value stands for such a block,
    because a long sequence has tens of thousands. Later the kernel computes the mask by `mask_function` from
    `q_sequence`, the positions of the queries."""

    def __init__(self, positions_T: np.ndarray, window: int | None):
        self.q_sequence, self.window = positions_T, window
        self.mask_function = lambda positions, key_positions: causal(positions, key_positions, window)

    @property
    def shape(self) -> tuple[int, int]:
        return (len(self.q_sequence), len(self.q_sequence))

    def __getitem__(self, idx: tuple[slice, slice]) -> np.ndarray:
        rows, keys = idx
        first, last = (int(self.q_sequence[row]) for row in (rows.start, rows.stop - 1))  # consecutive in a block
        hidden = keys.start > last or (self.window is not None and keys.stop - 1 <= first - self.window)
        if hidden:
            return np.zeros((1, 1), bool)
        if keys.stop - 1 <= first and (self.window is None or keys.start > last - self.window):
            return np.ones((1, 1), bool)
        return causal(self.q_sequence[rows, None], np.arange(keys.start, keys.stop)[None], self.window)


def splash_kernel(
    heads: int, positions_T: np.ndarray, window: int | None, parts: int = 1, interpret: bool = False
) -> SplashAttentionKernel:
    """Return the kernel for queries at `positions_T`, a permutation of the positions of the keys. The kernel is a
    pytree, and can be sharded into `parts` along the queries. `interpret` runs it on any device, slowly, for tests."""
    runs = np.split(positions_T, np.flatnonzero(np.diff(positions_T) != 1) + 1)
    block = next(size for size in BLOCKS if all(len(run) % size == 0 for run in runs))
    return tpu.make_splash_mha(
        tpu.MultiHeadMask([PositionMask(positions_T, window)] * heads),
        block_sizes=tpu.BlockSizes(
            block_q=block, block_kv=block, block_q_dkv=block, block_kv_dkv=block, block_q_dq=block, block_kv_dq=block
        ),
        head_shards=1,
        q_seq_shards=parts,
        residual_checkpoint_name=KEPT,
        interpret=interpret,
    )


def attend_by_splash(
    kernel: SplashAttentionKernel,
    q_BTHC: Queries,
    k_BSKC: SeenKeys,
    v_BSKC: SeenKeys,
    segment_ids_BT: TokenInts,
    key_segment_ids_BS: Int[Array, "B S"],
) -> Queries:
    """Scale, pad and transpose the inputs, and apply `kernel` (from splash_kernel, or one device's shard of it)."""
    channels = q_BTHC.shape[-1]
    scaled_BTHC = (q_BTHC.astype(jnp.float32) * channels**-0.5).astype(q_BTHC.dtype)
    scaled_BHTC, k_BKSC, v_BKSC = (
        filled_up(x, SPLASH_CHANNELS, axis=3).transpose(0, 2, 1, 3) for x in (scaled_BTHC, k_BSKC, v_BSKC)
    )
    attend = cast(Callable[..., jax.Array], jax.vmap(kernel))
    out_BHTC = attend(scaled_BHTC, k_BKSC, v_BKSC, tpu.SegmentIds(segment_ids_BT, key_segment_ids_BS))
    return out_BHTC.transpose(0, 2, 1, 3)[..., :channels]
