"""Files whose bits are flipped one after the other."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np


def flips(paths: Sequence[Path], count: int, nonzero: bool = False) -> Iterator[Path]:
    """Yield `count` times the path of a file in which one random bit is flipped until the next turn.

    `nonzero`: only bits of bytes other than 0, since most of a small shard is padding.
    """
    generator = np.random.default_rng(0)
    for number in range(count):
        path = paths[number % len(paths)]
        data = bytearray(whole := path.read_bytes())
        places = np.flatnonzero(np.frombuffer(whole, np.uint8)) if nonzero else np.arange(len(whole))
        data[generator.choice(places)] ^= 1 << int(generator.integers(8))
        path.write_bytes(data)
        yield path
        path.write_bytes(whole)
