"""All that a training run is at one moment."""

from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Int

from lm.model.config import ModelConfig
from lm.model.transformer import Transformer
from lm.sharding import shardings


class TrainState(NamedTuple):
    """A pytree: step, parameters, optimizer state. With the seed and the shards, the step decides all data to come."""

    step: Int[Array, ""]
    """Updates made so far; also the number of the next batch."""
    model: Transformer
    optimizer_state: optax.OptState


def make_state(config: ModelConfig, optimizer: optax.GradientTransformation, seed: int) -> TrainState:
    model = Transformer(config, jax.random.key(seed))
    return TrainState(jnp.zeros((), jnp.int32), model, optimizer.init(cast(optax.Params, model)))


def abstract_state(config: ModelConfig, optimizer: optax.GradientTransformation, mesh: Mesh) -> TrainState:
    """ShapeDtypeStructs with their shardings in place of arrays: what to compile for, and what to restore into."""
    shapes = jax.eval_shape(lambda: make_state(config, optimizer, seed=0))
    place = lambda shape, sharding: jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding)
    return jax.tree.map(place, shapes, shardings(shapes, mesh))


def initial_state(config: ModelConfig, optimizer: optax.GradientTransformation, seed: int, mesh: Mesh) -> TrainState:
    """Freshly initialised, each device making only its own part."""
    shapes = jax.eval_shape(lambda: make_state(config, optimizer, seed))
    return jax.jit(lambda: make_state(config, optimizer, seed), out_shardings=shardings(shapes, mesh))()
