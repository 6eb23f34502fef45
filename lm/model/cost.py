"""Cost of a model, from its config: parameters, FLOPs and lower bounds on memory; and the memory of this machine, so
that a model that cannot fit is rejected before anything is allocated. Only counting parameters imports JAX.

The bounds on memory exclude activations within blocks, logits and copies, which XLA also needs. lm/training/memory.py
has the bounds for training; before the first step lm/training/aot_compile.py prints the memory of the compiled step.
"""

import dataclasses
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lm.config import ModelConfig, RematPolicy, Stages
from lm.config.remat import Tensor
from lm.errors import UsageError

if TYPE_CHECKING:
    import jax

BYTES = {"float32": 4, "bfloat16": 2}
BATCH_BYTES = 16
"""Bytes per token of a batch: its input, target, weight and document."""
ACCELERATORS = ("/dev/nvidia0", "/dev/kfd", "/dev/accel0", "/dev/vfio/0")
UNIT = 1e9
TRAINING_ROWS = "train.batch_size, or give more train.micro_batches"
SIZES = ("layers", "width", "mlp_width", "vocab_size", "ngram_rows", "context_length")
LAYERS_TRACED = 256
"""Models with more layers are extrapolated from one and two of their layers; no published model has more."""


def by_layers(count: Callable[[ModelConfig], tuple[int, ...]], config: ModelConfig) -> tuple[int, ...]:
    """Return `count(config)`. With too many layers to trace, extrapolate from the counts for one and two layers."""
    if config.layers <= LAYERS_TRACED:
        return count(config)
    one, two = (count(dataclasses.replace(config, layers=layers)) for layers in (1, 2))
    return tuple(first + (config.layers - 1) * (second - first) for first, second in zip(one, two, strict=True))


@functools.cache
def counted_parameters(config: ModelConfig) -> tuple[int, int]:
    """Return (number of all parameters, number of those in lookup tables), without allocating them."""
    import jax

    from lm.model.transformer import abstract_model
    from lm.parallel import TABLES, is_parameter

    def count(config: ModelConfig) -> tuple[int, int]:
        abstract = abstract_model(config)
        leaves: list[Any] = [node for node in jax.tree.leaves(abstract, is_leaf=is_parameter) if is_parameter(node)]
        tables = [node.size for node in leaves if node.get_metadata()["axes"][0] in TABLES]
        return sum(node.size for node in leaves), sum(tables)

    total, looked_up = by_layers(count, config)
    return total, looked_up


def count_parameters(config: ModelConfig) -> int:
    """Return the number of parameters of the model, without allocating them."""
    return counted_parameters(config)[0]


def block_channels(config: ModelConfig) -> dict[Tensor, int]:
    """Return {name: number of values per token} for the tensors of a block that a remat policy can keep. The MLP's
    output, mlpwo, is not included: it is only added to the residual stream, so no gradient needs it."""
    heads, kv_heads = config.heads * config.head_channels, config.kv_heads * config.head_channels
    inner: dict[Tensor, int] = (
        {"mlpwi_0": config.mlp_width, "mlpwi_1": config.mlp_width} if config.gated_mlp else {"mlpwi": config.mlp_width}
    )
    return {
        "decoder_layer_input": config.width, "query_proj": heads, "key_proj": kv_heads, "value_proj": kv_heads,
        "context": heads, "out_proj": config.width, **inner,
    }  # fmt: skip


def kept_channels(config: ModelConfig, policy: RematPolicy | None) -> int:
    """Return a lower bound on how many values per token a device keeps of each block for the backward pass."""
    channels = block_channels(config)
    if policy is None:
        return sum(channels.values())
    kept = {"decoder_layer_input", *policy.keep} - {*policy.offload}
    return sum(size for name, size in channels.items() if name in kept)


def parameters_in_products(config: ModelConfig) -> int:
    """Count the parameters in matrix products. The other parameters are lookup tables: positions, n-grams, and the
    embedding unless it is also the output projection."""
    total, looked_up = counted_parameters(config)
    return total - looked_up + (config.vocab_size * config.width if config.tie_embeddings else 0)


def flops_per_token(config: ModelConfig) -> int:
    """Return the FLOPs of training on one token of a full context (PaLM, arXiv:2204.02311, appendix B).

    6 per parameter in a matrix product: a multiplication and an addition forward, twice as many backward. Attention is
    12 * layers * context * (heads * head_dim): scores and weighted sum over the whole context (or the layer's window),
    although an implementation may skip masked positions, up to half of them. Recomputation (remat) does not count.
    """
    attention = 12 * keys_seen(config) * config.heads * config.head_channels
    return 6 * parameters_in_products(config) + attention


def keys_seen(config: ModelConfig) -> int:
    """Return how many keys a query may attend to (the context, or the layer's window), summed over layers."""
    context = config.context_length
    windows = config.attention_windows or (0,)  # layers cycle through the windows
    layers_with = lambda place: len(range(place, config.layers, len(windows)))
    return sum(layers_with(place) * min(window or context, context) for place, window in enumerate(windows))


