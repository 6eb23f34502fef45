"""The optimizer against its definition in float64: schedule, clipping, AdamW, and decay of matrices alone."""

import dataclasses
import math
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lm.optimizer import make_optimizer
from lm.schedule import learning_rate
from tests.corpus import tiny_experiment

CONFIG = dataclasses.replace(
    tiny_experiment().train.optimizer, learning_rate=0.1, final_learning_rate=0.02, warmup_steps=4, clip_norm=1.0
)


def reference_rate(step: int, steps: int) -> float:
    if step < CONFIG.warmup_steps:
        return CONFIG.learning_rate * (step + 1) / CONFIG.warmup_steps
    progress = (step + 1 - CONFIG.warmup_steps) / (steps - CONFIG.warmup_steps)
    cosine = 0.5 * (1 + math.cos(math.pi * progress))
    return CONFIG.final_learning_rate + (CONFIG.learning_rate - CONFIG.final_learning_rate) * cosine


@pytest.mark.parametrize("step", [0, 1, 3, 4, 5, 11, 19])
def test_learning_rate_is_linear_then_cosine(step):
    assert float(jnp.asarray(learning_rate(CONFIG, 20)(step))) == pytest.approx(reference_rate(step, 20), rel=1e-5)


def test_the_peak_and_the_final_rate_are_each_the_rate_of_an_update():
    rates = [float(jnp.asarray(learning_rate(CONFIG, 20)(step))) for step in range(20)]
    assert max(rates) == pytest.approx(0.1) and rates.count(max(rates)) == 1
    assert rates[-1] == pytest.approx(0.02)


def test_no_warm_up_begins_near_the_peak():
    config = dataclasses.replace(CONFIG, warmup_steps=0)
    assert 0.099 < float(jnp.asarray(learning_rate(config, 20)(0))) < 0.1


def test_updates_equal_adamw_in_float64():
    generator = np.random.default_rng(0)
    parameters = {"matrix": generator.normal(size=(3, 4)), "scale": generator.normal(size=4)}
    optimizer = make_optimizer(CONFIG, 20)
    held = {name: jnp.asarray(value, jnp.float32) for name, value in parameters.items()}
    state = optimizer.init(held)
    first = {name: np.zeros_like(value) for name, value in parameters.items()}
    second = {name: np.zeros_like(value) for name, value in parameters.items()}
    for step in range(6):
        gradients = {name: generator.normal(size=value.shape) * 3.0**step for name, value in parameters.items()}
        changes, state = optimizer.update({k: jnp.asarray(v, jnp.float32) for k, v in gradients.items()}, state, held)
        held = cast(dict[str, jax.Array], optax.apply_updates(held, changes))

        norm = math.sqrt(sum((g**2).sum() for g in gradients.values()))
        rate = reference_rate(step, 20)
        for name, gradient in gradients.items():
            gradient = gradient * min(1.0, CONFIG.clip_norm / norm)
            first[name] = CONFIG.beta1 * first[name] + (1 - CONFIG.beta1) * gradient
            second[name] = CONFIG.beta2 * second[name] + (1 - CONFIG.beta2) * gradient**2
            mean = first[name] / (1 - CONFIG.beta1 ** (step + 1))
            root = np.sqrt(second[name] / (1 - CONFIG.beta2 ** (step + 1)))
            decay = CONFIG.weight_decay * parameters[name] if name == "matrix" else 0.0
            parameters[name] = parameters[name] - rate * (mean / (root + CONFIG.epsilon) + decay)
    for name, value in parameters.items():
        np.testing.assert_allclose(np.asarray(held[name]), value, rtol=1e-4, atol=1e-5, err_msg=name)
