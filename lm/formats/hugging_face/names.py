"""Names and layouts of our parameters in Hugging Face's transformers.

GPT-2 stores linear maps as (in, out), with query, key and value concatenated; Llama and our own code for transformers
store (out, in). All use Llama's rotary pairs, like lm.model.layers.rotate.
"""

import re
from typing import Literal

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
from lm.formats.tensors import Stored, Tensors, linear, norm, of_layers, parameter_shapes

type Family = Literal["gpt2", "llama", "gristmill"]
"""transformers' model_type: two of its own, and ours, whose code is stored next to the weights."""

HEAD = linear("lm_head", "head")
GPT2: Tensors = {
    "transformer.wte.weight": Stored(("embedding",)),
    "transformer.wpe.weight": Stored(("positions",)),
    **norm("transformer.ln_f", "norm", bias=True),
}
GPT2_BLOCK: Tensors = {
    **norm("transformer.h.{}.ln_1", "blocks.{}.attention_norm", bias=True),
    **linear(
        "transformer.h.{}.attn.c_attn", *(f"blocks.{{}}.attention.{part}" for part in ("query", "key", "value")),
        transposed=False, bias=True,
    ),
    **linear("transformer.h.{}.attn.c_proj", "blocks.{}.attention.out", transposed=False, bias=True),
    **norm("transformer.h.{}.ln_2", "blocks.{}.mlp_norm", bias=True),
    **linear("transformer.h.{}.mlp.c_fc", "blocks.{}.mlp.up", transposed=False, bias=True),
    **linear("transformer.h.{}.mlp.c_proj", "blocks.{}.mlp.down", transposed=False, bias=True),
}  # fmt: skip
LLAMA: Tensors = {"model.embed_tokens.weight": Stored(("embedding",)), **norm("model.norm", "norm")}
LLAMA_BLOCK: Tensors = {
    **norm("model.layers.{}.input_layernorm", "blocks.{}.attention_norm"),
    **linear("model.layers.{}.self_attn.q_proj", "blocks.{}.attention.query"),
    **linear("model.layers.{}.self_attn.k_proj", "blocks.{}.attention.key"),
    **linear("model.layers.{}.self_attn.v_proj", "blocks.{}.attention.value"),
    **linear("model.layers.{}.self_attn.o_proj", "blocks.{}.attention.out"),
    **norm("model.layers.{}.post_attention_layernorm", "blocks.{}.mlp_norm"),
    **linear("model.layers.{}.mlp.gate_proj", "blocks.{}.mlp.gate"),
    **linear("model.layers.{}.mlp.up_proj", "blocks.{}.mlp.up"),
    **linear("model.layers.{}.mlp.down_proj", "blocks.{}.mlp.down"),
}
NO_WEIGHT = re.compile(
    r"(transformer\.)?h\.\d+\.attn\.(masked_)?bias|model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq"
)
"""Matches tensors of older checkpoints that are no weights: the causal mask, and the rotary frequencies."""


def family_of(config: ModelConfig) -> Family:
    """Return the model_type whose code in transformers computes this model: "gpt2", "llama", or "gristmill", whose code
    an export includes. Raises UsageError, with the unsupported fields, if none does."""
    families: dict[Family, Expressed] = {"gpt2": gpt2(config), "llama": llama(config)}
    for family, fields in families.items():
        if not unexpressed(config, fields):
            return family
    remedy = (
        "Train with values that it supports, or add the fields to modeling_gristmill.py.txt "
        "(docs/how_to_change_it.md, field of the model)."
    )
    check_expressed(config, OWN_FORWARD, "hugging_face", remedy)
    return "gristmill"


def stored_tensors(config: ModelConfig) -> Tensors:
    """Return {name of a tensor in the folder: which parameters it contains, in which layout}. Raises UsageError if no
    code in transformers computes this model, or a parameter would not be stored."""
    family, shapes = family_of(config), parameter_shapes(config)
    if family == "gristmill":  # torch's Linear stores (out, in), and the names of embedding tables end in ".weight"
        is_table = lambda name: name in ("embedding", "positions") or name.startswith("ngrams.")
        named = {
            f"{name}.weight" if is_table(name) else name: Stored((name,), transposed=name.endswith(".weight"))
            for name in filter(OWN_PARAMETERS.fullmatch, shapes)
        }
    else:
        whole, block = (GPT2, GPT2_BLOCK) if family == "gpt2" else (LLAMA, LLAMA_BLOCK)
        named = whole | of_layers(block, config.layers) | ({} if config.tie_embeddings else HEAD)
    check_all_written((name for stored in named.values() for name in stored.ours), shapes, f"hugging_face ({family})")
    return named
