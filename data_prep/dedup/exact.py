"""Exact duplicates: documents whose texts are equal but for white space. Pure; pipeline.py does the join.

Of equal documents the first is kept, by (file, row). That rule looks at where documents stand, not at when they arrive,
so it gives the same answer for any number of workers.
"""

import hashlib
from collections.abc import Iterable

REASON = "exact_duplicate"

Position = tuple[int, int]
"""(index of the file among all files in order, row in that file)."""


def text_key(text: str) -> str:
    """SHA-256, as hexadecimal digits, of the words of `text` with one space between them."""
    return hashlib.sha256(" ".join(text.split()).encode()).hexdigest()


def later_copies(positions: Iterable[Position]) -> list[Position]:
    """Of the positions of equal documents, in any order, all but the first, in order."""
    return sorted(positions)[1:]
