"""The leaves of a model, an optimizer's state or both under plain names, which no Python class decides."""

from collections.abc import Mapping
from typing import Any

import jax
from flax import nnx

from lm.parallel import is_parameter


def part_name(key: object) -> str:
    """The plain name of one step of a tree path."""
    for attribute in ("key", "idx", "name"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    return str(key)


def named_leaves(tree: object) -> dict[str, Any]:
    """{"blocks.0.mlp.up.weight": array, ...} in tree order.

    A parameter that holds nothing is left out: an optimizer of some parameters has such in the place of the others.
    """
    leaves = jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_parameter)[0]
    return {
        ".".join(part_name(key) for key in path): leaf.get_raw_value() if isinstance(leaf, nnx.Variable) else leaf
        for path, leaf in leaves
        if jax.tree.leaves(leaf)
    }


def replace_leaves[Tree](tree: Tree, named: Mapping[str, Any]) -> Tree:
    """`tree` with every leaf taken from `named`, under the names that `named_leaves` gives."""
    return jax.tree.unflatten(jax.tree.structure(tree), [named[name] for name in named_leaves(tree)])
