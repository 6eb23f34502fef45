"""Model architecture, as frozen dataclasses. No JAX here."""

from dataclasses import dataclass
from typing import Annotated, Literal

from lm.errors import UsageError
from lm.fields import NAMES_CODE, Config, check_names, not_hashed, positive, within

LARGEST_SIZE = 2**31 - 1
"""Maximum size of any axis of an array: JAX uses 32-bit indices."""
LONGEST_NGRAM = 64
"""Maximum n-gram length; each length has its own table."""


@dataclass(frozen=True)
class RopeScalingConfig(Config):
    """Rotary frequencies scaled for a longer context, as in Llama 3.1 (arXiv:2407.21783; values from its model card). A
    frequency is unchanged if it makes many rotations within the original context, divided by `factor` if it makes few,
    and linearly interpolated in between."""

    factor: float
    """Divisor of the slow frequencies: 8 in Llama 3.1, 32 in Llama 3.2."""
    low_frequency_factor: float
    """Frequencies with at most this many rotations in the original context are divided by factor; 1 in Llama 3.1."""
    high_frequency_factor: float
    """Frequencies with at least this many rotations within the original context are unchanged; 4 in Llama 3.1. Must
    exceed low_frequency_factor."""
    original_context_length: int
    """Context length in tokens before the extension; 8192 in Llama 3.1."""

    def check_values(self):
        names = ("factor", "low_frequency_factor", "high_frequency_factor", "original_context_length")
        positive(self, "model.rope_scaling", *names)
        if self.low_frequency_factor >= self.high_frequency_factor:
            raise UsageError(
                f"model.rope_scaling.low_frequency_factor = {self.low_frequency_factor} must be below "
                f"high_frequency_factor = {self.high_frequency_factor}: the frequencies between them are mixed."
            )


