"""Check that a format can represent a model: that it has all fields of the ModelConfig, and stores all parameters.

Each format lists the fields and values that it expresses. A field that is not listed, for example one that was added to
ModelConfig later, must have its default value; otherwise the export is refused.
"""

import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from lm.config import ModelConfig
from lm.errors import UsageError

ANY = object()
"""Any value of a field."""
type Expressed = dict[str, object]
"""{field of ModelConfig: ANY, or a tuple of values}; "rope_scaling.factor" is a field of a nested config."""
SIZES: Expressed = dict.fromkeys(
    ("vocab_size", "context_length", "layers", "width", "heads", "kv_heads", "mlp_width", "head_dim", "norm_epsilon"),
    ANY,
) | {"tie_embeddings": (True, False), "parameter_dtype": ("float32", "bfloat16")}
NO_EFFECT: Expressed = {
    "initial_std": ANY, "zero_init": ANY, "scan_layers": ANY, "attention": ANY,
    "compute_dtype": ("float32", "bfloat16"),
}  # fmt: skip
"""Fields that do not affect the output of a trained model, except for rounding."""
ROPE: Expressed = {"rope_theta": ANY} | dict.fromkeys(
    ("rope_scaling.factor", "rope_scaling.low_frequency_factor", "rope_scaling.high_frequency_factor",
     "rope_scaling.original_context_length"), ANY,
)  # fmt: skip
"""Rotary frequencies with Llama 3.1's scaling. The fields have no effect with learned positions."""
OWN_FORWARD: Expressed = (
    SIZES | NO_EFFECT | ROPE | {
        "norm": ("rmsnorm", "layernorm"), "position": ("rope", "learned"), "mlp": ("swiglu", "gelu", "relu_squared"),
        "biases": (True, False), "qk_norm": (True, False), "token_shift": (True, False), "logit_softcap": ANY,
        "ngram_rows": ANY, "ngram_longest": ANY, "attention_windows": ANY,
    }
)  # fmt: skip
"""Fields that both forward passes outside of JAX implement: transformers_code/modeling_gristmill.py.txt (torch) and
standalone/model_template.txt (NumPy). List a field here once both implement it."""
OWN_PARAMETERS = re.compile(
    r"embedding|positions|ngrams\.\d+|head\.weight|norm\.(scale|bias)|blocks\.\d+\.("
    r"(attention_norm|mlp_norm)\.(scale|bias)|attention\.(query|key|value|out)\.(weight|bias)"
    r"|attention\.(query|key|value)_share|mlp_share|mlp\.(gate|up|down)\.(weight|bias))"
)
"""Matches the names of the parameters that the forward passes of OWN_FORWARD read."""


GPT2_VALUES: dict[str, Any] = {"norm": "layernorm", "position": "learned", "mlp": "gelu", "biases": True}
LLAMA_VALUES: dict[str, Any] = {"norm": "rmsnorm", "position": "rope", "mlp": "swiglu", "biases": False}
"""{field of ModelConfig: its value in every Llama}."""


def no_window(config: ModelConfig) -> Expressed:
    """Return {"attention_windows": supported values} for a format without attention windows: ANY if no layer of this
    config has a limited window, else only the value ()."""
    limited = any(config.window(layer) for layer in range(min(config.layers, len(config.attention_windows))))
    return {"attention_windows": ((),) if limited else ANY}


def gpt2(config: ModelConfig) -> Expressed:
    """Return the fields and values of a ModelConfig that transformers' and llama.cpp's code for GPT-2 implements."""
    even = config.width // config.heads if config.width % config.heads == 0 else None
    return SIZES | NO_EFFECT | no_window(config) | {name: (value,) for name, value in GPT2_VALUES.items()} | {
        "ngram_longest": ANY, "kv_heads": (config.heads,), "head_dim": (None, even), "rope_theta": ANY,
    }  # fmt: skip


def llama(config: ModelConfig) -> Expressed:
    """Return the fields and values of a ModelConfig that transformers' and llama.cpp's code for Llama implements."""
    fixed = {name: (value,) for name, value in LLAMA_VALUES.items()}
    return SIZES | NO_EFFECT | ROPE | no_window(config) | fixed | {"ngram_longest": ANY}


def leaves(config: object, prefix: str = "") -> Iterator[tuple[str, object, object]]:
    """Yield (name, value, default or dataclasses.MISSING) of each field. The name of a field of a nested config is
    "rope_scaling.factor", for example."""
    for field in dataclasses.fields(config):  # ty: ignore[invalid-argument-type]
        name, value = prefix + field.name, getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from leaves(value, f"{name}.")
        else:
            yield name, value, field.default


def unexpressed(config: ModelConfig, expressed: Expressed) -> list[str]:
    """Return a phrase for each unsupported field, such as "model.norm = rmsnorm (only layernorm)"."""
    found = []
    for name, value, default in leaves(config):
        values = expressed.get(name, () if default is dataclasses.MISSING else (default,))
        if values is ANY or value in values:  # ty: ignore[unsupported-operator]
            continue
        only = " or ".join(map(str, values)) or "no value"  # ty: ignore[invalid-argument-type]
        found.append(f"model.{name} = {value} (only {only})")
    return found


def check_expressed(config: ModelConfig, expressed: Expressed, format: str, remedy: str) -> None:
    """Raise UsageError with `remedy` if `format` does not express all fields of this config."""
    if found := unexpressed(config, expressed):
        raise UsageError(f"The format {format} cannot express {', '.join(found)}. {remedy}")


def check_all_written(written: Iterable[str], shapes: Mapping[str, object], format: str) -> None:
    """Raise UsageError unless `written`, the parameters that `format` stores, are exactly the model's, `shapes`."""
    names = {*written}
    if left_out := sorted(shapes.keys() - names):
        raise UsageError(
            f"The format {format} writes {len(names)} of the model's {len(shapes)} parameters; {left_out[0]} is not "
            "among them, so the exported model would compute something else. Choose another --format, or add the "
            "parameter to this one (docs/how_to_change_it.md, field of the model)."
        )
    if unknown := sorted(names - shapes.keys()):
        raise UsageError(
            f"The format {format} needs the parameter {unknown[0]}, which this model does not have. Choose another "
            "--format."
        )
