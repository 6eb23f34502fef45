"""Parameters and floating-point operations of a model, counted from its config."""

from collections.abc import Callable

from lm.config import ModelConfig, RematPolicy, Stages
from lm.planning.memory import block_channels, counted_parameters


def parameters_in_products(config: ModelConfig) -> int:
    """Parameters that every token is multiplied with: all except the tables that are looked up, which are the
    positions, the n-grams, and the embedding unless it is the output projection too."""
    total, looked_up = counted_parameters(config)
    return total - looked_up + (config.vocab_size * config.width if config.tie_embeddings else 0)


def flops_per_token(config: ModelConfig) -> int:
    """Floating-point operations of training on one token of a full context (PaLM, arXiv:2204.02311, appendix B).

    6 a parameter that is in a product: a product and a sum forward, twice as many backward. Attention is 12 * layers *
    context * (heads * head_dim): scores and mixture over the whole context (or the layer's window), though an
    implementation may leave out what is masked, up to half of it. What is computed a second time to save memory does
    not count.
    """
    attention = 12 * keys_seen(config) * config.heads * config.head_channels
    return 6 * parameters_in_products(config) + attention


def keys_seen(config: ModelConfig) -> int:
    """Keys that a query may see, its layer's whole context or window, summed over the layers."""
    context = config.context_length
    windows = config.attention_windows or (0,)  # which the layers take in turn
    layers_with = lambda place: len(range(place, config.layers, len(windows)))
    return sum(layers_with(place) * min(window or context, context) for place, window in enumerate(windows))


def recomputed_flops_per_token(config: ModelConfig, policy: RematPolicy | None) -> int:
    """Floating-point operations of a token that are done a second time, at least, since the policy does not keep their
    results. Attention counts by half of its context, which is what a causal kernel does."""
    if policy is None:
        return 0
    heads = config.heads * config.head_channels
    again = block_channels(config).keys() - {"decoder_layer_input", *policy.keep, *policy.offload}
    taken = lambda name: heads if name == "out_proj" else config.width  # channels that a linear map takes
    linear = sum(2 * taken(name) * block_channels(config)[name] for name in again - {"context"})
    return config.layers * linear + (2 * keys_seen(config) * heads if "context" in again else 0)


def flops_before(model: ModelConfig, stages: Stages) -> Callable[[int], int]:
    """A function of a step: floating-point operations of training in steps 0 to step - 1, of all stages."""
    of_stage = [(stage, flops_per_token(stage.model(model))) for stage in stages]

    def before(step: int) -> int:
        tokens = lambda stage: stages.tokens_before(min(step, stage.end)) - stages.tokens_before(stage.first_step)
        return sum(each * tokens(stage) for stage, each in of_stage if stage.first_step < step)

    return before
