"""Every row of configs/layouts.py compiled for its hardware: whether it fits, its memory and its communication.

    python -m tests.bench.layouts [--only llama3_8b/v5p:4x4x2] [--layers 2]        # after: make libtpu

Compiles whole training steps one after the other, without the hardware, and prints what `launch.plan --json` reports,
with the seconds and the memory (GiB) of the compiling process. Without JAX's CUDA packages, GPU rows are estimated.
`--table FILE` makes the table of docs/scale.md from such lines.
"""

import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from configs.layouts import LAYOUTS, Layout
from lm.planner.text import time_text
from lm.planner.topology import GIB
from tests.bench.runner import REPOSITORY, choose, run_benchmark


def plan_of(row: Layout, layers: int | None = None) -> dict[str, Any]:
    """Return the plan of a row; `layers` truncates the model."""
    cut = [] if layers is None else ["--model.layers", str(layers)]
    command = [
        sys.executable, "-m", "launch.plan", f"configs/{row.model}.py", "--train.layout", row.name, "--json", *cut
    ]  # fmt: skip
    start = time.perf_counter()
    done = subprocess.run(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, check=False)
    seconds = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed")
    most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20  # of the largest child so far
    return {"layout": row.name, "layers": layers or "all"} | json.loads(done.stdout) | {
        "seconds": round(seconds, 1), "largest_process_gib": round(most, 2)
    }  # fmt: skip


HEAD = "| layout | mesh | a device holds, GiB | MFU, at most | time, price at a stated MFU |"


def markdown_table(plans: list[dict[str, Any]]) -> str:
    """Format the plans as the table of docs/scale.md."""
    lines = [HEAD, "|" + "---|" * HEAD.count(" | ") + "---|"]
    for plan in plans:
        row, peak = LAYOUTS[plan["layout"]], plan["peak_bytes"]
        mesh = " x ".join(f"{axis} {size}" for axis, size in plan["mesh"].items() if size > 1) or "one device"
        mesh += ", ZeRO-1" if row.mesh.zero1 else ""
        held = f"{peak / GIB:.1f}" if peak else f"at least {plan['least_bytes'] / GIB:.1f}, by arithmetic,"
        limit = "" if plan["limit"] == "arithmetic" else f", by {plan['limit']}"
        bound = f"{100 * plan['mfu_bound']:.0f} %{limit}" if peak else "not compiled"
        price = "no price" if plan["dollars"] is None else f"${plan['dollars']:,.0f}"
        lines.append(
            f"| {plan['layout']} | {mesh} | {held} of {plan['device_bytes'] / GIB:.1f} | {bound} "
            f"| {time_text(plan['days'])}, {price}, {100 * plan['mfu']:.0f} % |"
        )
    return "\n".join(lines)


def main(only: str | None = None, layers: int | None = None, table: Path | None = None) -> Iterator[dict[str, Any]]:
    """Args:
    only: One row of configs/layouts.py.
    layers: Cut the model to this number of layers.
    table: Print the table of docs/scale.md from these lines; compile nothing.
    """
    if table:
        lines = map(json.loads, table.read_text(encoding="utf-8").splitlines())
        print(markdown_table([line for line in lines if "layout" in line]))
        return
    for row in [choose(LAYOUTS, only)] if only else LAYOUTS.values():
        yield plan_of(row, layers)


if __name__ == "__main__":
    run_benchmark(main)
