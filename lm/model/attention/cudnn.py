"""cuDNN's fused attention for NVIDIA GPUs (FlashAttention-2, arXiv:2307.08691), which never stores the scores. The
tests compile it for GPUs; it has not run on one yet.

Axes: as in lm/model/attention/kernels.py; at most M documents per row.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from lm.model.arrays import Keys, Queries, TokenInts
from lm.model.attention.choice import CUDNN_CHANNELS
from lm.model.attention.mask import AttentionMask
from lm.model.attention.plain import LEAST_ROWS, by_blocks, filled_up

FEWEST_DOCUMENTS, SHORTEST_DOCUMENT = 32, 256
"""The packed kernel allows length // SHORTEST_DOCUMENT documents per row, and at least FEWEST_DOCUMENTS. For the
backward pass, it saves a row-length array for each document up to that maximum, even if the row has fewer."""


def documents(
    segment_ids_BT: TokenInts, most: int
) -> tuple[Int[Array, "B starts"], Int[Array, "B M"], Bool[Array, ""]]:
    """Return (starts (B, M + 1), lengths (B, M), fit) of the documents in each row. Entries without a document are -1;
    fit is True if no row has more than M = `most` documents. Padding counts as a document."""
    length = segment_ids_BT.shape[1]
    first_BT = jnp.pad(segment_ids_BT[:, 1:] != segment_ids_BT[:, :-1], ((0, 0), (1, 0)), constant_values=True)
    positions = lambda first_T: jnp.nonzero(first_T, size=most + 1, fill_value=-1)[0].astype(jnp.int32)
    starts_BM = jax.vmap(positions)(first_BT)
    ends_BM = jnp.where(starts_BM[:, 1:] < 0, length, starts_BM[:, 1:])
    lengths_BM = jnp.where(starts_BM[:, :-1] < 0, -1, ends_BM - starts_BM[:, :-1])
    return starts_BM, lengths_BM, jnp.all(starts_BM[:, -1] < 0)


def even(x_BT: jax.Array, value: int = 0) -> jax.Array:
    """Pad the T positions with `value` to an even number, which JAX requires for gradients."""
    return filled_up(x_BT, 2, axis=1, value=value)


def packed(
    q_BTHC: Queries,
    k_BTKC: Keys,
    v_BTKC: Keys,
    mask: AttentionMask,
) -> Queries:
    """Attention over packed documents, given by offsets and lengths: nothing is computed across documents, and there is
    no mask. Requires compute capability 9.0 and cuDNN 9.6. If a row of the batch has more documents than
    the kernel allows, plain operations over blocks of queries are used.

    jax.nn.dot_product_attention does not have these arguments; the function that it calls has them, with the same
    signature in jax 0.11.2 and 0.12.
    """
    from jax._src.cudnn.fused_attention_stablehlo import MaskType, dot_product_attention

    length, channels = q_BTHC.shape[1], q_BTHC.shape[3]
    most = max(FEWEST_DOCUMENTS, length // SHORTEST_DOCUMENT)
    starts_BM, lengths_BM, fits = documents(even(mask.segment_ids_BT, -1), most)

    def by_kernel(*qkv: jax.Array) -> jax.Array:
        out_BTHC = dot_product_attention(
            *(even(filled_up(x, CUDNN_CHANNELS, axis=3)) for x in qkv), q_seqlen=lengths_BM, kv_seqlen=lengths_BM,
            q_offsets=starts_BM, kv_offsets=starts_BM, scale=channels**-0.5, mask_type=MaskType.PADDING_CAUSAL,
            sliding_window_length=mask.window,
        )  # fmt: skip
        return out_BTHC[:, :length, :, :channels]

    by_plain_operations = lambda *qkv: by_blocks(*qkv, mask, blocks=-(-length // LEAST_ROWS))
    return jax.lax.cond(fits, by_kernel, by_plain_operations, q_BTHC, k_BTKC, v_BTKC)


def masked(
    q_BTHC: Queries,
    k_BTKC: Keys,
    v_BTKC: Keys,
    mask: AttentionMask,
) -> Queries:
    """Attention with an arbitrary mask of T x T values per sequence, shared by all heads; without a prefix, nothing
    above the diagonal is computed."""
    length, channels = q_BTHC.shape[1], q_BTHC.shape[3]
    mask = dataclasses.replace(mask, segment_ids_BT=even(mask.segment_ids_BT, -1))
    out_BTHC = jax.nn.dot_product_attention(
        *(even(filled_up(x, CUDNN_CHANNELS, axis=3)) for x in (q_BTHC, k_BTKC, v_BTKC)), scale=channels**-0.5,
        mask=mask.all_visible()[:, None], is_causal=mask.prefix_B is None, implementation="cudnn",
    )  # fmt: skip
    return out_BTHC[:, :length, :, :channels]
