"""Choice of the attention implementation (model.attention), and what each one requires of device and shapes. The
implementations are in lm/model/attention/kernels.py. No JAX here, so that impossible configs are rejected before JAX
starts."""

from dataclasses import dataclass

from lm.config import ModelConfig
from lm.devices import Target
from lm.errors import UsageError


@dataclass(frozen=True)
class AttentionSpec:
    """Properties of an attention call that determine which implementations support it."""

    dtype: str
    """Type of queries, keys and values."""
    head_dim: int
    """Channels per head."""
    length: int
    """Sequence length."""
    context_shards: int = 1
    """Devices that a sequence is sharded over."""
    prefix: bool = False
    """Whether the first positions attend to each other in both directions (AttentionMask.prefix_B)."""


def attention_spec_of(model: ModelConfig, context_shards: int) -> AttentionSpec:
    """Return the AttentionSpec of training, with each sequence sharded over `context_shards` devices."""
    return AttentionSpec(model.compute_dtype, model.head_channels, model.context_length, context_shards)


CUDNN_CHANNELS, SPLASH_CHANNELS, SPLASH_LENGTH = 8, 64, 128
"""The kernels need multiples of these numbers of channels per head and of positions; inputs are padded with zeros."""


def packs_documents(target: Target) -> bool:
    """Return whether cuDNN on this GPU supports packed documents (several per row, given by offsets and lengths)."""
    return target.capability >= (9, 0)


def unsupported_by_cudnn(target: Target, spec: AttentionSpec) -> str | None:
    """Return why cuDNN's fused attention cannot run, by the rules of jax.nn.dot_product_attention; None if it can."""
    if target.platform != "cuda":
        return f"it needs the platform cuda; this device's is {target.platform}"
    if target.capability < (8, 0):
        return "it needs compute capability 8.0; this GPU has {}.{}".format(*target.capability)
    if spec.dtype not in ("bfloat16", "float16"):
        return f"it needs bfloat16 or float16; model.compute_dtype = {spec.dtype}"
    widest = 256 if target.capability >= (9, 0) else 128
    if spec.head_dim > widest:
        return (
            f"it supports heads of up to {widest} channels on this GPU; model.head_dim (by default model.width / "
            f"model.heads) = {spec.head_dim}"
        )
    if spec.context_shards > 1:
        return f"it needs whole sequences; they are sharded over train.mesh.context = {spec.context_shards} devices"
    return None


def unsupported_by_splash(target: Target, spec: AttentionSpec) -> str | None:
    """Return why JAX's splash attention cannot run; None if it can."""
    if target.platform != "tpu":
        return f"it needs the platform tpu; this device's is {target.platform}"
    if spec.prefix:
        return "it has no prefix mask, in which the first positions attend to one another in both directions"
    if spec.context_shards > 1 and spec.length % (2 * SPLASH_LENGTH * spec.context_shards):
        return (
            f"it supports {2 * SPLASH_LENGTH}, {4 * SPLASH_LENGTH}, ... positions per device; model.context_length = "
            f"{spec.length} is sharded over train.mesh.context = {spec.context_shards}"
        )
    return None


UNSUPPORTED = {"cudnn": unsupported_by_cudnn, "splash": unsupported_by_splash, "xla": lambda target, spec: None}
FUSED = {"cuda": "cudnn", "tpu": "splash"}
"""Fused kernel of each platform."""


def choose(choice: str, target: Target, spec: AttentionSpec) -> str:
    """Return the implementation to run: for `auto` the first of cudnn, splash, xla that is supported, else `choice`.

    Raises UsageError if `choice` is not supported.
    """
    automatic = next(name for name, reason in UNSUPPORTED.items() if reason(target, spec) is None)
    if choice == "auto":
        return automatic
    unsupported_reason = UNSUPPORTED[choice](target, spec)
    if unsupported_reason is not None:
        raise UsageError(
            f"model.attention = {choice} cannot run here: {unsupported_reason}. Set model.attention = {automatic}, "
            "which auto would choose here."
        )
    return choice


def check_attention(model: ModelConfig, target: Target, context_shards: int) -> None:
    """Raise UsageError if model.attention cannot run on devices of this kind."""
    choose(model.attention, target, attention_spec_of(model, context_shards))


def explain(choice: str, target: Target, spec: AttentionSpec) -> str:
    """Describe the implementation that runs and its overhead, or why `auto` uses no fused kernel on an accelerator.
    Raises UsageError if `choice` is not supported."""
    name = choose(choice, target, spec)
    if choice != "auto" or name != "xla" or target.platform == "cpu":
        costs = "; ".join(costs_of(name, target, spec))
        return f"attention by {name}" + (f" ({costs})" if costs else "")
    fused = FUSED.get(target.platform)
    if fused is None:
        return f"attention by xla (plain operations): there is no fused kernel for {target.platform}"
    return f"attention by xla (plain operations), not by {fused}: {UNSUPPORTED[fused](target, spec)}"


def costs_of(name: str, target: Target, spec: AttentionSpec) -> list[str]:
    """Return one phrase per overhead of a kernel, such as "heads of 80 channels are padded to 128"; [] if none."""
    channels, length = {"cudnn": (CUDNN_CHANNELS, 1), "splash": (SPLASH_CHANNELS, SPLASH_LENGTH)}.get(name, (1, 1))
    found = []
    if missing := -spec.head_dim % channels:
        found.append(f"heads of {spec.head_dim} channels are padded to {spec.head_dim + missing}")
    if missing := -spec.length % length:
        found.append(f"sequences of {spec.length} positions are padded to {spec.length + missing}")
    if name == "cudnn" and not packs_documents(target):
        found.append("documents by a mask of context x context values: packed ones need compute capability 9.0")
    return found
