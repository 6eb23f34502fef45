"""Read a GGUF file as parameters under our names, each tensor on access."""

import dataclasses
from pathlib import Path

import gguf
import jax.numpy as jnp
import numpy as np

from lm.config import ModelConfig
from lm.errors import InputError
from lm.formats.gguf.header import read_gguf
from lm.formats.gguf.model import ROPE_FACTORS, config_of, stored_tensors
from lm.formats.gguf.tokenizer import read_special_tokens, read_tokenizer
from lm.formats.source import Fields, SourceModel, check_size, check_symbols
from lm.formats.tensors import FileParameters, parameter_shapes, stored_shape
from lm.tokenizer.base import Tokenizer

READ = (
    "F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL",
    "IQ4_XS",
)  # fmt: skip
"""Supported types of tensors: those of llama.cpp's 2-bit to 8-bit files, where rows that are not whole blocks of 256
are Q5_0, Q8_0 or IQ4_NL."""


def parameters_of(path: Path, tensors: dict[str, gguf.ReaderTensor], config: ModelConfig) -> FileParameters:
    """Return the parameters in a file: BF16 as bfloat16, F16 as float16, all other types as float32. Raises InputError
    for a tensor that is missing, unexpected, of another shape than the config requires, or of an unsupported type."""
    shapes, stored = parameter_shapes(config), stored_tensors(config)
    for name in sorted(stored.keys() | tensors.keys() - {ROPE_FACTORS}):
        found = shape_of(tensors[name]) if name in tensors else None
        wanted = stored_shape(stored[name], shapes) if name in stored else None
        if found != wanted:
            raise InputError(
                f"{path}: the tensor {name} is {found or 'absent'}, but by the header must be {wanted or 'absent'}. "
                "Download the file again, or use the model's Hugging Face folder."
            )
        if (kind := tensors[name].tensor_type.name) not in READ:
            raise InputError(
                f"{path}: {name} is of type {kind}; {', '.join(READ)} are supported. Use the model in one of these."
            )
    dtypes = {name: tensors[name].tensor_type.name for name in stored}
    return FileParameters(config, stored, dtypes, lambda name: unpacked(tensors[name]))


def shape_of(tensor: gguf.ReaderTensor) -> tuple[int, ...]:
    """Return the shape of the tensor's array: the file lists the axes in reverse."""
    return tuple(int(length) for length in tensor.shape[::-1])


def unpacked(tensor: gguf.ReaderTensor) -> np.ndarray:
    """Return the values of a tensor, dequantized; its type is one of READ."""
    kind = tensor.tensor_type
    if kind.name == "BF16":
        return np.array(tensor.data).view(jnp.bfloat16).reshape(shape_of(tensor))
    if kind.name in ("F32", "F16"):
        return np.array(tensor.data)
    return gguf.quants.dequantize(tensor.data, kind).reshape(shape_of(tensor))


def open_gguf(path: Path, tokenizer: Tokenizer | None = None) -> SourceModel:
    """Open the model in a GGUF file with `tokenizer`, by default the file's own, and the file's BOS, EOS and chat
    template. The dtype is bfloat16 if all matrices are stored in it, else float32, which represents the stored values
    exactly.

    Raises InputError for a damaged file and for an unsupported model or tensor type, UsageError for a tokenizer that
    cannot be reproduced.
    """
    reader = read_gguf(path)
    header = Fields(path, reader.fields, "Download the file again.")
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    factors = np.array(tensors[ROPE_FACTORS].data) if ROPE_FACTORS in tensors else None
    config = config_of(header, {name: shape_of(tensor) for name, tensor in tensors.items()}, factors)
    check_size(config, path, sum(tensor.n_elements for tensor in reader.tensors), len(tensors))
    if tokenizer is None:
        check_symbols(len(header.read("tokenizer.ggml.tokens", list)), config, path)
    parameters = parameters_of(path, tensors, config)
    matrices = {parameters.dtypes[name] for name, stored in parameters.stored.items() if not stored.exact}
    if matrices == {"BF16"}:
        config = dataclasses.replace(config, parameter_dtype="bfloat16", compute_dtype="bfloat16")
    found, notes = read_special_tokens(header).on(tokenizer or read_tokenizer(header))
    return SourceModel(config, found, parameters, notes=notes)
