"""Small models of both families for tests."""

import functools
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lm.config import ModelConfig
from lm.formats.tensors import parameter_shapes
from lm.model.param_names import replace_leaves
from lm.model.transformer import Transformer, with_blocks, with_layer_axis

LLAMA = ModelConfig(
    vocab_size=64, context_length=16, layers=2, width=32, heads=4, kv_heads=2, mlp_width=48, norm="rmsnorm",
    position="rope", mlp="swiglu", biases=False, tie_embeddings=True, rope_theta=10_000.0, norm_epsilon=1e-5,
    initial_std=0.2, parameter_dtype="float32", compute_dtype="float32",
)  # fmt: skip
GPT2 = replace(
    LLAMA, kv_heads=4, norm="layernorm", position="learned", mlp="gelu", biases=True, tie_embeddings=False
)  # untied, to test both kinds of output tables
MODERN = replace(
    LLAMA, heads=2, mlp="relu_squared", qk_norm=True, token_shift=True, logit_softcap=3.0, tie_embeddings=False,
    ngram_rows=48, ngram_longest=3,
)  # fmt: skip
"""The softcap affects these logits, and there are fewer rows than n-grams."""
FAMILIES = {"llama": LLAMA, "gpt2": GPT2, "modern": MODERN}


@functools.cache
def initial_model(config: ModelConfig, seed: int = 0) -> Transformer:
    """Return a Transformer with the initial parameters of training."""
    return jax.jit(Transformer, static_argnums=0)(config, jax.random.key(seed))


def random_parameters(config: ModelConfig) -> dict[str, np.ndarray]:
    """Return {name: values} drawn by NumPy; they depend only on name and shape, not on the config. JAX would compile a
    program for each shape. Norms and biases differ from ones and zeros, which would hide their omission."""

    def drawn(name: str, shape: tuple[int, ...]) -> np.ndarray:
        source = np.random.default_rng([*name.encode()])
        near = 1.0 if name.endswith("scale") else 0.5 if name.endswith("share") else 0.0
        return (near + 0.2 * source.normal(size=shape)).astype(jnp.dtype(config.parameter_dtype))

    return {name: drawn(name, shape) for name, shape in parameter_shapes(config).items()}


@functools.cache
def random_model(config: ModelConfig) -> Any:
    """Return a Transformer with `random_parameters`."""
    like = jax.eval_shape(lambda: Transformer(replace(config, scan_layers=False), jax.random.key(0)))
    drawn = {name: jnp.asarray(value) for name, value in random_parameters(config).items()}
    model = replace_leaves(like, drawn)
    return stack_layers(model) if config.scan_layers else model


def stack_layers(model: Transformer) -> Transformer:
    """Return the model with its blocks stacked, as with model.scan_layers."""
    blocks = jax.tree.map(lambda *leaves: jnp.stack(leaves), *model.layer_blocks())
    return with_blocks(model, with_layer_axis(blocks, True))
