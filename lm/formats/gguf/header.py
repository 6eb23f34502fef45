"""Read the header of a GGUF file and the locations of its tensors (ggml-org/ggml: docs/gguf.md), within bounds.

The gguf package's reader trusts every count in the file, and allocates two arrays per string: a file of 100 bytes that
claims 2**40 strings took 6 GB. Here every count and length is first compared with the rest of the file.
"""

import math
import struct
from pathlib import Path
from typing import Any, NamedTuple

import gguf
import numpy as np

from lm.errors import InputError, shown

MOST_HEADER_BYTES = 2**25
"""Maximum size before the tensors' data: 32 MiB. A vocabulary of 262,144 tokens with merges takes about 16 MiB."""
MOST_ITEMS = 2**21
"""Maximum number of fields and array elements in a header."""
MOST_TENSORS = 2**15
"""Maximum number of tensors. Llama 3.1 405B, with 126 layers, has 1,138."""
MOST_AXES = 4
VERSIONS = (2, 3)
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""{type of a header field: format character of `struct`}."""
STRING, ARRAY = 8, 9
ALIGNMENT = "general.alignment"
VALUES = {"F32": np.float32, "F16": np.float16, "F64": np.float64, "I8": np.int8, "I16": np.int16, "I32": np.int32,
          "I64": np.int64}  # fmt: skip
"""{type of a tensor of plain numbers: dtype}; tensors of all other types are blocks of bytes."""


class GgufFile(NamedTuple):
    """Fields and tensors of a GGUF file. The tensors' data is memory-mapped."""

    fields: dict[str, Any]
    """{name: value}: numbers, booleans, strings, and lists of these."""
    tensors: list[gguf.ReaderTensor]


class Cursor:
    """Read position in a header; each read checks that enough bytes are left. `what` names the value in errors."""

    def __init__(self, data: memoryview):
        self.data, self.at, self.items = data, 0, 0

    def need(self, count: int, least: int, what: str) -> None:
        """Raise ValueError unless enough bytes are left for `count` items of at least `least` bytes each."""
        left = len(self.data) - self.at
        if count * least > left:
            raise ValueError(f"{what} has {count:,} items of at least {least} bytes, but {left:,} bytes follow")

    def numbers(self, letter: str, count: int, what: str) -> tuple[Any, ...]:
        wanted = struct.Struct(f"<{letter}")
        self.need(count, wanted.size, what)
        found = struct.unpack_from(f"<{count}{letter}", self.data, self.at)
        self.at += count * wanted.size
        return found

    def number(self, letter: str, what: str) -> Any:
        return self.numbers(letter, 1, what)[0]

    def string(self, what: str) -> str:
        length = self.number("Q", what)
        self.need(length, 1, what)
        self.at += length
        # Invalid UTF-8 is kept here and rejected by the code that needs the text.
        return str(self.data[self.at - length : self.at], "utf-8", "surrogateescape")

    def count(self, count: int, what: str, most: int = MOST_ITEMS) -> None:
        self.items += count
        if count > most or self.items > MOST_ITEMS:
            raise ValueError(f"{what} has {count:,} items; the limit in a header is {most:,}")

    def value(self, kind: int, what: str) -> Any:
        """Read a value of type `kind`, GGUF's number. Raises ValueError for nested arrays, which no field needs."""
        if kind in SCALARS:
            return self.number(SCALARS[kind], what)
        if kind == STRING:
            return self.string(what)
        if kind != ARRAY:
            raise ValueError(f"{what} has the unknown type {kind}")
        inner, length = self.number("I", what), self.number("Q", what)
        if inner not in SCALARS and inner != STRING:
            raise ValueError(f"{what} is an array of type {inner}; only arrays of numbers and strings are supported")
        self.need(length, 8 if inner == STRING else struct.calcsize(f"<{SCALARS[inner]}"), what)
        self.count(length, what)
        if inner == STRING:
            return [self.string(what) for _ in range(length)]
        return list(self.numbers(SCALARS[inner], length, what))


