"""Convert config.json and generation_config.json of a Hugging Face folder to and from a ModelConfig."""

import dataclasses
from pathlib import Path
from typing import Any, Literal

from lm.config import ModelConfig, RopeScalingConfig
from lm.errors import InputError, UsageError, shown
from lm.formats.coverage import GPT2_VALUES, LLAMA_VALUES
from lm.formats.hugging_face.names import family_of
from lm.formats.safetensors import read_json_object
from lm.formats.source import Fields
from lm.storage import file_inside
from lm.tokenizer.base import Tokenizer

GPT2_NAMES = {
    "context_length": "n_positions", "width": "n_embd", "layers": "n_layer", "heads": "n_head", "mlp_width": "n_inner",
    "norm_epsilon": "layer_norm_epsilon",
}  # fmt: skip
LLAMA_NAMES = {
    "context_length": "max_position_embeddings", "width": "hidden_size", "layers": "num_hidden_layers",
    "heads": "num_attention_heads", "head_dim": "head_dim", "kv_heads": "num_key_value_heads",
    "mlp_width": "intermediate_size", "norm_epsilon": "rms_norm_eps",
}  # fmt: skip
ROPE_SCALING_NAMES = {
    "factor": "factor", "low_frequency_factor": "low_freq_factor", "high_frequency_factor": "high_freq_factor",
    "original_context_length": "original_max_position_embeddings",
}  # fmt: skip
"""{field of RopeScalingConfig: name in config.json}."""
GPT2_ONLY = {
    "activation_function": "gelu_new", "scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False,
    "add_cross_attention": False,
}  # fmt: skip
LLAMA_ONLY = {"hidden_act": "silu", "attention_bias": False, "mlp_bias": False}
"""{field of config.json: its only supported value, which is also its default}."""


def rope_of(fields: Fields) -> tuple[float, RopeScalingConfig | None]:
    """Return (theta, scaling) of rotary positions in a Llama's config.json: from `rope_parameters`, as transformers 5
    writes it, or from `rope_theta` and `rope_scaling`, as earlier versions did. Raises InputError if both are there and
    differ."""
    new, old = fields.part("rope_parameters"), fields.part("rope_scaling")
    if new.values and old.values and new.values != old.values:
        raise InputError(
            f"{fields.path}: rope_parameters is {shown(new.values)}, but rope_scaling is {shown(old.values)}. Remove "
            "one of them."
        )
    rope = new if new.values else old
    kind = "rope_type" if "rope_type" in rope.values else "type"  # the older name
    rope.require(kind, "default", "llama3")
    for part in (rope, fields):
        part.require("partial_rotary_factor", 1.0, 1)
    theta = rope.read("rope_theta", float, fields.read("rope_theta", float, 10_000.0))
    if rope.values.get(kind) != "llama3":
        return theta, None
    kind = lambda ours: int if ours == "original_context_length" else float
    scaling: dict[str, Any] = {ours: rope.read(theirs, kind(ours)) for ours, theirs in ROPE_SCALING_NAMES.items()}
    return theta, RopeScalingConfig(**scaling)


def gpt2_fields(fields: Fields) -> dict[str, Any]:
    """Return the ModelConfig fields in the config.json of a GPT-2; defaults are those of transformers' GPT2Config."""
    for name, value in GPT2_ONLY.items():
        fields.require(name, value)
    read = fields.read_all(GPT2_NAMES, mlp_width=4 * fields.read("n_embd", int), norm_epsilon=1e-5)
    return GPT2_VALUES | read | {
        "kv_heads": read["heads"], "tie_embeddings": fields.read("tie_word_embeddings", bool, True),
        "rope_theta": 10_000.0,
    }  # fmt: skip


def llama_fields(fields: Fields) -> dict[str, Any]:
    """Return the ModelConfig fields in the config.json of a Llama; defaults are those of transformers' LlamaConfig."""
    for name, value in LLAMA_ONLY.items():
        fields.require(name, value)
    heads = fields.read("num_attention_heads", int)
    read = fields.read_all(LLAMA_NAMES, head_dim=0, kv_heads=heads, norm_epsilon=1e-6)
    implied = fields.values.get("head_dim") is None or read["head_dim"] * heads == read["width"]
    theta, scaling = rope_of(fields)
    return LLAMA_VALUES | read | {
        "head_dim": None if implied else read["head_dim"], "rope_theta": theta, "rope_scaling": scaling,
        "tie_embeddings": fields.read("tie_word_embeddings", bool, False),
    }  # fmt: skip


OWN = "GristmillForCausalLM"
RUN_ONLY = ("parameter_dtype", "compute_dtype", "scan_layers", "attention")
"""Fields of ModelConfig that affect how a model is computed here, not what it computes; not in config.json."""


