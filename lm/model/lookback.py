"""Token shift and n-gram embeddings, which show a token the tokens just before it without attention. Both take almost
no compute; GPT-2 and Llama have neither.

Token shift (ModelConfig.token_shift) changes the inputs of attention and MLP; n-gram embeddings are added to the token
embedding (ModelConfig.ngram_rows). In generation, the tokens before are in the cache: LayerCache.attention_last_B1D and
mlp_last_B1D, and Cache.tokens_BS.

Axes: B batch, T position, D width, N rows of an n-gram table; I and J channels of all query heads and of all key heads.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from lm.config import ModelConfig
from lm.model.attention.layer import Attention
from lm.model.attention.mask import AttentionMask
from lm.model.kv_cache import NOTHING, Cache, LayerCache
from lm.model.layers import constant, parameter

FACTOR = 0x9E3779B1  # odd, near 2**32 divided by the golden ratio (Knuth, TAOCP 3, 6.4)


def shift_share(config: ModelConfig) -> nnx.Param:
    """Return the share of the previous token per channel, for `mixed`, initialized to 0.5."""
    return constant(0.5, (config.width,), ("width",), config.parameter_dtype)


def same_as_before(mask: AttentionMask) -> Bool[Array, "B T"]:
    """Return True where the previous token belongs to the same document; False for the first token of a row."""
    if mask.key_segment_ids_BS is None or mask.positions_BT is None:
        before_BT = jnp.pad(mask.segment_ids_BT[:, :-1], ((0, 0), (1, 0)), constant_values=NOTHING)
        return before_BT == mask.segment_ids_BT
    before_BT = jnp.take_along_axis(mask.key_segment_ids_BS, jnp.maximum(mask.positions_BT - 1, 0), axis=1)
    return (mask.positions_BT > 0) & (before_BT == mask.segment_ids_BT)


def shifted(
    x_BTD: Float[Array, "B T D"], mask: AttentionMask, last_B1D: Float[Array, "B 1 D"] | None = None
) -> Float[Array, "B T D"]:
    """Shift by one position: the value of the previous token, `last_B1D` for the first token, or 0 if the previous
    token belongs to another document."""
    same_BT = same_as_before(mask)
    if last_B1D is None:
        before_BTD = jnp.pad(x_BTD[:, :-1], ((0, 0), (1, 0), (0, 0)))
    else:
        before_BTD = jnp.concatenate([last_B1D, x_BTD[:, :-1]], axis=1)
    return jnp.where(same_BT[:, :, None], before_BTD, 0)


def mixed(x_BTD: Float[Array, "B T D"], before_BTD: Float[Array, "B T D"], share: nnx.Param) -> Float[Array, "B T D"]:
    """share * before + (1 - share) * x per channel: token shift of RWKV (arXiv:2305.13048)."""
    return x_BTD + (before_BTD - x_BTD) * share[...].astype(x_BTD.dtype)[None, None, :]


class ShiftedAttention(Attention):
    """Attention whose queries, keys and values each have their own mix of a token and the one before it as input."""

    def __init__(self, config: ModelConfig, key: jax.Array, layer: int, residual_std: float):
        super().__init__(config, key, layer, residual_std)
        self.query_share, self.key_share, self.value_share = (shift_share(config) for _ in range(3))

    def products(
        self, x_BTD: Float[Array, "B T D"], mask: AttentionMask, cache: LayerCache | None
    ) -> tuple[Float[Array, "B T I"], Float[Array, "B T J"], Float[Array, "B T J"]]:
        before_BTD = shifted(x_BTD, mask, None if cache is None else cache.attention_last_B1D)
        query = self.query(mixed(x_BTD, before_BTD, self.query_share))
        key = self.key(mixed(x_BTD, before_BTD, self.key_share))
        return query, key, self.value(mixed(x_BTD, before_BTD, self.value_share))


def mlp_input(
    g_BTD: Float[Array, "B T D"], share: nnx.Param | None, mask: AttentionMask, cache: LayerCache | None
) -> Float[Array, "B T D"]:
    """Mix the inputs of the MLP, as `mixed`; unchanged without token shift, if `share` is None."""
    if share is None:
        return g_BTD
    return mixed(g_BTD, shifted(g_BTD, mask, None if cache is None else cache.mlp_last_B1D), share)


def newest(
    x_BTD: Float[Array, "B T D"], last_B1D: Float[Array, "B 1 D"], segment_ids_BT: Int[Array, "B T"]
) -> Float[Array, "B 1 D"]:
    """Return the value at each row's last token, or `last_B1D` if the row has no new tokens. Padding (segment 0) comes
    after a row's tokens."""
    count_B11 = jnp.sum(segment_ids_BT > 0, axis=1)[:, None, None]
    return jnp.take_along_axis(jnp.concatenate([last_B1D, x_BTD], axis=1), count_B11, axis=1)


