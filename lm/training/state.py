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
    """State of training, a pytree. The batches that follow depend only on its step, the seed and the shards."""

    step: Int[Array, ""]
    """Number of batches seen; also the index of the next batch."""
    model: Transformer
    optimizer_state: optax.OptState
    guard: Guard
    """Statistics that decide whether a step is skipped."""
    ema: Transformer | None = None
    """Exponential moving average of the parameters (train.ema_decay)."""

    @property
    def model_to_use(self) -> Transformer:
        """Model to evaluate, sample and export: the one with averaged parameters, if there is one."""
        return self.model if self.ema is None else self.ema

    def checkpoint_items(self) -> dict[str, object]:
        """Return the contents of a checkpoint, {item name: pytree}. The item "model" is `model_to_use`."""
        training = {"step": self.step, "optimizer": self.optimizer_state, "guard": self.guard}
        if self.ema is None:
            return {"model": self.model, "training": training}
        return {"model": self.ema, "training": training | {"parameters": self.model}}

    def with_items(self, items: dict[str, object]) -> "TrainState":
        """Build a state from the items of a checkpoint, the inverse of `checkpoint_items`."""
        training, model = cast(dict, items["training"]), cast(Transformer, items["model"])
        model, ema = (training["parameters"], model) if "parameters" in training else (model, None)
        return TrainState(training["step"], model, training["optimizer"], training["guard"], ema)


def make_state(
    config: ModelConfig, optimizer: optax.GradientTransformation, seed: int, spikes: SpikeConfig, ema: bool = False
) -> TrainState:
    model = Transformer(config, jax.random.key(seed))
    state = optimizer.init(cast(optax.Params, model))
    average = jax.tree.map(jnp.copy, model) if ema else None
    return TrainState(jnp.zeros((), jnp.int32), model, state, make_guard(spikes), average)


def abstract_state(
    config: ModelConfig,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    spikes: SpikeConfig = NO_BOUND,
    zero1: bool = False,
    ema: bool = False,
) -> TrainState:
    """Return the state as ShapeDtypeStructs with shardings, to compile for and to restore into."""
    shapes = jax.eval_shape(lambda: make_state(config, optimizer, 0, spikes, ema))
    place = lambda shape, sharding: jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding)
    return jax.tree.map(place, shapes, state_shardings(shapes, mesh, zero1))


def state_shardings(state: TrainState, mesh: Mesh, zero1: bool = False) -> TrainState:
    """Return the NamedSharding of every array. With `zero1`, the optimizer state is also sharded over the data axis."""
    optimizer_state = shardings(state.optimizer_state, mesh, zero1)
    return cast(TrainState, shardings(state, mesh))._replace(optimizer_state=cast(optax.OptState, optimizer_state))


def initializer(
    config: ModelConfig,
    optimizer: optax.GradientTransformation,
    seed: int,
    mesh: Mesh,
    spikes: SpikeConfig = NO_BOUND,
    zero1: bool = False,
    ema: bool = False,
) -> Callable[[], TrainState]:
    """Return a jitted function that creates the state at step 0, on each device its own shards."""
    make = lambda: make_state(config, optimizer, seed, spikes, ema)
    return jax.jit(make, out_shardings=state_shardings(jax.eval_shape(make), mesh, zero1))
