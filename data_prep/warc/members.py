"""The compressed pieces of a WARC file, gzip members and zstd frames: inflated in steps, their checksums checked.

`read(size)` gives the next bytes, about `size` at most, none only at the end, and raises BrokenError. `end` is the
position in the file after what was inflated so far; `done`: the end was reached, and the checksum was right.
"""

import contextlib
import zlib
from collections.abc import Callable
from typing import NamedTuple, cast

from isal import isal_zlib

from data_prep.warc.byte_sources import STEP, BrokenError, FileBytes
from data_prep.warc.damage import CUT_OFF, DAMAGED_MEMBER, TOO_LARGE
from lm.storage import count_bytes

ZSTD = b"\x28\xb5\x2f\xfd"  # a zstd frame's first bytes (RFC 8878)
ZSTD_DICTIONARY = b"\x5d\x2a\x4d\x18"  # the skippable frame in front of a .warc.zst file that holds its dictionary
MAX_DICTIONARY_BYTES = 16 << 20
MAX_WINDOW_BYTES = 128 << 20  # that a zstd frame may ask for
ZSTD_PIECE = 1 << 10  # bytes that are inflated at a time: they may be 32 MB then
RESCUE_PIECE = 4 << 10  # likewise of gzip: 4 MB
EXACT_PIECES = 8
ENDLESS_BYTES, ENDLESS_RATIO = 4 << 30, 100

IsalError = cast(type[Exception], isal_zlib.error)  # its stub takes it for an instance


class GzipMember:
    """The gzip member at `start`. Its checksum and length are checked at its end."""

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
                # One magic number within a member is chance, many are malice.
                piece = self.file.piece(self.position, exact=self.pieces < EXACT_PIECES)
                self.position += len(piece)
                self.pieces += 1
            if not piece:
                raise BrokenError(CUT_OFF, "the file ends within a gzip member")
            try:
                inflated = inflater.decompress(piece, size)
            except IsalError as error:
                raise BrokenError(DAMAGED_MEMBER, str(error)) from error
            self.done = inflater.eof
            count_bytes(unpacked=len(inflated))
            if inflated:
                return inflated
        return b""


class RescuedMember:
    """A gzip member that is known to be broken: gives every byte up to where it breaks, which a fast reader does not.

    Slow: where a piece fails, it goes back to the piece's beginning, and on byte by byte.
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
                raise BrokenError(CUT_OFF, "the file ends within a gzip member")
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
            raise BrokenError(DAMAGED_MEMBER, str(self.error))
        return b""


class ZstdFrame:
    """The zstd frame at `start`. Its checksum is checked at its end, if it has one."""

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
                raise BrokenError(CUT_OFF, "the file ends within a zstd frame")
            try:
                inflated = self.inflater.decompress(piece)
            except self.error as error:
                raise BrokenError(DAMAGED_MEMBER, str(error)) from error
            self.done = self.inflater.eof
            count_bytes(unpacked=len(inflated))
            if inflated:
                return inflated
        return b""


type Member = GzipMember | ZstdFrame


class Members:
    """All members from the one at `start` on as one stretch: in some files records go on from one to the next."""

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
    """A .warc.zst file's dictionary, b"" if it has none, and where the frames begin. Raises BrokenError.

    The format is the IIPC's proposal "Use of Zstandard compression in WARC files": a skippable frame at the very
    beginning, in which the dictionary may itself be compressed.
    """
    import zstandard

    head = file.at(0, 8)
    if not head.startswith(ZSTD_DICTIONARY):
        return b"", 0
    size = int.from_bytes(head[4:8], "little")
    if size > MAX_DICTIONARY_BYTES:
        raise BrokenError(TOO_LARGE, f"a zstd dictionary of {size} bytes; {MAX_DICTIONARY_BYTES} are read")
    dictionary = file.at(8, size)
    if dictionary.startswith(ZSTD):
        try:
            dictionary = zstandard.ZstdDecompressor().decompress(dictionary, max_output_size=MAX_DICTIONARY_BYTES)
        except zstandard.ZstdError as error:
            raise BrokenError(DAMAGED_MEMBER, f"the zstd dictionary: {error}") from error
    return dictionary, 8 + size


class ScannedMember(NamedTuple):
    """A gzip member that was inflated to its end."""

    held: bytes
    """Its first bytes: all of them, if they are no more than was to be held."""
    size: int
    """Bytes that it inflates to, as far as that goes."""
    end: int
    """Where in the file it ends, or where that which was read of it does."""
    has_checksum: bool
    """Whether it has a checksum."""
    broken: BrokenError | None
    """None if it could be inflated, and its checksum and length, if it has them, are right."""


def usual_member(file: FileBytes, start: int) -> tuple[bytes, int] | None:
    """What the gzip member at `start` inflates to and where it ends, if it is sound, small, and in one piece.

    So nearly all are. It is half of a reader's time: `scan` does the same for any, and takes longer.
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
    """Inflates the member at `start` once, whatever its size, and keeps its first `hold` bytes (in whole steps).

    What unpacks to gigabytes from next to nothing is given up as too large: by its size, never by the clock.
    """
    pieces, size, broken = [], 0, None
    try:
        while not member.done:
            inflated = member.read(STEP)
            size += len(inflated)
            if size <= hold:
                pieces.append(inflated)
            elif size > ENDLESS_BYTES and size > ENDLESS_RATIO * (member.end - start):
                raise BrokenError(TOO_LARGE, f"compressed data that inflates to more than {size} bytes")
    except BrokenError as error:
        broken = error
    held = pieces[0] if len(pieces) == 1 else b"".join(pieces)
    return ScannedMember(held, size, member.end, member.has_checksum, broken)
