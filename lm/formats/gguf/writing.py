"""Write a GGUF file, with one tensor in memory at a time."""

import contextlib
import math
from collections.abc import Mapping
from pathlib import Path

import gguf
import numpy as np

from lm.config import ModelConfig
from lm.errors import UsageError
from lm.formats.gguf.model import ROPE_FACTORS, add_config, arch_of, rope_factors, stored_tensors
from lm.formats.gguf.tokenizer import add_tokenizer
from lm.formats.safetensors import in_dtype
from lm.formats.tensors import Stored, check_written, parameter_shapes, stored_shape, stored_value
from lm.storage import appearing
from lm.tokenizer.base import Tokenizer

Type = gguf.GGMLQuantizationType
TYPES = {
    "float32": (Type.F32, gguf.LlamaFileType.ALL_F32), "float16": (Type.F16, gguf.LlamaFileType.MOSTLY_F16),
    "bfloat16": (Type.BF16, gguf.LlamaFileType.MOSTLY_BF16), "q8_0": (Type.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0),
}  # fmt: skip
"""{--dtype: (type of the matrices, file type in the header)}."""


def write_gguf(
    path: Path, config: ModelConfig, arrays: Mapping[str, np.ndarray], tokenizer: Tokenizer, name: str, dtype: str = ""
) -> None:
    """Write a file that llama.cpp can load, atomically. `arrays` maps parameters, such as
    "blocks.0.attention.query.weight", to values, which are read one at a time. `name` is the model's name in the
    header.

    `dtype` is the type of the matrices: float32, bfloat16, float16 or q8_0 (blocks of 32 8-bit numbers with one scale
    each); default: config.parameter_dtype. Norms, biases and positions are float32, and so are matrices whose rows are
    not whole blocks. Raises UsageError for a model, tokenizer or dtype that GGUF does not support, and values outside
    float16's range; InputError if `arrays` are not the parameters of this config.
    """
    if (dtype := dtype or config.parameter_dtype) not in TYPES:
        raise UsageError(f"--dtype is {dtype!r}; GGUF supports {', '.join(TYPES)}.")
    stored, shapes = stored_tensors(config), parameter_shapes(config)
    check_written(config, arrays, tokenizer)
    kind, file_type = TYPES[dtype]
    scaling = config.rope_scaling
    factors = {ROPE_FACTORS: rope_factors(config.head_channels, config.rope_theta, scaling)} if scaling else {}
    described = {theirs: stored_shape(one, shapes) for theirs, one in stored.items()}
    kinds = {theirs: kind_of(stored[theirs], shape, kind) for theirs, shape in described.items()}
    with appearing(path) as partial, contextlib.closing(gguf.GGUFWriter(partial, arch_of(config))) as writer:
        writer.add_name(name)
        writer.add_file_type(file_type)
        add_config(writer, config)
        add_tokenizer(writer, tokenizer, config.vocab_size)
        for theirs, factor_c in factors.items():
            writer.add_tensor_info(theirs, factor_c.shape, factor_c.dtype, factor_c.nbytes, Type.F32)
        for theirs, shape in described.items():
            writer.add_tensor_info(theirs, shape, np.dtype("f4"), size_of(shape, kinds[theirs]), kinds[theirs])
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for factor_c in factors.values():
            writer.write_tensor_data(factor_c)
        for theirs, one in stored.items():
            writer.write_tensor_data(packed(theirs, stored_value(one, arrays, config), kinds[theirs]))


def kind_of(stored: Stored, shape: tuple[int, ...], wanted: Type) -> Type:
    """Return the type in which a tensor of this shape is stored: `wanted`, or float32 if its rows are not whole blocks
    or Stored.exact is set."""
    block, _ = gguf.GGML_QUANT_SIZES[wanted]
    return Type.F32 if stored.exact or shape[-1] % block else wanted


def size_of(shape: tuple[int, ...], kind: Type) -> int:
    """Return the size of a tensor in bytes."""
    block, size = gguf.GGML_QUANT_SIZES[kind]
    return math.prod(shape) // block * size


def packed(name: str, value: np.ndarray, kind: Type) -> np.ndarray:
    """Return the values in the file's type `kind`, quantized if it is Q8_0. Raises UsageError, with the tensor's name,
    if a value, or a scale of Q8_0, exceeds float16's range."""
    if kind == Type.F16:
        return np.ascontiguousarray(in_dtype(name, value, "F16"))
    if kind == Type.Q8_0:
        in_dtype(name, value.astype(np.float32) / 127, "F16")
    value = np.ascontiguousarray(value, np.float32)
    return value if kind == Type.F32 else gguf.quants.quantize(value, kind)
