"""Parse and verify the digests in WARC headers."""

import base64
import hashlib
from collections.abc import Callable

ALGORITHMS = {
    "md5": (hashlib.md5, 16),
    "sha1": (hashlib.sha1, 20),
    "sha256": (hashlib.sha256, 32),
    "sha512": (hashlib.sha512, 64),
}
"""{name: (function, bytes of the digest)} of the supported digests."""
FROM_BASE_32 = str.maketrans("abcdefghijklmnopqrstuvwxyz234567", "0123456789abcdefghijklmnopqrstuv")


def digest_holds(written: str, *forms: Callable[[], bytes]) -> bool | None:
    """Check a digest such as "sha1:…": whether any of `forms` has it. None if it is missing or unsupported.

    Crawlers write base 32 or hex, in upper or lower case.
    """
    algorithm, _, value = written.strip().lower().replace("-", "").partition(":")
    value = value.strip().rstrip("=")
    if algorithm not in ALGORITHMS:
        return None
    digest_of, size = ALGORITHMS[algorithm]
    base_32_length = -(-8 * size // 5)
    try:
        if len(value) == 2 * size:
            number = int(value, 16)
        elif len(value) == base_32_length:  # the last character has padding bits
            number = int(value.translate(FROM_BASE_32), 32) >> (5 * base_32_length - 8 * size)
        else:
            return None
    except ValueError:
        return False
    digest = number.to_bytes(size, "big") if 0 <= number < 1 << 8 * size else b""
    return any(digest_of(form(), usedforsecurity=False).digest() == digest for form in forms)


def sha1_digest(data: bytes) -> str:
    """Return "sha1:" and the SHA-1 of `data` in base 32, the usual form in WARC files."""
    return "sha1:" + base64.b32encode(hashlib.sha1(data, usedforsecurity=False).digest()).decode()
