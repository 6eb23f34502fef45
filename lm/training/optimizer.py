"""Optimizer of a run: gradient clipping, then one of OPTIMIZERS for all parameters, or Muon for the matrices within
blocks and one of OPTIMIZERS for the rest."""

from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
import optax

from lm.config import MuonConfig, OptimizerConfig
from lm.errors import UsageError
from lm.optimizers.muon import scale_by_muon
from lm.parallel import TABLES, is_parameter
from lm.training.schedule import learning_rate
from lm.trusted_code import named


def by_axes[Value](parameters: object, value: Callable[[tuple[str, ...]], Value]) -> Any:
    """Return a tree like `parameters` with value(axes) for each parameter. axes are the parameter's logical axes, such
    as ("width", "mlp"); the axis "layers" of stacked layers is left out."""

    def of(node: Any) -> Any:
        # In optax trees, other nodes can replace a parameter, for example an empty one if it is masked.
        axes = node.get_metadata()["axes"] if is_parameter(node) else ()
        plain = tuple(axis for axis in axes if axis != "layers")
        return jax.tree.map(lambda _: value(plain), node)

    return jax.tree.map(of, parameters, is_leaf=is_parameter)


def weight_decay_mask(parameters: object) -> Any:
    """Return a tree that is True for matrices, including embeddings: scales and biases get no weight decay."""
    return by_axes(parameters, lambda axes: len(axes) >= 2)


LINEAR_MAPS = (
    ("width", "heads"), ("width", "kv_heads"), ("heads", "width"), ("width", "mlp"), ("mlp", "width"),
)  # fmt: skip
"""Logical axes of the linear maps between hidden layers, which Muon updates. Tables use the other optimizer."""


def label_of(axes: tuple[str, ...]) -> str:
    """Return "muon" for the logical axes of a linear map within a block, and "rule" for tables and vectors, which the
    optimizer train.optimizer.name updates. Raises UsageError if the axes are neither."""
    if axes in LINEAR_MAPS:
        return "muon"
    if len(axes) < 2 or set(axes) & set(TABLES):
        return "rule"
    raise UsageError(
        f"train.optimizer.muon is given, but a parameter has the axes {', '.join(axes)}, which are neither in "
        f"{'; '.join(map(', '.join, LINEAR_MAPS))} nor a table or vector. Add them to LINEAR_MAPS in "
        "lm/training/optimizer.py or TABLES in lm/parallel.py, or set train.optimizer.muon to None."
    )


def param_labels(parameters: object) -> Any:
    """Return a tree with `label_of` each parameter, for optax.multi_transform. Raises UsageError as `label_of` does."""
    return by_axes(parameters, label_of)


def make_optimizer(config: OptimizerConfig, steps: int) -> optax.GradientTransformation:
    """Return the optimizer of a run of `steps` steps: clipping by global norm (unless config.clip_norm is 0), then the
    update rules of the config, each with decoupled weight decay and the learning rate schedule."""
    rate = learning_rate(config, steps)
    rule = optax.chain(
        *named(config.name, OPTIMIZERS, "train.optimizer.name")(config),
        optax.add_decayed_weights(config.weight_decay, mask=weight_decay_mask),
        optax.scale_by_learning_rate(rate),
    )
    if config.muon is not None:
        muon = muon_chain(config.muon, config.weight_decay, rate, config.learning_rate)
        rule = optax.multi_transform({"muon": muon, "rule": rule}, param_labels)
    # Neither has state, so checkpoints have the same names with and without clipping.
    clip = optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity()
    return in_float32(optax.chain(clip, rule))


def in_float32(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    """Wrap an optimizer so that its moments and arithmetic are float32 whatever the types of parameters and gradients.
    In bfloat16, a moment with a decay of 0.99 or more could never decrease."""
    wide = lambda tree: jax.tree.map(lambda x: x.astype(jnp.float32), tree)

    def init(params: optax.Params) -> optax.OptState:
        return optimizer.init(wide(params))

    def update(
        updates: optax.Updates, state: optax.OptState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, optax.OptState]:
        return optimizer.update(wide(updates), state, wide(params))

    return optax.GradientTransformation(init, update)


def adamw(config: OptimizerConfig) -> list[optax.GradientTransformation]:
    """AdamW (arXiv:1711.05101)."""
    return [optax.scale_by_adam(config.beta1, config.beta2, config.epsilon)]


def adafactor(config: OptimizerConfig) -> list[optax.GradientTransformation]:
    """Adafactor (arXiv:1804.04235). The second moment of a matrix is stored as one row and one column; its decay rises
    to 1 with the steps. Updates are clipped to a root mean square of 1 (over all layers together if they are stacked).
    With beta1 = 0, there is no first moment to store."""
    momentum = [optax.ema(config.beta1, debias=False)] if config.beta1 else []
    return [optax.scale_by_factored_rms(), optax.clip_by_block_rms(1.0), *momentum]


def lion(config: OptimizerConfig) -> list[optax.GradientTransformation]:
    """Lion (arXiv:2302.06675): updates by the sign of the momentum."""
    return [optax.scale_by_lion(config.beta1, config.beta2)]


OPTIMIZERS: dict[str, Callable[[OptimizerConfig], list[optax.GradientTransformation]]] = {
    "adamw": adamw, "adafactor": adafactor, "lion": lion,
}  # fmt: skip
"""{train.optimizer.name: function(config)}. The function returns the transformations before weight decay and learning
rate."""


def muon_chain(
    config: MuonConfig, weight_decay: float, rate: optax.Schedule, peak: float
) -> optax.GradientTransformation:
    """Muon (lm/optimizers/muon.py), with updates scaled by max(1, sqrt(outputs / inputs)). The learning rate is the
    schedule `rate`, whose peak is `peak`, rescaled to the peak config.learning_rate."""

    return optax.chain(
        scale_by_muon(config.momentum, config.newton_schulz_steps),
        optax.stateless(lambda us, _: jax.tree.map(lambda u: u * max(1.0, u.shape[-1] / u.shape[-2]) ** 0.5, us)),
        optax.add_decayed_weights(weight_decay),
        optax.scale_by_learning_rate(lambda step: config.learning_rate / peak * cast(Any, rate(step))),
    )
