"""What the compiler makes of the training step on meshes of eight devices: arithmetic, memory, communication.

    python -m tests.bench.meshes [--only "fsdp 8"]

Compiles the step for eight simulated CPU devices, and runs none of it. Prints one JSON line a mesh: `work`, the
arithmetic of a device times the devices, over that of one device alone; `temp_mib` of a device, beside
`ideal_temp_mib`, an eighth of one device's; what a device moves a step by each kind of collective (bytes of results),
and the largest array that one of them moves, with its type.
"""

import argparse
import dataclasses
import json
import math
import os
import re
import sys
from typing import Any

SHAPE = re.compile(r"\b(pred|[subf]+\d+)\[([\d,]*)\]")
COLLECTIVE = re.compile(
    r" = (?P<type>\(.*?\)|\S+) "
    r"(?P<kind>all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute)(?:-start)?\("
)
MESHES: dict[str, dict[str, int]] = {
    "data 8": {},
    "fsdp 8": {"fsdp": 8},
    "tensor 8": {"tensor": 8},
    "context 8": {"context": 8},
    "context 4 x data 2": {"context": 4},
    "fsdp 4 x tensor 2": {"fsdp": 4, "tensor": 2},
    "fsdp 2 x tensor 2 x context 2": {"fsdp": 2, "tensor": 2, "context": 2},
}
MIB = 2**20


def byte_count(types: str) -> int:
    """Bytes of an HLO type, a tuple summed."""
    bytes_of = lambda name: 1 if name == "pred" else int(re.sub(r"\D", "", name)) / 8
    return int(
        sum(bytes_of(name) * math.prod(map(int, filter(None, dims.split(",")))) for name, dims in SHAPE.findall(types))
    )


def collectives(program: str) -> list[tuple[str, int, str]]:
    """(kind, bytes of the result, type) of each collective in a compiled program's text. Loops are counted once."""
    found = COLLECTIVE.finditer(program)
    return [(one["kind"], byte_count(one["type"]), one["type"]) for one in found]


def measure(sizes: dict[str, int], count: int = 8, layers: int = 4) -> dict[str, Any]:
    """What the step takes on `count` devices with a mesh of these sizes."""
    import jax

    from configs.llama3_8b import get_config
    from lm.config import MeshConfig
    from lm.data.batches import Batch
    from lm.parallel import batch_sharding, make_mesh
    from lm.training.optimizer import make_optimizer
    from lm.training.state import abstract_state
    from lm.training.step import compile_step

    experiment = get_config()
    model = dataclasses.replace(
        experiment.model, layers=layers, width=256, heads=8, kv_heads=8, mlp_width=1024, vocabulary_size=4096,
        context_length=512, compute_dtype="float32", parameter_dtype="float32", scan_layers=False,
    )  # fmt: skip
    train = dataclasses.replace(
        experiment.train, batch_size=8, loss_parts=1, micro_batches=1, remat="none", mesh=MeshConfig(**sizes)
    )
    mesh = make_mesh(train.mesh, model, train.batch_size, jax.devices()[:count])
    optimizer = make_optimizer(train.optimizer, train.steps)
    state = abstract_state(model, optimizer, mesh, train.spikes)
    shape = (train.batch_size, model.context_length)
    of: Any = lambda dtype: jax.ShapeDtypeStruct(shape, dtype, sharding=batch_sharding(mesh))
    batch = Batch(of("int32"), of("int32"), of("int32"), of("float32"))
    step: Any = compile_step(optimizer, state, mesh, train)
    compiled = step.lower(state, batch).compile()
    moved = collectives(compiled.as_text())
    total = lambda kind: round(sum(size for name, size, _ in moved if name == kind) / MIB, 1)
    arrays = [one[0] for _, _, types in moved for one in re.finditer(r"\w+\[[\d,]*\]", types)]  # several go together
    largest = max(arrays, key=byte_count, default="")
    return {
        "flops": compiled.cost_analysis()["flops"],
        "temp_mib": round(compiled.memory_analysis().temp_size_in_bytes / MIB, 1),
        "all_gather_mib": total("all-gather"), "all_reduce_mib": total("all-reduce"),
        "reduce_scatter_mib": total("reduce-scatter"), "all_to_all_mib": total("all-to-all"),
        "permute_mib": total("collective-permute"),
        "largest_collective_mib": round(byte_count(largest) / MIB, 2), "largest_collective": largest,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=MESHES, help="one of the meshes (default: all)")
    only = parser.parse_args().only
    if "jax" in sys.modules:
        raise SystemExit("JAX has started already, with its own count of devices")
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
    alone = measure({}, count=1)
    for name in [only] if only else MESHES:
        found = measure(MESHES[name])
        work = found.pop("flops") * 8 / alone["flops"]
        row = {
            "bench": "meshes",
            "mesh": name,
            "work": round(work, 3),
            "ideal_temp_mib": round(alone["temp_mib"] / 8, 1),
        }
        print(json.dumps(row | found), flush=True)


if __name__ == "__main__":
    main()
