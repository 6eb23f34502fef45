"""The leaves of a model, an optimizer's state or both under plain names, which no Python class decides."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
from flax import nnx

from lm.parallel import is_parameter

IN_BLOCK = re.compile(r"((?:.*\.)?blocks\.)(?:(\d+)\.)?(.+)")
"""(what comes before, the layer's number if the layers are kept one by one, the name inside the block)."""


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


def are_stacked(names: Mapping[str, object]) -> bool | None:
    """Whether blocks are one stack under these names (ModelConfig.scan_layers); None where no name is of a block."""
    for name in names:
        if found := IN_BLOCK.fullmatch(name):
            return found[2] is None
    return None


def stack_names[Value](named: Mapping[str, Value], join: Callable[[str, list[Value]], Value]) -> dict[str, Value]:
    """`named` with blocks as one stack: `join` makes of (the new name, the layers' values) the value."""
    other: dict[str, Value] = {}
    groups: dict[str, dict[int, Value]] = {}
    for name, value in named.items():
        found = IN_BLOCK.fullmatch(name)
        if found is None or found[2] is None:
            other[name] = value
        else:
            groups.setdefault(found[1] + found[3], {})[int(found[2])] = value
    return other | {name: join(name, [value for _, value in sorted(group.items())]) for name, group in groups.items()}


def unstack_names[Value](
    named: Mapping[str, Value], layers: int, take: Callable[[str, Value, int], Value]
) -> dict[str, Value]:
    """`named` with blocks one by one: `take` makes of (the new name, the stack's value, the layer) the value."""
    one_by_one: dict[str, Value] = {}
    for name, value in named.items():
        found = IN_BLOCK.fullmatch(name)
        if found is None or found[2] is not None:
            one_by_one[name] = value
            continue
        for layer in range(layers):
            numbered = f"{found[1]}{layer}.{found[3]}"
            one_by_one[numbered] = take(numbered, value, layer)
    return one_by_one
