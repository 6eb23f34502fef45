"""Files that challenge a lossless compressor: every kind, of any length; for tests and the proof of compression."""

import base64
import gzip
import random
from collections.abc import Callable
from pathlib import Path

from tests.corpus import texts

DOCS = Path(__file__).parents[1] / "docs"
CHARACTERS = "aé…漢字🌾\u0301\u200d\u202e\ufeff\ufffd\x00\x7f\r\n\t \N{NO-BREAK SPACE}Ω▁"


def prose(generator: random.Random, size: int) -> bytes:
    """From our own documentation, cut anywhere."""
    data = b"".join(path.read_bytes() for path in sorted(DOCS.glob("*.md")))
    start = generator.randrange(len(data) - size)
    return data[start : start + size]


def tales(generator: random.Random, size: int) -> bytes:
    """Text of few words, which repeat."""
    return "\n".join(texts(1 + size // 1500, seed=generator.randrange(10**6))).encode()[:size]


def noise(generator: random.Random, size: int) -> bytes:
    return generator.randbytes(size)


def unicode_text(generator: random.Random, size: int) -> bytes:
    return "".join(generator.choices(CHARACTERS, k=size // 3)).encode()


def any_characters(generator: random.Random, size: int) -> bytes:
    """Code points from all of Unicode, assigned or not."""
    places = [generator.randrange(0x110000) for _ in range(size // 4)]
    return "".join(chr(place) for place in places if not 0xD800 <= place < 0xE000).encode()


def cut_characters(generator: random.Random, size: int) -> bytes:
    """Text with missing single bytes."""
    data = bytearray(("größer als die Mühle, 漢字 und 🌾. " * (size // 40 + 1)).encode()[:size])
    for _ in range(size // 50):
        del data[generator.randrange(len(data))]
    return bytes(data)


def surrogates(generator: random.Random, size: int) -> bytes:
    """The encoding of Java and others for characters beyond 16 bits, which is not UTF-8."""
    return b"".join(generator.choices([b"\xed\xa0\xbc\xed\xbc\xbe", b"plain ", b"\xc0\x80"], k=size // 6))


def latin_1(generator: random.Random, size: int) -> bytes:
    return ("Der Müller läßt grüßen, sagt die Bäuerin im Tal. " * (size // 48 + 1)).encode("latin-1")[:size]


def mixed(generator: random.Random, size: int) -> bytes:
    """Alternating text and other bytes."""
    parts = [prose(generator, size // 4), noise(generator, size // 4), prose(generator, size // 4)]
    return b"".join([*parts, gzip.compress(parts[0], mtime=0), prose(generator, size // 8)])


def runs(generator: random.Random, size: int) -> bytes:
    bytes_ = [b" ", b"a", b"\x00", b"\xff", b"\n", "漢".encode()]
    found = b""
    while len(found) < size:
        found += generator.choice(bytes_) * generator.randrange(1, max(2, size // 2))
    return found[:size]


def names_of_tokens(generator: random.Random, size: int) -> bytes:
    words = ["<|endoftext|>", "<|", "|>", "endoftext", "<s>", "</s>", "<unk>", "<0x0A>", " the"]
    return "".join(generator.choices(words, k=size // 8)).encode()


def base_64(generator: random.Random, size: int) -> bytes:
    return base64.encodebytes(generator.randbytes(size * 3 // 4))


KINDS: dict[str, Callable[[random.Random, int], bytes]] = {
    "prose": prose, "tales": tales, "noise": noise, "unicode": unicode_text, "any characters": any_characters,
    "cut characters": cut_characters, "surrogates": surrogates, "latin-1": latin_1, "mixed": mixed, "runs": runs,
    "names of tokens": names_of_tokens, "base64": base_64,
}  # fmt: skip
SINGLE = (b"", b"\x00", b"a", b"\n", b"\xff", "🌾".encode(), b"\xef\xbb\xbf", b"\xf0\x9f\x8c", b"a\xff", b"\xffa")
"""The shortest files."""


def hostile_file(number: int, largest: int) -> tuple[str, bytes]:
    """(kind, bytes) of file `number`, deterministic: the shortest ones, then every kind in turn."""
    if number < len(SINGLE):
        return f"single {number}", SINGLE[number]
    generator = random.Random(number)
    kind = list(KINDS)[number % len(KINDS)]
    return kind, KINDS[kind](generator, generator.randrange(1, largest))
