"""Fit loss = E + A / N^a + B / D^b (Hoffmann et al., arXiv:2203.15556, equation 2) to measured losses.

Uses approach 3 of that paper (section 3.3): minimize the sum of Huber losses of the residuals of log loss, from a grid
of starting points. As corrected by Besiroglu et al. (arXiv:2404.10102), the search continues until the minimum is
reached. It uses scipy's trust-region least squares, which finds the same minimum as L-BFGS in fewer evaluations. Does
not import JAX.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from lm.errors import UsageError

DELTA = 1e-2
"""Threshold of the Huber loss: larger residuals of log loss count linearly, not quadratically. The published .001, for
hundreds of runs, is below the noise of one run: with a few dozen runs, the fit goes through five of them and ignores
the others (docs/scaling.md)."""
EXPONENTS = (0.02, 3.0)
"""Bounds of a and b; if a fit ends at a bound, the measurements do not determine it."""
GRID = (0.1, 0.3, 0.7, 1.5)
"""Starting values of a and of b."""
SIZES, LEAST = 3, 6
"""A fit needs at least SIZES different numbers of parameters and of tokens, and LEAST measurements."""
INTERVAL = (5.0, 95.0)
"""Percentiles of the bootstrap: 90 % intervals."""


class Measurement(NamedTuple):
    """Loss of a trained model, with its size and training length."""

    parameters: float
    """N: number of parameters."""
    tokens: float
    """D: number of training tokens."""
    loss: float
    """Nats per token, on held-out text."""


@dataclass(frozen=True)
class Law:
    """Scaling law: loss = E + A / N^a + B / D^b, with N parameters and D training tokens."""

    E: float
    """Irreducible loss: the limit for infinite model and data, in nats per token."""
    A: float
    a: float
    B: float
    b: float

    def loss(self, parameters: float, tokens: float) -> float:
        return self.E + self.A * parameters**-self.a + self.B * tokens**-self.b

    def optimum(self, flops: float) -> tuple[float, float]:
        """Return the compute-optimal (N, D): the lowest loss with 6 N D = `flops` (arXiv:2203.15556, equation 4)."""
        both = self.a + self.b
        share = (self.a * self.A / (self.b * self.B)) ** (1 / both)
        return share * (flops / 6) ** (self.b / both), (flops / 6) ** (self.a / both) / share


class Interval(NamedTuple):
    """A value, and the ends `low` and `high` of its 90 % bootstrap interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Fit:
    """Scaling law fitted to measurements, with bootstrap samples."""

    law: Law
    draws: tuple[Law, ...]
    """Laws of the bootstrap samples."""
    noise: tuple[float, ...]
    """Residuals of log loss, scaled to those expected of measurements that were not fitted."""
    at_bounds: tuple[str, ...]
    """Names of the constants that the measurements do not determine: they are at a bound of the search."""

    def interval(self, figure: Callable[[Law], float]) -> Interval:
        """Return the value of a function of the law, such as `lambda law: law.E`, with its 90 % bootstrap interval."""
        low, high = np.percentile([figure(law) for law in self.draws], INTERVAL)
        return Interval(figure(self.law), float(low), float(high))

    def prediction(self, parameters: float, tokens: float) -> Interval:
        """Predict the measured loss of a model; the interval includes the noise of one measurement."""
        noise = np.random.default_rng(0).choice(self.noise, len(self.draws))
        losses = [law.loss(parameters, tokens) for law in self.draws] * np.exp(noise)
        low, high = np.percentile(losses, INTERVAL)
        return Interval(self.law.loss(parameters, tokens), float(low), float(high))


