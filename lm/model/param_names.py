"""Plain names for the leaves of a model or an optimizer state, independent of Python classes."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
from flax import nnx

from lm.parallel import is_parameter

IN_BLOCK = re.compile(r"((?:.*\.)?blocks\.)(?:(\d+)\.)?(.+)")
"""(prefix, layer number if layers are stored one by one, name within the block)."""


def part_name(key: object) -> str:
    """Return the plain name of one key in a tree path, such as "blocks", "0" or "weight"."""
    for attribute in ("key", "idx", "name"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    return str(key)


def named_leaves(tree: object) -> dict[str, Any]:
    """Return {"blocks.0.mlp.up.weight": array, ...} in tree order.

    Nodes without arrays are omitted. An optimizer of only some parameters has such nodes in place of the others.
    """
    leaves = jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_parameter)[0]
    return {
        ".".join(part_name(key) for key in path): leaf.get_raw_value() if isinstance(leaf, nnx.Variable) else leaf
        for path, leaf in leaves
        if jax.tree.leaves(leaf)
    }


def replace_leaves[Tree](tree: Tree, named: Mapping[str, Any]) -> Tree:
    """Return `tree` with each leaf replaced by the value in `named` of the same name (see `named_leaves`)."""
    return jax.tree.unflatten(jax.tree.structure(tree), [named[name] for name in named_leaves(tree)])


def are_stacked(names: Mapping[str, object]) -> bool | None:
    """Return whether the blocks of these parameter names are stacked (ModelConfig.scan_layers); None if there are no
    blocks."""
    for name in names:
        if found := IN_BLOCK.fullmatch(name):
            return found[2] is None
    return None


def stack_names[Value](named: Mapping[str, Value], join: Callable[[str, list[Value]], Value]) -> dict[str, Value]:
    """Return `named` with blocks stacked; join(new name, values of the layers) returns the stacked value."""
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
    """Return `named` with blocks one by one; take(new name, value of the stack, layer) returns the value of a layer."""
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
