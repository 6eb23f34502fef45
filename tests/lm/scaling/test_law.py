"""The fit recovers the true constants, with calibrated intervals, and its optimum is a minimum."""

import math
from dataclasses import asdict, fields

import numpy as np
import pytest
from scipy.optimize import minimize

from lm.errors import UsageError
from lm.scaling.law import DELTA, Fit, Interval, Law, Measurement, fit
from tests.lm.scaling.synthetic import LENGTHS, SIZES, TRUE, measurements

CONSTANTS = [field.name for field in fields(Law)]


def test_without_noise_the_fit_recovers_the_constants():
    found = fit(measurements(noise=0.0), draws=2)
    assert asdict(found.law) == pytest.approx(asdict(TRUE), rel=1e-3)
    assert found.at_bounds == ()


LADDERS = 16


@pytest.fixture(scope="module")
def noisy() -> list[Fit]:
    return [fit(measurements(noise=0.004, seed=seed), draws=30, seed=seed) for seed in range(LADDERS)]


def held(truth: float, found: list[Interval], share: float = 1.0) -> int:
    """The number of intervals that contain the truth, after scaling their width by `share`."""
    middle = [(one.low + one.high) / 2 for one in found]
    return sum(abs(truth - at) <= share * (one.high - one.low) / 2 for one, at in zip(found, middle, strict=True))


FIGURES = [*(lambda law, name=name: getattr(law, name) for name in CONSTANTS), lambda law: law.optimum(1e22)[0]]


@pytest.mark.slow
def test_intervals_contain_the_truth_and_are_not_far_wider_than_necessary(noisy):
    """Most of the 90% intervals contain the truth, and few do at a tenth of their width."""
    counts = [held(figure(TRUE), [one.interval(figure) for one in noisy]) for figure in FIGURES]
    assert min(counts) >= 0.6 * LADDERS and sum(counts) >= 0.7 * LADDERS * len(FIGURES)
    narrow = [held(figure(TRUE), [one.interval(figure) for one in noisy], 0.1) for figure in FIGURES]
    assert sum(narrow) <= 0.35 * LADDERS * len(FIGURES)


@pytest.mark.slow
def test_a_model_four_times_larger_on_four_times_the_tokens_is_predicted(noisy):
    size, length = 4 * max(SIZES), 4 * max(LENGTHS)
    found = [one.prediction(size, length) for one in noisy]
    assert all(abs(one.value / TRUE.loss(size, length) - 1) < 0.02 for one in found)
    assert held(TRUE.loss(size, length), found) >= 0.6 * LADDERS


def test_intervals_grow_with_the_noise():
    width = lambda found: found.interval(lambda law: law.loss(1e9, 1e11))
    calm, loud = (width(fit(measurements(noise), draws=30)) for noise in (0.001, 0.01))
    assert loud.high - loud.low > 4 * (calm.high - calm.low)


def test_the_minimum_equals_that_of_another_optimizer_on_the_published_objective():
    """arXiv:2203.15556, equation 3, implemented again and minimized by BFGS with numerical gradients."""
    for seed in range(2):
        points = measurements(noise=0.004, seed=seed)
        n, d, loss = np.log(np.array(points)).T

        def objective(theta, n=n, d=d, loss=loss):
            a, b, e, alpha, beta = theta
            terms = np.stack([a - alpha * n, b - beta * d, np.full_like(n, e)])
            size = np.abs(np.log(np.exp(terms).sum(axis=0)) - loss)
            return 1e6 * np.sum(np.where(size <= DELTA, size**2 / 2, DELTA * (size - DELTA / 2)))

        ours = fit(points, draws=1).law
        mine = [math.log(ours.A), math.log(ours.B), math.log(ours.E), ours.a, ours.b]
        starts = [(6.0, 6.0, 0.5, 0.35, 0.3), (5.0, 7.0, 0.3, 0.3, 0.3), mine]
        ends = [
            minimize(
                objective, minimize(objective, one, method="Nelder-Mead", options={"maxiter": 4000}).x, method="BFGS"
            )
            for one in starts
        ]
        assert objective(mine) <= min(end.fun for end in ends) * (1 + 1e-3)


def test_the_optimum_spends_the_budget_and_has_the_lowest_loss():
    for law in (TRUE, Law(2.0, 30.0, 0.2, 5000.0, 0.5)):
        for flops in (1e15, 1e21):
            parameters, tokens = law.optimum(flops)
            assert 6 * parameters * tokens == pytest.approx(flops, rel=1e-9)
            sizes = np.geomspace(parameters / 100, parameters * 100, 20_001)
            losses = law.E + law.A * sizes**-law.a + law.B * (flops / 6 / sizes) ** -law.b
            assert sizes[losses.argmin()] == pytest.approx(parameters, rel=1e-3)
            assert law.loss(parameters, tokens) == pytest.approx(losses.min(), rel=1e-9)


def test_a_loss_independent_of_parameters_leaves_their_constants_undetermined():
    flat = [Measurement(one.parameters, one.tokens, 2 + 400 * one.tokens**-0.3) for one in measurements(0.0)]
    found = fit(flat, draws=2)
    assert {"A", "a"} & {*found.at_bounds}
    assert found.law.loss(1e9, 1e10) == pytest.approx(2 + 400 * 1e10**-0.3, rel=1e-3)


@pytest.mark.parametrize(
    ("points", "said"),
    [
        (measurements(0.0)[:5], "There are 5 measurements, of 2 sizes and 4 numbers of tokens"),
        ([one for one in measurements(0.0) if one.parameters < 5e6], "of 2 sizes and 4 numbers of tokens"),
        ([one for one in measurements(0.0) if one.tokens < 2e8], "of 4 sizes and 2 numbers of tokens"),
        ([*measurements(0.0), Measurement(1e6, 1e6, math.nan)], "1e+06 tokens and a loss of nan"),
        ([*measurements(0.0), Measurement(1e6, 0.0, 3.0)], "0 tokens and a loss of 3"),
    ],
    ids=["five", "two sizes", "two lengths", "nan", "zero"],
)
def test_insufficient_or_invalid_measurements_are_rejected(points, said):
    with pytest.raises(UsageError, match=said.replace("+", r"\+")):
        fit(points, draws=1)
