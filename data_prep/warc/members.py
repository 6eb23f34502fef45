"""Compressed members of a WARC file, gzip members and zstd frames: decompressed in steps, with checksums verified.

`read(size)` returns the next bytes, about `size` at most, and none only at the end; it raises DamagedError. `end` is
the position in the file after the data decompressed so far. `done` means that the end was reached and the checksum was
right.
"""

import contextlib
import zlib
from collections.abc import Callable
from typing import NamedTuple, cast

from isal import isal_zlib

from data_prep.warc.byte_sources import STEP, DamagedError, FileBytes
from data_prep.warc.record import CUT_OFF, DAMAGED_MEMBER, TOO_LARGE
from lm.storage import count_bytes

ZSTD = b"\x28\xb5\x2f\xfd"  # first bytes of a zstd frame (RFC 8878)
ZSTD_DICTIONARY = b"\x5d\x2a\x4d\x18"  # the skippable frame with the dictionary of a .warc.zst file
MAX_DICTIONARY_BYTES = 16 << 20
MAX_WINDOW_BYTES = 128 << 20  # largest allowed window of a zstd frame
ZSTD_PIECE = 1 << 10  # input bytes to decompress at once, which may expand to 32 MB
RESCUE_PIECE = 4 << 10  # the same for gzip: up to 4 MB
EXACT_PIECES = 8
ENDLESS_BYTES, ENDLESS_RATIO = 4 << 30, 100

IsalError = cast(type[Exception], isal_zlib.error)  # its stub declares an instance


class GzipMember:
    """Decompressor of the gzip member at `start`, whose checksum and length are verified at its end."""

    __slots__ = ("done", "file", "has_checksum", "inflater", "pieces", "position")

    def __init__(self, file: FileBytes, start: int):
        self.file, self.position, self.pieces = file, start, 0
        self.done, self.has_checksum = False, True
        self.inflater = isal_zlib.decompressobj(isal_zlib.MAX_WBITS | 16)

    @property
    def end(self) -> int:
        return self.position - len(self.inflater.unused_data if self.done else self.inflater.unconsumed_tail)

    def read(self, size: int) -> bytes:
        inflater = self.inflater
        while not self.done:
            piece = inflater.unconsumed_tail
            if not piece:
                # One magic number within a member is chance, many are an attack.
                piece = self.file.piece(self.position, exact=self.pieces < EXACT_PIECES)
                self.position += len(piece)
                self.pieces += 1
            if not piece:
                raise DamagedError(CUT_OFF, "the file ends within a gzip member")
            try:
                inflated = inflater.decompress(piece, size)
            except IsalError as error:
                raise DamagedError(DAMAGED_MEMBER, str(error)) from error
            self.done = inflater.eof
            count_bytes(unpacked=len(inflated))
            if inflated:
                return inflated
        return b""


class RescuedMember:
    """Decompressor of a damaged gzip member that returns every byte before the damage; GzipMember loses the last ones.

    Slow: if a piece fails, it is decompressed again byte by byte.
    """

    def __init__(self, file: FileBytes, start: int):
        self.file, self.position = file, start
        self.inflater = zlib.decompressobj(zlib.MAX_WBITS | 16)
        self.error: zlib.error | None = None

    def read(self, size: int) -> bytes:
        while self.error is None and not self.inflater.eof:
            self.file.hold(self.position, RESCUE_PIECE)
            piece = self.file.at(self.position, RESCUE_PIECE)
            if not piece:
                raise DamagedError(CUT_OFF, "the file ends within a gzip member")
            before = self.inflater.copy()
            try:
                inflated = self.inflater.decompress(piece)
            except zlib.error as error:
                self.error, parts = error, []
                with contextlib.suppress(zlib.error):
                    for at in range(len(piece)):
                        parts.append(before.decompress(piece[at : at + 1]))
                inflated = b"".join(parts)
            self.position += len(piece)
            count_bytes(unpacked=len(inflated))
            if inflated:
                return inflated
        if self.error is not None:
            raise DamagedError(DAMAGED_MEMBER, str(self.error))
        return b""


