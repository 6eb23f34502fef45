"""Complete state of a training run."""

from collections.abc import Callable
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Int

from lm.config import ModelConfig, SpikeConfig
from lm.model.transformer import Transformer
from lm.parallel import shardings
from lm.training.anomaly_guard import Guard, make_guard

NO_BOUND = SpikeConfig()


class TrainState(NamedTuple):
    """Pytree of step, parameters, optimizer state and guard. Together with the seed and the shards, the step determines
    all future batches."""

    step: Int[Array, ""]
    """Number of batches seen; also the index of the next batch."""
    model: Transformer
    optimizer_state: optax.OptState
    guard: Guard
    """Statistics that decide whether a step is skipped."""

    def checkpoint_items(self) -> dict[str, object]:
        """Contents of a checkpoint, by item name."""
        training = {"step": self.step, "optimizer": self.optimizer_state, "guard": self.guard}
        return {"model": self.model, "training": training}

    def with_items(self, items: dict[str, object]) -> "TrainState":
        """Rebuild the state from the items of a checkpoint."""
        training = cast(dict, items["training"])
        return TrainState(training["step"], cast(Transformer, items["model"]), training["optimizer"], training["guard"])


def make_state(
    config: ModelConfig, optimizer: optax.GradientTransformation, seed: int, spikes: SpikeConfig
) -> TrainState:
    model = Transformer(config, jax.random.key(seed))
    state = optimizer.init(cast(optax.Params, model))
    return TrainState(jnp.zeros((), jnp.int32), model, state, make_guard(spikes))


def abstract_state(
    config: ModelConfig,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    spikes: SpikeConfig = NO_BOUND,
    zero1: bool = False,
) -> TrainState:
    """Return the state as ShapeDtypeStructs with shardings, to compile for and to restore into."""
    shapes = jax.eval_shape(lambda: make_state(config, optimizer, 0, spikes))
    place = lambda shape, sharding: jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding)
    return jax.tree.map(place, shapes, state_shardings(shapes, mesh, zero1))


def state_shardings(state: TrainState, mesh: Mesh, zero1: bool = False) -> TrainState:
    """Return the NamedSharding of every leaf (lm.parallel.shardings). With `zero1`, the optimizer state is also sharded
    over the data axis."""
    optimizer_state = shardings(state.optimizer_state, mesh, zero1)
    return cast(TrainState, shardings(state, mesh))._replace(optimizer_state=cast(optax.OptState, optimizer_state))


def initializer(
    config: ModelConfig,
    optimizer: optax.GradientTransformation,
    seed: int,
    mesh: Mesh,
    spikes: SpikeConfig = NO_BOUND,
    zero1: bool = False,
) -> Callable[[], TrainState]:
    """Return a jitted function that creates the state at step 0, each device its own shards. It is traced only once."""
    make = lambda: make_state(config, optimizer, seed, spikes)
    return jax.jit(make, out_shardings=state_shardings(jax.eval_shape(make), mesh, zero1))