@dataclass(frozen=True)
class ModelConfig(Config):
    """Decoder-only transformer. GPT-2 (Radford 2019) and Llama 3 (arXiv:2407.21783) differ in six of these fields:
    norm, position, mlp, biases, kv_heads, tie_embeddings. Features that neither has are off by default."""

    vocab_size: int
    """Rows of the embedding table; at least the tokenizer's vocabulary size."""
    context_length: int
    """Maximum sequence length in tokens, in training and in generation."""
    layers: int
    """Number of transformer blocks."""
    width: int
    """Channels of the residual stream."""
    heads: int
    """Number of query heads; must divide width unless head_dim is set."""
    kv_heads: int
    """Number of key and value heads (grouped-query attention, arXiv:2305.13245); must divide heads."""
    mlp_width: int
    """Hidden channels of the MLP."""
    norm: Annotated[Literal["rmsnorm", "layernorm"] | str, NAMES_CODE]
    """RMSNorm (arXiv:1910.07467), LayerNorm (arXiv:1607.06450), or your own class as my_module.MyNorm."""
    position: Literal["rope", "learned"]
    """Rotary embeddings (arXiv:2104.09864), or a learned table added to the token embeddings."""
    mlp: Annotated[Literal["swiglu", "gelu", "relu_squared"] | str, NAMES_CODE]
    """Activation of the MLP: gated SiLU (arXiv:2002.05202), the tanh approximation of GELU as in GPT-2, squared ReLU
    (arXiv:2109.08668), or your own function as my_module.my_activation. The MLP has a gate if the name ends in glu."""
    biases: bool
    """Add biases to linear maps and LayerNorms, as in GPT-2; the output projection never has one."""
    tie_embeddings: bool
    """Use the embedding table as output projection too."""
    rope_theta: float
    """Base of the rotary frequencies; unused with learned positions."""
    norm_epsilon: float
    """Added to the variance in each norm."""
    initial_std: float
    """Standard deviation of initial weights; divided by sqrt(2 * layers) for projections back into the residual
    stream."""
    parameter_dtype: Literal["float32", "bfloat16"]
    """Type of the stored parameters. Updates are computed in float32; bfloat16 parameters are rounded stochastically
    (lm/optimizers/rounding.py)."""
    compute_dtype: Literal["float32", "bfloat16"]
    """Type of matrix products and activations; softmax and loss are always float32."""
    rope_scaling: RopeScalingConfig | None = None
    """Scaling of the rotary frequencies for a longer context, as in Llama 3.1; None: no scaling."""
    qk_norm: bool = False
    """Normalize queries and keys to a root mean square of 1 per head, before the rotary embedding. Bounds the attention
    logits, which keeps training stable at high learning rates (arXiv:2302.05442)."""
    zero_init: bool = False
    """Initialize projections back into the residual stream, and an untied output projection, with zeros. Blocks start
    as the identity and all tokens are equally likely (arXiv:2203.03466, appendix D.2)."""
    logit_softcap: float | None = None
    """Replace logits by softcap * tanh(logits / softcap), which bounds them to +-softcap (30 in Gemma 2,
    arXiv:2408.00118); None: unchanged."""
    token_shift: bool = False
    """Mix the inputs of queries, keys, values and MLP with those of the previous token of the same document, by a
    learned weight per channel (RWKV, arXiv:2305.13048, section 3.1). Only in the block pre_norm."""
    ngram_rows: int = 0
    """Rows of each n-gram embedding table (arXiv:2501.16975). The embeddings of the last 2 to ngram_longest tokens,
    looked up by hash, are added to the token embedding. They cost memory but almost no compute; 0: none."""
    ngram_longest: int = 2
    """Maximum n-gram length in tokens; used only if ngram_rows is not 0."""
    head_dim: int | None = None
    """Channels per head of queries, keys and values; None: width / heads."""
    attention_windows: tuple[int, ...] = ()
    """Sliding attention window of each layer in tokens, including the current token (arXiv:2310.06825); 0: unlimited.
    Layers cycle through the values: (4096, 0) gives every other layer a window, as in Gemma 2 (arXiv:2408.00118).
    Empty: no windows. With scan_layers, all windows must be equal."""
    block: Annotated[Literal["pre_norm"] | str, NAMES_CODE] = "pre_norm"
    """Residual block: pre_norm, or your own class as my_module.MyBlock."""
    scan_layers: bool = not_hashed(default=False)
    """Stack the parameters of all blocks and loop over them instead of unrolling the blocks. Compiles in the time of
    one block and lets remat free a block's memory, but is about 10 % slower on a CPU. Checkpoints of either form can be
    read by the other."""
    attention: Literal["auto", "xla", "cudnn", "splash"] = not_hashed(default="auto")
    """Attention implementation: xla (plain operations, any device), cudnn (fused, NVIDIA GPUs), splash (fused, TPUs),
    or auto (a fused one if device, type and shapes allow it)."""

    @property
    def gated_mlp(self) -> bool:
        """Whether the MLP is down(activation(gate(x)) * up(x)), with three matrices, or down(activation(up(x)))."""
        return self.mlp.endswith("glu")

    @property
    def tokens_back(self) -> int:
        """Number of previous tokens that the embedding of a token depends on."""
        return self.ngram_longest - 1 if self.ngram_rows else 0

    @property
    def head_channels(self) -> int:
        """Channels per head: head_dim, or width / heads."""
        return self.width // self.heads if self.head_dim is None else self.head_dim

    def window(self, layer: int) -> int | None:
        """Return the attention window of a layer in tokens; None: unlimited."""
        return self.attention_windows[layer % len(self.attention_windows)] or None if self.attention_windows else None

    def check_values(self):
        check_names(self, "model", "norm", "mlp", "block")
        sizes = ("vocab_size", "context_length", "layers", "width", "heads", "kv_heads", "mlp_width")
        within(self, "model", 1, LARGEST_SIZE, *sizes)
        positive(self, "model", "rope_theta", "norm_epsilon", "initial_std")
        if self.head_dim is not None:
            within(self, "model", 1, LARGEST_SIZE, "head_dim")
        elif self.width % self.heads:
            raise UsageError(
                f"model.heads = {self.heads} does not divide model.width = {self.width}. "
                f"Choose a width that is a multiple of {self.heads}, other heads, or model.head_dim."
            )
        if self.heads % self.kv_heads:
            raise UsageError(
                f"model.kv_heads = {self.kv_heads} does not divide model.heads = {self.heads}. "
                "Choose kv_heads among the divisors of heads."
            )
        if self.position != "rope" and self.rope_scaling is not None:
            raise UsageError(
                f"model.rope_scaling is given, but model.position = {self.position}. Remove rope_scaling, or set "
                "model.position = rope."
            )
        within(self, "model", 0, LARGEST_SIZE, "ngram_rows")
        within(self, "model", 2, LONGEST_NGRAM, "ngram_longest")
        if self.token_shift and self.block != "pre_norm":
            raise UsageError(
                f"model.token_shift = True, but model.block = {self.block}; only pre_norm has a token shift. Set "
                "--model.token_shift False."
            )
        if self.logit_softcap is not None:
            positive(self, "model", "logit_softcap")
        if self.position == "rope" and self.head_channels % 2:
            raise UsageError(
                f"model.head_dim (by default model.width / model.heads) = {self.head_channels} is odd, but rotary "
                "positions rotate pairs of channels. Choose an even number, or model.position = learned."
            )
        within(self, "model", 0, LARGEST_SIZE, "attention_windows")
        if self.scan_layers and not self.layers_alike:
            raise UsageError(
                f"model.attention_windows = {self.attention_windows} gives the {self.layers} layers different "
                "windows, but model.scan_layers = True needs equal layers. Set scan_layers to False, or give one "
                "window."
            )

    @property
    def layers_alike(self) -> bool:
        """Whether all layers have the same window, as scan_layers requires."""
        return len({*self.attention_windows[: self.layers]}) < 2


def least_parameters(config: ModelConfig) -> int:
    """Return the number of parameters in the matrices, without those of the user's own blocks: all but a few
    thousandths of the model's."""
    width, heads = config.width, config.heads + 2 * config.kv_heads
    attention = width * config.head_channels * (heads + config.heads)
    mlp = (3 if config.gated_mlp else 2) * width * config.mlp_width
    rows = config.vocab_size * (1 if config.tie_embeddings else 2)
    rows += config.context_length if config.position == "learned" else 0
    rows += config.tokens_back * config.ngram_rows
    blocks = config.layers * (attention + mlp) if config.block == "pre_norm" else 0
    return blocks + rows * width
