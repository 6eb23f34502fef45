"""Count parameters and floating-point operations of a model from its config."""

from collections.abc import Callable

from lm.config import ModelConfig, RematPolicy, Stages
from lm.planning.memory import block_channels, counted_parameters


def parameters_in_products(config: ModelConfig) -> int:
    """Count the parameters in matrix products: all except lookup tables, which are the positions, the n-grams, and the
    embedding unless it is also the output projection."""
    total, looked_up = counted_parameters(config)
    return total - looked_up + (config.vocab_size * config.width if config.tie_embeddings else 0)


def flops_per_token(config: ModelConfig) -> int:
    """Floating-point operations of training on one token of a full context (PaLM, arXiv:2204.02311, appendix B).

    6 per parameter in a matrix product: a multiplication and an addition forward, twice as many backward. Attention is
    12 * layers * context * (heads * head_dim): scores and weighted sum over the whole context (or the layer's window),
    although an implementation may skip masked positions, up to half of them. Recomputation (remat) does not count.
    """
    attention = 12 * keys_seen(config) * config.heads * config.head_channels
    return 6 * parameters_in_products(config) + attention


def keys_seen(config: ModelConfig) -> int:
    """Number of keys that a query may attend to, the layer's whole context or window, summed over layers."""
    context = config.context_length
    windows = config.attention_windows or (0,)  # layers cycle through the windows
    layers_with = lambda place: len(range(place, config.layers, len(windows)))
    return sum(layers_with(place) * min(window or context, context) for place, window in enumerate(windows))


def recomputed_flops_per_token(config: ModelConfig, policy: RematPolicy | None) -> int:
    """Lower bound on the floating-point operations per token that are repeated because the remat policy does not keep
    their results. Attention counts half of its context, as a causal kernel computes it."""
    if policy is None:
        return 0
    heads = config.heads * config.head_channels
    again = block_channels(config).keys() - {"decoder_layer_input", *policy.keep, *policy.offload}
    taken = lambda name: heads if name == "out_proj" else config.width  # input channels of a linear map
    linear = sum(2 * taken(name) * block_channels(config)[name] for name in again - {"context"})
    return config.layers * linear + (2 * keys_seen(config) * heads if "context" in again else 0)


def flops_before(model: ModelConfig, stages: Stages) -> Callable[[int], int]:
    """Return a function: step -> floating-point operations of training in steps 0 to step - 1, over all stages."""
    of_stage = [(stage, flops_per_token(stage.model(model))) for stage in stages]

    def before(step: int) -> int:
        tokens = lambda stage: stages.tokens_before(min(step, stage.end)) - stages.tokens_before(stage.first_step)
        return sum(each * tokens(stage) for stage, each in of_stage if stage.first_step < step)

    return before
