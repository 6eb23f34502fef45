"""What of a block is kept from the forward pass for the backward pass: a table of policies by the names that MaxText
has for them (AI-Hypercomputer/maxtext: configs/base.yml, remat_policy), the fastest first, the smallest last. No jax
here.
"""

from dataclasses import dataclass
from typing import Literal

Tensor = Literal[
    "decoder_layer_input", "query_proj", "key_proj", "value_proj", "context", "out_proj", "mlpwi_0", "mlpwi_1", "mlpwi",
    "mlpwo",
]  # fmt: skip
"""What a block computes that may be kept: what goes into it; the results of its linear maps (mlpwi_0 is the gate of a
gated MLP and mlpwi_1 what it gates; mlpwi the inward map of a plain one; mlpwo the outward map); and context, the
result of attention before out_proj."""
RematName = Literal[
    "none", "minimal_with_context", "minimal", "save_dot_with_context_except_mlp", "save_dot_except_mlpwi",
    "save_dot_except_mlp", "save_qkv_proj", "qkv_proj_offloaded", "minimal_offloaded", "save_out_proj", "full",
]  # fmt: skip


@dataclass(frozen=True)
class RematPolicy:
    """Names of a block's tensors; what is in neither list is computed again (arXiv:1604.06174). What goes into a block
    is kept on the device, unless it is among those that are offloaded."""

    keep: tuple[Tensor, ...] = ()
    """Kept in the device's memory."""
    offload: tuple[Tensor, ...] = ()
    """Sent to the host's memory, and fetched when the backward pass needs them."""


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
"""{name: policy}; None keeps all that the backward pass needs, and computes nothing again."""


def remat_policy(name: RematName, keep: tuple[Tensor, ...], offload: tuple[Tensor, ...]) -> RematPolicy | None:
    """The policy of that name, where the tensors in `keep` and `offload` go there instead."""
    policy = REMAT[name]
    if policy is None:
        return None
    named = {*keep, *offload}
    return RematPolicy(
        tuple(one for one in policy.keep if one not in named) + keep,
        tuple(one for one in policy.offload if one not in named) + offload,
    )
