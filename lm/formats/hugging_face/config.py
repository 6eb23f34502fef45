"""Convert config.json and generation_config.json of a Hugging Face folder to and from a ModelConfig."""

import dataclasses
from pathlib import Path
from typing import Any, Literal

from lm.config import ModelConfig, RopeScalingConfig
from lm.errors import InputError, UsageError, shown
from lm.formats.hugging_face.names import family_of
from lm.formats.safetensors import read_json_object
from lm.storage import file_inside
from lm.tokenizer.base import Tokenizer


class Settings:
    """config.json of a checkpoint, read field by field; every error names the field."""

    def __init__(self, path: Path, values: dict[str, Any]):
        self.path, self.values = path, values

    def read[Value](self, name: str, kind: type[Value], default: Value | None = None) -> Value:
        """Return the value of a field, or `default` if it is missing or null. Raises InputError if it has another type,
        or is missing without a default."""
        value = self.values.get(name)
        value = default if value is None else value
        if kind is float and type(value) is int and abs(value) <= 2**53:  # exactly representable as float
            value = float(value)
        if not isinstance(value, kind) or isinstance(value, bool) is not (kind is bool):
            raise InputError(
                f"{self.path}: {name} is {shown(value)}, but must be of type {kind.__name__}. Set it there."
            )
        return value

    def require(self, name: str, known: tuple[Any, ...], missing: object) -> None:
        """Raise InputError unless the field has one of the values in `known`. A missing or null field counts as
        `missing`."""
        value = self.values.get(name)
        value = missing if value is None else value
        if not any(type(value) is type(k) and value == k for k in known):
            raise InputError(
                f"{self.path}: {name} is {shown(value)}, which is not supported; only {' or '.join(map(repr, known))} "
                "is. This checkpoint cannot be converted."
            )

    def part(self, name: str) -> "Settings":
        """Return a nested object as Settings, empty if it is missing or null."""
        return Settings(self.path, self.read(name, dict, {}))


def rope_of(settings: Settings) -> tuple[float, RopeScalingConfig | None]:
    """Return (theta, scaling) of a Llama's config.json: from `rope_parameters`, as transformers 5 writes it, or from
    `rope_theta` and `rope_scaling`, as earlier versions did."""
    new, old = settings.part("rope_parameters"), settings.part("rope_scaling")
    if new.values and old.values and new.values != old.values:
        raise InputError(
            f"{settings.path}: rope_parameters is {shown(new.values)}, but rope_scaling is {shown(old.values)}. Take "
            "out one of them."
        )
    rope = new if new.values else old
    kind = "rope_type" if "rope_type" in rope.values else "type"  # the older name
    rope.require(kind, ("default", "llama3"), "default")
    for place in (rope, settings):
        place.require("partial_rotary_factor", (1.0, 1), 1.0)
    theta = settings.read("rope_theta", float, 10_000.0)
    theta = rope.read("rope_theta", float, theta)
    if rope.values.get(kind) != "llama3":
        return theta, None
    scaling = RopeScalingConfig(
        factor=rope.read("factor", float),
        low_frequency_factor=rope.read("low_freq_factor", float),
        high_frequency_factor=rope.read("high_freq_factor", float),
        original_context_length=rope.read("original_max_position_embeddings", int),
    )
    return theta, scaling


def gpt2_fields(settings: Settings) -> dict[str, Any]:
    """Fields of ModelConfig specific to GPT-2. Defaults are those of transformers' GPT2Config."""
    settings.require("activation_function", ("gelu_new",), "gelu_new")
    settings.require("scale_attn_weights", (True,), True)
    settings.require("scale_attn_by_inverse_layer_idx", (False,), False)
    settings.require("add_cross_attention", (False,), False)
    width, heads = settings.read("n_embd", int), settings.read("n_head", int)
    return {
        "norm": "layernorm", "position": "learned", "mlp": "gelu", "biases": True, "width": width, "heads": heads,
        "kv_heads": heads,
        "context_length": settings.read("n_positions", int), "layers": settings.read("n_layer", int),
        "mlp_width": settings.read("n_inner", int, 4 * width),
        "tie_embeddings": settings.read("tie_word_embeddings", bool, True), "rope_theta": 10_000.0,
        "norm_epsilon": settings.read("layer_norm_epsilon", float, 1e-5),
    }  # fmt: skip


def llama_fields(settings: Settings) -> dict[str, Any]:
    """Fields of ModelConfig specific to Llama. Defaults are those of transformers' LlamaConfig."""
    settings.require("hidden_act", ("silu",), "silu")
    settings.require("attention_bias", (False,), False)
    settings.require("mlp_bias", (False,), False)
    width, heads = settings.read("hidden_size", int), settings.read("num_attention_heads", int)
    given = settings.values.get("head_dim") is not None
    head_dim = settings.read("head_dim", int) if given else None
    head_dim = None if head_dim is not None and head_dim * heads == width else head_dim
    theta, scaling = rope_of(settings)
    return {
        "norm": "rmsnorm", "position": "rope", "mlp": "swiglu", "biases": False, "width": width, "heads": heads,
        "head_dim": head_dim, "kv_heads": settings.read("num_key_value_heads", int, heads),
        "context_length": settings.read("max_position_embeddings", int),
        "layers": settings.read("num_hidden_layers", int), "mlp_width": settings.read("intermediate_size", int),
        "tie_embeddings": settings.read("tie_word_embeddings", bool, False), "rope_theta": theta,
        "rope_scaling": scaling, "norm_epsilon": settings.read("rms_norm_eps", float, 1e-6),
    }  # fmt: skip


