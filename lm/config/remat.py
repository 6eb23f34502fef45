"""Rematerialization policies: which tensors of a block are saved in the forward pass for the backward pass. Named as in
MaxText (AI-Hypercomputer/maxtext: configs/base.yml, remat_policy); ordered from the fastest to the one with the least
memory. No JAX here."""

from dataclasses import dataclass
from typing import Literal

Tensor = Literal[
    "decoder_layer_input", "query_proj", "key_proj", "value_proj", "context", "out_proj", "mlpwi_0", "mlpwi_1", "mlpwi",
    "mlpwo",
]  # fmt: skip
"""Tensors of a block that can be saved: its input; the outputs of its linear maps (mlpwi_0 is the gate of a gated MLP,
mlpwi_1 the gated map, mlpwi the input map of a plain MLP, mlpwo the output map); and context, the output of attention
before out_proj."""
RematName = Literal[
    "none", "minimal_with_context", "minimal", "save_dot_with_context_except_mlp", "save_dot_except_mlpwi",
    "save_dot_except_mlp", "save_qkv_proj", "qkv_proj_offloaded", "minimal_offloaded", "save_out_proj", "full",
]  # fmt: skip


@dataclass(frozen=True)
class RematPolicy:
    """Which tensors of a transformer block are saved for the backward pass; all others are recomputed
    (arXiv:1604.06174). The input of a block is kept on the device unless it is offloaded."""

    keep: tuple[Tensor, ...] = ()
    """Tensors kept in device memory."""
    offload: tuple[Tensor, ...] = ()
    """Tensors moved to host memory, and back when the backward pass needs them."""


QKV: tuple[Tensor, ...] = ("query_proj", "key_proj", "value_proj")
MLP_IN: tuple[Tensor, ...] = ("mlpwi_0", "mlpwi_1", "mlpwi")
PRODUCTS: tuple[Tensor, ...] = (*QKV, "out_proj", *MLP_IN, "mlpwo")

REMAT: dict[RematName, RematPolicy | None] = {
    "none": None,
    "minimal_with_context": RematPolicy(keep=(*PRODUCTS, "context")),
    "minimal": RematPolicy(keep=PRODUCTS),
    "save_dot_with_context_except_mlp": RematPolicy(keep=(*QKV, "context", "out_proj")),
    "save_dot_except_mlpwi": RematPolicy(keep=(*QKV, "out_proj", "mlpwo")),
    "save_dot_except_mlp": RematPolicy(keep=(*QKV, "out_proj")),
    "save_qkv_proj": RematPolicy(keep=QKV),
    "qkv_proj_offloaded": RematPolicy(offload=QKV),
    "minimal_offloaded": RematPolicy(offload=PRODUCTS),
    "save_out_proj": RematPolicy(keep=("out_proj",)),
    "full": RematPolicy(),
}
"""{name: policy}; with None, JAX saves everything that the backward pass needs, and recomputes nothing."""


def remat_policy(name: RematName, keep: tuple[Tensor, ...], offload: tuple[Tensor, ...]) -> RematPolicy | None:
    """Return the named policy, with the tensors in `keep` kept and those in `offload` offloaded; None for "none"."""
    policy = REMAT[name]
    if policy is None:
        return None
    named = {*keep, *offload}
    return RematPolicy(
        tuple(one for one in policy.keep if one not in named) + keep,
        tuple(one for one in policy.offload if one not in named) + offload,
    )
