"""All that a training run is at one moment."""

from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Int

from lm.config import SpikeConfig
from lm.guard import Guard, make_guard
from lm.model.config import ModelConfig
from lm.model.transformer import Transformer
from lm.parallel import shardings

NO_BOUND = SpikeConfig()


class TrainState(NamedTuple):
    """A pytree: step, parameters, optimizer state, guard. With the seed and the shards, the step decides all data to
    come."""

    step: Int[Array, ""]
    """Batches seen so far; also the number of the next batch."""
    model: Transformer
    optimizer_state: optax.OptState
    guard: Guard
    """What decides whether a step is left out."""


def make_state(
    config: ModelConfig, optimizer: optax.GradientTransformation, seed: int, spikes: SpikeConfig
) -> TrainState:
    model = Transformer(config, jax.random.key(seed))
    state = optimizer.init(cast(optax.Params, model))
    return TrainState(jnp.zeros((), jnp.int32), model, state, make_guard(spikes))


def abstract_state(
    config: ModelConfig, optimizer: optax.GradientTransformation, mesh: Mesh, spikes: SpikeConfig = NO_BOUND
) -> TrainState:
    """ShapeDtypeStructs with their shardings in place of arrays: what to compile for, and what to restore into."""
    shapes = jax.eval_shape(lambda: make_state(config, optimizer, 0, spikes))
    place = lambda shape, sharding: jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding)
    return jax.tree.map(place, shapes, shardings(shapes, mesh))


def initial_state(
    config: ModelConfig,
    optimizer: optax.GradientTransformation,
    seed: int,
    mesh: Mesh,
    spikes: SpikeConfig = NO_BOUND,
) -> TrainState:
    """Freshly initialised, each device making only its own part."""
    make = lambda: make_state(config, optimizer, seed, spikes)
    return jax.jit(make, out_shardings=shardings(jax.eval_shape(make), mesh))()
