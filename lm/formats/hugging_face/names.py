"""Names and layouts of our parameters in Hugging Face's transformers. Our names are those of lm.model.param_names, such
as "blocks.0.attention.query.weight".

Our linear maps compute x @ weight, so weights are (in, out). GPT-2 stores them in this layout too, with query, key and
value concatenated; Llama and our own code for transformers store (out, in). All use Llama's rotary pairs, like
lm.model.layers.rotate.
"""

import dataclasses
import functools
import re
from collections.abc import Mapping
from typing import Literal, NamedTuple

import jax

from lm.config import ModelConfig
from lm.formats.coverage import (
    OWN_FORWARD,
    OWN_PARAMETERS,
    Expressed,
    check_all_written,
    check_expressed,
    gpt2,
    llama,
    unexpressed,
)
from lm.model.param_names import named_leaves
from lm.model.transformer import Transformer

type Family = Literal["gpt2", "llama", "gristmill"]
"""transformers' model_type: two of its own, and ours, whose code is stored next to the weights."""


class Stored(NamedTuple):
    """One tensor of a checkpoint and the parameters that it contains."""

    ours: tuple[str, ...]
    """Parameters concatenated in it, on the last axis."""
    transposed: bool = False
    """Stored as (out, in)."""


def with_bias(theirs: str, *ours: str) -> dict[str, Stored]:
    """Weight and bias of a linear map that is stored as (in, out)."""
    return {f"{theirs}.{part}": Stored(tuple(f"{name}.{part}" for name in ours)) for part in ("weight", "bias")}


def norm_with_bias(theirs: str, ours: str) -> dict[str, Stored]:
    return {f"{theirs}.weight": Stored((f"{ours}.scale",)), f"{theirs}.bias": Stored((f"{ours}.bias",))}


HEAD = {"lm_head.weight": Stored(("head.weight",), transposed=True)}
GPT2 = {
    "transformer.wte.weight": Stored(("embedding",)),
    "transformer.wpe.weight": Stored(("positions",)),
    **norm_with_bias("transformer.ln_f", "norm"),
}
GPT2_BLOCK = {
    **norm_with_bias("transformer.h.{}.ln_1", "blocks.{}.attention_norm"),
    **with_bias(
        "transformer.h.{}.attn.c_attn", *(f"blocks.{{}}.attention.{part}" for part in ("query", "key", "value"))
    ),
    **with_bias("transformer.h.{}.attn.c_proj", "blocks.{}.attention.out"),
    **norm_with_bias("transformer.h.{}.ln_2", "blocks.{}.mlp_norm"),
    **with_bias("transformer.h.{}.mlp.c_fc", "blocks.{}.mlp.up"),
    **with_bias("transformer.h.{}.mlp.c_proj", "blocks.{}.mlp.down"),
}
LLAMA = {"model.embed_tokens.weight": Stored(("embedding",)), "model.norm.weight": Stored(("norm.scale",))}
LLAMA_BLOCK = {
    "model.layers.{}.input_layernorm.weight": Stored(("blocks.{}.attention_norm.scale",)),
    "model.layers.{}.self_attn.q_proj.weight": Stored(("blocks.{}.attention.query.weight",), transposed=True),
    "model.layers.{}.self_attn.k_proj.weight": Stored(("blocks.{}.attention.key.weight",), transposed=True),
    "model.layers.{}.self_attn.v_proj.weight": Stored(("blocks.{}.attention.value.weight",), transposed=True),
    "model.layers.{}.self_attn.o_proj.weight": Stored(("blocks.{}.attention.out.weight",), transposed=True),
    "model.layers.{}.post_attention_layernorm.weight": Stored(("blocks.{}.mlp_norm.scale",)),
    "model.layers.{}.mlp.gate_proj.weight": Stored(("blocks.{}.mlp.gate.weight",), transposed=True),
    "model.layers.{}.mlp.up_proj.weight": Stored(("blocks.{}.mlp.up.weight",), transposed=True),
    "model.layers.{}.mlp.down_proj.weight": Stored(("blocks.{}.mlp.down.weight",), transposed=True),
}
NO_WEIGHT = re.compile(
    r"(transformer\.)?h\.\d+\.attn\.(masked_)?bias|model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq"
)
"""Tensors of older checkpoints that are not weights: the causal mask and the rotary frequencies, which follow from the
config."""


def family_of(config: ModelConfig) -> Family:
    """Return the first family whose code in transformers computes this model.

    Raises UsageError, with the fields, if there is none.
    """
    families: dict[Family, Expressed] = {"gpt2": gpt2(config), "llama": llama(config), "gristmill": OWN_FORWARD}
    for family, fields in families.items():
        if not unexpressed(config, fields):
            return family
    remedy = (
        "Train with values that it has, or add the fields to modeling_gristmill.py.txt (docs/contracts.md, a field of "
        "the model)."
    )
    check_expressed(config, OWN_FORWARD, "hugging_face", remedy)
    raise AssertionError("check_expressed has raised")


def stored_tensors(config: ModelConfig) -> dict[str, Stored]:
    """Return {name in the checkpoint: the parameters that it contains} for a model of any family.

    Raises UsageError like `family_of`, and for a parameter that would not be stored.
    """
    family, shapes = family_of(config), parameter_shapes(config)
    if family == "gristmill":
        named = own_tensors({name: shape for name, shape in shapes.items() if OWN_PARAMETERS.fullmatch(name)})
    else:
        whole, block = (GPT2, GPT2_BLOCK) if family == "gpt2" else (LLAMA, LLAMA_BLOCK)
        named = dict(whole)
        for layer in range(config.layers):
            for theirs, (ours, transposed) in block.items():
                named[theirs.format(layer)] = Stored(tuple(name.format(layer) for name in ours), transposed)
        named |= {} if config.tie_embeddings else HEAD
    check_all_written((name for stored in named.values() for name in stored.ours), shapes, f"hugging_face ({family})")
    return named


def own_tensors(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Stored]:
    """Tensors of our own code for transformers: our names, with torch's ".weight" for tables, and linear maps in the
    layout of torch's Linear."""
    tables = ("embedding", "positions")
    named = lambda name: f"{name}.weight" if name in tables or name.startswith("ngrams.") else name
    return {named(name): Stored((name,), transposed=name.endswith(".weight")) for name in shapes}


@functools.cache
def parameter_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Return {name: shape} of our parameters, with unrolled layers, without allocating them. All layers have equal
    shapes, so only one is traced."""
    one_layer = dataclasses.replace(config, scan_layers=False, layers=1)
    leaves = named_leaves(jax.eval_shape(lambda: Transformer(one_layer, jax.random.key(0))))
    shapes: dict[str, tuple[int, ...]] = {}
    for name, leaf in leaves.items():
        for layer in range(config.layers) if name.startswith("blocks.0.") else (0,):
            shapes[name.replace("blocks.0.", f"blocks.{layer}.", 1)] = tuple(leaf.shape)
    return shapes


def stored_shape(stored: Stored, shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
    """Shape of a checkpoint's tensor that contains parameters of these shapes."""
    first = shapes[stored.ours[0]]
    joined = (*first[:-1], sum(shapes[name][-1] for name in stored.ours))
    return joined[::-1] if stored.transposed else joined
