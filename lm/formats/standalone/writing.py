"""Write a standalone folder: model.py for this model, its weights, its vocabulary, and a README."""

import math
import string
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from lm.config import ModelConfig
from lm.errors import UsageError
from lm.formats.coverage import OWN_FORWARD, OWN_PARAMETERS, check_all_written, check_expressed
from lm.formats.safetensors import NAMES, in_dtype, write_file
from lm.formats.standalone.tokenizer import features_of, tokenizer_json
from lm.formats.tensors import check_written, parameter_shapes
from lm.storage import write_atomically
from lm.tokenizer.base import Tokenizer

TEMPLATE = Path(__file__).with_name("model_template.txt")
README = Path(__file__).with_name("readme_template.txt")
MOST_LINES = 200
"""Lines of model.py above which blank lines are removed."""
MODEL, WEIGHTS, VOCABULARY = "model.py", "parameters.safetensors", "tokenizer.json"


def write_standalone(
    folder: Path,
    config: ModelConfig,
    arrays: Mapping[str, np.ndarray],
    tokenizer: Tokenizer,
    title: str,
    dtype: str = "",
) -> None:
    """Write a model to `folder`, which is created if necessary: model.py, parameters.safetensors, tokenizer.json,
    README.md.

    `arrays` maps parameters, such as "blocks.0.attention.query.weight", to values, which are read one at a time.
    `dtype` is float32, bfloat16 or float16 (default: config.parameter_dtype); model.py computes in float32. Raises
    UsageError for a model, tokenizer or dtype that model.py does not support, and values outside float16's range;
    InputError if `arrays` are not the parameters of this config.
    """
    if (dtype := dtype or config.parameter_dtype) not in NAMES:
        raise UsageError(f"--dtype is {dtype!r}; a standalone folder supports {', '.join(NAMES)}.")
    check_written(config, arrays, tokenizer)
    shapes = parameter_shapes(config)
    check_all_written(filter(OWN_PARAMETERS.fullmatch, shapes), shapes, "standalone")
    program, vocabulary = model_py(config, tokenizer, title, dtype), tokenizer_json(tokenizer)
    folder.mkdir(parents=True, exist_ok=True)
    stored = NAMES[dtype]
    write_file(
        folder / WEIGHTS,
        {name: (stored, shape) for name, shape in shapes.items()},
        lambda name: in_dtype(name, np.asarray(arrays[name]), stored),
    )
    write_atomically(folder / VOCABULARY, vocabulary)
    write_atomically(folder / MODEL, program)
    values = {
        "title": printable(title), "parameters": f"{sum(map(math.prod, shapes.values())):,}", "layers": config.layers,
        "width": config.width, "heads": config.heads, "context_length": f"{config.context_length:,}",
        "symbols": f"{tokenizer.vocab_size:,}", "kind": tokenizer.kind, "dtype": dtype,
    }  # fmt: skip
    readme = string.Template(README.read_text(encoding="utf-8")).substitute(values)
    write_atomically(folder / "README.md", readme)


def model_py(config: ModelConfig, tokenizer: Tokenizer, title: str, dtype: str) -> str:
    """Return the text of model.py: the parts of model_template.txt that this model needs, with its numbers. Raises
    UsageError for a config field that the template does not support."""
    remedy = (
        "Train with values that it supports, or add the fields to model_template.txt (docs/how_to_change_it.md, field "
        "of the model)."
    )
    check_expressed(config, OWN_FORWARD, "standalone", remedy)
    values: dict[str, object] = {
        "title": printable(title), "context_length": config.context_length, "layers": config.layers,
        "width": config.width, "heads": config.heads, "kv_heads": config.kv_heads,
        "head_channels": config.head_channels, "norm_epsilon": config.norm_epsilon, "rope_theta": config.rope_theta,
        "KV": "KV_HEADS" if config.kv_heads < config.heads else "HEADS", "symbols": tokenizer.vocab_size,
        "numpy_dtype": {"float32": "<f4", "bfloat16": "<u2", "float16": "<f2"}[dtype],
        "logit_softcap": config.logit_softcap, "ngram_lengths": tuple(range(2, config.tokens_back + 2)),
        "windows": config.attention_windows, "window_count": len(config.attention_windows),
        "norm_moved": " and moved" if config.biases else "",
        "norm_bias": ' + P[name + ".bias"]' if config.biases else "",
        "mlp_cache": ", cache" if config.token_shift else "",
        "prefix": '"\\u2581" + ' if "dummy_prefix" in features_of(tokenizer) else "",
    }  # fmt: skip
    if (scaling := config.rope_scaling) is not None:
        values |= {
            "rope_factor": scaling.factor, "rope_low": scaling.low_frequency_factor,
            "rope_high": scaling.high_frequency_factor, "rope_original": scaling.original_context_length,
        }  # fmt: skip
    named = {
        "grouped": config.kv_heads < config.heads, "learned": config.position == "learned",
        "rope": config.position == "rope", "rope_scaling": config.rope_scaling is not None, "biases": config.biases,
        "layernorm": config.norm == "layernorm", "bf16": dtype == "bfloat16",
        "tied": config.tie_embeddings, "softcap": config.logit_softcap is not None, "qk_norm": config.qk_norm,
        "token_shift": config.token_shift, "ngrams": bool(config.ngram_rows), "windows": any(config.attention_windows),
        config.mlp: True,
    }  # fmt: skip
    features = features_of(tokenizer) | {name for name, present in named.items() if present}
    text = string.Template(chosen(TEMPLATE.read_text(encoding="utf-8"), features)).substitute(values)
    # With many features: remove blank lines between functions to keep it short.
    return text if text.count("\n") <= MOST_LINES else text.replace("\n\n\n", "\n\n")


def chosen(template: str, features: frozenset[str]) -> str:
    """Return the lines of the template whose conditions hold (`#: if FEATURE` or `#: else`, up to `#: end`)."""
    kept: list[bool] = []
    lines = []
    for line in template.splitlines(keepends=True):
        if not line.startswith("#: "):
            lines += [line] if all(kept) else []
        elif line.startswith("#: if "):
            kept.append(line.split()[2] in features)
        elif line.split() == ["#:", "else"]:
            kept[-1] = not kept[-1]
        else:
            kept.pop()
    return "".join(lines)


def printable(title: str) -> str:
    """Replace characters of a title that a docstring or a Markdown page cannot contain."""
    return "".join(c if c.isprintable() and c not in '"\\`' else "_" for c in title)