def read_gguf(path: Path) -> GgufFile:
    """Read the header of a file. Raises InputError if it is damaged, or larger than the limits in this module."""
    try:
        data = np.memmap(path, mode="r")
        cursor = Cursor(memoryview(data)[:MOST_HEADER_BYTES])
        return GgufFile(fields := fields_of(cursor), tensors_of(cursor, data, fields))
    except OSError as error:
        raise InputError(
            f"{path} cannot be read: {error.strerror or error}. Check the path and its permissions."
        ) from error
    except ValueError as error:
        raise InputError(f"{path} is not a complete GGUF file: {error}. Download it again.") from error


def fields_of(cursor: Cursor) -> dict[str, Any]:
    """Read {name: value} of all header fields, and move the cursor to the list of tensors. Raises ValueError."""
    magic = bytes(cursor.data[:4])
    if magic != b"GGUF":
        raise ValueError(f"it begins with {magic!r} instead of b'GGUF'")
    cursor.at = 4
    version = cursor.number("I", "the version")
    if version not in VERSIONS:
        raise ValueError(f"its version is {version}; {' and '.join(map(str, VERSIONS))} are supported, little-endian")
    tensors, count = cursor.number("Q", "the count of tensors"), cursor.number("Q", "the count of fields")
    cursor.need(tensors, 24, "the list of tensors")
    cursor.need(count, 13, "the list of fields")
    cursor.count(tensors, "the list of tensors", MOST_TENSORS)
    cursor.count(count, "the list of fields")
    fields: dict[str, Any] = {"GGUF.version": version, "GGUF.tensor_count": tensors, "GGUF.kv_count": count}
    for number in range(count):
        name = cursor.string(f"the name of field {number}")
        if name in fields:
            raise ValueError(f"the field {shown(name)} occurs twice")
        fields[name] = cursor.value(cursor.number("I", shown(name)), shown(name))
    return fields


def tensors_of(cursor: Cursor, data: np.ndarray, fields: dict[str, Any]) -> list[gguf.ReaderTensor]:
    """Read the list of tensors. Raises ValueError unless their data fits into the file without overlaps."""
    found: dict[str, tuple[tuple[int, ...], gguf.GGMLQuantizationType, int]] = {}
    for number in range(fields["GGUF.tensor_count"]):
        name = cursor.string(f"the name of tensor {number}")
        if name in found:
            raise ValueError(f"the tensor {shown(name)} occurs twice")
        axes = cursor.number("I", shown(name))
        if axes > MOST_AXES:
            raise ValueError(f"the tensor {shown(name)} has {axes:,} axes; the limit is {MOST_AXES}")
        lengths = cursor.numbers("Q", axes, shown(name))
        kind = gguf.GGMLQuantizationType(cursor.number("I", shown(name)))
        found[name] = lengths, kind, cursor.number("Q", shown(name))
    alignment = fields.get(ALIGNMENT, gguf.GGUF_DEFAULT_ALIGNMENT)
    if type(alignment) is not int or alignment < 1 or alignment & (alignment - 1):
        raise ValueError(f"{ALIGNMENT} is {shown(alignment)}, which is not a power of two")
    start = -(-cursor.at // alignment) * alignment
    size, taken, tensors = len(data), 0, []
    for name, (lengths, kind, offset) in found.items():
        shape = lengths[::-1]
        elements = math.prod(shape)
        block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
        if elements and shape[-1] % block:
            raise ValueError(
                f"the tensor {shown(name)} has rows of {shape[-1]:,}, not a multiple of the block size {block}"
            )
        length, begin = elements // block * block_bytes, start + offset
        taken += length
        if begin + length > size or taken > size:
            raise ValueError(
                f"the tensor {shown(name)} of shape {shape} is {length:,} bytes from byte {begin:,}, but the file has "
                f"{size:,}"
            )
        values, part = VALUES.get(kind.name), data[begin : begin + length]
        stored = shape if values else (*shape[:-1], shape[-1] // block * block_bytes) if shape else (length,)
        part = (part.view(values) if values else part).reshape(stored)
        field = gguf.gguf_reader.ReaderField(begin, name)
        axes = np.array(lengths, np.uint64)
        tensors.append(
            gguf.ReaderTensor(name, kind, axes, elements, length, begin, part, field)  # ty: ignore[invalid-argument-type]
        )
    return tensors
