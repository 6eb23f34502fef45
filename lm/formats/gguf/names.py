"""Names and layouts of our parameters in GGUF. Our names are those of lm.model.param_names, such as
"blocks.0.attention.query.weight".

Linear maps are stored as (out, in), and GPT-2's query, key and value as one tensor. Llama's queries and keys are stored
in another order: llama.cpp rotates pairs of neighboring channels (2c, 2c + 1), not (c, c + C/2) like
lm.model.layers.rotate (ggml-org/llama.cpp: convert_hf_to_gguf.py, LlamaModel.permute).
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np

from lm.config import ModelConfig
from lm.formats.coverage import Expressed, check_all_written, check_expressed, gpt2, llama, unexpressed
from lm.formats.hugging_face.names import parameter_shapes

type Arch = Literal["gpt2", "llama"]
"""general.architecture."""


class Stored(NamedTuple):
    """One tensor of a file and the parameters that it contains."""

    ours: tuple[str, ...]
    """Parameters concatenated in it."""
    linear: bool = False
    """Weight of a linear map, stored as (out, in)."""
    turned_heads: int = 0
    """Number of heads whose channels are in neighboring pairs; 0: channels are in our order."""
    exact: bool = False
    """Always kept in float32: llama.cpp adds and multiplies these tensors in float32."""


def with_bias(theirs: str, *ours: str) -> dict[str, Stored]:
    """Weight and bias of a linear map."""
    return {
        f"{theirs}.weight": Stored(tuple(f"{name}.weight" for name in ours), linear=True),
        f"{theirs}.bias": Stored(tuple(f"{name}.bias" for name in ours), exact=True),
    }


def norm(theirs: str, ours: str, bias: bool) -> dict[str, Stored]:
    found = {f"{theirs}.weight": Stored((f"{ours}.scale",), exact=True)}
    return found | ({f"{theirs}.bias": Stored((f"{ours}.bias",), exact=True)} if bias else {})


EXPRESSED: dict[Arch, Callable[[ModelConfig], Expressed]] = {"gpt2": gpt2, "llama": llama}
"""{architecture: fields of a config that its code in llama.cpp implements}."""


def arch_of(config: ModelConfig) -> Arch:
    """Return the architecture whose code in llama.cpp computes this model.

    Raises UsageError if there is none, with the fields that the best match lacks, their values and the supported ones.
    """
    arch: Arch = min(EXPRESSED, key=lambda arch: len(unexpressed(config, EXPRESSED[arch](config))))
    remedy = "Choose --format hugging_face or standalone, which express more."
    check_expressed(config, EXPRESSED[arch](config), f"gguf ({arch} of llama.cpp)", remedy)
    return arch


def stored_tensors(config: ModelConfig) -> dict[str, Stored]:
    """Return {name in the file: the parameters that it contains}. Raises UsageError like `arch_of`, and for a parameter
    that would not be stored."""
    arch, named = arch_of(config), {"token_embd.weight": Stored(("embedding",))}
    if arch == "gpt2":
        named["position_embd.weight"] = Stored(("positions",), exact=True)
    named |= norm("output_norm", "norm", bias=arch == "gpt2")
    for layer in range(config.layers):
        theirs, ours = f"blk.{layer}", f"blocks.{layer}"
        attention = lambda *parts, ours=ours: tuple(f"{ours}.attention.{part}" for part in parts)
        named |= norm(f"{theirs}.attn_norm", f"{ours}.attention_norm", bias=arch == "gpt2")
        named |= norm(f"{theirs}.ffn_norm", f"{ours}.mlp_norm", bias=arch == "gpt2")
        if arch == "gpt2":
            named |= with_bias(f"{theirs}.attn_qkv", *attention("query", "key", "value"))
            named |= with_bias(f"{theirs}.attn_output", *attention("out"))
            named |= with_bias(f"{theirs}.ffn_up", f"{ours}.mlp.up") | with_bias(
                f"{theirs}.ffn_down", f"{ours}.mlp.down"
            )
            continue
        turned = {
            "attn_q": ("query", config.heads), "attn_k": ("key", config.kv_heads), "attn_v": ("value", 0),
            "attn_output": ("out", 0),
        }  # fmt: skip
        for name, (part, heads) in turned.items():
            named[f"{theirs}.{name}.weight"] = Stored((f"{ours}.attention.{part}.weight",), True, heads)
        for part in ("gate", "up", "down"):
            named[f"{theirs}.ffn_{part}.weight"] = Stored((f"{ours}.mlp.{part}.weight",), True)
    named |= {} if config.tie_embeddings else {"output.weight": Stored(("head.weight",), True)}
    ours = (name for stored in named.values() for name in stored.ours)
    check_all_written(ours, parameter_shapes(config), f"gguf ({arch} of llama.cpp)")
    return named


def stored_shape(stored: Stored, shapes: dict[str, tuple[int, ...]]) -> tuple[int, ...]:
    """Shape of a file's tensor that contains parameters of these shapes."""
    first = shapes[stored.ours[0]]
    joined = (*first[:-1], sum(shapes[name][-1] for name in stored.ours))
    return joined[::-1] if stored.linear else joined


def paired(weight_OI: np.ndarray, heads: int) -> np.ndarray:
    """Reorder the rows of every head from pairs (c, c + C/2) to pairs (2c, 2c + 1)."""
    rows, width = weight_OI.shape
    return weight_OI.reshape(heads, 2, rows // heads // 2, width).swapaxes(1, 2).reshape(rows, width)


def unpaired(weight_OI: np.ndarray, heads: int) -> np.ndarray:
    """Inverse of `paired`."""
    rows, width = weight_OI.shape
    return weight_OI.reshape(heads, rows // heads // 2, 2, width).swapaxes(1, 2).reshape(rows, width)
