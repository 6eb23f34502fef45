"""Leaves of parameters, states and other trees."""

import jax
import numpy as np

from lm.model.param_names import named_leaves


def leaf_pairs(one, other):
    """Pair the leaves of two trees, which must have the same number of leaves."""
    return zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)


def named_arrays(tree) -> dict[str, np.ndarray]:
    """Return {name: array} of the leaves, in NumPy."""
    return {name: np.asarray(leaf) for name, leaf in named_leaves(tree).items()}
