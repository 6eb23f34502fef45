"""Arithmetic, memory and communication of compiled steps on meshes of eight devices.

    python -m tests.bench.meshes [--only "fsdp 8"] [--what update]

Compiles the training step, validation, sampling or only Muon's update for eight simulated CPU devices, and runs
nothing. Prints a JSON line per mesh: `work`, FLOP of a device times the number of devices over those of one device;
`temp_mib` of a device and `ideal_temp_mib`, an eighth of one device's; MiB moved by each kind of collective, and the
largest array in one.
"""

import dataclasses
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from configs import llama3_8b
from lm.config import MeshConfig, ModelConfig, MuonConfig, TrainConfig
from lm.planner.hlo import byte_count, collectives
from tests.bench.runner import choose, run_benchmark

MESHES: dict[str, dict[str, Any]] = {
    "data 8": {},
    "fsdp 8": {"fsdp": 8},
    "tensor 8": {"tensor": 8},
    "context 8": {"context": 8},
    "context 4 x data 2": {"context": 4},
    "fsdp 4 x tensor 2": {"fsdp": 4, "tensor": 2},
    "fsdp 2 x tensor 2 x context 2": {"fsdp": 2, "tensor": 2, "context": 2},
}
MIB = 2**20
WHAT = ("training", "validation", "sampling", "update")


def small() -> tuple[ModelConfig, TrainConfig]:
    """A small model with the architecture of Llama 3 that compiles in seconds."""
    experiment = llama3_8b.get_config()
    model = dataclasses.replace(
        experiment.model, layers=4, width=256, heads=8, kv_heads=8, mlp_width=1024, vocab_size=4096,
        context_length=512, compute_dtype="float32", parameter_dtype="float32", scan_layers=False,
    )  # fmt: skip
    train = dataclasses.replace(experiment.train, batch_size=8, loss_chunks=1, micro_batches=1, remat="none")
    return model, train


def training_step(model: ModelConfig, train: TrainConfig, devices: Sequence[Any]) -> tuple[Any, tuple[Any, Any]]:
    """Return the jitted training step on a mesh of the devices, and its arguments as shapes."""
    from lm.parallel import make_mesh
    from lm.training.optimizer import make_optimizer
    from lm.training.state import abstract_state
    from lm.training.step import compile_step

    mesh = make_mesh(train.mesh, model, train.batch_size, list(devices), train.micro_batches)
    optimizer = make_optimizer(train.optimizer, train.steps)
    state = abstract_state(model, optimizer, mesh, train.spikes, train.mesh.zero1)
    return compile_step(optimizer, state, mesh, train), (state, abstract_batch(model, train, mesh))


def abstract_batch(model: ModelConfig, train: TrainConfig, mesh: Any) -> Any:
    import jax

    from lm.data.batches import Batch
    from lm.parallel import batch_sharding

    shape = (train.batch_size, model.context_length)
    of: Any = lambda dtype: jax.ShapeDtypeStruct(shape, dtype, sharding=batch_sharding(mesh))
    return Batch(of("int32"), of("int32"), of("int32"), of("float32"))


def compiled(what: str, model: ModelConfig, train: TrainConfig, devices: Sequence[Any]) -> Any:
    """Compile the training step, validation of one batch, one token for each row of a batch, or Muon's update for a
    mesh."""
    import jax

    from lm.evaluation.held_out import compile_row_losses
    from lm.inference.devices import mesh_for_rows
    from lm.inference.steps import Shape, lower_decode
    from lm.parallel import make_mesh, shardings, traced_on
    from lm.training.optimizer import make_optimizer
    from lm.training.state import abstract_state

    if what == "training":
        step, arguments = training_step(model, train, devices)
        return step.lower(*arguments).compile()
    mesh = make_mesh(train.mesh, model, train.batch_size, list(devices), train.micro_batches)
    if what == "sampling":
        mesh = mesh_for_rows(mesh, train.batch_size)
    muon = MuonConfig(learning_rate=0.02, momentum=0.95, newton_schulz_steps=5) if what == "update" else None
    optimizer = make_optimizer(dataclasses.replace(train.optimizer, muon=muon), train.steps)
    state = abstract_state(model, optimizer, mesh, train.spikes, train.mesh.zero1)
    if what == "update":
        given = state.model, state.optimizer_state, state.model
        laid_out = shardings(given[:2], mesh)
        update: Any = jax.jit(traced_on(mesh, optimizer.update), out_shardings=laid_out)
        return update.lower(*given).compile()
    if what == "validation":
        batch = abstract_batch(model, train, mesh)
        return jax.jit(traced_on(mesh, compile_row_losses())).lower(state.model, batch).compile()
    rows = train.batch_size
    shape = Shape(model, rows, 64, model.vocab_size, 1, 1)
    return lower_decode(state.model, shape, mesh).compile()


def facts(program: Any, devices: int) -> dict[str, Any]:
    """FLOP, memory and communication of one device for a compiled program."""
    moved = [one for one in collectives(program.as_text(), devices) if one.group > 1]
    total = lambda kind: round(sum(one.bytes * one.times for one in moved if one.kind == kind) / MIB, 1)
    largest = max((byte_count(one.type), one.type) for one in moved) if moved else (0, "")
    return {
        "flops": program.cost_analysis()["flops"],
        "temp_mib": round(program.memory_analysis().temp_size_in_bytes / MIB, 1),
        "all_gather_mib": total("all-gather"), "all_reduce_mib": total("all-reduce"),
        "reduce_scatter_mib": total("reduce-scatter"), "all_to_all_mib": total("all-to-all"),
        "permute_mib": total("collective-permute"),
        "largest_collective_mib": round(largest[0] / MIB, 2), "largest_collective": largest[1],
    }  # fmt: skip


def measure(
    sizes: dict[str, Any], count: int = 8, layers: int = 4, what: str = "training", scan_layers: bool = False
) -> dict[str, Any]:
    """`facts` of the small model on `count` simulated devices with a mesh of these sizes."""
    import jax

    model, train = small()
    model = dataclasses.replace(model, layers=layers, scan_layers=scan_layers)
    train = dataclasses.replace(train, mesh=MeshConfig(**sizes))
    return facts(compiled(what, model, train, jax.devices()[:count]), count)


def main(
    only: str | None = None,
    what: Literal["training", "validation", "sampling", "update"] = "training",
) -> Iterator[dict[str, Any]]:
    """Args:
    only: Name of one mesh.
    what: Program to compile.
    """
    if "jax" in sys.modules:
        raise SystemExit("JAX has started already, with its own count of devices")
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
    single = measure({}, count=1, what=what)
    for name in [only] if only else MESHES:
        found = measure(choose(MESHES, name), what=what)
        work = found.pop("flops") * 8 / single["flops"]
        ideal = round(single["temp_mib"] / 8, 1)
        yield {"what": what, "mesh": name, "work": round(work, 3), "ideal_temp_mib": ideal} | found


if __name__ == "__main__":
    run_benchmark(main)