class ZstdFrame:
    """Decompressor of the zstd frame at `start`, whose checksum, if any, is verified at its end."""

    def __init__(self, file: FileBytes, start: int, dictionary: bytes):
        import zstandard

        self.file, self.position, self.error = file, start, zstandard.ZstdError
        self.done, self.has_checksum = False, bool(int.from_bytes(file.at(start + 4, 1)) & 4)  # Content_Checksum_flag
        self.inflater = zstandard.ZstdDecompressor(
            zstandard.ZstdCompressionDict(dictionary) if dictionary else None, max_window_size=MAX_WINDOW_BYTES
        ).decompressobj()

    @property
    def end(self) -> int:
        return self.position - len(self.inflater.unused_data)

    def read(self, size: int) -> bytes:
        while not self.done:
            self.file.hold(self.position, ZSTD_PIECE)
            piece = self.file.at(self.position, ZSTD_PIECE)
            self.position += len(piece)
            if not piece:
                raise DamagedError(CUT_OFF, "the file ends within a zstd frame")
            try:
                inflated = self.inflater.decompress(piece)
            except self.error as error:
                raise DamagedError(DAMAGED_MEMBER, str(error)) from error
            self.done = self.inflater.eof
            count_bytes(unpacked=len(inflated))
            if inflated:
                return inflated
        return b""


type Member = GzipMember | ZstdFrame


class Members:
    """Consecutive members from `start` on, decompressed as one stream, for files whose records continue in the next
    member. `opened` returns the member at a position, or None."""

    def __init__(self, opened: Callable[[int], Member | None], start: int):
        self.opened, self.start, self.member = opened, start, opened(start)

    @property
    def end(self) -> int:
        return self.start if self.member is None else self.member.end

    def read(self, size: int) -> bytes:
        while self.member is not None:
            if inflated := self.member.read(size):
                return inflated
            following = self.opened(self.end)
            if following is None:
                return b""
            self.start, self.member = self.end, following
        return b""


def zstd_dictionary(file: FileBytes) -> tuple[bytes, int]:
    """Return (dictionary of a .warc.zst file or b"", position of the first compressed frame). Raises DamagedError.

    The format is the IIPC's proposal "Use of Zstandard compression in WARC files": the dictionary, which may itself be
    compressed, is in a skippable frame at the start of the file.
    """
    import zstandard

    head = file.at(0, 8)
    if not head.startswith(ZSTD_DICTIONARY):
        return b"", 0
    size = int.from_bytes(head[4:8], "little")
    if size > MAX_DICTIONARY_BYTES:
        raise DamagedError(TOO_LARGE, f"a zstd dictionary of {size} bytes; the limit is {MAX_DICTIONARY_BYTES}")
    dictionary = file.at(8, size)
    if dictionary.startswith(ZSTD):
        try:
            dictionary = zstandard.ZstdDecompressor().decompress(dictionary, max_output_size=MAX_DICTIONARY_BYTES)
        except zstandard.ZstdError as error:
            raise DamagedError(DAMAGED_MEMBER, f"the zstd dictionary: {error}") from error
    return dictionary, 8 + size


class ScannedMember(NamedTuple):
    """Result of decompressing a gzip member or zstd frame to its end (`scan`)."""

    held: bytes
    """All decompressed bytes, if they fit into the `hold` of `scan`; otherwise the first ones."""
    size: int
    """Number of decompressed bytes, up to any damage."""
    end: int
    """Position in the file after the member; if it is damaged, after the part that was read."""
    has_checksum: bool
    """Whether the format has a checksum: always for gzip, optionally for zstd."""
    broken: DamagedError | None
    """The damage; None if all was decompressed, and checksum and length, if present, match."""


def usual_member(file: FileBytes, start: int) -> tuple[bytes, int] | None:
    """Return (decompressed data, end in the file) of the gzip member at `start`; None if it is damaged or not small.

    Nearly all members are small. This takes half of the time of reading; `scan` handles every member, but is slower.
    """
    piece = file.piece(start, exact=True)
    inflater = isal_zlib.decompressobj(isal_zlib.MAX_WBITS | 16)
    try:
        inflated = inflater.decompress(piece, STEP)
    except IsalError:
        return None
    count_bytes(unpacked=len(inflated))
    return (inflated, start + len(piece) - len(inflater.unused_data)) if inflater.eof else None


def scan(member: Member, start: int, hold: int) -> ScannedMember:
    """Decompress the member at `start` to its end, and keep about its first `hold` bytes.

    Decompression bombs are abandoned as too large, by their size and ratio, not by time.
    """
    pieces, size, broken = [], 0, None
    try:
        while not member.done:
            inflated = member.read(STEP)
            size += len(inflated)
            if size <= hold:
                pieces.append(inflated)
            elif size > ENDLESS_BYTES and size > ENDLESS_RATIO * (member.end - start):
                raise DamagedError(TOO_LARGE, f"compressed data that inflates to more than {size} bytes")
    except DamagedError as error:
        broken = error
    held = pieces[0] if len(pieces) == 1 else b"".join(pieces)
    return ScannedMember(held, size, member.end, member.has_checksum, broken)
