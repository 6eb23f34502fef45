"""Identify everything that must be equal for compression and decompression: if one bit of a probability differs, all
text after it is wrong."""

import hashlib
import importlib.metadata
import os

import numpy as np
from jax.sharding import Mesh

from lm.compilation_cache import cpu_kind
from lm.compression.container import DIGEST, Header
from lm.errors import InputError
from lm.model.param_names import named_leaves
from lm.model.transformer import Transformer
from lm.parallel import on_host
from lm.tokenizer import Tokenizer

LIBRARIES = ("jax", "jaxlib", "numpy", "constriction")


def parameters_digest(model: Transformer) -> bytes:
    """Truncated SHA-256 over the parameters' names, types, shapes and bytes, independent of where and in which format
    they were stored."""
    whole = hashlib.sha256()
    for name, leaf in sorted(named_leaves(model).items()):
        array = np.ascontiguousarray(on_host(leaf))
        whole.update(f"{name} {array.dtype} {array.shape}\n".encode())
        whole.update(array.view(np.uint8).data)
    return whole.digest()[:DIGEST]


def tokenizer_digest(tokenizer: Tokenizer) -> bytes:
    return bytes.fromhex(tokenizer.fingerprint)[:DIGEST]


def machine(mesh: Mesh) -> dict[str, str]:
    """{name: value} of everything besides the program that affects floating-point results: versions, processor, number
    of threads."""
    device = mesh.devices.flat[0]
    found = {name: importlib.metadata.version(name) for name in LIBRARIES}
    if device.platform == "cpu":
        found |= {"processor": cpu_kind(), "threads": str(threads())}
    else:
        found |= {"processor": device.device_kind, "driver": " ".join(device.client.platform_version.split())}
    if mesh.size > 1:
        found["mesh"] = ",".join(f"{axis}:{size}" for axis, size in mesh.shape.items())
    flags = " ".join(os.environ.get("XLA_FLAGS", "").split())
    return found | ({"XLA_FLAGS": flags} if flags else {})


def threads() -> int:
    """Number of cores available to this process: XLA divides a matrix product among that many threads."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def refuse_other(header: Header, here: Header, name: str, try_anyway: bool) -> None:
    """Raise InputError, with both values, if the file was compressed with anything that differs from `here`. With
    `try_anyway`, the program and the machine may differ: the SHA-256 of the file shows whether it worked."""
    for what, written, found, remedy in (
        (
            "model",
            header.parameters.hex(),
            here.parameters.hex(),
            "Give the run with the checkpoint that compressed it.",
        ),
        ("tokenizer", header.tokenizer.hex(), here.tokenizer.hex(), "Give the run that compressed it."),
    ):
        if written != found:
            raise InputError(f"{name} was compressed with the {what} {written}; this {what} is {found}. {remedy}")
    if try_anyway:
        return
    names = [*header.machine, *(one for one in here.machine if one not in header.machine)]
    written = {one: header.machine.get(one, "nothing") for one in names} | {"program": header.program.hex()}
    found = {one: here.machine.get(one, "nothing") for one in names} | {"program": here.program.hex()}
    other = [f"{one}: {written[one]} there, {found[one]} here" for one in written if written[one] != found[one]]
    if other:
        raise InputError(
            f"{name} was compressed on a machine that may round differently ({'; '.join(other)}); one bit can change "
            "the text. Decompress it there, or try --try-anyway: the result is compared with the original's SHA-256."
        )
