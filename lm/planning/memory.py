"""What a model needs of memory at least, by arithmetic, beside what is here: a model that cannot fit is refused before
anything is allocated. No jax here.

The figures are lower bounds: what XLA needs besides (activations within blocks, logits, copies) is not counted. Before
the first step lm/training/aot_compile.py says what the compiled step needs.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lm.config import ModelConfig, RematPolicy, TrainConfig
from lm.config.model import block_parameters, least_parameters, table_parameters
from lm.config.remat import Tensor
from lm.errors import UsageError

if TYPE_CHECKING:
    import jax

BYTES = {"float32": 4, "bfloat16": 2}
MOMENTS = {"adamw": 2, "lion": 1, "adafactor": 0}
"""{optimizer: float32 values a parameter that it keeps, at least}."""
BATCH_BYTES = 16
"""A token of a batch: its input, target, weight and document."""
ACCELERATORS = ("/dev/nvidia0", "/dev/kfd", "/dev/accel0", "/dev/vfio/0")
UNIT = 1e9
TRAINING_ROWS = "train.batch_size, or give more train.micro_batches"
SIZES = ("layers", "width", "mlp_width", "vocab_size", "ngram_rows", "context_length")


def block_channels(config: ModelConfig) -> dict[Tensor, int]:
    """{tensor of a block that a remat policy may name: values a token}. Without mlpwo, which is added to the residual
    stream alone: no gradient needs it."""
    heads, kv_heads = config.heads * config.head_channels, config.kv_heads * config.head_channels
    inner: dict[Tensor, int] = (
        {"mlpwi_0": config.mlp_width, "mlpwi_1": config.mlp_width}
        if config.mlp == "swiglu"
        else {"mlpwi": config.mlp_width}
    )
    return {
        "decoder_layer_input": config.width, "query_proj": heads, "key_proj": kv_heads, "value_proj": kv_heads,
        "context": heads, "out_proj": config.width, **inner,
    }  # fmt: skip


def kept_channels(config: ModelConfig, policy: RematPolicy | None) -> int:
    """Values a token that a device keeps of each block for the backward pass, at least."""
    channels = block_channels(config)
    if policy is None:
        return sum(channels.values())
    kept = {"decoder_layer_input", *policy.keep} - {*policy.offload}
    return sum(size for name, size in channels.items() if name in kept)


def training_bytes(model: ModelConfig, config: TrainConfig) -> dict[str, int]:
    """{what for: bytes at least}, of all devices together. Moments are float32 whatever the parameters are; of bfloat16
    parameters there is no other copy (lm/optimizers/rounding.py). Micro-batches sum their gradients in float32."""
    count = least_parameters(model)
    summed = "float32" if config.micro_batches > 1 else model.parameter_dtype
    rule = MOMENTS[config.optimizer.name]
    moments = block_parameters(model) * (1 if config.optimizer.muon else rule) + table_parameters(model) * rule
    tokens = config.batch_size * model.context_length
    kept = kept_channels(model, config.remat_policy) * model.layers * BYTES[model.compute_dtype]
    return {
        "parameters": count * BYTES[model.parameter_dtype],
        "moments": moments * BYTES["float32"] + 8 * config.spikes.window,
        "gradients": count * BYTES[summed],
        "batch": tokens * BATCH_BYTES,
        "kept activations": tokens // config.micro_batches * kept,
    }


def inference_bytes(model: ModelConfig, rows: int, tokens: int) -> dict[str, int]:
    """{what for: bytes at least} of `rows` sequences of `tokens` tokens at once."""
    return {
        "parameters": least_parameters(model) * BYTES[model.parameter_dtype],
        "batch": rows * tokens * BATCH_BYTES,
    }


def host_bytes() -> int | None:
    """Memory that this process may have, or None where the system does not say: the machine's, or its container's."""
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
    """What each of the devices, of one kind, has free, the least of them; None where they do not say. CPU devices share
    the memory of this machine, or of its container."""
    if {device.platform for device in devices} == {"cpu"}:
        free = free_host_bytes()
        return None if free is None else free // len(devices)
    stats = [device.memory_stats() or {} for device in devices]
    known = [one["bytes_limit"] - one["bytes_in_use"] for one in stats if {"bytes_limit", "bytes_in_use"} <= {*one}]
    return max(0, min(known)) if known else None


def free_host_bytes(system: Path = Path("/")) -> int | None:
    """Memory that this process may still take without another's being written to disk: what the kernel reckons for the
    machine, and what its container has left, of which unused pages of files are given up first."""
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
    """{first word: second word} of the file's lines; none where there is no such file."""
    try:
        lines = [line.split() for line in file.read_text(encoding="ascii").splitlines()]
        return {words[0]: int(words[1]) for words in lines if len(words) > 1}
    except (OSError, ValueError):
        return {}


def on_host_alone(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether JAX will compute on the CPU, as far as can be known without starting it."""
    platforms = environment.get("JAX_PLATFORMS", "")
    return platforms == "cpu" if platforms else not any(Path(path).exists() for path in ACCELERATORS)


def check_memory(
    needed: Mapping[str, int], model: ModelConfig, available: int | None, devices: str, rows: str = TRAINING_ROWS
) -> None:
    """Raises UsageError when `needed` is more than `available`, with both, and what would shrink it.

    `devices` names what has so much memory, such as "this machine", and `rows` the option that says how many sequences
    are held at once.
    """
    total = sum(needed.values())
    if available is None or total <= available:
        return
    parts = ", ".join(f"{name} {value / UNIT:,.1f} GB" for name, value in needed.items() if value > total / 1000)
    training = "moments" in needed
    sizes = ", ".join(f"model.{name} = {getattr(model, name)}" for name in SIZES)
    meshes = ", or cut it over more devices (train.mesh.fsdp)" if training else ""
    raise UsageError(
        f"The model cannot fit: {'training' if training else 'it'} needs at least {total / UNIT:,.1f} GB ({parts}), "
        f"but {devices} has {available / UNIT:,.1f} GB. Lower what makes it large ({sizes}: "
        f"{least_parameters(model):,} parameters); or {rows}; or take devices with more memory{meshes}."
    )


def check_training_memory(
    model: ModelConfig, config: TrainConfig, devices: "Sequence[jax.Device]" = (), processes: int = 1
) -> None:
    """Raises UsageError when training cannot fit: into each of the `devices` of this process, one of `processes`, or
    into this machine's memory, where there are none and it has no accelerator."""
    needed = training_bytes(model, config)
    limits = [(device.memory_stats() or {}).get("bytes_limit") for device in devices if device.platform != "cpu"]
    known = [limit for limit in limits if limit is not None]
    if known:
        cut = config.mesh.fsdp * config.mesh.context * config.mesh.tensor
        shares = dict.fromkeys(needed, cut) | dict.fromkeys(("batch", "kept activations"), len(limits) * processes)
        each = {name: value // shares[name] for name, value in needed.items()}
        check_memory(each, model, min(known), f"each device ({devices[0].device_kind})")
    elif processes == 1 and (on_host_alone() or {device.platform for device in devices} == {"cpu"}):
        check_memory(needed, model, host_bytes(), "this machine")


def check_inference_memory(model: ModelConfig, rows: int, tokens: int, option: str) -> None:
    """As `check_training_memory`, of `rows` sequences of `tokens` tokens at once; `option` says how many they are."""
    if on_host_alone():
        check_memory(inference_bytes(model, rows, tokens), model, host_bytes(), "this machine", option)
