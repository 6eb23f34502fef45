"""Write the weights and configs of a Hugging Face folder tensor by tensor, in shards."""

import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub import split_state_dict_into_shards_factory

from lm.config import ModelConfig
from lm.formats.hugging_face.config import config_json, special_ids
from lm.formats.hugging_face.names import family_of, stored_tensors
from lm.formats.safetensors import DTYPES, INDEX, NAMES, in_dtype, write_file
from lm.formats.tensors import check_written, parameter_shapes, stored_shape, stored_value
from lm.model.param_names import are_stacked, unstack_names
from lm.storage import write_json
from lm.tokenizer.base import Tokenizer

SHARD_BYTES = 5_000_000_000
"""Maximum size of a file in bytes, unless one tensor is larger: Hugging Face's own limit."""
CODE = Path(__file__).parent / "transformers_code"
"""Folder of the Python code for transformers; its files end in .txt because they do not run here."""


def write_hugging_face(
    folder: Path,
    config: ModelConfig,
    arrays: Mapping[str, Any],
    tokenizer: Tokenizer,
    dtype: str | Mapping[str, str] = "",
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write a folder that transformers can load: config.json, generation_config.json with BOS and EOS of `tokenizer`,
    the weights, and custom code if the model is neither GPT-2 nor Llama. `arrays` maps parameters, such as
    "blocks.0.attention.query.weight", to values, which are read one at a time; layers may be stacked
    (model.scan_layers).

    `dtype` is float32, bfloat16 or float16 (default: config.parameter_dtype), or {name of a tensor: its type, such as
    "BF16"}. Raises UsageError if the tokenizer has more symbols than the model or a value exceeds float16's range, and
    InputError if `arrays` are not the parameters of this config.
    """
    text, ids, stored = config_json(config), special_ids(tokenizer), stored_tensors(config)
    if are_stacked(arrays):
        arrays = unstack_names(arrays, config.layers, lambda name, stack, layer: stack[layer])
    check_written(config, arrays, tokenizer)
    dtypes = dict.fromkeys(stored, NAMES[dtype or config.parameter_dtype]) if isinstance(dtype, str) else dtype
    most = Counter(dtypes.values()).most_common(1)[0][0]
    main_dtype = next(name for name, theirs in NAMES.items() if theirs == most)
    text["dtype"] = text["torch_dtype"] = main_dtype  # the current name, and that of transformers before 4.56

    def value(theirs: str) -> np.ndarray:
        return in_dtype(theirs, stored_value(stored[theirs], arrays, config), dtypes[theirs])

    folder.mkdir(parents=True, exist_ok=True)
    shapes = parameter_shapes(config)
    described = {name: (dtypes[name], stored_shape(each, shapes)) for name, each in stored.items()}
    split = split_state_dict_into_shards_factory(
        described, get_storage_size=bytes_of, filename_pattern="model{suffix}.safetensors", max_shard_size=shard_bytes
    )
    for name, tensors in split.filename_to_tensors.items():
        write_file(folder / name, {one: described[one] for one in tensors}, value)
    if split.is_sharded:
        homes = dict(sorted(split.tensor_to_filename.items()))
        write_json(folder / INDEX, {"metadata": split.metadata, "weight_map": homes})
    if family_of(config) == "gristmill":
        for path in sorted(CODE.glob("*.py.txt")):
            (folder / path.name.removesuffix(".txt")).write_bytes(path.read_bytes())
    write_json(folder / "config.json", text | ids)
    write_json(folder / "generation_config.json", ids)


def bytes_of(described: tuple[str, tuple[int, ...]]) -> int:
    dtype, shape = described
    return math.prod(shape) * DTYPES[dtype].itemsize
