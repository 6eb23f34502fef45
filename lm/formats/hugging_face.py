"""GPT-2 and Llama checkpoints of Hugging Face, into our parameters and back, tensor by tensor, without torch.

A checkpoint is a folder with config.json and its weights in safetensors. The two tables here, GPT2 and LLAMA, say under
which names, and how, Hugging Face's transformers library stores what lm.model.param_names calls
"blocks.0.attention.query.weight". Our linear maps compute x @ weight, so a weight is (in, out). GPT-2's are stored so
too, with query, key and value side by side in one; Llama's are stored as (out, in). Both keep Llama's rotary pairs as
lm.model.layers.rotate turns them.
"""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lm.config import ModelConfig, RopeScalingConfig
from lm.errors import InputError, UsageError
from lm.formats.safetensors import FILE, Tensor, read_folder, read_json_object, write_file
from lm.model.param_names import named_leaves, unstack_names
from lm.model.transformer import Transformer
from lm.storage import write_json
from lm.tokenizer.base import Tokenizer

type Arrays = dict[str, np.ndarray]
"""{"blocks.0.attention.query.weight": values, ...}, under the names of lm.model.param_names.named_leaves."""


class Stored(NamedTuple):
    """One tensor of a checkpoint, and what of ours it holds."""

    ours: tuple[str, ...]
    """Parameters that lie in it side by side, on the last axis."""
    transposed: bool = False
    """Stored as (out, in)."""


def with_bias(theirs: str, *ours: str) -> dict[str, Stored]:
    """The weight and the bias of a linear map that is stored as (in, out)."""
    return {f"{theirs}.{part}": Stored(tuple(f"{name}.{part}" for name in ours)) for part in ("weight", "bias")}


def norm_with_bias(theirs: str, ours: str) -> dict[str, Stored]:
    return {f"{theirs}.weight": Stored((f"{ours}.scale",)), f"{theirs}.bias": Stored((f"{ours}.bias",))}


HEAD = {"lm_head.weight": Stored(("head.weight",), transposed=True)}
GPT2 = {
    "transformer.wte.weight": Stored(("embedding",)),
    "transformer.wpe.weight": Stored(("positions",)),
    **norm_with_bias("transformer.ln_f", "norm"),
}
GPT2_BLOCK = {
    **norm_with_bias("transformer.h.{}.ln_1", "blocks.{}.attention_norm"),
    **with_bias(
        "transformer.h.{}.attn.c_attn", *(f"blocks.{{}}.attention.{part}" for part in ("query", "key", "value"))
    ),
    **with_bias("transformer.h.{}.attn.c_proj", "blocks.{}.attention.out"),
    **norm_with_bias("transformer.h.{}.ln_2", "blocks.{}.mlp_norm"),
    **with_bias("transformer.h.{}.mlp.c_fc", "blocks.{}.mlp.up"),
    **with_bias("transformer.h.{}.mlp.c_proj", "blocks.{}.mlp.down"),
}
LLAMA = {"model.embed_tokens.weight": Stored(("embedding",)), "model.norm.weight": Stored(("norm.scale",))}
LLAMA_BLOCK = {
    "model.layers.{}.input_layernorm.weight": Stored(("blocks.{}.attention_norm.scale",)),
    "model.layers.{}.self_attn.q_proj.weight": Stored(("blocks.{}.attention.query.weight",), transposed=True),
    "model.layers.{}.self_attn.k_proj.weight": Stored(("blocks.{}.attention.key.weight",), transposed=True),
    "model.layers.{}.self_attn.v_proj.weight": Stored(("blocks.{}.attention.value.weight",), transposed=True),
    "model.layers.{}.self_attn.o_proj.weight": Stored(("blocks.{}.attention.out.weight",), transposed=True),
    "model.layers.{}.post_attention_layernorm.weight": Stored(("blocks.{}.mlp_norm.scale",)),
    "model.layers.{}.mlp.gate_proj.weight": Stored(("blocks.{}.mlp.gate.weight",), transposed=True),
    "model.layers.{}.mlp.up_proj.weight": Stored(("blocks.{}.mlp.up.weight",), transposed=True),
    "model.layers.{}.mlp.down_proj.weight": Stored(("blocks.{}.mlp.down.weight",), transposed=True),
}
NO_WEIGHT = re.compile(
    r"(transformer\.)?h\.\d+\.attn\.(masked_)?bias|model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq"
)
"""Tensors of older checkpoints that hold no weights: the causal mask and the rotary frequencies, which the config
gives."""


