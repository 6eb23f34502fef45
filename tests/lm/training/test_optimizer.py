"""Optimizers compared with their definitions in float64: schedules, clipping, each rule, and decay only of matrices."""

import math
from dataclasses import replace
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from numpy.testing import assert_allclose, assert_array_equal

from lm.config import MuonConfig
from lm.errors import UsageError
from lm.model.param_names import named_leaves
from lm.model.transformer import Transformer
from lm.training.optimizer import make_optimizer, param_labels
from lm.training.schedule import learning_rate
from tests.corpus import tiny_experiment
from tests.lm.model_configs import FAMILIES

CONFIG = replace(
    tiny_experiment().train.optimizer, learning_rate=0.1, final_learning_rate=0.02, warmup_steps=4, clip_norm=1.0
)


SHAPES = {
    "matrix": ((12, 20), ("width", "mlp")),
    "stack": ((3, 20, 12), ("layers", "mlp", "width")),
    "table": ((10, 12), ("vocab", "width")),
    "scale": ((12,), ("width",)),
    "scales": ((3, 12), ("layers", "width")),
}
"""{name: (shape, logical axes)}"""
MATRICES, LINEAR = ("matrix", "stack", "table"), ("matrix", "stack")


def params(values):
    return {name: nnx.Param(jnp.asarray(value, jnp.float32), axes=SHAPES[name][1]) for name, value in values.items()}


def run(config, steps, reference):
    """Apply some updates by the optimizer and by `reference(name, value, gradient, step, rate)`, which returns the
    decrement of a value for clipped gradients, without weight decay."""
    generator = np.random.default_rng(0)
    parameters = {name: generator.normal(size=shape) for name, (shape, _) in SHAPES.items()}
    optimizer, held = make_optimizer(config, 20), params(parameters)
    state = optimizer.init(held)
    for step in range(steps):
        gradients = {name: generator.normal(size=value.shape) * 3.0**step for name, value in parameters.items()}
        changes, state = optimizer.update(params(gradients), state, held)
        held = cast(dict[str, nnx.Param], optax.apply_updates(held, changes))
        norm = math.sqrt(sum((g**2).sum() for g in gradients.values()))
        rate = reference_rate(step, 20)
        for name, gradient in gradients.items():
            change, own_rate = reference(name, gradient * min(1.0, config.clip_norm / norm), step, rate)
            decay = config.weight_decay * parameters[name] if name in MATRICES else 0.0
            parameters[name] = parameters[name] - own_rate * (change + decay)
    return {name: np.asarray(value[...]) for name, value in held.items()}, parameters


def reference_rate(step: int, steps: int) -> float:
    if step < CONFIG.warmup_steps:
        return CONFIG.learning_rate * (step + 1) / CONFIG.warmup_steps
    progress = (step + 1 - CONFIG.warmup_steps) / (steps - CONFIG.warmup_steps)
    cosine = 0.5 * (1 + math.cos(math.pi * progress))
    return CONFIG.final_learning_rate + (CONFIG.learning_rate - CONFIG.final_learning_rate) * cosine


def test_a_clip_norm_of_0_leaves_the_gradients_as_they_are():
    """Two steps with gradients of different scale: Adam is invariant to the scale of a single gradient."""

    def after(clip_norm):
        config = replace(CONFIG, clip_norm=clip_norm)
        optimizer, held = make_optimizer(config, 20), params({"matrix": np.zeros((12, 20))})
        state = optimizer.init(held)
        for scale in (1.0, 100.0):
            change, state = optimizer.update(params({"matrix": np.full((12, 20), scale)}), state, held)
            held = cast(dict[str, nnx.Param], optax.apply_updates(held, change))
        return np.asarray(held["matrix"][...]), jax.tree.structure(state)

    (off, structure), (wide, same), (clipped, _) = after(0.0), after(1e9), after(1.0)
    assert_array_equal(off, wide)
    assert np.abs(off - clipped).max() > 1e-3
    assert structure == same  # so that a checkpoint fits with and without clipping


def rates_of(**changes):
    """The learning rates of a run of 20 steps."""
    schedule = learning_rate(replace(CONFIG, **changes), 20)
    return np.array([float(jnp.asarray(schedule(step))) for step in range(20)])


def test_learning_rate_is_linear_then_cosine_with_one_update_at_the_peak_and_one_at_the_final_rate():
    assert_allclose(rates_of(), [reference_rate(step, 20) for step in range(20)], rtol=1e-5)
    assert reference_rate(3, 20) == 0.1 and reference_rate(19, 20) == pytest.approx(0.02)
    assert 0.099 < rates_of(warmup_steps=0)[0] < 0.1


def test_the_linear_schedule_falls_by_equal_steps_to_the_final_rate():
    rates = rates_of(schedule="linear")
    assert_allclose(rates[:4], [0.025, 0.05, 0.075, 0.1], rtol=1e-5)
    assert_allclose(np.diff(rates[3:]), -0.08 / 16, rtol=1e-3)
    assert rates[-1] == pytest.approx(0.02)


def test_warmup_stable_decay_stays_at_the_peak_until_the_last_steps():
    rates = rates_of(schedule="warmup_stable_decay", decay_steps=5, final_learning_rate=0.0)
    assert_allclose(rates[3:15], 0.1, rtol=1e-6)
    assert_allclose(rates[15:], [0.08, 0.06, 0.04, 0.02, 0.0], atol=1e-7)


