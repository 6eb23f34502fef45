"""A model in another program's files, as launch.import_model takes it into a run folder."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from lm.config import ModelConfig
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
