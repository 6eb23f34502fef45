"""tiktoken's format of a vocabulary: one "<base64 of the bytes> <rank>" a line."""

import base64
from collections.abc import Iterable


def write_ranks(tokens: Iterable[bytes]) -> bytes:
    """The file of tokens 0, 1, ..."""
    return b"".join(b"%b %d\n" % (base64.b64encode(token), rank) for rank, token in enumerate(tokens))


def read_ranks(data: bytes) -> tuple[bytes, ...]:
    """Tokens by rank, which must be 0, 1, ... in order. Raises ValueError, with the line."""
    tokens = []
    for number, line in enumerate(data.decode("ascii").removesuffix("\n").split("\n")):
        encoded, rank = line.split(" ")
        if int(rank) != number:
            raise ValueError(f"line {number + 1} has rank {rank}, not {number}")
        tokens.append(base64.b64decode(encoded, validate=True))
        if base64.b64encode(tokens[-1]).decode() != encoded:
            raise ValueError(f"line {number + 1} is no base64: {encoded}")
    return tuple(tokens)
