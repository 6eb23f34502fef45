"""Exact duplicates: documents of one dump with the same text but for white space. Pure; clusters.py does the join."""

import hashlib


def text_key(text: str, dump: str) -> bytes:
    """16 bytes of BLAKE2b of the words of `text` with one space between them, and of the dump's name."""
    salt = hashlib.blake2b(dump.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    return hashlib.blake2b(" ".join(text.split()).encode("utf-8", "surrogatepass"), digest_size=16, key=salt).digest()