OWN = "GristmillForCausalLM"
RUN_ONLY = ("parameter_dtype", "compute_dtype", "scan_layers", "attention")
"""Fields of ModelConfig that affect how a model is computed here, not what it computes."""


def own_fields(settings: Settings) -> dict[str, Any]:
    """Fields of ModelConfig of a model with our custom code for transformers."""
    found: dict[str, Any] = {}
    settings = settings.part("model")
    for field in dataclasses.fields(ModelConfig):
        if field.name in (*RUN_ONLY, "vocab_size", "initial_std"):  # the last two are in transformers' own fields
            continue
        value = settings.values.get(field.name)
        if value is None and field.default is dataclasses.MISSING:
            raise InputError(f"{settings.path} has no model.{field.name}, which its model needs. Get it again.")
        if field.name == "rope_scaling" and isinstance(value, dict):
            value = RopeScalingConfig(**value)
        found[field.name] = tuple(value) if isinstance(value, list) else value
    return found


FAMILIES = {"GPT2LMHeadModel": gpt2_fields, "LlamaForCausalLM": llama_fields, OWN: own_fields}


def model_config_of(folder: Path, dtype: Literal["float32", "bfloat16"] = "float32") -> ModelConfig:
    """Return the ModelConfig of a Hugging Face checkpoint, with parameters and matrix products in `dtype`.

    The context length is the model's maximum, 131,072 tokens for Llama 3.1; with rotary positions you can replace it by
    a shorter one. Raises InputError, with the field of config.json and its value, for anything that our model does not
    support: another architecture, another activation, biases in Llama, quantized weights.
    """
    path = file_inside(folder, "config.json")
    settings = Settings(path, read_json_object(path))
    architectures = settings.values.get("architectures")
    names = architectures if isinstance(architectures, list) else []
    family = FAMILIES.get(names[0]) if len(names) == 1 and isinstance(names[0], str) else None
    if family is None:
        raise InputError(
            f"{path}: architectures is {shown(architectures)}, which is not supported; {' and '.join(FAMILIES)} are."
        )
    settings.require("quantization_config", (None,), None)
    try:
        return ModelConfig(
            **family(settings), vocab_size=settings.read("vocab_size", int),
            initial_std=settings.read("initializer_range", float, 0.02), parameter_dtype=dtype, compute_dtype=dtype,
        )  # fmt: skip
    except (UsageError, TypeError, ValueError, OverflowError) as error:  # the values come from a file
        raise InputError(f"{path} gives no model of ours: {error}") from error


def config_json(config: ModelConfig) -> dict[str, Any]:
    """Return the config.json of a model, the inverse of `model_config_of`."""
    shared = {
        "vocab_size": config.vocab_size, "initializer_range": config.initial_std, "dtype": config.parameter_dtype,
        "tie_word_embeddings": config.tie_embeddings,
    }  # fmt: skip
    if (family := family_of(config)) == "gpt2":
        return {
            "architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "activation_function": "gelu_new",
            "n_positions": config.context_length, "n_embd": config.width, "n_layer": config.layers,
            "n_head": config.heads, "n_inner": config.mlp_width, "layer_norm_epsilon": config.norm_epsilon, **shared,
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
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": config.rope_theta}
    if config.rope_scaling is not None:
        rope |= {
            "rope_type": "llama3", "factor": config.rope_scaling.factor,
            "low_freq_factor": config.rope_scaling.low_frequency_factor,
            "high_freq_factor": config.rope_scaling.high_frequency_factor,
            "original_max_position_embeddings": config.rope_scaling.original_context_length,
        }  # fmt: skip
    return {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
        "max_position_embeddings": config.context_length, "hidden_size": config.width,
        "num_hidden_layers": config.layers, "num_attention_heads": config.heads, "head_dim": config.head_channels,
        "num_key_value_heads": config.kv_heads, "intermediate_size": config.mlp_width,
        "rms_norm_eps": config.norm_epsilon, "attention_bias": False, "mlp_bias": False, "rope_parameters": rope,
        **shared,
    }  # fmt: skip


def special_ids(config: ModelConfig, tokenizer: Tokenizer) -> dict[str, Any]:
    """Return the BOS and EOS ids for transformers, so that generation stops at the latter. Absent ids are written as
    null: transformers' defaults are GPT-2's and Llama 2's ids.

    Raises UsageError if the tokenizer has more symbols than the model has embedding rows.
    """
    if tokenizer.vocab_size > config.vocab_size:
        raise UsageError(
            f"The tokenizer has {tokenizer.vocab_size} symbols, but model.vocab_size = "
            f"{config.vocab_size}. Give the tokenizer that the model was trained with."
        )
    # BOS of the next document also ends one. transformers pads with the first id, so EOS comes first.
    ends = list(tokenizer.stop_ids) or sorted(tokenizer.eos_ids, key=lambda id: (id == tokenizer.bos_id, id))
    eos = ends[0] if len(ends) == 1 else ends or None
    return {"bos_token_id": tokenizer.bos_id, "eos_token_id": eos, "pad_token_id": None}
