"""Tree of a network's parts, from its config: names, shapes, parameter counts, and the purpose of each.

Axes in formulas: B rows, T and S positions of queries and keys, V vocabulary, D width, F MLP width, H heads, K
key-value heads, C channels of a head, I and J channels of all query heads and of all key heads.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

from lm.config import ModelConfig
from lm.model.transformer import parameters_by_layer


@dataclasses.dataclass(frozen=True)
class Part:
    """Node in the tree of a network's parts: the model, a block, a parameter, and so on."""

    name: str
    """Name among its siblings."""
    path: str
    """Prefix of the names of its parameters, or the name of a parameter (lm.model.param_names)."""
    kind: str
    """model, embedding, blocks, block, attention, mlp, norm, head; for single parameters matrix, vector, table."""
    about: str
    """One-sentence description."""
    formula: str = ""
    shape: tuple[int, ...] = ()
    """Shape of a parameter; for a linear map or a norm, of its weight."""
    axes: tuple[str, ...] = ()
    """Names of the axes of the shape."""
    parameters: int = 0
    """Number of parameters, including its children."""
    details: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Additional values of some kinds: "layer" of a block; "heads", "kv_heads", "head_channels" and "window" (tokens,
    or None) of attention; "tied" of the head."""
    children: tuple["Part", ...] = ()
    """In the order of computation."""

    def as_json(self) -> dict[str, Any]:
        own = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        details = own.pop("details")
        return own | details | {"children": [child.as_json() for child in self.children]}


@functools.cache
def architecture(config: ModelConfig) -> Part:
    """Return the tree of a network's parts, without allocating them. Stacked layers are listed one by one."""
    parameters = parameters_by_layer(config).items()
    shapes = {name: (tuple(one.shape), one.get_metadata()["axes"]) for name, one in parameters}
    about = "A vector for each token of the vocabulary: the network's input."
    parts = [leaf(shapes, "embedding", "embedding", about, "x_BTD = W_VD[token_BT]")]
    if tables := [name for name in shapes if name.startswith("ngrams.")]:
        each = []
        for length, name in enumerate(tables, 2):
            about = (
                f"Vectors for the last {length} tokens together. A hash chooses the row, so that groups may share one."
            )
            each.append(leaf(shapes, name, "table", about, f"x_BTD += W_ND[hash(last {length} tokens)]", str(length)))
        about = "Vectors for groups of the last few tokens, found by a hash of the group."
        parts.append(group("ngrams", "ngrams", "embedding", about, "x_BTD += tables[hash(last tokens)]", each))
    if "positions" in shapes:
        about = "A vector for each position in the text, added to the token's."
        parts.append(leaf(shapes, "positions", "embedding", about, "x_BTD += W_TD"))
    blocks = [block(config, shapes, layer) for layer in range(config.layers)]
    about = "Blocks of the same structure, each with its own weights. All read and write one residual stream."
    parts += [group("blocks", "blocks", "blocks", about, "x_BTD = block(x_BTD), layer by layer", blocks)]
    parts += [norm(config, shapes, "norm", "Normalizes the residual stream before the logits.")]
    parts += [head(config, shapes)]
    parts += others(shapes, parts)
    about = "Reads tokens, and returns for each token of the vocabulary a score of being the next."
    return group("model", "", "model", about, "logits_BTV = head(norm(blocks(embedding(tokens_BT))))", parts)


type Shapes = Mapping[str, tuple[tuple[int, ...], tuple[str, ...]]]


def leaf(shapes: Shapes, path: str, kind: str, about: str, formula: str = "", name: str = "") -> Part:
    """Return the node of the parameter `path`, such as "blocks.3.mlp.up.weight"."""
    shape, axes = shapes[path]
    return Part(name or path.rpartition(".")[2], path, kind, about, formula, shape, axes, math.prod(shape))


def group(name: str, path: str, kind: str, about: str, formula: str, children: list[Part], **details: object) -> Part:
    total = sum(child.parameters for child in children)
    return Part(name, path, kind, about, formula, (), (), total, details, tuple(children))


def others(shapes: Shapes, shown: list[Part], inside: str = "") -> list[Part]:
    """Return nodes for the parameters that are not in `shown`: of the block `inside`, such as "blocks.3.", or outside
    of blocks. So the tree and its sums include parameters without a description here."""
    paths, waiting = set(), [*shown]
    while waiting:
        part = waiting.pop()
        paths.add(part.path)
        waiting += part.children
    every = [name for name in shapes if (name.startswith(inside) if inside else not name.startswith("blocks."))]
    return [leaf(shapes, path, "vector", "A parameter.") for path in every if path not in paths]


def linear(shapes: Shapes, path: str, about: str, formula: str) -> Part:
    """Return the node of a linear map: its weight, and its bias if it has one."""
    name = path.rpartition(".")[2]
    weight = leaf(shapes, f"{path}.weight", "matrix", about, formula)
    if f"{path}.bias" not in shapes:
        return dataclasses.replace(weight, name=name)
    bias = leaf(shapes, f"{path}.bias", "vector", "A bias for each channel.", "+ b")
    both = group(name, path, "matrix", about, f"{formula} + b", [weight, bias])
    return dataclasses.replace(both, shape=weight.shape, axes=weight.axes)


NORM_FORMULAS = {"rmsnorm": "x / rms(x) · scale", "layernorm": "(x − mean(x)) / std(x) · scale"}


