"""Complete state of a training run."""

from collections.abc import Callable
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Int

from lm.config import LoraConfig, ModelConfig, SpikeConfig
from lm.model.lora import Adapters, make_adapters, merged
from lm.model.transformer import Transformer
from lm.parallel import shardings
from lm.training.anomaly_guard import Guard, make_guard

NO_BOUND, NO_LORA = SpikeConfig(), LoraConfig()


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
    adapters: Adapters | None = None
    """Adapters of the model, whose own parameters are then frozen (train.lora)."""

    @property
    def trained(self) -> Transformer | Adapters:
        """Parameters that the optimizer changes."""
        return self.model if self.adapters is None else self.adapters

    @property
    def model_to_use(self) -> Transformer:
        """Model to evaluate, sample and export: the one with averaged parameters, or with merged adapters, if there are
        any."""
        if self.adapters is not None:
            return merged(self.model, self.adapters)
        return self.model if self.ema is None else self.ema

    def checkpoint_items(self) -> dict[str, object]:
        """Return the contents of a checkpoint, {item name: pytree}. The item "model" is `model_to_use`."""
        training = {"step": self.step, "optimizer": self.optimizer_state, "guard": self.guard}
        if self.adapters is None and self.ema is None:
            return {"model": self.model, "training": training}
        own = {"parameters": self.model} | ({"adapters": self.adapters} if self.adapters is not None else {})
        return {"model": self.model_to_use, "training": training | own}

    def with_items(self, items: dict[str, object]) -> "TrainState":
        """Build a state from the items of a checkpoint, the inverse of `checkpoint_items`."""
        training, model = cast(dict, items["training"]), cast(Transformer, items["model"])
        adapters, ema = training.get("adapters"), None
        if "parameters" in training:
            model, ema = training["parameters"], model if adapters is None else None
        return TrainState(training["step"], model, training["optimizer"], training["guard"], ema, adapters)


def make_state(
    config: ModelConfig,
    optimizer: optax.GradientTransformation,
    seed: int,
    spikes: SpikeConfig,
    ema: bool = False,
    lora: LoraConfig = NO_LORA,
) -> TrainState:
    model = Transformer(config, jax.random.key(seed))
    adapters = make_adapters(model, lora, seed) if lora.rank else None
    state = optimizer.init(cast(optax.Params, model if adapters is None else adapters))
    average = jax.tree.map(jnp.copy, model) if ema else None
    return TrainState(jnp.zeros((), jnp.int32), model, state, make_guard(spikes), average, adapters)


def abstract_state(
    config: ModelConfig,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    spikes: SpikeConfig = NO_BOUND,
    zero1: bool = False,
    ema: bool = False,
    lora: LoraConfig = NO_LORA,
) -> TrainState:
    """Return the state as ShapeDtypeStructs with shardings, to compile for and to restore into."""
    shapes = jax.eval_shape(lambda: make_state(config, optimizer, 0, spikes, ema, lora))
    place = lambda shape, sharding: shape.update(sharding=sharding)
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
    lora: LoraConfig = NO_LORA,
) -> Callable[[], TrainState]:
    """Return a jitted function that creates the state at step 0, on each device its own shards."""
    make = lambda: make_state(config, optimizer, seed, spikes, ema, lora)
    return jax.jit(make, out_shardings=state_shardings(jax.eval_shape(make), mesh, zero1))
