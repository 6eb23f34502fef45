"""Convert the model fields in a GGUF file's header to and from a ModelConfig.

Names are those of ggml-org/ggml: docs/gguf.md, prefixed by the architecture.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from lm.config import ModelConfig, RopeScalingConfig
from lm.errors import InputError, UsageError, shown
from lm.formats.gguf.names import arch_of
from lm.model.layers import rotary_frequencies

ROPE_FACTORS = "rope_freqs.weight"
"""Tensor by which llama.cpp divides the rotary frequencies: the stored form of Llama 3.1's scaling."""
OWN = "gristmill"
"""Prefix of fields that GGUF does not define, but that are needed to restore our config."""
SCALING = ("factor", "low_frequency_factor", "high_frequency_factor", "original_context_length")
KNOWN_SCALINGS = tuple(RopeScalingConfig(factor, 1.0, 4.0, 8192) for factor in (8.0, 32.0))
"""Scalings of Llama 3.1 and of Llama 3.2, whose files do not name them."""


def rope_factors(config: ModelConfig) -> np.ndarray:
    """Divisors of the rotary frequencies, one per channel pair, float32."""
    pairs = config.head_channels // 2
    plain, scaled = (rotary_frequencies(pairs, config.rope_theta, scaling) for scaling in (None, config.rope_scaling))
    return (np.asarray(plain, np.float64) / np.asarray(scaled, np.float64)).astype(np.float32)


def add_config(writer: gguf.GGUFWriter, config: ModelConfig) -> None:
    """Write the model's fields that llama.cpp needs."""
    writer.add_context_length(config.context_length)
    writer.add_embedding_length(config.width)
    writer.add_block_count(config.layers)
    writer.add_feed_forward_length(config.mlp_width)
    writer.add_head_count(config.heads)
    if arch_of(config) == "gpt2":
        writer.add_layer_norm_eps(config.norm_epsilon)
        return
    writer.add_head_count_kv(config.kv_heads)
    writer.add_layer_norm_rms_eps(config.norm_epsilon)
    writer.add_key_length(config.head_channels)
    writer.add_value_length(config.head_channels)
    writer.add_rope_dimension_count(config.head_channels)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_vocab_size(config.vocab_size)
    if config.rope_scaling is not None:
        for name in SCALING:
            writer.add_float64(f"{OWN}.rope_scaling.{name}", float(getattr(config.rope_scaling, name)))


class Header(Mapping[str, Any]):
    """Fields of a file's header, {name: value}; `read` validates types."""

    def __init__(self, path: Path, fields: Mapping[str, Any]):
        self.path, self.fields = path, fields

    def __getitem__(self, name: str) -> Any:
        return self.fields[name]

    def __iter__(self):
        return iter(self.fields)

    def __len__(self) -> int:
        return len(self.fields)

    def read[Value](self, name: str, kind: type[Value], default: Value | None = None) -> Value:
        """Return the value of a field, or `default` if it is missing. Raises InputError if it has another type, or is
        missing without a default."""
        value = self.get(name, default)
        value = float(value) if kind is float and type(value) is int else value
        if not isinstance(value, kind) or isinstance(value, bool) is not (kind is bool):
            found = "not there" if value is None else shown(value)
            raise InputError(
                f"{self.path}: {name} is {found}, but must be of type {kind.__name__}. Get the file again."
            )
        return value


