"""Compress bytes with a language model, and decompress them."""

import dataclasses
import hashlib
import importlib.metadata
import io
import os
import time
import zlib
from collections.abc import Callable, Iterable, Iterator

import numpy as np
from jax.sharding import Mesh

from lm.compilation_cache import cpu_kind
from lm.compression import coder
from lm.compression.container import DIGEST, VERSION, Body, Header, damaged, packed_raw, read_body
from lm.compression.pieces import cut_pieces, joined
from lm.compression.token_model import MOST_SEGMENTS, Layout, TokenModel, segments_for
from lm.config import ModelConfig
from lm.errors import InputError
from lm.model.param_names import named_leaves
from lm.model.transformer import Transformer
from lm.parallel import on_host
from lm.tokenizer import Tokenizer

LIBRARIES = ("jax", "jaxlib", "numpy", "constriction")
"""Packages whose versions are stored in each file: if one bit of a probability differs, all text after it is wrong."""
HARDLY_ANYTHING = 50
"""If xz makes a file this many times smaller, its result is used: on a long run or a repeated text the model takes as
long as on any other and needs no fewer bits."""


@dataclasses.dataclass(frozen=True)
class Packer:
    """A model and its tokenizer, for compressing and decompressing files."""

    model: Transformer
    config: ModelConfig
    tokenizer: Tokenizer
    mesh: Mesh
    """Mesh that the model is sharded over. Segments are not spread evenly over it: small models need one device."""
    step: int
    """Step of the checkpoint that the model is from."""


@dataclasses.dataclass(frozen=True)
class Packed:
    """A compressed file and the sizes of its parts."""

    data: bytes
    header: Header
    tokens: int
    """Number of tokens that the model predicted; 0 if it was not used."""
    header_bytes: int
    raw_bytes: int
    """Compressed size of the bytes that are not text, and of the lengths of the pieces."""
    coded_bytes: int
    """Size of the range coder's output."""
    cross_entropy_bits: float
    """The model's cross-entropy, summed over the tokens."""
    seconds: float = 0.0


def nothing(done: int, tokens: int) -> None:
    """Progress callback that shows nothing."""


type Progress = Callable[[int, int], None]
"""Called with (tokens done, total tokens)."""


def compress(data: bytes, packer: Packer, progress: Progress = nothing, segments: int | None = None) -> Packed:
    """Compress `data` with the model, or without it if that is smaller. The result has at most about 120 bytes more
    than `data`. `segments` is a power of two; default: `segments_for`. Raises InputError if logits are not finite."""
    began = time.monotonic()
    best = sealed(data, packer, Body([0, len(data)] if data else [], *packed_raw(data), b""))
    if best.raw_bytes * HARDLY_ANYTHING >= len(data) and (pieces := cut_pieces(data, packer.tokenizer)).tokens:
        count, context = len(pieces.tokens), packer.config.context_length
        layout = Layout(count, segments or segments_for(count, context), context)
        model = TokenModel(packer.model, packer.config, packer.mesh, layout)
        try:
            coded = coder.encode(pieces.tokens, model, packer.tokenizer, lambda done: progress(done, count))
        except FloatingPointError as error:
            raise not_finite(error) from error
        by_model = sealed(data, packer, Body(pieces.lengths, *packed_raw(pieces.raw), coded.data), model, coded.bits)
        best = min(best, by_model, key=lambda one: len(one.data))
    return dataclasses.replace(best, seconds=time.monotonic() - began)


def sealed(data: bytes, packer: Packer, body: Body, model: TokenModel | None = None, bits: float = 0.0) -> Packed:
    """Return the compressed file of `data`: a header, then `body`. `model` is None if the body has no tokens; `bits` is
    the cross-entropy of its tokens."""
    tail = body.pack()
    header = header_of(data, tail, packer, model)
    head, coded = header.pack(), len(body.coded)
    return Packed(head + tail, header, header.tokens, len(head), len(tail) - coded, coded, bits)


def header_of(data: bytes, body: bytes, packer: Packer, model: TokenModel | None) -> Header:
    """Return the header of the compressed file of `data`; with `model` None, it names no model."""
    tokens, segments = (model.layout.tokens, model.layout.segments) if model else (0, 0)
    blank = bytes(DIGEST)
    return Header(
        size=len(data),
        sha256=hashlib.sha256(data).digest(),
        step=packer.step,
        tokens=tokens,
        segments=segments,
        parameters=parameters_digest(packer.model) if model else blank,
        tokenizer=bytes.fromhex(packer.tokenizer.fingerprint)[:DIGEST] if model else blank,
        program=model.program()[:DIGEST] if model else blank,
        machine=machine(packer.mesh) if model else {},
        body=len(body),
        body_crc=zlib.crc32(body),
    )


def decompress(
    data: bytes, packer: Packer | None, name: str, progress: Progress = nothing, try_anyway: bool = False
) -> bytes:
    """Return the bytes that were passed to `compress`. Parameters and errors are those of `decompress_parts`."""
    return b"".join(decompress_parts(data, packer, name, progress, try_anyway))