def norm(config: ModelConfig, shapes: Shapes, path: str, about: str) -> Part:
    formula = NORM_FORMULAS.get(config.norm, f"{config.norm}(x) · scale")
    each = ("scale", "A factor for each channel.", "· scale"), ("bias", "A bias for each channel.", "+ bias")
    present = [one for one in each if f"{path}.{one[0]}" in shapes]
    children = [leaf(shapes, f"{path}.{name}", "vector", of_each, how) for name, of_each, how in present]
    formula += " + bias" if f"{path}.bias" in shapes else ""
    found = group(path.rpartition(".")[2], path, "norm", about, formula, children)
    return dataclasses.replace(found, shape=children[0].shape, axes=children[0].axes) if children else found


def share(shapes: Shapes, path: str, of: str) -> list[Part]:
    """Return [node of a token shift's parameter], [] without one. `of` names what is shifted: "the MLP's inputs"."""
    if path not in shapes:
        return []
    about = f"How much {of} take from the token before, for each channel."
    return [leaf(shapes, path, "vector", about, "h_BTD += (h_BTD of the token before − h_BTD) · share")]


def attention(config: ModelConfig, shapes: Shapes, layer: int) -> Part:
    path, window = f"blocks.{layer}.attention", config.window(layer)
    done = (["normalized"] if config.qk_norm else []) + ["rotated by its position"] * (config.position == "rope")
    then = f" Then {' and '.join(done)}." if done else ""
    children = []
    for name, plural, about, formula in (
        ("query", "queries", f"The query of each token in each head.{then}", "q_BTHC = h_BTD · W_DI"),
        ("key", "keys", f"The key of each token in each head.{then}", "k_BSKC = h_BSD · W_DJ"),
        ("value", "values", "The value that each token gives to tokens that attend to it.", "v_BSKC = h_BSD · W_DJ"),
    ):
        children += share(shapes, f"{path}.{name}_share", plural)
        children.append(linear(shapes, f"{path}.{name}", about, formula))
    about = "Combines the outputs of the heads into one vector."
    children.append(linear(shapes, f"{path}.out", about, "out_BTD = o_BTI · W_ID"))
    seen = f"the last {window:,} tokens, including itself" if window else "itself and all tokens before it"
    heads = "one head" if config.heads == 1 else f"{config.heads} heads, each with its own query"
    about = f"Each token reads from {seen}, in {heads}."
    return group(
        "attention", path, "attention", about, "o_BTHC = softmax(q_BTHC · k_BSKC / √C) · v_BSKC", children,
        heads=config.heads, kv_heads=config.kv_heads, head_channels=config.head_channels, window=window,
    )  # fmt: skip


ACTIVATION_FORMULAS = {"swiglu": "silu({})", "gelu": "gelu({})", "relu_squared": "relu({})²"}


def mlp(config: ModelConfig, shapes: Shapes, layer: int) -> Part:
    path = f"blocks.{layer}.mlp"
    about = "Detects features in the residual stream, one per column."
    children = [linear(shapes, f"{path}.up", about, "u_BTF = h_BTD · W_DF")]
    about = "Writes the detected features back to the residual stream, one per row."
    children.append(linear(shapes, f"{path}.down", about, "out_BTD = a_BTF · W_FD"))
    activation = ACTIVATION_FORMULAS.get(config.mlp, f"{config.mlp}({{}})")
    inside = activation.format("up(h)")
    if config.gated_mlp:
        inside = f"{activation.format('gate(h)')} · up(h)"
        about = "How strongly each feature passes."
        children.insert(0, linear(shapes, f"{path}.gate", about, "g_BTF = h_BTD · W_DF"))
    about = f"For each token separately: detects {config.mlp_width:,} features, and adds their outputs to the stream."
    return group("mlp", path, "mlp", about, f"down({inside})", children)


def block(config: ModelConfig, shapes: Shapes, layer: int) -> Part:
    path = f"blocks.{layer}"
    children = [
        norm(config, shapes, f"{path}.attention_norm", "Normalizes the residual stream for attention."),
        attention(config, shapes, layer),
        norm(config, shapes, f"{path}.mlp_norm", "Normalizes the residual stream for the MLP."),
        *share(shapes, f"{path}.mlp_share", "the MLP's inputs"),
        mlp(config, shapes, layer),
    ]
    children += others(shapes, children, f"{path}.")
    about = "Attention, then an MLP: each reads the stream, and adds to it."
    formula = "x + attention(norm(x)), then x + mlp(norm(x))"
    return group(str(layer), path, "block", about, formula, children, layer=layer)


def head(config: ModelConfig, shapes: Shapes) -> Part:
    """Return the node of the output projection, which has its own matrix or uses the embedding table."""
    cap = f", then {config.logit_softcap:g} · tanh(· / {config.logit_softcap:g})" if config.logit_softcap else ""
    about = "Compares the stream with a vector for each token: the score of that token to be the next."
    if not config.tie_embeddings:
        weight = leaf(shapes, "head.weight", "matrix", about, f"logits_BTV = x_BTD · W_DV{cap}")
        found = group("head", "head", "head", about, weight.formula, [weight], tied=False)
        return dataclasses.replace(found, shape=weight.shape, axes=weight.axes)
    shape, axes = shapes["embedding"]
    formula = f"logits_BTV = x_BTD · embedding_VD{cap}"
    return Part(
        "head", "embedding", "head", f"{about} It is tied to the embedding.", formula, shape, axes, 0, {"tied": True}
    )
