"""Weights in the safetensors format: read one tensor at a time, by memory map, and written the same way.

A file is the length of its header (8 bytes, little-endian), the header, JSON of {name: {dtype, shape, data_offsets}},
and the tensors' bytes, row by row and little-endian; offsets count from the header's end
(https://github.com/huggingface/safetensors#format). A model too large for one file has an index that tells which file
has which tensor. Nothing in a file is run, and nothing is believed before it is checked.
"""

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from lm.errors import InputError
from lm.storage import appearing

FILE, INDEX = "model.safetensors", "model.safetensors.index.json"
HEADER_LIMIT = 100_000_000  # bytes; the format's own limit
DAMAGED = "The file is damaged or was not copied whole; get it again."

ITEM_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E5M2": 1, "F8_E4M3": 1, "U16": 2, "I16": 2, "F16": 2, "BF16": 2, "U32": 4,
    "I32": 4, "F32": 4, "U64": 8, "I64": 8, "F64": 8,
}  # fmt: skip
DTYPES = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype(jnp.bfloat16)}
"""What can be read as weights; of the others the sizes are known, so that they can be skipped."""


class Tensor(NamedTuple):
    """Where one tensor lies; `read` brings its values."""

    name: str
    file: Path
    dtype: str
    """The format's name of it, for example BF16."""
    shape: tuple[int, ...]
    begin: int
    """Bytes from the start of the file."""
    end: int

    def read(self) -> np.ndarray:
        """The values, as a read-only view of the file: bytes are read when they are used, and hold no memory of ours.

        Raises InputError for a type that is no weight's.
        """
        if self.dtype not in DTYPES:
            raise InputError(
                f"{self.file}: {self.name} has dtype {self.dtype}, but weights are read from {', '.join(DTYPES)} only. "
                "Convert the checkpoint to one of these first."
            )
        if not math.prod(self.shape):
            return np.zeros(self.shape, DTYPES[self.dtype])
        return np.memmap(self.file, DTYPES[self.dtype], "r", self.begin, self.shape)


