"""Plan a run before paying for hardware: whether it fits into memory, how fast it can be, and what it costs.

    python -m launch.plan configs/llama3_8b.py --topology v5p:4x4x2

Compiles the actual training step, without the hardware: for TPUs with libtpu (install it with `make libtpu`), for GPUs
with JAX's CUDA packages (`make setup ACCELERATOR=cuda12`); without these packages, memory is only estimated.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.experiment import Experiment, load_config
from configs.experiment.command_line import Flag
from configs.layouts import LAYOUTS, on_hardware, row_on
from configs.recipes.prices import DOLLARS_PER_CHIP_HOUR
from launch.stages.command import run_command
from lm.gpu_memory import gpu_memory_note
from lm.planner.compile import compiler_for, say
from lm.planner.plan import COMPUTE_OPTIMAL, flops_in, make_plan
from lm.planner.search import search, search_text
from lm.planner.text import in_words, plan_text, ratio_text
from lm.planner.topology import Topology

REPOSITORY = Path(__file__).parents[1]


@dataclass(frozen=True)
class Options:
    topology: str = ""
    """Hardware, such as v5e:4x4, v5p-512 (which counts cores), 2xv6e-256 or h100:8; default: that of train.layout. If
    configs/layouts.py has a row for it, its mesh, remat and micro-batches are used."""
    json: Flag = 0
    """Print the figures as one JSON object."""
    search: Flag = 0
    """Try meshes, remat policies and micro-batches, and rank those that fit."""
    mfu: float | None = None
    """Model FLOPs utilization to estimate days and dollars with; default: that of configs/layouts.py, else 0.4."""
    tokens: float | None = None
    """Tokens to train on, instead of those of train.steps."""
    days: float | None = None
    """Days to train, instead of train.steps: prints the tokens and steps for that time, and the tokens of each shipped
    model size on this hardware."""


def plan(experiment: Experiment, workdir: Path, options: Options) -> bool:
    """Print the plan of a run. Returns True, which tells `run_command` that the work is done."""
    topology, usual_mfu, model, train = on_hardware(experiment.model, experiment.train, options.topology)
    if train.layout != experiment.train.layout:
        say(f"the row {train.layout} of configs/layouts.py; to train with it: --train.layout {train.layout}")
    if not topology.chip.torus:
        say(gpu_memory_note())
    of_plan = {
        "mfu": usual_mfu if options.mfu is None else options.mfu, "tokens": options.tokens, "days": options.days,
        "dollars_per_chip_hour": DOLLARS_PER_CHIP_HOUR.get(topology.chip.name),
    }  # fmt: skip
    compiler = compiler_for(topology)
    if options.search:
        found = search(model, train, topology, compiler, **of_plan)
        plans = [{"options": one.options()} | plan.as_json() for one, plan in found]
        print(json.dumps(plans) if options.json else search_text(found, topology))
        return True
    made = make_plan(model, train, topology, compiler, **of_plan)
    sizes = sizes_in(topology, made.mfu, options.days) if options.days else []
    if options.json:
        print(json.dumps(made.as_json() | ({"sizes": sizes} if sizes else {})))
        return True
    print(plan_text(made, model, train))
    if options.days:
        flops = flops_in(topology, options.days, made.mfu)
        print(
            f"{options.days:g} days at {100 * made.mfu:g} % MFU on {topology.name} are {flops:.2e} FLOP: "
            f"compute-optimal is a model of {in_words((flops / (6 * COMPUTE_OPTIMAL)) ** 0.5)} parameters "
            f"({COMPUTE_OPTIMAL} tokens each, arXiv:2203.15556); models that should be cheap to use are smaller and "
            "train on more tokens. The shipped sizes:"
        )
        for one in sizes:
            ratio = ratio_text(one["tokens"] / one["parameters"])
            layout = f"layout {one['layout']}" if one["layout"] else "--search"
            print(f"  {one['model']:16} {in_words(one['tokens']):>13} tokens, {ratio} a parameter; {layout}")
    return True


def sizes_in(topology: Topology, mfu: float, days: float) -> list[dict[str, Any]]:
    """Return each model of configs/layouts.py with the tokens it can be trained on in `days` days at this model FLOPs
    utilization, smallest model first: {"model", "parameters", "tokens", "layout": its row on the hardware, or ""}."""
    from lm.model.cost import count_parameters, flops_per_token  # imports JAX

    found = []
    for name in dict.fromkeys(row.model for row in LAYOUTS.values()):
        model = load_config(REPOSITORY / f"configs/{name}.py").model
        row, tokens = row_on(name, topology), flops_in(topology, days, mfu) / flops_per_token(model)
        layout = row.name if row else ""
        found.append({"model": name, "parameters": count_parameters(model), "tokens": tokens, "layout": layout})
    return sorted(found, key=lambda one: one["parameters"])


if __name__ == "__main__":
    run_command("launch.plan", None, ("model", "train"), options=Options, on_the_side=plan)
