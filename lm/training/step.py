"""One training update as a pure function (TrainState, Batch) -> (TrainState, Metrics)."""

import re
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from lm.config import TrainConfig
from lm.data.batches import Batch
from lm.errors import UsageError, shown
from lm.evaluation.evaluators import RESERVED
from lm.model.lora import Adapters, adapted
from lm.model.loss import gathered_table, summed_cross_entropy
from lm.model.taps import Taps
from lm.model.transformer import Dropout, Transformer
from lm.optimizers.rounding import apply_updates
from lm.parallel import batch_sharding, context, shardings, traced_on
from lm.training.anomaly_guard import accept, bounds, where_applied
from lm.training.schedule import learning_rate
from lm.training.state import TrainState
from lm.trusted_code import load_named

Metrics = dict[str, jax.Array]
OWN = "own: "
"""Prefix of the names of user metrics within Metrics."""
ANY_NUMBER = re.compile(r"\.\d+\.")
DROPOUT, ROUNDING = 2**32 - 1, 2**32 - 2  # folded into the seed; distinct from the steps, which samples fold in


def loss_terms(
    model: Transformer,
    batch: Batch,
    config: TrainConfig,
    dropout: Dropout | None = None,
    table_VD: jax.Array | None = None,
) -> tuple[jax.Array, tuple[jax.Array, dict[str, jax.Array]]]:
    """Return (loss to minimize, (loss to log, values of train.activation_metrics)) of a batch. Losses are in nats: sums
    over the tokens, times their weights. `table_VD` is the output table, if already gathered (lm/model/loss.py). Raises
    UsageError, when traced, if a pattern of train.activation_metrics matches nothing."""
    taps = Taps(config.activation_metrics, as_scalars=True) if config.activation_metrics else None
    x_BTD = model.read(batch.inputs_BT, batch.segment_ids_BT, config.remat_policy, dropout, taps)
    minimized, loss = summed_cross_entropy(
        x_BTD, model.output_table(), batch.targets_BT, batch.weights_BT, config.loss_chunks, model.logit_softcap,
        config.z_loss, config.skip_untrained, table_VD,
    )  # fmt: skip
    if taps is None:
        return minimized, (loss, {})
    if unknown := taps.unmatched():
        names = ", ".join(dict.fromkeys(ANY_NUMBER.sub(".*.", name) for name in taps.seen))
        raise UsageError(
            f"train.activation_metrics has {', '.join(unknown)}, which no activation matches. Choose from {names}."
        )
    return minimized, (loss, taps.found)


def loss_and_gradients(
    model: Transformer,
    batch: Batch,
    config: TrainConfig,
    dropout: Dropout | None = None,
    activations: dict[str, jax.Array] | None = None,
    adapters: Adapters | None = None,
) -> tuple[jax.Array, Any]:
    """Return the mean next-token loss in nats over the real tokens of a batch (0 if there are none), and the gradients
    of the minimized loss with respect to the model, or to `adapters` of it if given. Gradients have the type of the
    parameters; those of several micro-batches are float32. The
    values of train.activation_metrics, means over the micro-batches, are added to `activations`."""
    # Normalize the weights first: then sums over micro-batches are means already, and neither loss nor gradients need
    # a division.
    weights_BT = batch.weights_BT / jnp.maximum(jnp.sum(batch.weights_BT), 1.0)
    batch = batch._replace(weights_BT=weights_BT)
    trained = model if adapters is None else adapters
    terms = loss_terms if adapters is None else lambda own, *rest: loss_terms(adapted(model, own), *rest)
    differentiate = jax.value_and_grad(terms, has_aux=True)
    if config.micro_batches == 1:
        (_, (loss, tapped)), gradients = differentiate(trained, batch, config, dropout)
        if activations is not None:
            activations.update(tapped)
        return loss, gradients

    def add(totals, part):
        micro_batch, rows_B = part
        own = None if dropout is None else dropout._replace(rows_B=rows_B)
        (_, (loss, tapped)), gradients = differentiate(trained, micro_batch, config, own, table_VD)
        return jax.tree.map(lambda total, new: total + new.astype(total.dtype), totals, (loss, gradients)), tapped

    table_VD = gathered_table(model.output_table(), model.compute_dtype) if context().gathers_weights else None
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), trained)
    parts = micro_batches((batch, jnp.arange(batch.inputs_BT.shape[0])), config.micro_batches)
    (loss, gradients), tapped = jax.lax.scan(add, (jnp.zeros((), jnp.float32), zeros), parts)
    if activations is not None:
        activations.update({name: jnp.mean(values) for name, values in tapped.items()})
    return loss, gradients


def micro_batches[Tree](rows: Tree, count: int) -> Tree:
    """Reshape arrays (B, ...) to (count, B / count, ...). Each micro-batch takes every count-th row, so every device
    holds a part of it if the number of devices divides B / count."""
    return jax.tree.map(lambda x_B: x_B.reshape(-1, count, *x_B.shape[1:]).swapaxes(0, 1), rows)


class StepValues(NamedTuple):
    """Values of a training step, for the functions of train.step_metrics."""

    state: TrainState
    """State before the step."""
    batch: Any
    """A Batch; of reinforcement learning an AnswerBatch (lm/reinforcement/scoring.py)."""
    loss: jax.Array
    """Mean loss in nats per token."""
    gradients: Any
    """Gradients before clipping, in a tree like the model, or like its adapters with train.lora."""
    updates: Any
    """What the optimizer adds to the parameters, before a skipped step is discarded."""


