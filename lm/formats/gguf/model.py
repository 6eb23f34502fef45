"""Our config and parameters in a GGUF file: fields of the header, and names and layouts of the tensors.

Names are those of ggml-org/ggml: docs/gguf.md. Linear maps are stored as (out, in), and GPT-2's query, key and value as
one tensor. Llama's queries and keys are stored in another order: of a head's C channels, llama.cpp rotates the pairs
(2c, 2c + 1), not (c, c + C/2) (ggml-org/llama.cpp: convert_hf_to_gguf.py, LlamaModel.permute).
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import gguf
import numpy as np

from lm.config import ModelConfig, RopeScalingConfig
from lm.errors import InputError, UsageError, shown
from lm.formats.coverage import (
    GPT2_VALUES,
    LLAMA_VALUES,
    Expressed,
    check_all_written,
    check_expressed,
    gpt2,
    llama,
    unexpressed,
)
from lm.formats.source import Fields
from lm.formats.tensors import Stored, Tensors, linear, norm, of_layers, parameter_shapes
from lm.model.layers import rotary_frequencies

type Arch = Literal["gpt2", "llama"]
"""general.architecture."""
EXPRESSED: dict[Arch, Callable[[ModelConfig], Expressed]] = {"gpt2": gpt2, "llama": llama}
"""{architecture: function of a config that returns the fields and values which llama.cpp implements for it}."""
SIZES = {
    "context_length": "context_length", "width": "embedding_length", "layers": "block_count",
    "mlp_width": "feed_forward_length", "heads": "attention.head_count",
}  # fmt: skip
NAMES: dict[Arch, dict[str, str]] = {
    "gpt2": SIZES | {"norm_epsilon": "attention.layer_norm_epsilon"},
    "llama": SIZES | {"kv_heads": "attention.head_count_kv", "norm_epsilon": "attention.layer_norm_rms_epsilon"},
}
"""{architecture: {field of ModelConfig: name in the header after "gpt2." or "llama."}}."""
ROPE_FACTORS = "rope_freqs.weight"
"""Tensor of numbers by which llama.cpp divides the rotary frequencies: how Llama 3.1's scaling is stored."""
OWN = "gristmill"
"""Prefix of header fields that GGUF does not define, but that are needed to restore a ModelConfig or tokenizer."""
SCALING = ("factor", "low_frequency_factor", "high_frequency_factor", "original_context_length")
KNOWN_SCALINGS = tuple(RopeScalingConfig(factor, 1.0, 4.0, 8192) for factor in (8.0, 32.0))
"""Rotary scalings of Llama 3.1 and of Llama 3.2, whose files contain only the resulting ROPE_FACTORS."""
GPT2_BLOCK: Tensors = {
    **norm("blk.{}.attn_norm", "blocks.{}.attention_norm", bias=True),
    **norm("blk.{}.ffn_norm", "blocks.{}.mlp_norm", bias=True),
    **linear("blk.{}.attn_qkv", *(f"blocks.{{}}.attention.{part}" for part in ("query", "key", "value")), bias=True),
    **linear("blk.{}.attn_output", "blocks.{}.attention.out", bias=True),
    **linear("blk.{}.ffn_up", "blocks.{}.mlp.up", bias=True),
    **linear("blk.{}.ffn_down", "blocks.{}.mlp.down", bias=True),
}
LLAMA_BLOCK: Tensors = {
    **norm("blk.{}.attn_norm", "blocks.{}.attention_norm"),
    **norm("blk.{}.ffn_norm", "blocks.{}.mlp_norm"),
    **linear("blk.{}.attn_q", "blocks.{}.attention.query", paired_heads="heads"),
    **linear("blk.{}.attn_k", "blocks.{}.attention.key", paired_heads="kv_heads"),
    **linear("blk.{}.attn_v", "blocks.{}.attention.value"),
    **linear("blk.{}.attn_output", "blocks.{}.attention.out"),
    **linear("blk.{}.ffn_gate", "blocks.{}.mlp.gate"),
    **linear("blk.{}.ffn_up", "blocks.{}.mlp.up"),
    **linear("blk.{}.ffn_down", "blocks.{}.mlp.down"),
}


def arch_of(config: ModelConfig) -> Arch:
    """Return the architecture whose code in llama.cpp computes this model. Raises UsageError if there is none, with the
    unsupported fields of the best match, their values and the supported ones."""
    arch: Arch = min(EXPRESSED, key=lambda arch: len(unexpressed(config, EXPRESSED[arch](config))))
    remedy = "Choose --format hugging_face or standalone, which express more."
    check_expressed(config, EXPRESSED[arch](config), f"gguf ({arch} of llama.cpp)", remedy)
    return arch


def stored_tensors(config: ModelConfig) -> Tensors:
    """Return {name of a tensor in the file: which parameters it contains, in which layout}. Raises UsageError if
    llama.cpp cannot compute this model, or a parameter would not be stored."""
    arch = arch_of(config)
    named = {"token_embd.weight": Stored(("embedding",))}
    named |= {"position_embd.weight": Stored(("positions",), exact=True)} if arch == "gpt2" else {}
    named |= norm("output_norm", "norm", bias=arch == "gpt2")
    named |= of_layers(GPT2_BLOCK if arch == "gpt2" else LLAMA_BLOCK, config.layers)
    named |= {} if config.tie_embeddings else linear("output", "head")
    ours = (name for stored in named.values() for name in stored.ours)
    check_all_written(ours, parameter_shapes(config), f"gguf ({arch} of llama.cpp)")
    return named


