"""Whether launch.plan's verdict is the compiler's where a step just fits, and where it just does not.

    python -m tests.bench.edges        # after: make libtpu; half an hour

Twelve steps for TPUs that are not there: of two models on three kinds of chip, a batch that the compiler takes and one
that it does not, at most a quarter larger. Prints one JSON line each: `fits`, as the plan says, `compiled`,
whether the compiler made a program, and `peak_share`, what it holds over what the device has. The two must agree.
"""

import dataclasses
import json
import sys
from collections.abc import Iterator

from configs import gpt2_124m, llama3_1b
from lm.config import MeshConfig
from lm.planner.compile import Compiled, Compiler
from lm.planner.plan import Plan, make_plan
from lm.planner.topology import Topology, topology_of

CASES = [
    (name, topology, remat)
    for name, topology, remat in (
        ("gpt2", "v5e:1x1", "none"), ("gpt2", "v6e:1x1", "full"), ("gpt2", "v5p:2x2x1", "minimal"),
        ("llama", "v5e:1x1", "full"), ("llama", "v6e:1x1", "minimal"), ("llama", "v5p:2x2x1", "none"),
    )
]  # fmt: skip
LEAST = 4
"""Sequences a device from which the search begins."""


def planned(name: str, compiler: Compiler, remat: str, rows: int) -> Plan:
    """Two layers of the model, so many sequences a device."""
    experiment = {"gpt2": gpt2_124m, "llama": llama3_1b}[name].get_config()
    context = min(2048, experiment.model.context_length)
    model = dataclasses.replace(experiment.model, layers=2, scan_layers=False, context_length=context)
    train = dataclasses.replace(
        experiment.train, batch_size=rows * compiler.topology.devices, mesh=MeshConfig(), micro_batches=1, remat=remat,
        loss_chunks=8, layout="",
    )  # fmt: skip
    return make_plan(model, train, compiler.topology, compiler)


def at_the_edge(name: str, topology: Topology, remat: str) -> Iterator[tuple[int, Plan]]:
    """(sequences a device, plan) of the last that the compiler takes and the first that it does not."""
    compiler = Compiler(topology)
    plan_of = {LEAST: planned(name, compiler, remat, LEAST)}
    low, high = LEAST, 2 * LEAST
    while isinstance(plan_of.setdefault(high, planned(name, compiler, remat, high)).compiled, Compiled):
        low, high = high, 2 * high
    while high - low > max(1, low // 4):
        middle = (low + high) // 2
        plan_of[middle] = planned(name, compiler, remat, middle)
        low, high = (middle, high) if plan_of[middle].compiled else (low, middle)
    yield from ((rows, plan_of[rows]) for rows in (low, high))


def main() -> None:
    if "jax" in sys.modules:
        raise SystemExit("JAX has started already, without libtpu")
    for name, topology, remat in CASES:
        for rows, plan in at_the_edge(name, topology_of(topology), remat):
            program = plan.compiled
            peak = None if program is None else round(program.peak_bytes / plan.topology.device_memory, 3)
            row = {
                "bench": "edges",
                "model": name,
                "topology": topology,
                "remat": remat,
                "rows": rows,
                "peak_share": peak,
            }
            print(json.dumps(row | {"fits": plan.fits, "compiled": program is not None}), flush=True)


if __name__ == "__main__":
    main()
