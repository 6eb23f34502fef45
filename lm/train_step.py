"""The heart: one update as a pure function (TrainState, Batch) -> (TrainState, Metrics)."""

from collections.abc import Callable
from typing import cast

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from lm.batches import Batch
from lm.loss import summed_cross_entropy
from lm.model.transformer import Transformer, row_positions
from lm.sharding import batch_sharding, shardings
from lm.train_state import TrainState

Metrics = dict[str, jax.Array]


def mean_loss(model: Transformer, batch: Batch, loss_parts: int = 1) -> jax.Array:
    """Mean next-token loss of a batch in nats, over its real tokens; 0 where there is none.

    The logits of so many parts of the sequence exist one after the other (lm/loss.py).
    """
    x_BTD = model.hidden(model.embed(batch.inputs_BT, row_positions(batch.inputs_BT)), batch.segment_ids_BT)
    total = summed_cross_entropy(x_BTD, model.output_table(), batch.targets_BT, batch.weights_BT, loss_parts)
    return total / jnp.maximum(jnp.sum(batch.weights_BT), 1.0)


def update(
    state: TrainState, batch: Batch, optimizer: optax.GradientTransformation, loss_parts: int = 1
) -> tuple[TrainState, Metrics]:
    """One step of gradient descent; metrics are those of the parameters before it."""
    loss, gradients = jax.value_and_grad(mean_loss)(state.model, batch, loss_parts)
    parameters = cast(optax.Params, state.model)  # optax takes any pytree; its annotation knows only some
    changes, optimizer_state = optimizer.update(gradients, state.optimizer_state, parameters)
    model = cast(Transformer, optax.apply_updates(parameters, changes))
    metrics = {"loss": loss, "gradient_norm": optax.tree.norm(gradients)}
    return TrainState(state.step + 1, model, optimizer_state), metrics


def compile_step(
    optimizer: optax.GradientTransformation, state: TrainState, mesh: Mesh, loss_parts: int = 1
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """`update`, jitted over the mesh; the old state's memory is given to the new one."""
    state_shardings = shardings(state, mesh)
    return jax.jit(
        lambda state, batch: update(state, batch, optimizer, loss_parts),
        in_shardings=(state_shardings, batch_sharding(mesh)),
        out_shardings=(state_shardings, None),
        donate_argnums=0,
    )