def recomputed_flops_per_token(config: ModelConfig, policy: RematPolicy | None) -> int:
    """Lower bound on the floating-point operations per token that are repeated because the remat policy does not keep
    their results. Attention counts half of its context, as a causal kernel computes it."""
    if policy is None:
        return 0
    heads = config.heads * config.head_channels
    again = block_channels(config).keys() - {"decoder_layer_input", *policy.keep, *policy.offload}
    taken = lambda name: heads if name == "out_proj" else config.width  # input channels of a linear map
    linear = sum(2 * taken(name) * block_channels(config)[name] for name in again - {"context"})
    return config.layers * linear + (2 * keys_seen(config) * heads if "context" in again else 0)


def flops_before(model: ModelConfig, stages: Stages) -> Callable[[int], int]:
    """Return a function: step -> floating-point operations of training in steps 0 to step - 1, over all stages."""
    of_stage = [(stage, flops_per_token(stage.model(model))) for stage in stages]

    def before(step: int) -> int:
        tokens = lambda stage: stages.tokens_before(min(step, stage.end)) - stages.tokens_before(stage.first_step)
        return sum(each * tokens(stage) for stage, each in of_stage if stage.first_step < step)

    return before


def inference_bytes(model: ModelConfig, rows: int, tokens: int) -> dict[str, int]:
    """Return {purpose: minimum bytes} of inference with `rows` sequences of `tokens` tokens at once."""
    return {
        "parameters": count_parameters(model) * BYTES[model.parameter_dtype],
        "batch": rows * tokens * BATCH_BYTES,
    }


def host_bytes() -> int | None:
    """Return the memory limit of this process in bytes, the machine's or its container's; None if the system reports
    none."""
    try:
        machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None
    limits = [machine]
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            limits.append(int(Path(file).read_text(encoding="ascii")))
        except (OSError, ValueError):  # no container, or "max"
            continue
    return min(limits)


def free_bytes(devices: "Sequence[jax.Device]") -> int | None:
    """Least free memory of the devices, which are of one kind; None if they do not report it. CPU devices share the
    memory of the machine, or of its container."""
    if {device.platform for device in devices} == {"cpu"}:
        free = free_host_bytes()
        return None if free is None else free // len(devices)
    stats = [device.memory_stats() or {} for device in devices]
    known = [one["bytes_limit"] - one["bytes_in_use"] for one in stats if {"bytes_limit", "bytes_in_use"} <= {*one}]
    return max(0, min(known)) if known else None


def free_host_bytes(system: Path = Path("/")) -> int | None:
    """Return how many bytes this process can allocate without swapping: the kernel's estimate for the machine, or the
    rest of the container's limit if that is less; None if unknown. Unused file pages count as free."""
    free = numbers_in(system / "proc/meminfo").get("MemAvailable:")
    limits = [] if free is None else [1024 * free]
    group = system / "sys/fs/cgroup"
    try:
        most, used = (int((group / f"memory.{name}").read_text(encoding="ascii")) for name in ("max", "current"))
        limits.append(max(0, most - used + numbers_in(group / "memory.stat").get("inactive_file", 0)))
    except (OSError, ValueError):  # no container, or "max"
        pass
    return min(limits, default=None)


def numbers_in(file: Path) -> dict[str, int]:
    """Return {first word: second word} of the lines in a file such as /proc/meminfo; {} if there is no such file."""
    try:
        lines = [line.split() for line in file.read_text(encoding="ascii").splitlines()]
        return {words[0]: int(words[1]) for words in lines if len(words) > 1}
    except (OSError, ValueError):
        return {}


def on_host_alone(environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether JAX will compute on the CPU, as far as can be determined without starting JAX."""
    platforms = environment.get("JAX_PLATFORMS", "")
    return platforms == "cpu" if platforms else not any(Path(path).exists() for path in ACCELERATORS)


def check_memory(
    needed: Mapping[str, int], model: ModelConfig, available: int | None, devices: str, rows: str = TRAINING_ROWS
) -> None:
    """Raise UsageError if `needed`, bytes by purpose, adds up to more than `available`. The message has both numbers
    and options that reduce the need.

    For the message, `devices` names whose memory it is, such as "this machine", and `rows` the option that sets the
    number of sequences held at once.
    """
    total = sum(needed.values())
    if available is None or total <= available:
        return
    parts = ", ".join(f"{name} {value / UNIT:,.1f} GB" for name, value in needed.items() if value > total / 1000)
    training = "moments" in needed
    sizes = ", ".join(f"model.{name} = {getattr(model, name)}" for name in SIZES)
    meshes = ", or shard the model over more devices (train.mesh.fsdp)" if training else ""
    raise UsageError(
        f"The model cannot fit: {'training' if training else 'it'} needs at least {total / UNIT:,.1f} GB ({parts}), "
        f"but {devices} has {available / UNIT:,.1f} GB. Make the model smaller ({sizes}: {count_parameters(model):,} "
        f"parameters); or lower {rows}; or use devices with more memory{meshes}."
    )


def check_inference_memory(model: ModelConfig, rows: int, tokens: int, option: str) -> None:
    """Raise UsageError if inference with `rows` sequences of `tokens` tokens at once cannot fit into the memory of this
    machine, unless it has an accelerator. `option` is the option that sets `rows`."""
    if on_host_alone():
        check_memory(inference_bytes(model, rows, tokens), model, host_bytes(), "this machine", option)
