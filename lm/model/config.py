"""The shape of a model, as frozen dataclasses. No jax here."""

from dataclasses import dataclass
from typing import Literal

from lm.errors import UsageError
from lm.fields import Config, positive


@dataclass(frozen=True)
class RopeScalingConfig(Config):
    """Rotary frequencies stretched for a longer context, as Llama 3.1 does (arXiv:2407.21783; the values are those of
    its model card). What a frequency becomes depends on its turns in the original context: unchanged if it makes many,
    divided by `factor` if it makes few, and a linear mixture in between."""

    factor: float
    """What the slow frequencies are divided by; Llama 3.1 has 8, Llama 3.2 has 32."""
    low_frequency_factor: float
    """Turns in the original context at or below which a frequency counts as slow; Llama 3.1 has 1."""
    high_frequency_factor: float
    """Turns in the original context from which on a frequency stays as it is; Llama 3.1 has 4. Above
    low_frequency_factor."""
    original_context_length: int
    """Tokens of a sequence before the context was lengthened; Llama 3.1 has 8192."""

    def __post_init__(self):
        super().__post_init__()
        names = ("factor", "low_frequency_factor", "high_frequency_factor", "original_context_length")
        positive(self, "model.rope_scaling", *names)
        if self.low_frequency_factor >= self.high_frequency_factor:
            raise UsageError(
                f"model.rope_scaling.low_frequency_factor = {self.low_frequency_factor} must be below "
                f"high_frequency_factor = {self.high_frequency_factor}: the frequencies between them are mixed."
            )


@dataclass(frozen=True)
class ModelConfig(Config):
    """A decoder-only transformer. GPT-2 (Radford 2019) and Llama 3 (arXiv:2407.21783) differ in five of these fields:
    norm, position, mlp, kv_heads, tie_embeddings."""

    vocabulary_size: int
    """Rows of the embedding table; at least the tokenizer's symbols."""
    context_length: int
    """Tokens that one sequence holds, in training and in generation."""
    layers: int
    """Transformer blocks."""
    width: int
    """Channels of the residual stream."""
    heads: int
    """Query heads; must divide width."""
    kv_heads: int
    """Key and value heads (grouped queries, arXiv:2305.13245); must divide heads."""
    mlp_width: int
    """Hidden channels of the MLP."""
    norm: Literal["rmsnorm", "layernorm"]
    """RMSNorm (arXiv:1910.07467) or LayerNorm with scale and bias (arXiv:1607.06450)."""
    position: Literal["rope", "learned"]
    """Rotary (arXiv:2104.09864) or a learned table added to the embeddings."""
    mlp: Literal["swiglu", "gelu"]
    """Gated SiLU without biases (arXiv:2002.05202), or the tanh form of GELU with biases, as in GPT-2."""
    tie_embeddings: bool
    """Use the embedding table as the output projection too."""
    rope_theta: float
    """Base of the rotary frequencies; unused with learned positions."""
    norm_epsilon: float
    """Added to the variance inside each norm."""
    initial_std: float
    """Standard deviation of initial weights; projections back into the residual stream get it divided by sqrt(2 *
    layers)."""
    parameter_dtype: Literal["float32", "bfloat16"]
    """Type in which parameters are kept and updated."""
    compute_dtype: Literal["float32", "bfloat16"]
    """Type of matrix products and activations; the softmax and the loss are always float32."""
    rope_scaling: RopeScalingConfig | None = None
    """Llama 3.1's stretching of the rotary frequencies, or None for the frequencies as they are."""

    @property
    def head_width(self) -> int:
        """Channels of one head."""
        return self.width // self.heads

    def __post_init__(self):
        super().__post_init__()
        for name in ("vocabulary_size", "context_length", "layers", "width", "heads", "kv_heads", "mlp_width"):
            if getattr(self, name) < 1:
                raise UsageError(f"model.{name} is {getattr(self, name)}; it must be at least 1.")
        positive(self, "model", "rope_theta", "norm_epsilon", "initial_std")
        if self.width % self.heads:
            raise UsageError(
                f"model.heads = {self.heads} does not divide model.width = {self.width}. "
                f"Choose a width that is a multiple of {self.heads}, or other heads."
            )
        if self.heads % self.kv_heads:
            raise UsageError(
                f"model.kv_heads = {self.kv_heads} does not divide model.heads = {self.heads}. "
                "Choose kv_heads among the divisors of heads."
            )
        if self.position != "rope" and self.rope_scaling is not None:
            raise UsageError(
                f"model.rope_scaling is given, but model.position = {self.position} turns nothing. "
                "Leave rope_scaling out, or set model.position = rope."
            )
        if self.position == "rope" and self.head_width % 2:
            raise UsageError(
                f"model.width / model.heads = {self.head_width} is odd, but rotary positions turn channels in pairs. "
                "Choose an even head width, or model.position = learned."
            )
