"""File format: a header that describes the file and what it was compressed with, then the body with the data.

    magic (6), version (1), length of the header (2), header, CRC-32 of all this (4), body

Parentheses give sizes in bytes. Numbers are little-endian; those without a size are LEB128, seven bits per byte. Header
and Body list the fields, in their order.
"""

import array
import dataclasses
import io
import lzma
import zlib
from collections.abc import Iterator, Sequence
from typing import BinaryIO, Self

from lm.errors import InputError

MAGIC, VERSION = b"grist\x1a", 1
DIGEST = 16
"""Length in bytes of the truncated SHA-256 values that identify model, tokenizer and program."""
STORED, XZ = 0, 1
CHUNK = 1 << 20
"""Bytes that are decompressed at once."""
MOST_XZ_RATIO = 7200
"""Upper bound of LZMA2's compression ratio: 273 bytes take 14 bits that cost .022 each, so 7,110."""
DICTIONARY = 1 << 24
"""Size of xz's dictionary in bytes, and so the memory for reading."""


class DamagedFileError(InputError):
    """A compressed file differs from what was written."""


@dataclasses.dataclass(frozen=True)
class Header:
    """Fields of the header of a compressed file."""

    size: int
    """Size of the original file in bytes."""
    sha256: bytes
    """SHA-256 of the original file, 32 bytes."""
    step: int
    """Step of the checkpoint with which the file was compressed."""
    tokens: int
    """Number of tokens that the model predicts; 0: reading the file needs no model."""
    segments: int
    """Number of segments that the tokens are divided into."""
    parameters: bytes
    """Truncated SHA-256 of the model's parameters."""
    tokenizer: bytes
    """Truncated fingerprint of the tokenizer."""
    program: bytes
    """Truncated SHA-256 of the program that computes the probabilities, as passed to XLA."""
    machine: dict[str, str]
    """{name: value} of everything else that affects floating-point results, such as versions; without line breaks."""
    body: int
    """Size of the body in bytes."""
    body_crc: int
    """CRC-32 of the body."""

    def pack(self) -> bytes:
        """Return the bytes from the magic to the CRC of the header."""
        machine = "\n".join(f"{name}={value}" for name, value in self.machine.items()).encode()
        numbers = (self.size, self.step, self.tokens, self.segments, self.body)
        digests = (self.sha256, self.parameters, self.tokenizer, self.program)
        fields = b"".join([*map(varint, numbers), *digests, self.body_crc.to_bytes(4, "little"), machine])
        head = MAGIC + bytes([VERSION]) + len(fields).to_bytes(2, "little") + fields
        return head + zlib.crc32(head).to_bytes(4, "little")

    @classmethod
    def read(cls, file: BinaryIO, name: str) -> Self:
        """Read the header at the beginning of `file`; `name` is for messages. Raises InputError for another format or
        version, DamagedFileError if it is damaged."""
        begin = file.read(len(MAGIC) + 3)
        if not begin.startswith(MAGIC):
            raise InputError(
                f"{name} is not a file of launch.compress: it begins with {begin[: len(MAGIC)]!r} instead of {MAGIC!r}."
                " Give a file that launch.compress wrote."
            )
        if len(begin) > len(MAGIC) and begin[len(MAGIC)] != VERSION:
            raise InputError(
                f"{name} has format version {begin[len(MAGIC)]}, and this program reads version {VERSION}. Use the "
                "version of Gristmill that wrote the file."
            )
        fields = file.read(int.from_bytes(begin[-2:], "little"))
        crc = file.read(4)
        if crc != zlib.crc32(begin + fields).to_bytes(4, "little"):
            raise damaged(name, "the checksum of its header is wrong")
        try:
            return cls.of_fields(io.BytesIO(fields))
        except ValueError as error:
            raise damaged(name, f"its header holds {error}") from error

    @classmethod
    def of_fields(cls, fields: BinaryIO) -> Self:
        size, step, tokens, segments, body = (read_varint(fields) for _ in range(5))
        digests = [exactly(fields, length) for length in (32, DIGEST, DIGEST, DIGEST)]
        body_crc = int.from_bytes(exactly(fields, 4), "little")
        lines = filter(None, fields.read().decode().split("\n"))
        machine = {name: value for name, _, value in (line.partition("=") for line in lines)}
        sha256, parameters, tokenizer, program = digests
        return cls(
            size, sha256, step, tokens, segments, parameters, tokenizer, program, machine, body, body_crc
        )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Body:
    """Data of a compressed file, after the header."""

    lengths: Sequence[int]
    """Lengths of the pieces of the original file in bytes: text, non-text, text, ... alternating."""
    kind: int
    """STORED or XZ: format of the bytes that are not text."""
    raw: bytes
    """All bytes that are not text, in the format `kind`."""
    coded: bytes
    """All text: output of the range coder."""

    def pack(self) -> bytes:
        numbers = [len(self.lengths), *self.lengths, self.kind, len(self.raw)]
        return b"".join([*map(varint, numbers), self.raw, self.coded])

    def unpacked_raw(self) -> Iterator[bytes]:
        """Yield the original bytes that are not text, in parts. Raises ValueError if they are damaged."""
        return unpacked_raw(self.kind, self.raw, sum(self.lengths[1::2]))

    @classmethod
    def read(cls, data: bytes, size: int) -> Self:
        """Parse the body of a compressed file whose original has `size` bytes. Raises ValueError with the reason."""
        file = io.BytesIO(data)
        lengths = array.array("Q", (read_varint(file) for _ in range(read_varint(file))))
        if sum(lengths) != size:
            raise ValueError(f"pieces of {sum(lengths):,} bytes in total for a file of {size:,} bytes")
        kind, packed = read_varint(file), read_varint(file)
        raw, size = exactly(file, packed), sum(lengths[1::2])
        if size > packed * (MOST_XZ_RATIO if kind == XZ else 1) + CHUNK:
            raise ValueError(f"{packed:,} bytes, too few for the {size:,} bytes outside the text")
        return cls(lengths, kind, raw, file.read())