def read_json_object(path: Path, data: bytes | None = None) -> dict[str, Any]:
    """The JSON object in `data`, a part of the file at `path`, or in the whole file. Raises InputError if there is
    none, or if it has a key twice."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            name, _ = Counter(name for name, _ in pairs).most_common(1)[0]
            raise ValueError(f"{name!r} stands there twice")
        return found

    try:
        found = json.loads(path.read_bytes() if data is None else data, object_pairs_hook=once)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}. Give the folder of a whole checkpoint.") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} holds no JSON where it should: {error}. {DAMAGED}") from error
    if not isinstance(found, dict):
        raise InputError(f"{path} holds {type(found).__name__} where a JSON object should be. {DAMAGED}")
    return found


def read_entry(path: Path, name: str, entry: object, start: int, size: int) -> Tensor:
    """The tensor that one entry of a header tells of; `start` is where the header ends, `size` the file's bytes. Raises
    InputError when the entry contradicts itself or the file."""
    place = f"{path}: {name}"
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise InputError(f"{place} must have dtype, shape and data_offsets, but is {str(entry)[:200]}. {DAMAGED}")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    for value in (shape, offsets):
        if not isinstance(value, list) or not all(type(n) is int and n >= 0 for n in value):
            raise InputError(
                f"{place} has shape {shape} and data_offsets {offsets}; both must be whole numbers from 0. {DAMAGED}"
            )
    if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
        raise InputError(f"{place} has the unknown dtype {dtype!r}; known are {', '.join(ITEM_BYTES)}.")
    if len(offsets) != 2 or not offsets[0] <= offsets[1] <= size - start:
        raise InputError(
            f"{place} has data_offsets {offsets}, but the file has {size - start} bytes of data. {DAMAGED}"
        )
    wanted = math.prod(shape) * ITEM_BYTES[dtype]
    if offsets[1] - offsets[0] != wanted:
        raise InputError(
            f"{place}, {dtype} of shape {tuple(shape)}, needs {wanted} bytes, but its data_offsets {offsets} span "
            f"{offsets[1] - offsets[0]}. {DAMAGED}"
        )
    return Tensor(name, path, dtype, tuple(shape), start + offsets[0], start + offsets[1])


def read_header(path: Path) -> dict[str, Tensor]:
    """{name: Tensor} of one file. Raises InputError unless the tensors fill the file without a gap or an overlap."""
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(size - 8, HEADER_LIMIT):
                raise InputError(
                    f"{path} has {size} bytes, but its header alone claims {length} behind the first 8. {DAMAGED}"
                )
            header = read_json_object(path, file.read(length))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}. Give the folder of a whole checkpoint.") from error
    start = 8 + length
    header.pop("__metadata__", None)  # free text of whoever wrote the file
    tensors = {name: read_entry(path, name, entry, start, size) for name, entry in header.items()}
    at, before = start, "the header"
    for tensor in sorted(tensors.values(), key=lambda tensor: (tensor.begin, tensor.end)):
        if tensor.begin != at:
            fault = "overlaps" if tensor.begin < at else "leaves a gap behind"
            raise InputError(
                f"{path}: {tensor.name} begins at byte {tensor.begin} and {fault} {before}, which ends at {at}. "
                f"{DAMAGED}"
            )
        at, before = tensor.end, tensor.name
    if at != size:
        raise InputError(f"{path} has {size} bytes, but its last tensor, {before}, ends at {at}. {DAMAGED}")
    return tensors


def read_folder(folder: Path) -> dict[str, Tensor]:
    """{name: Tensor} of model.safetensors, or of all files that model.safetensors.index.json names.

    Raises InputError when there is neither, and when the index and the files do not have the same tensors.
    """
    if (folder / FILE).is_file():
        return read_header(folder / FILE)
    if not (folder / INDEX).is_file():
        raise InputError(f"There is neither {FILE} nor {INDEX} in {folder}. Give the folder of a checkpoint.")
    place, homes = folder / INDEX, read_json_object(folder / INDEX).get("weight_map")
    if not isinstance(homes, dict) or not homes:
        raise InputError(f"{place} has the weight_map {str(homes)[:200]}, but it must name a file for each tensor.")
    for name, home in homes.items():
        plain = isinstance(home, str) and home.isprintable() and home.endswith(".safetensors")
        if not plain or Path(home).name != home:
            raise InputError(f"{place} has {name} in {home!r}, which is no file beside it. {DAMAGED}")
    files = {home: read_header(folder / home) for home in sorted(set(homes.values()))}
    for name, home in homes.items():
        if name not in files[home]:
            raise InputError(f"{place} has {name} in {home}, but that file has no such tensor. {DAMAGED}")
    for home, tensors in files.items():
        for name in tensors:
            if homes.get(name) != home:
                raise InputError(f"{folder / home} has {name}, which {place} has in {homes.get(name)}. {DAMAGED}")
    return {name: files[home][name] for name, home in homes.items()}


def write_file(
    path: Path, shapes: Mapping[str, tuple[int, ...]], dtype: str, value: Callable[[str], np.ndarray]
) -> None:
    """Writes one file of the named tensors, all of one `dtype`, whole or not at all.

    `value(name)` is asked for one tensor at a time, so that no more than one is in memory for the file's sake.
    """
    header, at = {}, 0
    for name, shape in shapes.items():
        end = at + math.prod(shape) * ITEM_BYTES[dtype]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, end]}
        at = end
    # transformers asks for the format; the spaces align the data to 8 bytes.
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    text += b" " * (-len(text) % 8)
    with appearing(path) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in shapes:
            file.write(np.ascontiguousarray(value(name), DTYPES[dtype]).reshape(-1).view(np.uint8).data)