def stored_tensors(config: ModelConfig) -> dict[str, Stored]:
    """{name in the checkpoint: what of ours it holds} for a model of either family."""
    whole, block = (GPT2, GPT2_BLOCK) if config.position == "learned" else (LLAMA, LLAMA_BLOCK)
    named = dict(whole)
    for layer in range(config.layers):
        for theirs, (ours, transposed) in block.items():
            named[theirs.format(layer)] = Stored(tuple(name.format(layer) for name in ours), transposed)
    return named | ({} if config.tie_embeddings else HEAD)


def parameter_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """{name: shape} of our parameters, layers one by one, without making them."""
    one_by_one = dataclasses.replace(config, scan_layers=False)
    leaves = named_leaves(jax.eval_shape(lambda: Transformer(one_by_one, jax.random.key(0))))
    return {name: tuple(leaf.shape) for name, leaf in leaves.items()}


def stored_shape(stored: Stored, shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
    """The shape of a checkpoint's tensor that holds parameters of these shapes."""
    first = shapes[stored.ours[0]]
    joined = (*first[:-1], sum(shapes[name][-1] for name in stored.ours))
    return joined[::-1] if stored.transposed else joined


def check_names(folder: Path, tensors: dict[str, Tensor], wanted: dict[str, Stored], tied: bool) -> None:
    """Raises InputError unless the checkpoint has the tensors that the model needs, and no other.

    A tied model may bring its output projection all the same, if it equals the embeddings.
    """
    for name in wanted:
        if name not in tensors:
            raise InputError(
                f"{folder} has no tensor {name}, which its config.json asks for. It has {len(tensors)}, first "
                f"{min(tensors, default='none')}. Are the config and the weights of the same model, and all there?"
            )
    for name in tensors:
        if name in wanted:
            continue
        (head,), table = HEAD, tensors[next(iter(wanted))]  # the embedding stands first in both tables
        if not tied or name != head:
            raise InputError(
                f"{folder} has a tensor {name} of shape {tensors[name].shape}, which the model of its config.json does "
                "not use. Are the config and the weights of the same model?"
            )
        if tensors[name].shape != table.shape or not np.array_equal(tensors[name].read(), table.read()):
            raise InputError(
                f"{folder} has {head} {tensors[name].shape} other than {table.name} {table.shape}, though its "
                "config.json says that they are one. Set tie_word_embeddings to false there."
            )


def load_hugging_face(folder: Path, dtype: Literal["float32", "bfloat16"]) -> tuple[ModelConfig, Arrays]:
    """The model in a Hugging Face checkpoint: its config, and its parameters in `dtype` under our names.

    One tensor is read and converted at a time: the arrays returned are all the memory it takes, but for one tensor.
    `lm.model.param_names.replace_leaves` makes a Transformer of them. The ids that begin and end a document are the
    tokenizer's affair, and are not read. Raises InputError for a model that is not GPT-2 or Llama as we have them,
    a damaged file, a tensor that is missing, left over, or of a wrong shape.
    """
    config = model_config_of(folder, dtype)
    wanted = stored_tensors(config)
    tensors = {name: tensor for name, tensor in read_folder(folder).items() if not NO_WEIGHT.fullmatch(name)}
    if config.position == "learned" and not any(name.startswith("transformer.") for name in tensors):
        # GPT-2 as it was published: saved from the inner module, whose names lack the prefix.
        tensors = {name if name in HEAD else f"transformer.{name}": tensor for name, tensor in tensors.items()}
    check_names(folder, tensors, wanted, config.tie_embeddings)
    shapes = parameter_shapes(config)
    for name, stored in wanted.items():
        shape = stored_shape(stored, shapes)
        if tensors[name].shape != shape:
            raise InputError(
                f"{tensors[name].file}: {name} has shape {tensors[name].shape}, but the model of its config.json needs "
                f"{shape}. Are the config and the weights of the same model?"
            )
    arrays: Arrays = {}
    for name, stored in wanted.items():
        value = tensors[name].read()
        value = value.T if stored.transposed else value
        at = 0
        for ours in stored.ours:
            width = shapes[ours][-1]
            arrays[ours] = np.array(value[..., at : at + width], jnp.dtype(dtype), order="C")
            at += width
        del value  # before the next is read
    return config, {name: arrays[name] for name in shapes}


class Settings:
    """config.json of a checkpoint, read field by field; every error names the field."""

    def __init__(self, path: Path, values: dict[str, Any]):
        self.path, self.values = path, values

    def read[Value](self, name: str, kind: type[Value], default: Value | None = None) -> Value:
        """The field's value, or `default` where it is missing or null. Raises InputError for another type, or when it
        is missing without a default."""
        value = self.values.get(name)
        value = default if value is None else value
        if kind is float and type(value) is int and abs(value) <= 2**53:  # what a float holds exactly
            value = float(value)
        if not isinstance(value, kind) or isinstance(value, bool) is not (kind is bool):
            raise InputError(f"{self.path}: {name} is {value!r}, but must be of type {kind.__name__}. Set it there.")
        return value

    def require(self, name: str, known: tuple[Any, ...], missing: object) -> None:
        """Raises InputError unless the field has one of the values that we support; `missing` is what it counts as
        where it is missing or null."""
        value = self.values.get(name)
        value = missing if value is None else value
        if not any(type(value) is type(k) and value == k for k in known):
            raise InputError(
                f"{self.path}: {name} is {value!r}, which is not supported; only {' or '.join(map(repr, known))} is. "
                "This checkpoint cannot be converted."
            )

    def part(self, name: str) -> "Settings":
        """The field as settings of its own, empty where it is missing or null."""
        return Settings(self.path, self.read(name, dict, {}))


def rope_of(settings: Settings) -> tuple[float, RopeScalingConfig | None]:
    """(theta, scaling) of a Llama's config.json: in `rope_parameters`, as transformers 5 writes it, or in `rope_theta`
    and `rope_scaling`, as those before it did."""
    new, old = settings.part("rope_parameters"), settings.part("rope_scaling")
    if new.values and old.values and new.values != old.values:
        raise InputError(
            f"{settings.path}: rope_parameters is {new.values}, but rope_scaling is {old.values}. Take out one of them."
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
    """What of ModelConfig is GPT-2's alone. Defaults are those of transformers' GPT2Config."""
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
    """What of ModelConfig is Llama's alone. Defaults are those of transformers' LlamaConfig."""
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


FAMILIES = {"GPT2LMHeadModel": gpt2_fields, "LlamaForCausalLM": llama_fields}


def model_config_of(folder: Path, dtype: Literal["float32", "bfloat16"] = "float32") -> ModelConfig:
    """The ModelConfig of a Hugging Face checkpoint, with parameters and products in `dtype`.

    The context length is all that the model was made for, 131,072 tokens for Llama 3.1; a shorter one may be put in its
    place where positions are rotary. Raises InputError, with the field of config.json and its value, for whatever our
    model does not have: another architecture, another activation, biases in Llama, quantized weights.
    """
    path = folder / "config.json"
    settings = Settings(path, read_json_object(path))
    architectures = settings.values.get("architectures")
    family = FAMILIES.get(architectures[0]) if isinstance(architectures, list) and len(architectures) == 1 else None
    if family is None:
        raise InputError(
            f"{path}: architectures is {architectures!r}, which is not supported; {' and '.join(FAMILIES)} are."
        )
    settings.require("quantization_config", (None,), None)
    try:
        return ModelConfig(
            **family(settings), vocab_size=settings.read("vocab_size", int),
            initial_std=settings.read("initializer_range", float, 0.02), parameter_dtype=dtype, compute_dtype=dtype,
        )  # fmt: skip
    except UsageError as error:  # its values come from a file, not from a command
        raise InputError(f"{path} gives no model of ours: {error}") from error


def config_json(config: ModelConfig) -> dict[str, Any]:
    """What transformers needs to make the same model: what `model_config_of` reads, the other way round. Raises
    UsageError for a model that is neither GPT-2 nor Llama."""
    kind = (config.norm, config.position, config.mlp, config.biases)
    for name in ("qk_norm", "token_shift", "logit_softcap", "ngram_rows", "attention_windows"):
        if getattr(config, name):
            raise UsageError(
                f"model.{name} = {getattr(config, name)} has no counterpart in {' or '.join(FAMILIES)}: such a model "
                "cannot be written in their format."
            )
    shared = {
        "vocab_size": config.vocab_size, "initializer_range": config.initial_std, "dtype": config.parameter_dtype,
        "tie_word_embeddings": config.tie_embeddings,
    }  # fmt: skip
    own_head_dim = config.head_channels * config.heads != config.width
    if kind == ("layernorm", "learned", "gelu", True) and config.heads == config.kv_heads and not own_head_dim:
        return {
            "architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "activation_function": "gelu_new",
            "n_positions": config.context_length, "n_embd": config.width, "n_layer": config.layers,
            "n_head": config.heads, "n_inner": config.mlp_width, "layer_norm_epsilon": config.norm_epsilon, **shared,
        }  # fmt: skip
    if kind != ("rmsnorm", "rope", "swiglu", False):
        raise UsageError(
            f"model.norm = {config.norm}, position = {config.position}, mlp = {config.mlp}, biases = {config.biases} "
            f"with {config.heads} heads of {config.head_channels} channels and {config.kv_heads} kv_heads has no "
            f"counterpart in {' or '.join(FAMILIES)}. These alone have one: layernorm, learned, gelu, biases, as many "
            "kv_heads as heads, and heads of width / heads channels; or rmsnorm, rope, swiglu and no biases."
        )
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
    """What transformers has to know of the tokenizer: the id that begins a document, and the ids that end one, so that
    generation stops there. Written even where there is none: its own defaults are GPT-2's and Llama 2's ids.

    Raises UsageError when the tokenizer has more symbols than the model has rows.
    """
    if tokenizer.vocab_size > config.vocab_size:
        raise UsageError(
            f"The tokenizer has {tokenizer.vocab_size} symbols, but model.vocab_size = "
            f"{config.vocab_size}. Give the tokenizer that the model was trained with."
        )
    # The head of the next document ends one too. transformers pads with the first id, so the end's own comes first.
    ends = sorted(tokenizer.eos_ids, key=lambda id: (id == tokenizer.bos_id, id))
    eos = ends[0] if len(ends) == 1 else ends or None
    return {"bos_token_id": tokenizer.bos_id, "eos_token_id": eos, "pad_token_id": None}


def write_hugging_face(folder: Path, config: ModelConfig, arrays: Mapping[str, Any], tokenizer: Tokenizer) -> None:
    """Writes `arrays`, the parameters under our names, as a checkpoint that transformers reads: config.json,
    generation_config.json and one model.safetensors in `config.parameter_dtype`. Both configs have the ids of
    `tokenizer`, the model's, that begin and end a document. Layers may be one stack (model.scan_layers).

    Raises UsageError for a model that is neither GPT-2 nor Llama, or is too small for the tokenizer, and InputError
    when `arrays` is not that model's.
    """
    text, shapes, stored = config_json(config), parameter_shapes(config), stored_tensors(config)
    ids = special_ids(config, tokenizer)
    arrays = unstack_names(arrays, config.layers, lambda name, stack, layer: stack[layer])
    given = {name: tuple(array.shape) for name, array in arrays.items()}
    for name in sorted(shapes | given):
        if shapes.get(name) != given.get(name):
            raise InputError(
                f"{name} is {given.get(name, 'absent')}, but {shapes.get(name, 'absent')} in the config. Give the "
                "parameters of the same model."
            )

    def value(theirs: str) -> np.ndarray:
        ours, transposed = stored[theirs]
        joined = np.concatenate([np.asarray(arrays[name]) for name in ours], axis=-1)
        return joined.T if transposed else joined

    folder.mkdir(parents=True, exist_ok=True)
    dtype = {"float32": "F32", "bfloat16": "BF16"}[config.parameter_dtype]
    write_file(folder / FILE, {name: stored_shape(each, shapes) for name, each in stored.items()}, dtype, value)
    write_json(folder / "config.json", text | ids)
    write_json(folder / "generation_config.json", ids)