def rope_factors(head_dim: int, theta: float, scaling: RopeScalingConfig | None) -> np.ndarray:
    """Return the numbers by which llama.cpp divides the rotary frequencies: float32, one per pair of channels."""
    plain, scaled = (np.asarray(rotary_frequencies(head_dim // 2, theta, one), np.float64) for one in (None, scaling))
    return (plain / scaled).astype(np.float32)


def add_config(writer: gguf.GGUFWriter, config: ModelConfig) -> None:
    """Write the config as the header fields that llama.cpp needs."""
    arch = arch_of(config)
    values: dict[str, Any] = {theirs: getattr(config, ours) for ours, theirs in NAMES[arch].items()}
    if arch == "llama":
        channels = ("attention.key_length", "attention.value_length", "rope.dimension_count")
        values |= dict.fromkeys(channels, config.head_channels)
        values |= {"rope.freq_base": config.rope_theta, "vocab_size": config.vocab_size}
    for name, value in values.items():
        add = writer.add_float32 if isinstance(value, float) else writer.add_uint32
        add(f"{arch}.{name}", value)
    if config.rope_scaling is not None:
        for name in SCALING:
            writer.add_float64(f"{OWN}.rope_scaling.{name}", float(getattr(config.rope_scaling, name)))


def config_of(header: Fields, tensors: Mapping[str, tuple[int, ...]], factors: np.ndarray | None) -> ModelConfig:
    """Return the ModelConfig, in float32, from the header, {tensor: shape}, and the values of ROPE_FACTORS, if present.
    Raises InputError, with the field and its value, for models other than GPT-2 and Llama."""
    arch = header.read("general.architecture", str)
    if arch not in ("gpt2", "llama"):
        raise InputError(
            f"{header.path}: general.architecture is {shown(arch)}; gpt2 and llama are supported. Use such a model, "
            "or its Hugging Face folder."
        )
    if "token_embd.weight" not in tensors:
        raise InputError(f"{header.path} has no tensor token_embd.weight. Download the file again.")
    names = {ours: f"{arch}.{theirs}" for ours, theirs in NAMES[arch].items()}
    heads = header.read(names["heads"], int)
    found = header.read_all(names, kv_heads=heads)
    found |= {
        "norm_epsilon": nearest(found["norm_epsilon"]), "vocab_size": tensors["token_embd.weight"][0],
        "tie_embeddings": "output.weight" not in tensors, "initial_std": 0.02, "parameter_dtype": "float32",
        "compute_dtype": "float32",
    }  # fmt: skip
    try:
        if arch == "gpt2":
            found |= {"kv_heads": heads, "rope_theta": 10_000.0}
            return ModelConfig(**GPT2_VALUES | found)
        if not 0 < heads <= found["width"]:
            raise UsageError(
                f"attention.head_count is {heads}; it must be from 1 to embedding_length, {found['width']}"
            )
        channels = header.read("llama.attention.key_length", int, found["width"] // heads)
        for name, value in (
            ("attention.value_length", channels), ("rope.dimension_count", channels), ("expert_count", 0),
            ("rope.scaling.type", "none"),
        ):  # fmt: skip
            header.require(f"llama.{name}", value)
        theta = nearest(header.read("llama.rope.freq_base", float, 10_000.0))
        found |= {
            "head_dim": None if channels * heads == found["width"] else channels, "rope_theta": theta,
            "rope_scaling": scaling_of(header, factors, channels, theta),
        }  # fmt: skip
        return ModelConfig(**LLAMA_VALUES | found)
    except UsageError as error:  # the values come from a file, not from options
        raise InputError(f"{header.path} is not a supported model: {error}") from error


def nearest(value: float) -> float:
    """Return the shortest decimal number that rounds to the float32 `value`: 1e-5 for 9.99999974738e-06."""
    return float(str(np.float32(value)))


def scaling_of(header: Fields, factors: np.ndarray | None, head_dim: int, theta: float) -> RopeScalingConfig | None:
    """Return the rotary scaling that gives these ROPE_FACTORS: the one named in the header, else Llama 3.1's or 3.2's.
    Raises InputError if neither does."""
    if factors is None:
        return None
    names = [f"{OWN}.rope_scaling.{name}" for name in SCALING]
    known = KNOWN_SCALINGS
    if all(name in header.values for name in names):
        factor, low, high, original = (header.read(name, float) for name in names)
        known = (RopeScalingConfig(factor, low, high, int(original)),)
    for scaling in known if factors.shape == (head_dim // 2,) else ():  # bounds the memory of the frequencies
        if np.allclose(rope_factors(head_dim, theta, scaling), factors, rtol=1e-5):
            return scaling
    raise InputError(
        f"{header.path}: {ROPE_FACTORS} is {factors.ravel()[:8].tolist()}..., which is neither Llama 3.1's nor Llama "
        "3.2's scaling of rotary frequencies. Use the model's Hugging Face folder."
    )