def decompress_parts(
    data: bytes, packer: Packer | None, name: str, progress: Progress = nothing, try_anyway: bool = False
) -> Iterator[memoryview]:
    """Yield the bytes that were passed to `compress`, in parts: memory does not depend on what the header claims.
    `packer` may be None if the header's `tokens` is 0; `name` is the file's name, for messages.

    Raises InputError if the file was compressed with another model, tokenizer, version or processor (`try_anyway`
    ignores the last two), or is damaged. The SHA-256 is verified at the end: discard the parts that were yielded before
    an error.
    """
    file = io.BytesIO(data)
    header = Header.read(file, name)
    body = read_body(file, header, name)
    text: Iterable[bytes] = ()
    if header.tokens:
        assert packer is not None
        text = decoded(header, body, packer, name, progress, try_anyway)
    found = hashlib.sha256()
    try:
        for part in joined(text, body.unpacked_raw(), body.lengths):
            found.update(part)
            yield part
    except ValueError as error:
        if not header.tokens:  # wrongly decoded text may have any length
            raise damaged(name, f"it holds {error}") from error
    if found.digest() != header.sha256:
        raise InputError(
            f"{name} was decompressed wrongly: the SHA-256 of the result is not {header.sha256.hex()}. Nothing is "
            "written. This machine rounds differently; decompress the file on the machine and with the versions that "
            f"compressed it ({', '.join(f'{one} {value}' for one, value in header.machine.items())})."
        )


def decoded(
    header: Header, body: Body, packer: Packer, name: str, progress: Progress, try_anyway: bool
) -> Iterator[bytes]:
    """Decode the text of a compressed file, in parts. Raises the errors of `decompress_parts`."""
    power = header.segments & (header.segments - 1) == 0
    if not (power and 1 <= header.segments <= MOST_SEGMENTS):
        raise damaged(name, f"it has {header.segments} segments; version {VERSION} allows powers of two up to 64")
    symbols = packer.tokenizer.vocab_size
    if header.tokens > min(sum(body.lengths[0::2]), coder.most_tokens(body.coded, symbols)):
        raise damaged(name, f"{len(body.coded):,} bytes cannot hold {header.tokens:,} tokens")
    layout = Layout(header.tokens, header.segments, packer.config.context_length)
    model = TokenModel(packer.model, packer.config, packer.mesh, layout)
    refuse_other(header, header_of(b"", b"", packer, model), name, try_anyway)
    try:
        tokens = coder.decode(body.coded, model, packer.tokenizer, lambda done: progress(done, header.tokens))
    except ValueError as error:
        raise damaged(name, f"its coder holds {error}") from error
    except FloatingPointError as error:
        raise not_finite(error) from error
    return map(packer.tokenizer.decode_bytes, tokens)


def not_finite(error: FloatingPointError) -> InputError:
    return InputError(f"The model cannot compress: {error}. Give another checkpoint with --step.")


def parameters_digest(model: Transformer) -> bytes:
    """Return the SHA-256, truncated to DIGEST bytes, of the parameters' names, types, shapes and values, independent of
    where and in which format they were stored."""
    whole = hashlib.sha256()
    for name, leaf in sorted(named_leaves(model).items()):
        array = np.ascontiguousarray(on_host(leaf))
        whole.update(f"{name} {array.dtype} {array.shape}\n".encode())
        whole.update(array.view(np.uint8).data)
    return whole.digest()[:DIGEST]


def machine(mesh: Mesh) -> dict[str, str]:
    """Return {name: value} of everything besides the program that affects floating-point results: versions, processor,
    number of threads."""
    device = mesh.devices.flat[0]
    found = {name: importlib.metadata.version(name) for name in LIBRARIES}
    if device.platform == "cpu":
        # XLA divides a matrix product among as many threads as this process has cores.
        threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        found |= {"processor": cpu_kind(), "threads": str(threads)}
    else:
        found |= {"processor": device.device_kind, "driver": " ".join(device.client.platform_version.split())}
    if mesh.size > 1:
        found["mesh"] = ",".join(f"{axis}:{size}" for axis, size in mesh.shape.items())
    flags = " ".join(os.environ.get("XLA_FLAGS", "").split())
    return found | ({"XLA_FLAGS": flags} if flags else {})


def refuse_other(header: Header, here: Header, name: str, try_anyway: bool) -> None:
    """Raise InputError, with both values, unless a file's header names the same model, tokenizer, program and machine
    as `here`, the header that this process would write. With `try_anyway`, program and machine may differ: the file's
    SHA-256 then shows whether the decompressed bytes are right."""
    for what, written, found, remedy in (
        ("model", header.parameters, here.parameters, "Give the run with the checkpoint that compressed it."),
        ("tokenizer", header.tokenizer, here.tokenizer, "Give the run that compressed it."),
    ):
        if written != found:
            raise InputError(
                f"{name} was compressed with the {what} {written.hex()}; this {what} is {found.hex()}. {remedy}"
            )
    if try_anyway:
        return
    names = [*header.machine, *(one for one in here.machine if one not in header.machine)]
    written = {one: header.machine.get(one, "nothing") for one in names} | {"program": header.program.hex()}
    found = {one: here.machine.get(one, "nothing") for one in names} | {"program": here.program.hex()}
    other = [f"{one}: {written[one]} there, {found[one]} here" for one in written if written[one] != found[one]]
    if other:
        raise InputError(
            f"{name} was compressed on a machine that may round differently ({'; '.join(other)}); one bit can change "
            "the text. Decompress the file there, or try --try-anyway: the original's SHA-256 shows whether it worked."
        )
