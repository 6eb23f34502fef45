"""Read records of an ArrayRecord file from ranges of its bytes, on a disk or in a bucket.

Only files with one record per chunk (`group_size:1`, as data_prep writes them) are read: the footer then gives the
offset of every record, and a window needs one range. The container is Riegeli's: chunks, interrupted by a block header
of 24 bytes at every multiple of 64 KiB. All integers are little-endian.

    chunk     header hash, data size, data hash, type + 256 x records, decoded size: u64 each; then the data
    data      compression (0 or "z"), varint S, S bytes of record sizes, then the records' bytes; each of the two
              compressed parts begins with a varint, its decompressed size
    footer    a chunk of protocol buffers: the file's metadata, then {1: offset, 2: decoded size, 3: records} per chunk
    last 64 KiB of the file    a chunk that holds {1: offset of the footer, 2: magic number}

Riegeli's hashes are not computed: a sequence record has a CRC-32 of its own (lm.data.records). Every size read from a
file is compared with a bound before memory is allocated for it. Sources: Riegeli's "Records file format specification",
and files written by array_record.
"""

import contextlib
import struct
import threading

import numpy as np
import zstandard

from lm.errors import InputError

BLOCK = 2**16
BLOCK_HEADER = 24
CHUNK_HEADER = struct.Struct("<QQQQQ")
FIRST_CHUNK = 64
"""Offset of the first record: a block header and the header of an empty chunk come before it."""
POSTSCRIPT_BYTES = 256
"""Bytes to read at the beginning of the last block to get the postscript: 114 in all files seen."""
MAGIC = 0x71930E704FDAE05E
CHUNK_OVERHEAD = 128
"""Maximum overhead in bytes of a chunk with one incompressible record of up to 64 KiB (measured: 67 to 75)."""
LOCAL = threading.local()


def stored_limit(record_limit: int) -> int:
    """Return the maximum size in bytes of a chunk that has one record of at most `record_limit` bytes."""
    return record_limit + record_limit // 128 + CHUNK_OVERHEAD + BLOCK_HEADER * (record_limit // BLOCK + 2)


def without_block_headers(data: bytes | memoryview, start: int) -> bytes | memoryview:
    """Remove the 24-byte block headers from `data`, the bytes of a file from offset `start` on."""
    first = -start % BLOCK
    if first >= len(data):
        return data
    pieces = [data[:first]]
    pieces += [data[at + BLOCK_HEADER : at + BLOCK] for at in range(first, len(data), BLOCK)]
    return b"".join(pieces)


def footer_range(tail: bytes, size: int) -> tuple[int, int]:
    """Return (start, end), in bytes, of the footer in a file of `size` bytes. `tail` is the beginning of the last 64
    KiB of the file: POSTSCRIPT_BYTES bytes. Raises InputError if the file is not an ArrayRecord file."""
    start, magic = 0, 0
    if size % BLOCK == 0:
        with contextlib.suppress(InputError):
            _, data = chunk_of(without_block_headers(tail, size - BLOCK), POSTSCRIPT_BYTES)
            _, postscript = parts_of(data, 0, POSTSCRIPT_BYTES)
            if postscript[:1] == b"\x08":
                start, at = varint(postscript, 1)
                magic = varint(postscript, at + 1)[0] if postscript[at : at + 1] == b"\x10" else 0
    if magic != MAGIC or not FIRST_CHUNK <= start < size - BLOCK:
        raise InputError("The shard is not an ArrayRecord file, or its end is damaged.")
    return start, size - BLOCK


def offsets_of(footer: bytes, start: int, records: int) -> np.ndarray:
    """Return the file offset of each record and the end of the last one: (records + 1,) uint32, or uint64 above 4 GiB.

    `footer` is the footer of the file as stored, which begins at offset `start`. Raises InputError if it is damaged or
    does not list `records` chunks of one record each.
    """
    chunks, data = chunk_of(without_block_headers(footer, start), len(footer))
    if chunks != records + 1:
        raise InputError(f"The shard has {chunks - 1} chunks of records; {records} of one record each are expected.")
    sizes, values = parts_of(data, records + 10, 24 * records + 4096)
    metadata, at = varint(sizes, 0)
    lengths = np.frombuffer(sizes, np.uint8)[at:].astype(np.int32)
    if (
        len(lengths) != records
        or np.any((lengths < 6) | (lengths > 24))
        or metadata + int(lengths.sum()) != len(values)
    ):
        raise InputError("The footer is damaged.")
    # An entry is {1: offset, a varint; 2: decoded size; 3: number of records}.
    entries, ends = np.frombuffer(values, np.uint8)[metadata:], np.cumsum(lengths, dtype=np.int64)
    at = ends - lengths
    if not np.all((entries[at] == 8) & (entries[ends - 2] == 24) & (entries[ends - 1] == 1)):
        raise InputError("The footer does not list chunks of one record each.")
    offsets, more = np.zeros(records + 1, np.uint64), np.ones(records, bool)
    offsets[-1] = start
    for shift in range(0, 63, 7):
        at = np.minimum(at + 1, ends - 1)
        byte = entries[at]
        offsets[:-1] |= np.where(more, byte & 127, 0).astype(np.uint64) << np.uint64(shift)
        more &= byte >= 128
        if not np.any(more):
            break
    if records and (offsets[0] < FIRST_CHUNK or np.any(offsets[1:] <= offsets[:-1])):
        raise InputError("The offsets in the footer do not rise.")
    return offsets.astype(np.uint32) if start < 2**32 else offsets


