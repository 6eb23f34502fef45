"""Types of the arrays that many functions of the model take and return.

Axes: B batch, T position, S position of a key, D width, H query heads, K key-value heads, G = H / K, C channels of a
head, V vocabulary; I and O inputs and outputs of a linear map, N rows.
"""

from jaxtyping import Array, Bool, Float, Int

TokenInts = Int[Array, "B T"]
"""An integer for each token: its id, segment or position."""
Positions = Int[Array, "#B T"]
"""Position of each token in its row; one row may stand for all."""
VisibleKeys = Bool[Array, "B T S"]
"""Whether each query may attend to each key."""
Stream = Float[Array, "B T D"]
"""The residual stream, or what is added to it."""
MapInputs = Float[Array, "B T I"]
MapOutputs = Float[Array, "B T O"]
QueryHeads = Float[Array, "B T H C"]
"""Queries, or outputs of attention."""
KeyHeads = Float[Array, "B T K C"]
"""Keys or values of the tokens that are also the queries."""
SeenKeyHeads = Float[Array, "B S K C"]
"""Keys or values of all tokens that are attended to."""
HeadsOfKeys = Float[Array, "B K S C"]
"""`SeenKeyHeads` head by head, as in a cache."""
HeadsOfQueries = Float[Array, "B K G T C"]
"""`QueryHeads` head by head, grouped by their key head."""
OutputTable = Float[Array, "V D"]
"""The output projection: one row per token of the vocabulary."""
InputRows = Float[Array, "N I"]
OutputRows = Float[Array, "N O"]
RowInts = Int[Array, " B"]
"""An integer for each row of a batch."""
RowFloats = Float[Array, " B"]
RowLogits = Float[Array, "B V"]
"""Logits, or weights, of the next token."""
MarkedTokens = Bool[Array, "B V"]
"""Whether each token of the vocabulary is marked: as seen, or as one that can be drawn."""