def adamw_reference():
    first, second = ({name: np.zeros(shape) for name, (shape, _) in SHAPES.items()} for _ in range(2))

    def change(name, gradient, step, rate):
        first[name] = CONFIG.beta1 * first[name] + (1 - CONFIG.beta1) * gradient
        second[name] = CONFIG.beta2 * second[name] + (1 - CONFIG.beta2) * gradient**2
        mean = first[name] / (1 - CONFIG.beta1 ** (step + 1))
        root = np.sqrt(second[name] / (1 - CONFIG.beta2 ** (step + 1)))
        return mean / (root + CONFIG.epsilon), rate

    return change


def assert_close(found, expected):
    for name, value in expected.items():
        assert_allclose(found[name], value, rtol=1e-4, atol=1e-5, err_msg=name)


def test_updates_equal_adamw_in_float64():
    assert_close(*run(CONFIG, 6, adamw_reference()))


def test_updates_equal_lion_in_float64():
    momentum = {name: np.zeros(shape) for name, (shape, _) in SHAPES.items()}

    def change(name, gradient, step, rate):
        sign = np.sign(CONFIG.beta1 * momentum[name] + (1 - CONFIG.beta1) * gradient)
        momentum[name] = CONFIG.beta2 * momentum[name] + (1 - CONFIG.beta2) * gradient
        return sign, rate

    assert_close(*run(replace(CONFIG, name="lion"), 6, change))


def test_updates_of_small_matrices_equal_unfactored_adafactor_in_float64():
    """From 128 rows and columns on, the second moment is factored; see the next test."""
    second = {name: np.zeros(shape) for name, (shape, _) in SHAPES.items()}

    def change(name, gradient, step, rate):
        decay = 1 - (step + 1) ** -0.8
        second[name] = decay * second[name] + (1 - decay) * (gradient**2 + 1e-30)
        update = gradient / np.sqrt(second[name])
        return update / max(1.0, np.sqrt(np.mean(update**2))), rate

    assert_close(*run(replace(CONFIG, name="adafactor", beta1=0.0), 6, change))


def test_adafactor_stores_row_and_column_moments_of_large_matrices():
    held = {"w": nnx.Param(jnp.ones((256, 384)), axes=("width", "mlp"))}
    size = lambda config: sum(leaf.size for leaf in jax.tree.leaves(make_optimizer(config, 20).init(held)))
    assert size(replace(CONFIG, name="adafactor", beta1=0.0)) < 256 + 384 + 10
    assert size(CONFIG) > 2 * 256 * 384


def polynomial(x):
    """Return a Newton-Schulz iteration of a singular value (Jordan et al. 2024)."""
    return 3.4445 * x - 4.7750 * x**3 + 2.0315 * x**5


def test_muon_moves_linear_maps_by_near_orthogonal_steps_and_adamw_the_rest():
    """Compared with the Newton-Schulz polynomial of each singular value, per layer of a stack; embeddings, scales and
    their stacks use AdamW."""
    config = replace(CONFIG, muon=MuonConfig(learning_rate=0.3, momentum=0.9, newton_schulz_steps=5))
    momentum, adamw = {name: np.zeros(shape) for name, (shape, _) in SHAPES.items()}, adamw_reference()

    def change(name, gradient, step, rate):
        if name not in LINEAR:
            return adamw(name, gradient, step, rate)
        # Moments divided by 1 - beta**t form Nesterov's step: only its direction matters.
        momentum[name] = 0.9 * momentum[name] + 0.1 * gradient
        ahead = 0.9 * momentum[name] / (1 - 0.9 ** (step + 2)) + 0.1 * gradient / (1 - 0.9 ** (step + 1))
        u, s, v = np.linalg.svd(ahead, full_matrices=False)
        s = s / np.linalg.norm(s, axis=-1, keepdims=True)
        for _ in range(5):
            s = polynomial(s)
        rows, columns = ahead.shape[-2:]
        return (u * s[..., None, :]) @ v * math.sqrt(max(1.0, columns / rows)), 3.0 * rate

    found, expected = run(config, 6, change)
    for name, value in expected.items():
        assert_allclose(found[name], value, rtol=2e-3, atol=2e-3, err_msg=name)


@pytest.mark.parametrize("axes", [("expert", "width", "mlp"), ("kernel", "width"), ("width", "width")])
def test_muon_rejects_unknown_axes(axes):
    """Otherwise the other optimizer would silently update them."""
    config = replace(CONFIG, muon=MuonConfig(0.02, 0.95, 5))
    shape = (8,) * len(axes)
    parameters = {"new": nnx.Param(jnp.zeros(shape), axes=axes)}
    with pytest.raises(UsageError, match=rf"has the axes {', '.join(axes)}, .* LINEAR_MAPS .*muon to None"):
        make_optimizer(config, 20).init(parameters)
    make_optimizer(replace(config, muon=None), 20).init(parameters)


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_muon_updates_exactly_the_linear_maps_of_blocks(family):
    model = jax.eval_shape(lambda: Transformer(family, jax.random.key(0)))
    labels = named_leaves(param_labels(model))
    names = {name for name, label in labels.items() if label == "muon"}
    assert names == {name for name in labels if name.startswith("blocks.") and name.endswith(".weight")}