def record_of(stored: bytes | memoryview, start: int, limit: int) -> bytes:
    """Return the only record of a chunk. `stored` is the chunk as stored in the file, from offset `start`. Raises
    InputError if the chunk is damaged, or the record is larger than `limit` bytes."""
    records, data = chunk_of(without_block_headers(stored, start), stored_limit(limit))
    if records != 1:
        raise InputError(f"A chunk has {records} records instead of one.")
    return parts_of(data, 0, limit)[1]


def chunk_of(chunk: bytes | memoryview, limit: int) -> tuple[int, bytes | memoryview]:
    """Parse a chunk (block headers removed) into (number of records, data after the chunk header). Raises InputError if
    it is damaged or its data is larger than `limit` bytes."""
    if len(chunk) < CHUNK_HEADER.size:
        raise InputError(f"A chunk ends after {len(chunk)} bytes.")
    _, size, _, kind, _ = CHUNK_HEADER.unpack_from(chunk)
    if kind & 255 != ord("r") or size > min(len(chunk) - CHUNK_HEADER.size, limit):
        raise InputError(f"A damaged chunk: type {kind & 255}, {size} bytes of {len(chunk)}.")
    return kind >> 8, chunk[CHUNK_HEADER.size : CHUNK_HEADER.size + size]


def parts_of(data: bytes | memoryview, sizes_limit: int, limit: int) -> tuple[bytes, bytes]:
    """Split the data of a chunk into (record sizes as varints, bytes of the records), both decompressed. If
    `sizes_limit` is 0, compressed sizes are left out: b"". Raises InputError if a part is damaged or above its limit in
    bytes."""
    length, at = varint(data, 1)
    if length > len(data) - at:
        raise InputError(f"A damaged chunk: {length} bytes of sizes in {len(data)} bytes.")
    sizes, values = data[at : at + length], data[at + length :]
    if data[0] == 0:
        return bytes(sizes), bytes(values)
    if data[0] != ord("z"):
        raise InputError(f"A chunk of compression {data[0]}; only zstd ({ord('z')}) and none (0) are read.")
    return decompressed(sizes, sizes_limit) if sizes_limit else b"", decompressed(values, limit)


def decompressed(data: bytes | memoryview, limit: int) -> bytes:
    size, at = varint(data, 0)
    frame = data[at:]
    try:
        # zstandard allocates the size in the frame header, regardless of max_output_size.
        if size > limit or zstandard.frame_content_size(frame) not in (size, -1):
            raise InputError(f"A damaged chunk, or one of another format: {size} bytes; the limit is {limit}.")
        found = decompressor().decompress(frame, max_output_size=size)
    except zstandard.ZstdError as error:
        raise InputError(f"A damaged chunk: {error}.") from error
    if len(found) != size:
        raise InputError(f"A damaged chunk: {len(found)} bytes instead of {size}.")
    return found


def decompressor() -> zstandard.ZstdDecompressor:
    """Return the zstandard decompressor of the current thread, since a decompressor is not thread-safe."""
    if not hasattr(LOCAL, "decompressor"):
        LOCAL.decompressor = zstandard.ZstdDecompressor()
    return LOCAL.decompressor


def varint(data: bytes | memoryview, at: int) -> tuple[int, int]:
    """Decode the varint at offset `at`; return (value, offset after it). Raises InputError if it is incomplete."""
    value = shift = 0
    for index in range(at, min(at + 10, len(data))):
        value |= (data[index] & 127) << shift
        if data[index] < 128:
            return value, index + 1
        shift += 7
    raise InputError("A damaged chunk: a varint is cut off.")