@dataclass(frozen=True)
class Problem:
    """Optimization problem that fits the law: its variables, residuals and bounds.

    The variables are theta = (log E, u, a, v, b), with A / N^a = exp(u - a * (log N - mean of log N)), and likewise B,
    v and b: without subtracting the means, u and a would be almost collinear.
    """

    log_n: np.ndarray
    """(measurements,) float64: log of the parameters N, minus the mean."""
    log_d: np.ndarray
    """(measurements,), minus their means."""
    log_loss: np.ndarray
    """(measurements,): log of the losses in nats."""
    means: tuple[float, float]
    """Means of log N and log D."""

    def bounds(self) -> list[tuple[float, float]]:
        low, high = float(self.log_loss.min()), float(self.log_loss.max())
        return [(low - 7, low), (low - 14, high + 3), EXPONENTS, (low - 14, high + 3), EXPONENTS]

    def log_prediction(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return (log of the law's loss for each measurement, share of each of the law's three terms in that loss)."""
        e, u, a, v, b = theta
        terms = np.stack([np.full_like(self.log_n, e), u - a * self.log_n, v - b * self.log_d])
        log_sum = np.logaddexp.reduce(terms)
        return log_sum, np.exp(terms - log_sum)

    def residuals(self, theta: np.ndarray) -> np.ndarray:
        """Return log of the law's loss minus log of the measured loss: (measurements,)."""
        return self.log_prediction(theta)[0] - self.log_loss

    def jacobian(self, theta: np.ndarray) -> np.ndarray:
        """Return the derivatives of the residuals by the five variables: (measurements, 5)."""
        _, (share_e, share_n, share_d) = self.log_prediction(theta)
        return np.stack([share_e, share_n, -share_n * self.log_n, share_d, -share_d * self.log_d], axis=1)

    def starts(self) -> list[np.ndarray]:
        """Return starting values of theta: for each a and b in GRID, the non-negative E, A, B by least squares."""
        from scipy.optimize import nnls

        found, loss, limits = [], np.exp(self.log_loss), np.array(self.bounds())
        for a in GRID:
            for b in GRID:
                terms = np.stack([np.ones_like(loss), np.exp(-a * self.log_n), np.exp(-b * self.log_d)], axis=1)
                factors, _ = nnls(terms / loss[:, None], np.ones_like(loss))
                e, u, v = np.log(np.maximum(factors, 1e-9))
                found.append(np.clip([e, u, a, v, b], *limits.T))
        return found

    def search(self, starts: Sequence[np.ndarray], delta: float) -> np.ndarray:
        """Minimize the sum of Huber losses (threshold `delta`) from each of `starts`; return the best theta."""
        from scipy.optimize import least_squares

        low, high = np.array(self.bounds()).T
        tight = {"ftol": 1e-10, "xtol": 1e-10, "gtol": 1e-10, "max_nfev": 1_000}
        ends = (
            least_squares(
                self.residuals, np.clip(start, low + 1e-9, high - 1e-9), self.jacobian, bounds=(low, high),
                loss="huber", f_scale=delta, x_scale="jac", **tight,
            )
            for start in starts
        )  # fmt: skip
        return min(ends, key=lambda end: end.cost).x

    def law(self, theta: np.ndarray) -> Law:
        e, u, a, v, b = map(float, theta)
        n, d = self.means
        return Law(float(np.exp(e)), float(np.exp(u + a * n)), a, float(np.exp(v + b * d)), b)

    def at_bounds(self, theta: np.ndarray) -> tuple[str, ...]:
        pairs = zip("EAaBb", theta, self.bounds(), strict=True)
        return tuple(name for name, value, ends in pairs if min(abs(value - end) for end in ends) < 1e-3)


def problem_of(measurements: Sequence[Measurement]) -> Problem:
    """Return the optimization problem for the measurements. Raises UsageError if they are too few or invalid."""
    table = np.array(measurements, dtype=float).reshape(-1, 3)
    if not (np.isfinite(table).all() and (table > 0).all()):
        bad = next(one for one in measurements if not (np.isfinite(one).all() and min(one) > 0))
        raise UsageError(
            f"A measurement has {bad.parameters:g} parameters, {bad.tokens:g} tokens and a loss of {bad.loss:g}; each "
            "must be above 0, and finite. Remove it, or measure it again."
        )
    sizes, lengths = len({*table[:, 0]}), len({*table[:, 1]})
    if len(table) < LEAST or sizes < SIZES or lengths < SIZES:
        raise UsageError(
            f"There are {len(table)} measurements, of {sizes} sizes and {lengths} numbers of tokens. A law of five "
            f"constants needs {LEAST}, of {SIZES} sizes and {SIZES} numbers of tokens. Add rungs (--rungs, --tokens)."
        )
    logs = np.log(table)
    n, d = logs[:, 0].mean(), logs[:, 1].mean()
    return Problem(logs[:, 0] - n, logs[:, 1] - d, logs[:, 2], (float(n), float(d)))


def fit(measurements: Sequence[Measurement], draws: int = 200, seed: int = 0, delta: float = DELTA) -> Fit:
    """Fit the law to the measurements, with `draws` bootstrap samples.

    Residuals are resampled, not measurements (Efron and Tibshirani 1993, section 9.5): a ladder is designed, and a
    sample without one of its sizes would say nothing about the others. Residuals are scaled by sqrt(n / (n - 5)), since
    five constants were fitted to them. The intervals do not cover that the law itself may be wrong.

    Raises UsageError if there are too few measurements, or if a value is not positive and finite.
    """
    problem = problem_of(measurements)
    theta = problem.search(problem.starts(), delta)
    fitted, _ = problem.log_prediction(theta)
    residuals = problem.log_loss - fitted
    count = len(residuals)
    noise = residuals * np.sqrt(count / (count - len(theta)))
    rng, laws = np.random.default_rng(seed), []
    for _ in range(draws):
        drawn = Problem(problem.log_n, problem.log_d, fitted + rng.choice(noise, count), problem.means)
        laws.append(drawn.law(drawn.search([theta], delta)))
    return Fit(problem.law(theta), tuple(laws), tuple(noise.tolist()), problem.at_bounds(theta))
