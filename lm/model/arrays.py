"""Types of the arrays that many functions of the model take and return.

Axes: B batch, T position, S position of a key, D width, H query heads, K key-value heads, G = H / K, C channels of a
head, V vocabulary; I and O inputs and outputs of a linear map, N rows.
"""

from jaxtyping import Array, Bool, Float, Int

TokenInts = Int[Array, "B T"]
"""An integer for each token: its id, segment or position."""
Positions = Int[Array, "#B T"]
"""Position of each token in its row; a single row if all rows have the same positions."""
VisibleKeys = Bool[Array, "B T S"]
"""Whether each query may attend to each key."""
ResidualStream = Float[Array, "B T D"]
"""The residual stream, or what is added to it."""
LinearInputs = Float[Array, "B T I"]
LinearOutputs = Float[Array, "B T O"]
Queries = Float[Array, "B T H C"]
"""Queries, or outputs of attention."""
Keys = Float[Array, "B T K C"]
"""Keys or values of the tokens that are also the queries."""
SeenKeys = Float[Array, "B S K C"]
"""Keys or values of all tokens that are attended to."""
CachedKeys = Float[Array, "B K S C"]
"""`SeenKeys` head by head, as in a cache."""
GroupedQueries = Float[Array, "B K G T C"]
"""`Queries` head by head, grouped by their key head."""
OutputTable = Float[Array, "V D"]
"""The output projection: one row per token of the vocabulary."""
InputRows = Float[Array, "N I"]
OutputRows = Float[Array, "N O"]
RowInts = Int[Array, " B"]
"""An integer for each row of a batch."""
RowFloats = Float[Array, " B"]
RowLogits = Float[Array, "B V"]
"""Logits, or weights, of the next token."""
TokenMask = Bool[Array, "B V"]
"""True for some tokens of the vocabulary, such as those that a text already has."""
