"""loss = E + A / N^a + B / D^b (Hoffmann et al., arXiv:2203.15556, equation 2), fitted to measured losses.

Fitted as there by approach 3 (section 3.3): the least sum of a Huber loss of the residuals of the logarithm, from a
grid of starts. As corrected by Besiroglu et al. (arXiv:2404.10102), the search goes on until the minimum is reached. It
is scipy's trust-region least squares, which comes to the same minimum as L-BFGS in fewer evaluations. No jax here.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from lm.errors import UsageError

DELTA = 1e-2
"""Of the Huber loss: residuals of the logarithm beyond it count by their size, not by its square. The published .001,
for hundreds of runs, is below the noise of one: it makes a fit of a few dozen go through five of them and forget the
others (docs/scaling.md)."""
EXPONENTS = (0.02, 3.0)
"""Bounds of a and b; a fit that ends at one of them is not determined by its measurements."""
GRID = (0.1, 0.3, 0.7, 1.5)
"""Of a and of b, for the starts."""
SIZES, LEAST = 3, 6
"""Different numbers of parameters, and as many of tokens, and measurements that a fit needs at least."""
INTERVAL = (5.0, 95.0)
"""Percentiles of the bootstrap: intervals of 90 %."""


class Measurement(NamedTuple):
    """The loss of one trained model."""

    parameters: float
    """N."""
    tokens: float
    """D: tokens that it was trained on."""
    loss: float
    """Nats a token, on held-out text."""


@dataclass(frozen=True)
class Law:
    """loss = E + A / N^a + B / D^b."""

    E: float
    """The loss that no model and no amount of text goes below, in nats a token."""
    A: float
    a: float
    B: float
    b: float

    def loss(self, parameters: float, tokens: float) -> float:
        return self.E + self.A * parameters**-self.a + self.B * tokens**-self.b

    def optimum(self, flops: float) -> tuple[float, float]:
        """(N, D) of the lowest loss with 6 N D = `flops` (arXiv:2203.15556, equation 4)."""
        both = self.a + self.b
        share = (self.a * self.A / (self.b * self.B)) ** (1 / both)
        return share * (flops / 6) ** (self.b / both), (flops / 6) ** (self.a / both) / share


class Interval(NamedTuple):
    """A figure and where it lies in 90 % of the bootstrap's draws."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Fit:
    """The law that fits the measurements best, and laws that fit them about as well."""

    law: Law
    draws: tuple[Law, ...]
    """Of the bootstrap."""
    noise: tuple[float, ...]
    """Residuals of the logarithm, scaled to what measurements that were not fitted would have."""
    at_bounds: tuple[str, ...]
    """Names of the constants that the measurements do not determine: each lies at a bound of the search."""

    def interval(self, figure: Callable[[Law], float]) -> Interval:
        """A figure of the law, such as `lambda law: law.E`."""
        low, high = np.percentile([figure(law) for law in self.draws], INTERVAL)
        return Interval(figure(self.law), float(low), float(high))

    def prediction(self, parameters: float, tokens: float, seed: int = 0) -> Interval:
        """The loss that a model would be measured to have: the interval has the noise of one measurement in it."""
        noise = np.random.default_rng(seed).choice(self.noise, len(self.draws))
        losses = [law.loss(parameters, tokens) for law in self.draws] * np.exp(noise)
        low, high = np.percentile(losses, INTERVAL)
        return Interval(self.law.loss(parameters, tokens), float(low), float(high))


@dataclass(frozen=True)
class Problem:
    """The measurements as the search sees them.

    It goes over (log E, u, a, v, b) with A / N^a = exp(u - a * (log N - its mean)), likewise v and b: without the
    means, u and a could hardly be told apart.
    """

    log_n: np.ndarray
    log_d: np.ndarray
    """(measurements,), less their means."""
    log_loss: np.ndarray
    means: tuple[float, float]
    """Of log N and log D."""

    def bounds(self) -> list[tuple[float, float]]:
        low, high = float(self.log_loss.min()), float(self.log_loss.max())
        return [(low - 7, low), (low - 14, high + 3), EXPONENTS, (low - 14, high + 3), EXPONENTS]

    def log_prediction(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(log of the law's loss, share of each of its three terms in it)."""
        e, u, a, v, b = theta
        terms = np.stack([np.full_like(self.log_n, e), u - a * self.log_n, v - b * self.log_d])
        log_sum = np.logaddexp.reduce(terms)
        return log_sum, np.exp(terms - log_sum)

    def residuals(self, theta: np.ndarray) -> np.ndarray:
        """(measurements,): log of the law's loss less log of the measured one."""
        return self.log_prediction(theta)[0] - self.log_loss

    def jacobian(self, theta: np.ndarray) -> np.ndarray:
        """(measurements, 5): of the residuals."""
        _, (share_e, share_n, share_d) = self.log_prediction(theta)
        return np.stack([share_e, share_n, -share_n * self.log_n, share_d, -share_d * self.log_d], axis=1)

    def starts(self) -> list[np.ndarray]:
        """For each a and b of the grid the E, A, B of least squares of relative errors, none below zero."""
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
        """The theta of the lowest sum of Huber losses, of all that are reached from `starts`."""
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
    """Raises UsageError for too few measurements, and for numbers of which there is no logarithm."""
    table = np.array(measurements, dtype=float).reshape(-1, 3)
    if not (np.isfinite(table).all() and (table > 0).all()):
        bad = next(one for one in measurements if not (np.isfinite(one).all() and min(one) > 0))
        raise UsageError(
            f"A measurement has {bad.parameters:g} parameters, {bad.tokens:g} tokens and a loss of {bad.loss:g}; each "
            "must be above 0, and finite. Leave it out, or measure it again."
        )
    sizes, lengths = len({*table[:, 0]}), len({*table[:, 1]})
    if len(table) < LEAST or sizes < SIZES or lengths < SIZES:
        raise UsageError(
            f"There are {len(table)} measurements, of {sizes} sizes and {lengths} numbers of tokens, but a law of five "
            f"constants needs at least {LEAST}, of {SIZES} and {SIZES}. Add rungs (--rungs, --tokens)."
        )
    logs = np.log(table)
    n, d = logs[:, 0].mean(), logs[:, 1].mean()
    return Problem(logs[:, 0] - n, logs[:, 1] - d, logs[:, 2], (float(n), float(d)))


def fit(measurements: Sequence[Measurement], draws: int = 200, seed: int = 0, delta: float = DELTA) -> Fit:
    """The law of the measurements, with `draws` laws of a bootstrap of its residuals.

    Residuals are drawn, and not measurements (Efron and Tibshirani 1993, section 9.5): a ladder is designed, and a draw
    that lacked one of its sizes would say nothing of the others. They are scaled by sqrt(n / (n - 5)), for five
    constants were fitted to them. That the law itself may be wrong is in no interval.

    Raises UsageError as `problem_of`.
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
