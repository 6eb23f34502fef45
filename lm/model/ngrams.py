"""Embeddings of the last two, three, ... tokens, in addition to the token embedding: more parameters for almost no
compute.

Huang et al. 2025 (arXiv:2501.16975) add hashed n-gram embeddings to the input of a transformer. There are more n-grams
than rows: a hash selects the row, and colliding n-grams share an embedding.

Axes: B batch, T position, N n-gram lengths, D width.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

FACTOR = 0x9E3779B1  # odd, near 2**32 divided by the golden ratio (Knuth, TAOCP 3, 6.4)
NOTHING = -1
"""Placeholder for tokens before the start of the document."""


def tokens_before(
    tokens_BT: Int[Array, "B T"], segment_ids_BT: Int[Array, "B T"], count: int
) -> list[Int[Array, "B T"]]:
    """For each n in 1 to `count`, return the token n positions earlier, or NOTHING if that is not in the same
    document."""
    found = []
    for back in range(1, count + 1):
        shift = lambda x_BT, fill, back=back: jnp.pad(x_BT, ((0, 0), (back, 0)), constant_values=fill)[:, :-back]
        same_BT = shift(segment_ids_BT, NOTHING) == segment_ids_BT
        found.append(jnp.where(same_BT, shift(tokens_BT, NOTHING), NOTHING))
    return found


def ngram_row(ngram: list[Int[Array, "B T"]], rows: int) -> Int[Array, "B T"]:
    """Return the row of each n-gram in a table of `rows` rows, by a multiplicative hash of its tokens, last token
    first."""
    hash_BT = jnp.zeros(ngram[0].shape, jnp.uint32)
    for tokens_BT in ngram:
        hash_BT = (hash_BT ^ (tokens_BT + 1).astype(jnp.uint32)) * jnp.uint32(FACTOR)
        hash_BT = hash_BT ^ (hash_BT >> 15)
    return (hash_BT % jnp.uint32(rows)).astype(jnp.int32)


def ngram_embeddings(
    tables: list[jax.Array], tokens_BT: Int[Array, "B T"], before: list[Int[Array, "B T"]]
) -> list[jax.Array]:
    """Return embeddings (B, T, D) from each table: the first for the last two tokens, the next for the last three,
    ..."""
    return [table[ngram_row([tokens_BT, *before[:length]], table.shape[0])] for length, table in enumerate(tables, 1)]
