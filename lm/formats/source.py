"""A model in another program's files, as launch.import_model takes it into a run folder."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lm.config import ModelConfig
from lm.config.model import least_parameters
from lm.errors import InputError, UsageError
from lm.tokenizer.base import Tokenizer


@dataclass(frozen=True)
class SourceModel:
    """What a run folder is made of; the parameters are still in the files."""

    config: ModelConfig
    tokenizer: Tokenizer
    parameters: Mapping[str, np.ndarray]
    """Under our names of unrolled layers, each read when it is asked for."""
    dtypes: Mapping[str, str] = field(default_factory=dict)
    """{the format's name of a tensor: its type there}, by which an export gives the same bytes again."""
    files: Mapping[str, bytes] = field(default_factory=dict)
    """Small files of the source that are kept as they are, by name."""


def check_symbols(symbols: int, config: ModelConfig, source: Path | str) -> None:
    """Raises UsageError if a tokenizer has more symbols than the model has rows: before the tokenizer is made, which
    takes some 10 s for a million."""
    if symbols > config.vocab_size:
        raise UsageError(
            f"{source}: the tokenizer has {symbols:,} symbols, but the model has {config.vocab_size:,} rows of "
            "embeddings. Name the tokenizer that the model was trained with by --tokenizer."
        )


FAR_MORE = 100
"""How many times more parameters a config may describe than there are numbers, before it is refused as a whole."""


def check_size(config: ModelConfig, source: Path, values: int, tensors: int) -> None:
    """Raises InputError if the config needs more parameters or layers than the weights of `source` hold: `values`
    numbers in so many tensors. To be called before anything is made for each layer. Smaller differences are left to
    the comparison of each tensor's shape, which names the tensor."""
    needed = least_parameters(config)
    if needed > FAR_MORE * values or config.layers > tensors:
        raise InputError(
            f"{source} describes a model of at least {needed:,} parameters in {config.layers:,} layers, but its "
            f"weights are {values:,} numbers in {tensors:,} tensors. Are the config and the weights of the same model, "
            "and all there? Get both again."
        )