def own_fields(fields: Fields) -> dict[str, Any]:
    """Return the fields of a ModelConfig from the config.json of an export with our custom code for transformers.
    Raises InputError if one is missing."""
    found: dict[str, Any] = {}
    values = fields.part("model").values
    for field in dataclasses.fields(ModelConfig):
        if field.name in (*RUN_ONLY, "vocab_size", "initial_std"):  # the last two are in transformers' own fields
            continue
        value = values.get(field.name)
        if value is None and field.default is dataclasses.MISSING:
            raise InputError(f"{fields.path} has no model.{field.name}, which the model needs. Download it again.")
        if field.name == "rope_scaling" and isinstance(value, dict):
            value = RopeScalingConfig(**value)
        found[field.name] = tuple(value) if isinstance(value, list) else value
    return found


FAMILIES = {"GPT2LMHeadModel": gpt2_fields, "LlamaForCausalLM": llama_fields, OWN: own_fields}


def model_config_of(folder: Path, dtype: Literal["float32", "bfloat16"] = "float32") -> ModelConfig:
    """Return the ModelConfig of a Hugging Face folder, with parameters and matrix products in `dtype`.

    The context length is the model's maximum, 131,072 tokens for Llama 3.1; with rotary positions you can replace it by
    a shorter one. Raises InputError, with the field of config.json and its value, for anything that our model does not
    support: another architecture, another activation, biases in Llama, quantized weights.
    """
    path = file_inside(folder, "config.json")
    fields = Fields(path, read_json_object(path), "Set it there.")
    architectures = fields.values.get("architectures")
    names = architectures if isinstance(architectures, list) else []
    family = FAMILIES.get(names[0]) if len(names) == 1 and isinstance(names[0], str) else None
    if family is None:
        raise InputError(
            f"{path}: architectures is {shown(architectures)}, which is not supported. Use a model of one of "
            f"{', '.join(FAMILIES)}."
        )
    fields.require("quantization_config", None)
    try:
        return ModelConfig(
            **family(fields), vocab_size=fields.read("vocab_size", int),
            initial_std=fields.read("initializer_range", float, 0.02), parameter_dtype=dtype, compute_dtype=dtype,
        )  # fmt: skip
    except (UsageError, TypeError, ValueError, OverflowError) as error:  # the values come from a file
        raise InputError(f"{path} is not a supported model: {error}") from error


def config_json(config: ModelConfig) -> dict[str, Any]:
    """Return the contents of config.json for a model, the inverse of `model_config_of`."""
    shared = {
        "vocab_size": config.vocab_size, "initializer_range": config.initial_std, "dtype": config.parameter_dtype,
        "tie_word_embeddings": config.tie_embeddings,
    }  # fmt: skip
    if (family := family_of(config)) == "gpt2":
        named = {theirs: getattr(config, ours) for ours, theirs in GPT2_NAMES.items()}
        return {
            "architectures": ["GPT2LMHeadModel"], "model_type": "gpt2",
            "activation_function": GPT2_ONLY["activation_function"], **named, **shared,
        }  # fmt: skip
    if family == "gristmill":
        own = {name: value for name, value in dataclasses.asdict(config).items() if name not in RUN_ONLY}
        return {
            "architectures": [OWN], "model_type": "gristmill",
            "auto_map": {
                "AutoConfig": "configuration_gristmill.GristmillConfig",
                "AutoModelForCausalLM": f"modeling_gristmill.{OWN}",
            },
            "model": own, **shared,
        }  # fmt: skip
    named = {theirs: getattr(config, ours) for ours, theirs in LLAMA_NAMES.items()} | {"head_dim": config.head_channels}
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": config.rope_theta}
    if (scaling := config.rope_scaling) is not None:
        rope |= {"rope_type": "llama3"}
        rope |= {theirs: getattr(scaling, ours) for ours, theirs in ROPE_SCALING_NAMES.items()}
    return {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": LLAMA_ONLY["hidden_act"], **named,
        "attention_bias": False, "mlp_bias": False, "rope_parameters": rope, **shared,
    }  # fmt: skip


def special_ids(tokenizer: Tokenizer) -> dict[str, Any]:
    """Return BOS and EOS ids as fields of config.json, so that generation stops at EOS. Absent ids are null, since
    transformers would use those of GPT-2 or Llama 2."""
    # BOS of the next document also ends one. transformers pads with the first id, so EOS comes first.
    ends = list(tokenizer.stop_ids) or sorted(tokenizer.eos_ids, key=lambda id: (id == tokenizer.bos_id, id))
    eos = ends[0] if len(ends) == 1 else ends or None
    return {"bos_token_id": tokenizer.bos_id, "eos_token_id": eos, "pad_token_id": None}
