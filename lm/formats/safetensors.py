"""Read and write weights in the safetensors format (https://github.com/huggingface/safetensors#format), one tensor at a
time.

The safetensors library reads files and validates each header when it opens one; nothing in a file is executed. It does
not read the index of a sharded model, so this module does. This module also writes files, since the library's save_file
needs all tensors at once: 391 MB more memory for 400 MB of weights that are stored transposed; `write_file` took 24 MB.
"""

import json
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open

from lm.bounded import MOST_CONFIG_BYTES, parse_json, read_bounded
from lm.errors import InputError, UsageError, shown
from lm.storage import appearing, file_inside

FILE, INDEX = "model.safetensors", "model.safetensors.index.json"
DAMAGED = "The file is damaged or incomplete; download it again."
DTYPES = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype(jnp.bfloat16)}
"""{name in the format: dtype} of the types that can be read as weights."""
NAMES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}
"""{our name of a dtype: name in the format}."""
MOST_HEADER_BYTES = 2**22
"""Maximum size of all headers of a checkpoint together: 4 MiB, about 30,000 tensors. The library accepts 100 MB per
file, and takes 15 s and 1.2 GB for a million tensors."""


class Tensor(NamedTuple):
    """One tensor of an opened file; `read` loads its values."""

    name: str
    file: Path
    opened: safe_open
    dtype: str
    """Name of the type in the format, such as BF16."""
    shape: tuple[int, ...]
    """Sizes of its axes."""

    def read(self) -> np.ndarray:
        """Return the values. Raises InputError for a type that is not in DTYPES."""
        if self.dtype not in DTYPES:
            raise InputError(
                f"{self.file}: {self.name} has dtype {self.dtype}, but only {', '.join(DTYPES)} are supported. "
                "Convert the checkpoint first."
            )
        return self.opened.get_tensor(self.name)


def read_json_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file. Raises InputError if the file contains anything else."""
    try:
        found = parse_json(read_bounded(path, MOST_CONFIG_BYTES))
    except OSError as error:
        raise InputError(
            f"{path} cannot be read: {error.strerror}. Give the folder of a complete checkpoint."
        ) from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} holds no JSON: {error}. {DAMAGED}") from error
    if not isinstance(found, dict):
        raise InputError(f"{path} holds {type(found).__name__} instead of a JSON object. {DAMAGED}")
    return found


def check_headers(paths: Iterable[Path]) -> None:
    """Raise InputError if the headers of these files together are larger than MOST_HEADER_BYTES."""
    total = 0
    for path in paths:
        try:
            with path.open("rb") as file:
                total += int.from_bytes(file.read(8), "little")
        except OSError:  # reported when it is opened
            continue
        if MOST_HEADER_BYTES < total <= path.stat().st_size:
            raise InputError(
                f"{path}: the headers up to this one are {total:,} bytes, but the limit for a checkpoint is "
                f"{MOST_HEADER_BYTES:,}. {DAMAGED}"
            )


def read_header(path: Path) -> dict[str, Tensor]:
    """Return {name: Tensor} of one file. Raises InputError if there are gaps or overlaps between the tensors."""
    check_headers([path])
    try:
        opened = safe_open(path, framework="numpy")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error}. Give the folder of a complete checkpoint.") from error
    except SafetensorError as error:
        raise InputError(f"{path}, a file of {path.stat().st_size} bytes: {error}. {DAMAGED}") from error
    places = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118 (it is no mapping)
    return {
        name: Tensor(name, path, opened, place.get_dtype(), tuple(place.get_shape())) for name, place in places.items()
    }


def read_folder(folder: Path) -> dict[str, Tensor]:
    """Return {name: Tensor} of model.safetensors, or of all files in model.safetensors.index.json. Raises InputError if
    neither exists, if the index and the files list different tensors, and for a link that leads out of the folder."""
    if (whole := file_inside(folder, FILE)).is_file():
        return read_header(whole)
    if not (folder / INDEX).is_file():
        raise InputError(f"There is neither {FILE} nor {INDEX} in {folder}. Give the folder of a checkpoint.")
    homes = read_json_object(place := file_inside(folder, INDEX)).get("weight_map")
    if not isinstance(homes, dict) or not homes:
        raise InputError(
            f"{place} has the weight_map {shown(homes)}, but it must give a file for each tensor. {DAMAGED}"
        )
    for name, home in homes.items():
        plain = isinstance(home, str) and home.isprintable() and home.endswith(".safetensors")
        if not plain or Path(home).name != home:
            raise InputError(f"{place} has {shown(name)} in {shown(home)}, which is no file of this folder. {DAMAGED}")
    paths = {home: file_inside(folder, home) for home in sorted(set(homes.values()))}
    check_headers(paths.values())
    files = {home: read_header(path) for home, path in paths.items()}
    for name, home in homes.items():
        if name not in files[home]:
            raise InputError(f"{place} has {name} in {home}, but that file has no such tensor. {DAMAGED}")
    for home, tensors in files.items():
        for name in tensors:
            if homes.get(name) != home:
                raise InputError(f"{folder / home} has {name}, which {place} has in {homes.get(name)}. {DAMAGED}")
    return {name: files[home][name] for name, home in homes.items()}


def in_dtype(name: str, value: np.ndarray, dtype: str) -> np.ndarray:
    """Cast the values of tensor `name` to `dtype`, such as "BF16". Raises UsageError if they exceed float16's range."""
    if value.dtype == DTYPES[dtype]:
        return value
    with np.errstate(over="ignore"):
        cast = value.astype(DTYPES[dtype])
    if dtype == "F16" and not np.array_equal(np.isfinite(cast), np.isfinite(value)):
        largest = np.max(np.abs(value.astype(np.float32)), where=np.isfinite(value), initial=0)
        raise UsageError(
            f"{name} has values up to {largest:g}, but float16 ends at 65,504. Use --dtype bfloat16, which has the "
            "range of float32."
        )
    return cast


def write_file(
    path: Path, tensors: Mapping[str, tuple[str, tuple[int, ...]]], value: Callable[[str], np.ndarray]
) -> None:
    """Write a file of `tensors`, {name: (dtype such as "BF16", shape)}, atomically. `value(name)` is called for one
    tensor at a time, so only one needs to be in memory."""
    header, at = {}, 0
    for name, (dtype, shape) in tensors.items():
        end = at + math.prod(shape) * DTYPES[dtype].itemsize
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, end]}
        at = end
    # transformers requires the format; the spaces align the data to 8 bytes.
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    text += b" " * (-len(text) % 8)
    with appearing(path) as partial, partial.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, (dtype, _) in tensors.items():
            file.write(np.ascontiguousarray(value(name), DTYPES[dtype]).reshape(-1).view(np.uint8).data)
