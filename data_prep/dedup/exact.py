"""Exact duplicates: documents of one scope (scope.py) with the same text but for white space. Pure.

The join is in clusters.py.
"""

import hashlib


def text_key(text: str, scope: str) -> bytes:
    """16 bytes of BLAKE2b of the words of `text` with one space between them, and of the scope."""
    salt = hashlib.blake2b(scope.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    return hashlib.blake2b(" ".join(text.split()).encode("utf-8", "surrogatepass"), digest_size=16, key=salt).digest()
