"""The shape of a model, as frozen dataclasses. No jax here."""

from dataclasses import dataclass
from typing import Literal

from lm.errors import UsageError, shown
from lm.fields import Config, not_hashed, positive, within

LARGEST_SIZE = 2**31 - 1
"""Of every axis: JAX's indices are 32-bit."""
LONGEST_NGRAM = 64
"""Each length has a table of its own."""

GATED_MLPS = ("swiglu",)
"""Values of ModelConfig.mlp with a gate."""


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
    """A decoder-only transformer. GPT-2 (Radford 2019) and Llama 3 (arXiv:2407.21783) differ in six of these fields:
    norm, position, mlp, biases, kv_heads, tie_embeddings. What they both lack is off by default."""

    vocab_size: int
    """Rows of the embedding table; at least the tokenizer's symbols."""
    context_length: int
    """Tokens that one sequence holds, in training and in generation."""
    layers: int
    """Transformer blocks."""
    width: int
    """Channels of the residual stream."""
    heads: int
    """Query heads; must divide width, unless head_dim is given."""
    kv_heads: int
    """Key and value heads (grouped queries, arXiv:2305.13245); must divide heads."""
    mlp_width: int
    """Hidden channels of the MLP."""
    norm: Literal["rmsnorm", "layernorm"]
    """RMSNorm (arXiv:1910.07467) or LayerNorm (arXiv:1607.06450)."""
    position: Literal["rope", "learned"]
    """Rotary (arXiv:2104.09864) or a learned table added to the embeddings."""
    mlp: Literal["swiglu", "gelu", "relu_squared"]
    """Gated SiLU (arXiv:2002.05202), the tanh form of GELU as in GPT-2, or the square of ReLU (arXiv:2109.08668)."""
    biases: bool
    """Linear maps and LayerNorms add a bias, as GPT-2's do; the output projection never does."""
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
    """Type in which parameters are kept. Updates are computed in float32, and rounded stochastically where they are
    added to bfloat16 parameters (lm/optimizers/rounding.py)."""
    compute_dtype: Literal["float32", "bfloat16"]
    """Type of matrix products and activations; the softmax and the loss are always float32."""
    rope_scaling: RopeScalingConfig | None = None
    """Llama 3.1's stretching of the rotary frequencies, or None for the frequencies as they are."""
    qk_norm: bool = False
    """Queries and keys are scaled to a root mean square of 1 in every head, before they are turned: keeps attention's
    logits bounded, and so the training stable at high learning rates (arXiv:2302.05442)."""
    zero_init: bool = False
    """Projections back into the residual stream, and an output projection of its own, start at zero: at first, a block
    passes on what it is given and every token is as likely (arXiv:2203.03466, appendix D.2)."""
    logit_softcap: float | None = None
    """Logits become softcap * tanh(logits / softcap), so that none leaves +- softcap (Gemma 2, arXiv:2408.00118: 30);
    None leaves them as they are."""
    token_shift: bool = False
    """What goes into queries, keys, values and the MLP is mixed, by a learned share for each channel, with the same of
    the token before, in its document (RWKV, arXiv:2305.13048, section 3.1)."""
    ngram_rows: int = 0
    """Rows of each table of n-gram embeddings (arXiv:2501.16975): those of the last 2 to ngram_longest tokens, found by
    a hash, are added to the token's own. They cost memory, and next to no arithmetic; 0 for none."""
    ngram_longest: int = 2
    """Tokens in the longest n-gram that has an embedding; of ngram_rows alone."""
    head_dim: int | None = None
    """Channels of one head of queries, keys and values; None for width / heads."""
    attention_windows: tuple[int, ...] = ()
    """Tokens that a layer's attention sees at most, each token's own among them (sliding window, arXiv:2310.06825);
    0 for all before it. Layers take the values in turn: (4096, 0) is a window in every other layer, as in Gemma 2
    (arXiv:2408.00118). None given: no window. With scan_layers all windows must be the same."""
    scan_layers: bool = not_hashed(default=False)
    """Blocks are one stack of parameters that a loop goes through, in place of one block after the other: compiles in
    the time of one block and lets remat free a block's memory, but costs about 10 % on a CPU. A checkpoint of either
    form is read by the other."""
    attention: Literal["auto", "xla", "cudnn", "splash"] = not_hashed(default="auto")
    """What computes attention: xla (plain operations, anywhere), cudnn (fused, NVIDIA), splash (fused, TPU), or auto:
    the fused one where device, type and shapes allow it."""

    @property
    def gated_mlp(self) -> bool:
        """Whether the MLP is down(activation(gate(x)) * up(x)), of three matrices, or down(activation(up(x)))."""
        return self.mlp in GATED_MLPS

    @property
    def tokens_back(self) -> int:
        """How many tokens before its own a token's embedding depends on."""
        return self.ngram_longest - 1 if self.ngram_rows else 0

    @property
    def head_channels(self) -> int:
        """Channels of one head: head_dim, or what follows from width and heads."""
        return self.width // self.heads if self.head_dim is None else self.head_dim

    def window(self, layer: int) -> int | None:
        """Tokens that the attention of a layer sees at most; None for no limit."""
        return self.attention_windows[layer % len(self.attention_windows)] or None if self.attention_windows else None

    def __post_init__(self):
        super().__post_init__()
        for name in ("vocab_size", "context_length", "layers", "width", "heads", "kv_heads", "mlp_width"):
            if not 1 <= getattr(self, name) <= LARGEST_SIZE:
                raise UsageError(
                    f"model.{name} is {shown(getattr(self, name))}; it must be at least 1, and at most "
                    f"{LARGEST_SIZE:,}."
                )
        positive(self, "model", "rope_theta", "norm_epsilon", "initial_std")
        if self.head_dim is not None:
            positive(self, "model", "head_dim")
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
                f"model.rope_scaling is given, but model.position = {self.position} turns nothing. "
                "Leave rope_scaling out, or set model.position = rope."
            )
        if not 0 <= self.ngram_rows <= LARGEST_SIZE or not 2 <= self.ngram_longest <= LONGEST_NGRAM:
            raise UsageError(
                f"model.ngram_rows is {shown(self.ngram_rows)} and model.ngram_longest is {shown(self.ngram_longest)}; "
                f"rows must be at least 0 (none), and an n-gram has 2 to {LONGEST_NGRAM} tokens."
            )
        if self.logit_softcap is not None:
            positive(self, "model", "logit_softcap")
        if self.position == "rope" and self.head_channels % 2:
            raise UsageError(
                f"model.head_dim (by default model.width / model.heads) = {self.head_channels} is odd, but rotary "
                "positions turn channels in pairs. Choose an even one, or model.position = learned."
            )
        self.check_windows()

    @property
    def layers_alike(self) -> bool:
        """Whether one program serves all layers, as scan_layers needs it: their windows are the same."""
        return len({*self.attention_windows[: self.layers]}) < 2

    def check_windows(self) -> None:
        """Raises UsageError for windows that cannot be, or not in a scan over layers."""
        if min(self.attention_windows, default=0) < 0:
            raise UsageError(
                f"model.attention_windows = {self.attention_windows}; a window has at least 0 tokens (all)."
            )
        if self.scan_layers and not self.layers_alike:
            raise UsageError(
                f"model.attention_windows = {self.attention_windows} gives the {self.layers} layers different windows, "
                "but model.scan_layers = True runs one program for them all. Set scan_layers to False, or one window."
            )


def least_parameters(config: ModelConfig) -> int:
    """Parameters of the matrices, by arithmetic: all but a few thousandths of the model."""
    width, heads = config.width, config.heads + 2 * config.kv_heads
    attention = width * config.head_channels * (heads + config.heads)
    mlp = (3 if config.gated_mlp else 2) * width * config.mlp_width
    rows = config.vocab_size * (1 if config.tie_embeddings else 2)
    rows += config.context_length if config.position == "learned" else 0
    rows += config.tokens_back * config.ngram_rows
    return config.layers * (attention + mlp) + rows * width