def own_metrics(config: TrainConfig, values: StepValues, activations: Metrics) -> Metrics:
    """Return the values of train.step_metrics and train.activation_metrics. Raises UsageError for a value that is not a
    scalar or has the name of another value."""
    found = dict(activations)
    for name in config.step_metrics:
        new = load_named(name, "train.step_metrics")(values)
        if not isinstance(new, dict):
            raise UsageError(f"train.step_metrics: {name} returned {shown(repr(new))}. Return {{name: scalar}}.")
        for key, value in new.items():
            if key in found or key in RESERVED:
                raise UsageError(
                    f"train.step_metrics: {name} returned {key!r}, but another metric has that name. Rename it."
                )
            if jnp.shape(value):
                raise UsageError(
                    f"train.step_metrics: {name} returned {key} of shape {jnp.shape(value)}. Return scalars."
                )
            found[key] = jnp.asarray(value, jnp.float32)
    return found


type Gradients = Callable[[TrainState, Any, TrainConfig, Metrics], tuple[jax.Array, Any]]
"""gradients_of(state, batch, config, metrics): (loss to log and to guard, gradients of the trained parameters). Adds
further values to log to `metrics`."""


def token_gradients(state: TrainState, batch: Batch, config: TrainConfig, metrics: Metrics) -> tuple[jax.Array, Any]:
    """The Gradients of the next-token loss."""
    dropout = None
    if config.dropout:
        stream = jax.random.fold_in(jax.random.key(config.seed), DROPOUT)
        rows_B = jnp.arange(batch.inputs_BT.shape[0])
        dropout = Dropout(jax.random.fold_in(stream, state.step), config.dropout, rows_B)
    return loss_and_gradients(state.model, batch, config, dropout, metrics, state.adapters)


def update(
    state: TrainState, batch: Any, optimizer: optax.GradientTransformation, config: TrainConfig,
    gradients_of: Gradients = token_gradients,
) -> tuple[TrainState, Metrics]:  # fmt: skip
    """Take one optimizer step, or none if the guard skips it (anomaly_guard.py). Metrics are those of the parameters
    before the step."""
    activations: Metrics = {}
    loss, gradients = gradients_of(state, batch, config, activations)
    before: Any = state.trained
    if config.mesh.zero1:  # each device updates a shard; the output sharding gathers the model
        cut = shardings(before, jax.sharding.get_abstract_mesh(), zero1=True)
        before, gradients = jax.lax.with_sharding_constraint((before, gradients), (cut, cut))
    parameters = cast(optax.Params, before)  # optax accepts any pytree, but its annotation does not
    changes, optimizer_state = optimizer.update(cast(optax.Updates, gradients), state.optimizer_state, parameters)
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(config.seed), ROUNDING), state.step)
    after: Any = apply_updates(parameters, changes, key)
    norm = optax.tree.norm(gradients)
    applied, guard = accept(state.guard, loss, norm, config.spikes)
    after, optimizer_state = where_applied(applied, (after, optimizer_state), (before, state.optimizer_state))
    model, adapters = (after, None) if state.adapters is None else (state.model, after)
    ema = state.ema
    if ema is not None:
        ema = where_applied(applied, averaged(ema, model, state.guard.accepted, config.ema_decay), ema)
    # The optimizer also counts only accepted steps.
    rate = jnp.asarray(learning_rate(config.optimizer, config.steps)(state.guard.accepted))
    loss_bound, norm_bound = bounds(state.guard, config.spikes)
    metrics = {
        "loss": loss, "gradient_norm": norm, "learning_rate": rate, "applied": applied,
        "skipped": state.step + 1 - guard.accepted, "in_row": guard.in_row, "loss_bound": loss_bound,
        "norm_bound": norm_bound,
    }  # fmt: skip
    if config.step_metrics or activations:
        values = StepValues(state, batch, loss, gradients, changes)
        metrics |= {OWN + name: value for name, value in own_metrics(config, values, activations).items()}
    return TrainState(state.step + 1, model, optimizer_state, guard, ema, adapters), metrics


def averaged(ema: Transformer, model: Transformer, accepted: jax.Array, decay: float) -> Transformer:
    """Return d * ema + (1 - d) * model with d = min(decay, (1 + n) / (10 + n)) after n accepted steps: the initial
    parameters soon lose their weight (as in TensorFlow's ExponentialMovingAverage)."""
    d = jnp.minimum(decay, (1.0 + accepted) / (10.0 + accepted))
    return jax.tree.map(lambda old, new: d * old + (1.0 - d) * new, ema, model)


def compile_step(
    optimizer: optax.GradientTransformation, state: TrainState, mesh: Mesh, config: TrainConfig,
    gradients_of: Gradients = token_gradients,
) -> Callable[[TrainState, Any], tuple[TrainState, Metrics]]:  # fmt: skip
    """Jit `update` over the mesh, for states with the shardings of `state`. The input state is donated."""
    state_shardings = jax.tree.map(lambda leaf: leaf.sharding, state)
    return jax.jit(
        traced_on(mesh, lambda state, batch: update(state, batch, optimizer, config, gradients_of), training=True),
        in_shardings=(state_shardings, batch_sharding(mesh)),
        out_shardings=(state_shardings, None),
        donate_argnums=0,
    )
