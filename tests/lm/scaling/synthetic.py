"""Measurements of a known law, with noise."""

import numpy as np

from lm.scaling.law import Law, Measurement

TRUE = Law(E=1.7, A=400.0, a=0.34, B=410.0, b=0.28)
"""Rounded constants of arXiv:2203.15556, equation 10."""
SIZES = (1e6, 4e6, 1.6e7, 6.4e7)
LENGTHS = (2e7, 1e8, 5e8, 2.5e9)


def measurements(noise: float, seed: int = 0, law: Law = TRUE) -> list[Measurement]:
    """A grid of sizes and lengths; `noise` is the relative standard deviation of a loss."""
    rng = np.random.default_rng(seed)
    return [
        Measurement(size, length, law.loss(size, length) * float(np.exp(noise * rng.normal())))
        for size in SIZES
        for length in LENGTHS
    ]