def with_last_inputs(
    cache: LayerCache | None,
    h_BTD: Float[Array, "B T D"],
    g_BTD: Float[Array, "B T D"],
    segment_ids_BT: Int[Array, "B T"],
) -> LayerCache | None:
    """Return the cache with the inputs of attention (h) and MLP (g) at each row's last token; unchanged without token
    shift."""
    if cache is None or cache.attention_last_B1D is None or cache.mlp_last_B1D is None:
        return cache
    return cache._replace(
        attention_last_B1D=newest(h_BTD, cache.attention_last_B1D, segment_ids_BT),
        mlp_last_B1D=newest(g_BTD, cache.mlp_last_B1D, segment_ids_BT),
    )


def ngram_tables(config: ModelConfig, key: jax.Array) -> list[nnx.Param]:
    """Return the embedding tables of n-grams, the last 2 to config.ngram_longest tokens (Huang et al. 2025,
    arXiv:2501.16975); empty if config.ngram_rows is 0. There are more n-grams than rows: a hash selects the row, and
    colliding n-grams share an embedding."""
    shape, std = (config.ngram_rows, config.width), 0.0 if config.zero_init else config.initial_std
    table = lambda key: parameter(key, shape, ("ngram", "width"), std, config.parameter_dtype)
    return [table(jax.random.fold_in(key, length)) for length in range(2, config.tokens_back + 2)]


def tokens_before(
    tokens_BT: Int[Array, "B T"], mask: AttentionMask, count: int, cache: Cache | None = None
) -> list[Int[Array, "B T"]]:
    """For each n in 1 to `count`, return the token n positions earlier, or -1 (NOTHING) if the document has none there.
    With a `cache`, which already has these tokens, pass a mask from AttentionMask.over."""
    found = []
    for back in range(1, count + 1):
        if cache is None or mask.positions_BT is None:
            shift = lambda x_BT, back=back: jnp.pad(x_BT, ((0, 0), (back, 0)), constant_values=NOTHING)[:, :-back]
            same_BT, before_BT = shift(mask.segment_ids_BT) == mask.segment_ids_BT, shift(tokens_BT)
        else:
            slots_BT = jnp.maximum(mask.positions_BT - back, 0)
            before_BT = jnp.take_along_axis(cache.tokens_BS, slots_BT, axis=1)
            of_BT = jnp.take_along_axis(cache.segment_ids_BS, slots_BT, axis=1)
            same_BT = (mask.positions_BT >= back) & (of_BT == mask.segment_ids_BT)
        found.append(jnp.where(same_BT, before_BT, NOTHING))
    return found


def ngram_row(ngram: list[Int[Array, "B T"]], rows: int) -> Int[Array, "B T"]:
    """Row of each n-gram in a table of `rows` rows, by a multiplicative hash of its tokens, last token first."""
    hash_BT = jnp.zeros(ngram[0].shape, jnp.uint32)
    for tokens_BT in ngram:
        hash_BT = (hash_BT ^ (tokens_BT + 1).astype(jnp.uint32)) * jnp.uint32(FACTOR)
        hash_BT = hash_BT ^ (hash_BT >> 15)
    return (hash_BT % jnp.uint32(rows)).astype(jnp.int32)


def with_ngrams(
    x_BTD: Float[Array, "B T D"],
    tables: list[Float[Array, "N D"]],
    tokens_BT: Int[Array, "B T"],
    before: list[Int[Array, "B T"]],
) -> Float[Array, "B T D"]:
    """Add the embeddings of n-grams: the last two tokens select a row of the first table, the last three a row of the
    second, and so on. `before` is the result of `tokens_before`."""
    found = [table[ngram_row([tokens_BT, *before[:length]], table.shape[0])] for length, table in enumerate(tables, 1)]
    return sum(found, x_BTD)
