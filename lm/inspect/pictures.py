"""Plots of a model's arrays for notebooks, with treescope (https://treescope.readthedocs.io): hover over a cell for its
indices and value, click on an entry of a tree to open it. A notebook displays the returned objects; elsewhere,
`_repr_html_()` returns HTML.

Imported only where plots are needed; the server does not need it.
"""

import dataclasses
from fnmatch import fnmatchcase
from typing import Any

import jax
import numpy as np
import treescope
from flax import nnx

from lm.errors import UsageError
from lm.inspect.inspector import Inspector, Layers
from lm.model.param_names import part_name, unstack_names
from lm.parallel import is_parameter, on_host

MOST_CELLS = 10_000
"""Maximum number of cells of a plot; of a larger array, the first and last entries along each axis are shown."""


@dataclasses.dataclass(frozen=True)
class Parameter:
    """Values of a parameter, and the names of its axes."""

    axes: tuple[str, ...]
    values: np.ndarray
    """The parameter, with one axis for each of `axes`."""


@dataclasses.dataclass(frozen=True)
class Tree:
    """Expandable tree for a notebook, as HTML."""

    html: str

    def _repr_html_(self) -> str:
        return self.html


def named_parameters(inspector: Inspector, pattern: str = "*") -> dict[str, Parameter]:
    """Return {name in checkpoints: parameter} for the parameters whose names match a shell pattern, such as
    "blocks.0.*". Stacked layers are split. Raises UsageError if none match."""
    leaves = jax.tree_util.tree_flatten_with_path(inspector.model, is_leaf=is_parameter)[0]
    stacks = {".".join(map(part_name, path)): (leaf, ...) for path, leaf in leaves if isinstance(leaf, nnx.Variable)}
    named = unstack_names(stacks, inspector.config.layers, lambda name, stack, layer: (stack[0], layer))
    if not (found := {name: one for name, one in named.items() if fnmatchcase(name, pattern)}):
        raise UsageError(f"No parameter of the model matches {pattern!r}. Its names: {', '.join(named)}.")
    axes = lambda leaf: tuple(axis or "" for axis in leaf.get_metadata()["axes"] if axis != "layers")
    return {name: Parameter(axes(leaf), on_host(leaf.get_raw_value())[at]) for name, (leaf, at) in found.items()}


def parameters(inspector: Inspector, pattern: str = "*") -> Tree:
    """Plot the parameters whose names match a shell pattern, as an expandable tree. Raises UsageError if none match."""
    tree: dict[str, Any] = {}
    for name, one in named_parameters(inspector, pattern).items():
        *parents, last = name.split(".")
        branch = tree
        for parent in parents:
            branch = branch.setdefault(parent, {})
        branch[last] = one

    def draw(value: Any, path: str | None) -> treescope.IPythonVisualization | None:
        return treescope.IPythonVisualization(drawn(value), replace=True) if isinstance(value, Parameter) else None

    with treescope.active_autovisualizer.set_scoped(draw):
        return Tree(treescope.render_to_html(tree))


def parameter(inspector: Inspector, name: str) -> Any:
    """Plot a parameter, such as "blocks.0.attention.query.weight". Raises UsageError if there is none of this name."""
    (found, *_) = named_parameters(inspector, name).values()
    return drawn(found)


def drawn(one: Parameter) -> Any:
    values = one.values.astype(np.float32)  # also for bfloat16
    labels = {
        axis: f"{name or axis}: {size}" for axis, (name, size) in enumerate(zip(one.axes, values.shape, strict=True))
    }
    return treescope.render_array(values, axis_labels=labels, truncate=True, maximum_size=MOST_CELLS)


def token_labels(inspector: Inspector, layers: Layers) -> list[str]:
    tokens = [inspector.tokenizer.token_bytes(id).decode("utf-8", "backslashreplace") for id in layers.ids_T.tolist()]
    return [f"{position} {token!r}" for position, token in enumerate(tokens)]


def attention(inspector: Inspector, layers: Layers, layer: int) -> Any:
    """Plot the attention weights of a layer, its heads side by side: a row per query position, a column per key
    position. Raises UsageError for an invalid layer."""
    count = len(layers.attention_LHTS)
    if not 0 <= layer < count:
        raise UsageError(f"layer is {layer}; this model has {count}, numbered from 0 to {count - 1}.")
    tokens, weights_HTS = token_labels(inspector, layers), layers.attention_LHTS[layer]
    return treescope.render_array(
        weights_HTS, rows=[1], columns=[2, 0], vmin=0.0, vmax=1.0, around_zero=False,
        axis_labels={0: f"head: {len(weights_HTS)}", 1: "query", 2: "key"},
        axis_item_labels={1: tokens, 2: tokens},
    )  # fmt: skip


def lens(inspector: Inspector, layers: Layers) -> Any:
    """Plot the logit lens's probability of the actual next token: a row for the embedding, and one for each block."""
    stages = ["embedded", *(f"after block {layer}" for layer in range(len(layers.next_probability_ET) - 1))]
    return treescope.render_array(
        layers.next_probability_ET[:, :-1], rows=[0], columns=[1], vmin=0.0, vmax=1.0, around_zero=False,
        axis_labels={0: "stage", 1: "after"},
        axis_item_labels={0: stages, 1: token_labels(inspector, layers)[:-1]},
    )  # fmt: skip
