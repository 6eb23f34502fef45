"""Read a GGUF file under our names, each tensor on access."""

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path

import gguf
import jax.numpy as jnp
import numpy as np

from lm.config import ModelConfig
from lm.errors import InputError
from lm.formats.gguf.header import GgufFile, read_gguf
from lm.formats.gguf.metadata import ROPE_FACTORS, Header, config_of
from lm.formats.gguf.names import stored_shape, stored_tensors, unpaired
from lm.formats.gguf.tokenizer import read_special_tokens, read_tokenizer
from lm.formats.hugging_face.names import parameter_shapes
from lm.formats.source import SourceModel, check_size, check_symbols
from lm.tokenizer.base import Tokenizer

READ = (
    "F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL",
    "IQ4_XS",
)  # fmt: skip
"""Supported types of tensors: those of llama.cpp's 2-bit to 8-bit files, where rows that are not whole blocks of 256
are Q5_0, Q8_0 or IQ4_NL."""


class GgufParameters(Mapping[str, np.ndarray]):
    """{name: values} of the model in a file, under our names of unrolled layers: BF16 as bfloat16, F16 as float16, all
    others as float32. Values are read on access and not cached."""

    def __init__(self, path: Path, reader: GgufFile, config: ModelConfig):
        """Raises InputError for a tensor that is missing, unexpected, of another shape than the config requires, or of
        an unsupported type."""
        self.path, self.shapes, self.stored = path, parameter_shapes(config), stored_tensors(config)
        self.tensors = {tensor.name: tensor for tensor in reader.tensors}
        self.home = {ours: theirs for theirs, stored in self.stored.items() for ours in stored.ours}
        for name in sorted(self.stored.keys() | self.tensors.keys() - {ROPE_FACTORS}):
            found = shape_of(self.tensors[name]) if name in self.tensors else None
            wanted = stored_shape(self.stored[name], self.shapes) if name in self.stored else None
            if found != wanted:
                raise InputError(
                    f"{path}: the tensor {name} is {found or 'absent'}, but {wanted or 'absent'} in the model of its "
                    "header. Get the file again, or the model's Hugging Face folder."
                )
            if (kind := self.tensors[name].tensor_type.name) not in READ:
                raise InputError(
                    f"{path}: {name} is of type {kind}; {', '.join(READ)} are read. Get the model in one of these."
                )
        self.dtypes = {name: self.tensors[name].tensor_type.name for name in self.stored}

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)

    def __getitem__(self, name: str) -> np.ndarray:
        theirs = self.home[name]
        stored = self.stored[theirs]
        value = unpacked(self.tensors[theirs])
        value = unpaired(value, stored.turned_heads) if stored.turned_heads else value
        value = value.T if stored.linear else value
        start = sum(self.shapes[one][-1] for one in stored.ours[: stored.ours.index(name)])
        return value[..., start : start + self.shapes[name][-1]]


def shape_of(tensor: gguf.ReaderTensor) -> tuple[int, ...]:
    """Shape as an array: the file lists the axes in reverse."""
    return tuple(int(length) for length in tensor.shape[::-1])


def unpacked(tensor: gguf.ReaderTensor) -> np.ndarray:
    """Dequantize a tensor of one of the types READ."""
    kind = tensor.tensor_type
    if kind.name == "BF16":
        return np.array(tensor.data).view(jnp.bfloat16).reshape(shape_of(tensor))
    if kind.name in ("F32", "F16"):
        return np.array(tensor.data)
    return gguf.quants.dequantize(tensor.data, kind).reshape(shape_of(tensor))


def open_gguf(path: Path, tokenizer: Tokenizer | None = None) -> SourceModel:
    """Open the model in a GGUF file, with its tokenizer or the given one, and the file's BOS, EOS and chat template.
    Parameters stay in bfloat16 if all matrices are stored in it, otherwise they become float32, which represents them
    exactly.

    Raises InputError for a damaged file and for an unsupported model or tensor type, UsageError for a tokenizer that
    cannot be reproduced.
    """
    reader = read_gguf(path)
    header = Header(path, reader.fields)
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    factors = np.array(tensors[ROPE_FACTORS].data) if ROPE_FACTORS in tensors else None
    config = config_of(header, {name: shape_of(tensor) for name, tensor in tensors.items()}, factors)
    check_size(config, path, sum(tensor.n_elements for tensor in reader.tensors), len(tensors))
    if tokenizer is None:
        check_symbols(len(header.read("tokenizer.ggml.tokens", list)), config, path)
    parameters = GgufParameters(path, reader, config)
    matrices = {parameters.dtypes[name] for name, stored in parameters.stored.items() if not stored.exact}
    if matrices == {"BF16"}:
        config = dataclasses.replace(config, parameter_dtype="bfloat16", compute_dtype="bfloat16")
    found, notes = read_special_tokens(header).on(tokenizer or read_tokenizer(header))
    return SourceModel(config, found, parameters, notes=notes)
