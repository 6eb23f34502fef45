"""npz files from others are rejected before unpacking unless they have exactly the expected arrays."""

import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_prep.npz import load_npz


def save(path: Path, **arrays: Any) -> None:
    np.savez(path, **arrays)


EXPECTED: dict = {"weights": ("<i4", (None,)), "bias": ("<i8", ())}
WEIGHTS, BIAS = np.arange(1024, dtype=np.int32), np.int64(5)
HEAD = "{'descr': '<i4', 'fortran_order': False, 'shape': (1073741824,), }"
NPZ: dict[str, tuple[str, Callable[[Path], object]]] = {
    "4 GB of zeros": ("is compressed", lambda path: zeros(path)),
    "another shape": ("shape", lambda path: save(path, weights=WEIGHTS.reshape(2, 512), bias=BIAS)),
    "another type": ("type float64", lambda path: save(path, weights=WEIGHTS.astype(float), bias=BIAS)),
    "objects": ("type object", lambda path: save(path, weights=np.array([{}], object), bias=BIAS)),
    "another array": ("it has bias.npy, more.npy", lambda path: save(path, weights=WEIGHTS, bias=BIAS, more=BIAS)),
    "one array": ("it has weights.npy", lambda path: save(path, weights=WEIGHTS)),
    "a length that is not there": ("bytes for shape", lambda path: written(path, HEAD)),
    "a nested description": ("npy|header|parenthes|nested|array", lambda path: written(path, "(" * 5000)),
    "no zip": ("zip", lambda path: path.write_bytes(b"PK no zip")),
}


def zeros(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("weights.npy", "bias.npy"):
            with archive.open(name, "w", force_zip64=True) as file:
                for _ in range(64):
                    file.write(bytes(1 << 20))


def written(path: Path, head: str) -> None:
    save(path, weights=WEIGHTS, bias=BIAS)
    with zipfile.ZipFile(path) as archive:
        bias = archive.read("bias.npy")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("bias.npy", bias)
        archive.writestr(
            "weights.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head.encode() + bytes(4096)
        )


@pytest.mark.parametrize("name", NPZ)
def test_an_unexpected_npz_is_rejected_before_unpacking(tmp_path, name):
    told, make = NPZ[name]
    make(tmp_path / "m.npz")
    with pytest.raises(ValueError, match=told):
        load_npz(tmp_path / "m.npz", EXPECTED)


def test_a_written_npz_is_read(tmp_path):
    save(tmp_path / "m.npz", weights=WEIGHTS, bias=BIAS)
    weights, bias = load_npz(tmp_path / "m.npz", EXPECTED)
    assert (weights == WEIGHTS).all() and bias == 5 and weights.dtype == np.int32
