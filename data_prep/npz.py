"""Read and write arrays: .npy files of our own, and .npz files, validated before they are read."""

import io
import math
import tokenize
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from lm.storage import Place, appearing

HEADER_BYTES = 10_000
"""Maximum bytes of an array's header; NumPy writes 118."""
BROKEN = (
    zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError,
    SyntaxError, tokenize.TokenError, TypeError, MemoryError,
)  # fmt: skip
"""Errors of zipfile for a damaged archive, and of NumPy for an invalid header."""


def write_array(place: Place, array: np.ndarray, scratch: Path) -> None:
    """Write an array as .npy, atomically, by way of the folder `scratch`."""
    with appearing(place, scratch) as partial, partial.open("wb") as out:
        np.save(out, array)


def read_array(place: Place) -> np.ndarray:
    return np.load(io.BytesIO(place.read_bytes()))


def load_npz(file: Path | io.BytesIO, expected: Mapping[str, tuple[str, tuple[int | None, ...]]]) -> list[np.ndarray]:
    """Return the arrays in a file, in the order of `expected`: {name: (dtype, shape)}; None in a shape allows any
    length. The file must have exactly these arrays, uncompressed as np.savez writes them, so no array is larger than
    the file. Raises OSError, and ValueError for any other content."""
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            found, wanted = sorted(entry.filename for entry in entries), sorted(f"{name}.npy" for name in expected)
            if found != wanted:
                raise ValueError(f"it has {', '.join(found[:9])} instead of {', '.join(wanted)}")
            for entry in entries:
                if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
                    raise ValueError(f"{entry.filename} is compressed: {entry.compress_size:,} to {entry.file_size:,}")
            arrays = []
            for name, (dtype, lengths) in expected.items():
                size = archive.getinfo(f"{name}.npy").file_size
                with archive.open(f"{name}.npy") as entry:
                    version = np.lib.format.read_magic(entry)
                    if version != (1, 0):
                        raise ValueError(f"{name}.npy has version {version} instead of (1, 0)")
                    shape, _, kind = np.lib.format.read_array_header_1_0(entry, max_header_size=HEADER_BYTES)
                    fits = len(shape) == len(lengths) and all(
                        length is None or length == one for one, length in zip(shape, lengths, strict=True)
                    )
                    if kind != np.dtype(dtype) or not fits:
                        raise ValueError(
                            f"{name}.npy has type {kind} and shape {shape} instead of {dtype} and {lengths}"
                        )
                    if kind.itemsize * math.prod(shape) != size - entry.tell():
                        raise ValueError(f"{name}.npy has {size - entry.tell():,} bytes for shape {shape} of {kind}")
                    arrays.append(np.frombuffer(entry.read(), kind).reshape(shape))
            return arrays
    except BROKEN as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error
