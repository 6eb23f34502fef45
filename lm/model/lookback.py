"""Token shift and n-gram embeddings, which show a token the tokens just before it without attention. Both take almost
no compute; GPT-2 and Llama have neither.

Token shift (ModelConfig.token_shift) changes the inputs of attention and MLP; n-gram embeddings are added to the token
embedding (ModelConfig.ngram_rows). In generation, what they need of the tokens before is in their caches: ShiftedCache,
and Cache.last_tokens_BN.

Axes: B batch, T position, D width, N rows of an n-gram table, or tokens before.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Shaped

from lm.config import ModelConfig
from lm.model.arrays import ResidualStream, TokenInts
from lm.model.attention.layer import Attention
from lm.model.attention.mask import AttentionMask
from lm.model.block import Block
from lm.model.kv_cache import LayerCache
from lm.model.layers import Rotary, constant, parameter
from lm.model.taps import Taps

FACTOR = 0x9E3779B1  # odd, near 2**32 divided by the golden ratio (Knuth, TAOCP 3, 6.4)


def shift_share(config: ModelConfig) -> nnx.Param:
    """Return the share of the previous token per channel, for `mixed`, initialized to 0.5."""
    return constant(0.5, (config.width,), ("width",), config.parameter_dtype)


def previous(
    x: Shaped[Array, "B T ..."],
    mask: AttentionMask,
    count: int,
    last: Shaped[Array, "B N ..."] | None = None,
    missing: int = 0,
) -> tuple[list[Shaped[Array, "B T ..."]], Shaped[Array, "B N ..."] | None]:
    """Return ([value of the token 1, 2, ... `count` positions earlier], the last `count` values of each row). A value
    is `missing` if that token belongs to another document.

    `last` is the second result for the tokens before these, from a cache; zeros of shape (B, `count`, ...) in an empty
    one. Padding (segment 0) comes after a row's tokens and does not enter it. Without a cache it is None.
    """
    length, joined, found = x.shape[1], x if last is None else jnp.concatenate([last, x], axis=1), []
    wide = lambda of_row: of_row.reshape(*of_row.shape, *[1] * (x.ndim - 2))
    for back in range(1, count + 1):
        if last is None:
            before = jnp.pad(x[:, :-back], ((0, 0), (back, 0), *[(0, 0)] * (x.ndim - 2)))[:, :length]
        else:
            before = joined[:, count - back : count - back + length]
        found.append(jnp.where(wide(mask.same_document(back)), before, missing))
    if last is not None:
        at_BN = jnp.sum(mask.segment_ids_BT > 0, axis=1)[:, None] + jnp.arange(count)[None]
        last = jnp.take_along_axis(joined, wide(at_BN), axis=1)
    return found, last


def mixed(x_BTD: ResidualStream, before_BTD: ResidualStream, share: nnx.Param) -> ResidualStream:
    """share * before + (1 - share) * x per channel: token shift of RWKV (arXiv:2305.13048)."""
    return x_BTD + (before_BTD - x_BTD) * share[...].astype(x_BTD.dtype)[None, None, :]


class ShiftedCache(NamedTuple):
    """Cache of a ShiftedBlock. mlp_last_B1D has the meaning of attention_last_B1D, for the MLP."""

    attention: LayerCache
    attention_last_B1D: Float[Array, "B 1 D"]  # noqa: N815
    """Input of the attention at each row's last token."""
    mlp_last_B1D: Float[Array, "B 1 D"]  # noqa: N815


class ShiftedAttention(Attention):
    """Attention whose queries, keys and values each have their own mix of a token and the one before it as input."""

    def __init__(self, config: ModelConfig, key: jax.Array, layer: int, residual_std: float):
        super().__init__(config, key, layer, residual_std)
        self.query_share, self.key_share, self.value_share = (shift_share(config) for _ in range(3))

    def __call__(
        self,
        x_BTD: ResidualStream,
        rotary: Rotary | None,
        mask: AttentionMask,
        cache: Any = None,
        taps: Taps | None = None,
    ) -> tuple[ResidualStream, Any]:
        """As Attention, with the block's ShiftedCache."""
        kept, last_B1D = (None, None) if cache is None else (cache.attention, cache.attention_last_B1D)
        (before_BTD,), last_B1D = previous(x_BTD, mask, 1, last_B1D)
        query = self.query(mixed(x_BTD, before_BTD, self.query_share))
        key = self.key(mixed(x_BTD, before_BTD, self.key_share))
        value = self.value(mixed(x_BTD, before_BTD, self.value_share))
        out_BTD, kept = self.attend((query, key, value), rotary, mask, kept, taps)
        return out_BTD, cache and cache._replace(attention=kept, attention_last_B1D=last_B1D)


class ShiftedBlock(Block):
    """Block with token shift, of attention and MLP (ModelConfig.token_shift)."""

    attention_class = ShiftedAttention

    def __init__(self, config: ModelConfig, key: jax.Array, layer: int):
        super().__init__(config, key, layer)
        self.mlp_share = shift_share(config)

    @staticmethod
    def init_cache(config: ModelConfig, rows: int, capacity: int) -> ShiftedCache:
        last = lambda: jnp.zeros((rows, 1, config.width), config.compute_dtype)
        return ShiftedCache(Block.init_cache(config, rows, capacity), last(), last())

    def feed_forward(
        self, g_BTD: ResidualStream, mask: AttentionMask, cache: Any, taps: Taps | None
    ) -> tuple[ResidualStream, Any]:
        (before_BTD,), last_B1D = previous(g_BTD, mask, 1, cache and cache.mlp_last_B1D)
        out_BTD = self.mlp(mixed(g_BTD, before_BTD, self.mlp_share), taps)
        return out_BTD, cache and cache._replace(mlp_last_B1D=last_B1D)


def ngram_tables(config: ModelConfig, key: jax.Array) -> list[nnx.Param]:
    """Return the embedding tables of n-grams, the last 2 to config.ngram_longest tokens (Huang et al. 2025,
    arXiv:2501.16975); empty if config.ngram_rows is 0. There are more n-grams than rows: a hash selects the row, and
    colliding n-grams share an embedding."""
    shape, std = (config.ngram_rows, config.width), 0.0 if config.zero_init else config.initial_std
    table = lambda key: parameter(key, shape, ("ngram", "width"), std, config.parameter_dtype)
    return [table(jax.random.fold_in(key, length)) for length in range(2, config.tokens_back + 2)]


def ngram_row(ngram: list[TokenInts], rows: int) -> TokenInts:
    """Row of each n-gram in a table of `rows` rows, by a multiplicative hash of its tokens, last token first."""
    hash_BT = jnp.zeros(ngram[0].shape, jnp.uint32)
    for tokens_BT in ngram:
        hash_BT = (hash_BT ^ (tokens_BT + 1).astype(jnp.uint32)) * jnp.uint32(FACTOR)
        hash_BT = hash_BT ^ (hash_BT >> 15)
    return (hash_BT % jnp.uint32(rows)).astype(jnp.int32)


def with_ngrams(
    x_BTD: ResidualStream,
    tables: list[Float[Array, "N D"]],
    tokens_BT: TokenInts,
    before: list[TokenInts],
) -> ResidualStream:
    """Add the embeddings of n-grams: the last two tokens select a row of the first table, the last three a row of the
    second, and so on. `before` has the tokens 1, 2, ... positions earlier; NOTHING before a document's first token."""
    found = [table[ngram_row([tokens_BT, *before[:length]], table.shape[0])] for length, table in enumerate(tables, 1)]
    return sum(found, x_BTD)
