"""Tensors of a model in another program's file: which of our parameters each contains, and in which layout.

Our names are those of lm.model.param_names, such as "blocks.0.attention.query.weight". Our linear maps compute x @
weight, so our weights are (in, out).
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from lm.config import ModelConfig
from lm.errors import InputError, UsageError
from lm.model.transformer import parameters_by_layer
from lm.tokenizer.base import Tokenizer


class Stored(NamedTuple):
    """One tensor of a file: which parameters of our model it contains, and in which layout."""

    ours: tuple[str, ...]
    """Names of the parameters; several are concatenated on the last axis."""
    transposed: bool = False
    """True for the weight of a linear map that is stored as (out, in)."""
    paired_heads: str = ""
    """Config field with the number of heads, if rotary pairs are neighboring channels (`paired`); else ""."""
    exact: bool = False
    """True for a norm, bias or position, which GGUF files always store in float32."""


type Tensors = dict[str, Stored]
"""{name in the file: its contents}. In tables of a block, {} stands for the layer."""


def linear(theirs: str, *ours: str, transposed: bool = True, bias: bool = False, paired_heads: str = "") -> Tensors:
    """Return {name in the file: Stored} of a linear layer: its weight and, with `bias`, its bias. `theirs` is the
    layer's name in the file, `ours` its name here, or several names if the file concatenates our layers (such as query,
    key and value). `transposed` and `paired_heads` are the fields of Stored."""
    weights, biases = (tuple(f"{name}.{part}" for name in ours) for part in ("weight", "bias"))
    found = {f"{theirs}.weight": Stored(weights, transposed, paired_heads)}
    return found | ({f"{theirs}.bias": Stored(biases, exact=True)} if bias else {})


def norm(theirs: str, ours: str, bias: bool = False) -> Tensors:
    found = {f"{theirs}.weight": Stored((f"{ours}.scale",), exact=True)}
    return found | ({f"{theirs}.bias": Stored((f"{ours}.bias",), exact=True)} if bias else {})


def of_layers(block: Tensors, layers: int) -> Tensors:
    """Return the entries of `block` for every layer: "{}" in each name is replaced by the layer's number, from 0."""
    return {
        theirs.format(layer): one._replace(ours=tuple(name.format(layer) for name in one.ours))
        for layer in range(layers)
        for theirs, one in block.items()
    }


@functools.cache
def parameter_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Return {name: shape} of the parameters of a model, without allocating them. Every layer has its own names, even
    with scan_layers."""
    return {name: tuple(parameter.shape) for name, parameter in parameters_by_layer(config).items()}


def stored_shape(stored: Stored, shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
    """Return the shape of a file's tensor; `shapes` are those of the parameters, by name."""
    first = shapes[stored.ours[0]]
    joined = (*first[:-1], sum(shapes[name][-1] for name in stored.ours))
    return joined[::-1] if stored.transposed else joined


def stored_value(stored: Stored, arrays: Mapping[str, Any], config: ModelConfig) -> np.ndarray:
    """Return the values of a file's tensor, in its layout. `arrays` are the parameters by name; their dtype is kept."""
    parts = [np.asarray(arrays[name]) for name in stored.ours]
    joined = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)
    value = joined.T if stored.transposed else joined
    return paired(value, getattr(config, stored.paired_heads)) if stored.paired_heads else value


class FileParameters(Mapping[str, np.ndarray]):
    """{parameter, such as "blocks.0.attention.query.weight": values} in a file, read on access and not cached."""

    def __init__(
        self, config: ModelConfig, stored: Tensors, dtypes: Mapping[str, str], read: Callable[[str], np.ndarray]
    ):
        """`dtypes` is {tensor: name of its type in the file}; `read(name)` returns the values of a tensor."""
        self.config, self.stored, self.dtypes, self.read = config, stored, dtypes, read
        self.shapes = parameter_shapes(config)
        self.home = {ours: theirs for theirs, one in stored.items() for ours in one.ours}

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)

    def __getitem__(self, name: str) -> np.ndarray:
        stored, value = self.stored[self.home[name]], self.read(self.home[name])
        if stored.paired_heads:
            value = unpaired(value, getattr(self.config, stored.paired_heads))
        value = value.T if stored.transposed else value
        start = sum(self.shapes[one][-1] for one in stored.ours[: stored.ours.index(name)])
        return value[..., start : start + self.shapes[name][-1]]


def paired(weight_OI: np.ndarray, heads: int) -> np.ndarray:
    """Reorder each head's C rows from rotary pairs (c, c + C/2), as in lm.model.layers.rotate, to (2c, 2c + 1)."""
    rows, width = weight_OI.shape
    return weight_OI.reshape(heads, 2, rows // heads // 2, width).swapaxes(1, 2).reshape(rows, width)


def unpaired(weight_OI: np.ndarray, heads: int) -> np.ndarray:
    """Reorder each head's C rows from pairs (2c, 2c + 1) to rotary pairs (c, c + C/2): the inverse of `paired`."""
    rows, width = weight_OI.shape
    return weight_OI.reshape(heads, rows // heads // 2, 2, width).swapaxes(1, 2).reshape(rows, width)


def check_written(config: ModelConfig, arrays: Mapping[str, Any], tokenizer: Tokenizer) -> None:
    """Raise InputError unless `arrays` have the names and shapes of the parameters of this config; UsageError if the
    tokenizer has more symbols than the embedding has rows. No values are read."""
    if tokenizer.vocab_size > config.vocab_size:
        raise UsageError(
            f"The tokenizer has {tokenizer.vocab_size} symbols, but model.vocab_size = {config.vocab_size}. Give the "
            "tokenizer that the model was trained with."
        )
    shapes = parameter_shapes(config)
    given = getattr(arrays, "shapes", None) or {name: tuple(array.shape) for name, array in arrays.items()}
    for name in sorted(shapes.keys() | given.keys()):
        if shapes.get(name) != given.get(name):
            raise InputError(
                f"{name} is {given.get(name, 'absent')}, but {shapes.get(name, 'absent')} in the config. Give the "
                "parameters and the config of one model."
            )