def damaged(name: str, what: str) -> DamagedFileError:
    return DamagedFileError(f"{name} is damaged: {what}. Restore it from a copy.")


def read_body(file: BinaryIO, header: Header, name: str) -> Body:
    """Read the body after the header and verify it. Raises DamagedFileError."""
    data = file.read()
    if len(data) != header.body:
        raise damaged(name, f"{len(data):,} bytes follow its header; {header.body:,} should")
    if zlib.crc32(data) != header.body_crc:
        raise damaged(name, f"its CRC-32 is {zlib.crc32(data):08x}; it should be {header.body_crc:08x}")
    try:
        return Body.read(data, header.size)
    except ValueError as error:
        raise damaged(name, f"it holds {error}") from error


def packed_raw(raw: bytes) -> tuple[int, bytes]:
    """Return (STORED, `raw`) or (XZ, `raw` compressed), whichever is smaller."""
    packed = lzma.compress(raw, lzma.FORMAT_RAW, filters=filters(len(raw)))
    return (XZ, packed) if len(packed) < len(raw) else (STORED, raw)


def unpacked_raw(kind: int, packed: bytes, size: int) -> Iterator[bytes]:
    """Decompress `packed` and yield the `size` original bytes: for XZ in parts of at most CHUNK, which bounds the
    memory, for STORED as one part. Raises ValueError if the data is invalid or has another size; with XZ, some parts
    may come before the error."""
    if kind == STORED:
        if len(packed) != size:
            raise ValueError(f"{len(packed):,} bytes outside the text instead of {size:,}")
        yield packed
        return
    if kind != XZ:
        raise ValueError(f"pieces of the unknown kind {kind}")
    unpacker, data, left = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=filters(DICTIONARY)), packed, size
    try:
        while left >= 0 and not unpacker.eof:
            part, data = unpacker.decompress(data, min(left, CHUNK) or 1), b""
            left -= len(part)
            if not part:
                break
            if left >= 0:
                yield part
    except lzma.LZMAError as error:
        raise ValueError(f"invalid LZMA data ({error})") from error
    if left:
        raise ValueError(f"at least {size - left:,} bytes outside the text instead of {size:,}")


def filters(size: int) -> list[dict[str, int]]:
    look_back = min(DICTIONARY, max(4096, size))
    return [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": look_back}]


def varint(number: int) -> bytes:
    """Encode a number in LEB128: seven bits per byte, low bits first."""
    made = bytearray()
    while number > 0x7F:
        made.append(number & 0x7F | 0x80)
        number >>= 7
    made.append(number)
    return bytes(made)


def read_varint(file: BinaryIO) -> int:
    """Parse a LEB128 number. Raises ValueError if it is cut off, or longer than 63 bits."""
    number = 0
    for shift in range(0, 63, 7):
        (byte,) = exactly(file, 1)
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number
    raise ValueError("a number of more than 63 bits")


def exactly(file: BinaryIO, length: int) -> bytes:
    """Read `length` bytes. Raises ValueError if the file ends before."""
    found = file.read(length)
    if len(found) != length:
        raise ValueError(f"{len(found):,} bytes instead of {length:,}")
    return found
