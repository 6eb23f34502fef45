"""The heart: one update as a pure function (TrainState, Batch) -> (TrainState, Metrics)."""

from collections.abc import Callable
from typing import cast

import jax
import optax
from jax.sharding import Mesh

from lm.batches import Batch
from lm.loss import cross_entropy, weighted_mean
from lm.model.transformer import Transformer
from lm.sharding import batch_sharding, shardings
from lm.train_state import TrainState

Metrics = dict[str, jax.Array]


def mean_loss(model: Transformer, batch: Batch) -> jax.Array:
    """Mean next-token loss of a batch in nats, over its real tokens."""
    logits_BTV = model(batch.inputs_BT, batch.segment_ids_BT)
    return weighted_mean(cross_entropy(logits_BTV, batch.targets_BT), batch.weights_BT)


def update(state: TrainState, batch: Batch, optimizer: optax.GradientTransformation) -> tuple[TrainState, Metrics]:
    """One step of gradient descent; metrics are those of the parameters before it."""
    loss, gradients = jax.value_and_grad(mean_loss)(state.model, batch)
    parameters = cast(optax.Params, state.model)  # optax takes any pytree; its annotation knows only some
    changes, optimizer_state = optimizer.update(gradients, state.optimizer_state, parameters)
    model = cast(Transformer, optax.apply_updates(parameters, changes))
    metrics = {"loss": loss, "gradient_norm": optax.tree.norm(gradients)}
    return TrainState(state.step + 1, model, optimizer_state), metrics


def compile_step(
    optimizer: optax.GradientTransformation, state: TrainState, mesh: Mesh
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """`update`, jitted over the mesh; the old state's memory is given to the new one."""
    state_shardings = shardings(state, mesh)
    return jax.jit(
        lambda state, batch: update(state, batch, optimizer),
        in_shardings=(state_shardings, batch_sharding(mesh)),
        out_shardings=(state_shardings, None),
        donate_argnums=0,
    )