def config_of(header: Header, tensors: Mapping[str, tuple[int, ...]], factors: np.ndarray | None) -> ModelConfig:
    """Return the config, in float32, of a file whose tensors have these names and shapes; `factors` are its
    ROPE_FACTORS. Raises InputError, with the field and its value, for models other than GPT-2 and Llama."""
    arch = header.read("general.architecture", str)
    if arch not in ("gpt2", "llama"):
        raise InputError(
            f"{header.path}: general.architecture is {shown(arch)}; gpt2 and llama are read. Get a model of these, or "
            "its Hugging Face folder."
        )
    field = lambda name, kind, default=None: header.read(f"{arch}.{name}", kind, default)
    if "token_embd.weight" not in tensors:
        raise InputError(f"{header.path} has no tensor token_embd.weight. Get the file again.")
    heads, width = field("attention.head_count", int), field("embedding_length", int)
    shared: dict[str, Any] = {
        "vocab_size": tensors["token_embd.weight"][0], "context_length": field("context_length", int),
        "layers": field("block_count", int), "width": width, "heads": heads,
        "mlp_width": field("feed_forward_length", int), "tie_embeddings": "output.weight" not in tensors,
        "initial_std": 0.02, "parameter_dtype": "float32", "compute_dtype": "float32",
    }  # fmt: skip
    try:
        if arch == "gpt2":
            return ModelConfig(
                kv_heads=heads, norm="layernorm", position="learned", mlp="gelu", biases=True, rope_theta=10_000.0,
                norm_epsilon=nearest(field("attention.layer_norm_epsilon", float)), **shared,
            )  # fmt: skip
        if not 0 < heads <= width:
            raise UsageError(f"attention.head_count is {heads}, and embedding_length is {width}")
        head_dim = field("attention.key_length", int, width // heads)
        refuse_others(header, field, head_dim)
        theta = nearest(field("rope.freq_base", float, 10_000.0))
        return ModelConfig(
            kv_heads=field("attention.head_count_kv", int, heads), norm="rmsnorm", position="rope", mlp="swiglu",
            biases=False, rope_theta=theta, head_dim=None if head_dim * heads == width else head_dim,
            norm_epsilon=nearest(field("attention.layer_norm_rms_epsilon", float)),
            rope_scaling=scaling_of(header, factors, head_dim, theta), **shared,
        )  # fmt: skip
    except UsageError as error:  # the values come from a file, not from options
        raise InputError(f"{header.path} gives no model of ours: {error}") from error


def refuse_others(header: Header, field: Any, head_dim: int) -> None:
    """Raise InputError for a Llama with features that our model does not have."""
    for name, value, ours in (
        ("attention.value_length", field("attention.value_length", int, head_dim), head_dim),
        ("rope.dimension_count", field("rope.dimension_count", int, head_dim), head_dim),
        ("expert_count", field("expert_count", int, 0), 0),
        ("rope.scaling.type", field("rope.scaling.type", str, "none"), "none"),
    ):
        if value != ours:
            raise InputError(f"{header.path}: llama.{name} is {shown(value)}, but {ours!r} is what is read here.")


def nearest(value: float) -> float:
    """Return the shortest decimal number whose float32 is `value`: headers only have float32, and 1e-5 should stay
    1e-5."""
    return float(str(np.float32(value)))


def scaling_of(header: Header, factors: np.ndarray | None, head_dim: int, theta: float) -> RopeScalingConfig | None:
    """Return the scaling that gives these ROPE_FACTORS: the one named in the file, or Llama 3.1's or 3.2's. Raises
    InputError."""
    if factors is None:
        return None
    names = [f"{OWN}.rope_scaling.{name}" for name in SCALING]
    known = KNOWN_SCALINGS
    if all(name in header for name in names):
        factor, low, high, original = (header.read(name, float) for name in names)
        known = (RopeScalingConfig(factor, low, high, int(original)),)
    for scaling in known if factors.shape == (head_dim // 2,) else ():  # bounds the memory of the frequencies
        frequencies = [np.asarray(rotary_frequencies(head_dim // 2, theta, one), np.float64) for one in (None, scaling)]
        if np.allclose(frequencies[0] / frequencies[1], factors, rtol=1e-5):
            return scaling
    raise InputError(
        f"{header.path}: {ROPE_FACTORS} is {factors.ravel()[:8].tolist()}..., which is neither Llama 3.1's nor Llama "
        "3.2's scaling of rotary frequencies. Get the model's Hugging Face folder."
    )
