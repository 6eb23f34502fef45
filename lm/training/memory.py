"""Lower bounds of the memory that training needs. The size of the optimizer state comes from the optimizer's own
`init`.

As in lm/model/cost.py, the bounds serve to reject a config before anything is allocated. Only functions that count
import JAX, so that scripts can import this module before they fork.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from lm.config import LoraConfig, ModelConfig, OptimizerConfig, Stages, TrainConfig
from lm.model.cost import BATCH_BYTES, BYTES, by_layers, check_memory, host_bytes, kept_channels, on_host_alone

if TYPE_CHECKING:
    import jax


class StateBytes(NamedTuple):
    """Bytes of parameters, optimizer state and adapters, summed over all devices."""

    parameters: int
    optimizer: int
    adapters: int


@functools.cache
def state_bytes(model: ModelConfig, config: OptimizerConfig, lora: LoraConfig) -> StateBytes:
    """Return the bytes of parameters, optimizer state and adapters, computed from their shapes, without allocating
    them."""
    import jax

    from lm.model.lora import make_adapters
    from lm.model.transformer import abstract_model
    from lm.training.optimizer import make_optimizer

    def counted(model: ModelConfig) -> tuple[int, int, int]:
        parameters = abstract_model(model)
        adapters = jax.eval_shape(lambda model: make_adapters(model, lora, 0), parameters) if lora.rank else {}
        state = jax.eval_shape(make_optimizer(config, steps=1).init, adapters or parameters)
        total = lambda tree: sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
        return total(parameters), total(state), total(adapters)

    return StateBytes(*by_layers(counted, model))


def training_bytes(model: ModelConfig, config: TrainConfig, stages: Stages | None = None) -> dict[str, int]:
    """Return {purpose: minimum bytes}, summed over all devices, for the steps that need the most memory. `stages` are
    by default those of sequences of model.context_length tokens. Purposes are "parameters", "moments", "gradients"
    (float32 if summed over micro-batches), "batch", and so on."""
    state = state_bytes(model, config.optimizer, config.lora)
    stage = (stages or config.stages(model.context_length)).largest(config.steps)
    count = state.parameters // BYTES[model.parameter_dtype]
    summed = "float32" if stage.micro_batches > 1 else model.parameter_dtype
    kept = kept_channels(model, config.remat_policy) * model.layers * BYTES[model.compute_dtype]
    return {
        "parameters": state.parameters,
        **({"adapters": state.adapters} if config.lora.rank else {}),
        "moments": state.optimizer + 8 * config.spikes.window,
        **({"averaged parameters": state.parameters} if config.ema_decay else {}),
        "gradients": state.adapters if config.lora.rank else count * BYTES[summed],
        "batch": stage.tokens * BATCH_BYTES,
        "kept activations": stage.tokens // stage.micro_batches * kept,
    }


def of_device(needed: Mapping[str, int], config: TrainConfig, devices: int) -> dict[str, int]:
    """Convert the result of `training_bytes` to {purpose: bytes per device}, for `devices` devices in config.mesh."""
    cut = config.mesh.fsdp * config.mesh.context * config.mesh.tensor
    parts = dict.fromkeys(needed, cut) | dict.fromkeys(("batch", "kept activations"), devices)
    parts["moments"] = devices if config.mesh.zero1 else cut
    return {name: value // parts[name] for name, value in needed.items()}


def check_training_memory(
    model: ModelConfig, config: TrainConfig, devices: "Sequence[jax.Device]" = (), processes: int = 1,
    stages: Stages | None = None,
) -> None:  # fmt: skip
    """Raise UsageError if training cannot fit into the memory of `devices`, the devices of this process; the run has
    `processes` processes. If they are CPUs, or there are none here, the limit is this machine's memory."""
    needed = training_bytes(model, config, stages)
    limits = [(device.memory_stats() or {}).get("bytes_limit") for device in devices if device.platform != "cpu"]
    known = [limit for limit in limits if limit is not None]
    if known:
        each = of_device(needed, config, len(limits) * processes)
        check_memory(each, model, min(known), f"each device ({devices[0].device_kind})")
    elif processes == 1 and (on_host_alone() or {device.platform for device in devices} == {"cpu"}):
        check_memory(needed, model, host_bytes(), "this machine")
