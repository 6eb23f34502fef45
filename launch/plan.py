"""Whether a run fits on hardware that is not here, how fast it can be, and what it costs, before anyone pays.

    python -m launch.plan configs/llama3_8b.py --topology v5p:4x4x2

The true training step is compiled: for TPUs by libtpu (`make libtpu` fetches it), for GPUs where JAX's CUDA packages
are installed (`make setup ACCELERATOR=cuda12`), with no card; without them memory is reckoned.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import tyro

from configs.experiment import Experiment
from configs.layouts import on_hardware
from configs.recipes.prices import DOLLARS_PER_CHIP_HOUR
from launch.stages.command import run_command
from lm.planner.compile import compiler_for, say
from lm.planner.plan import make_plan
from lm.planner.search import search, search_json, search_text
from lm.planner.text import plan_text


@dataclass(frozen=True)
class Options:
    topology: str = ""
    """The hardware, such as v5e:4x4, v5p-512 (which counts cores), 2xv6e-256 or h100:8; that of train.layout, if not
    given. Where configs/layouts.py has a row for it, the model lies as that says."""
    json: tyro.conf.UseCounterAction[int] = 0  # a flag, which takes no value
    """Print the figures as one JSON object."""
    search: tyro.conf.UseCounterAction[int] = 0
    """Try meshes, remat and micro-batches, and rank those that fit."""
    mfu: float | None = None
    """The model FLOPs utilisation to reckon days and dollars with; by default that of the hardware's row, else 0.4."""
    tokens: float | None = None
    """Tokens to train on, in place of those of train.steps."""


def plan(experiment: Experiment, workdir: Path, options: Options) -> bool:
    """Prints the plan; True, for that is all that the script does."""
    topology, usual_mfu, model, train = on_hardware(experiment.model, experiment.train, options.topology)
    if train.layout != experiment.train.layout:
        say(f"as the row {train.layout} of configs/layouts.py says; to train so: --train.layout {train.layout}")
    of_plan = {
        "mfu": usual_mfu if options.mfu is None else options.mfu, "tokens": options.tokens,
        "dollars_per_chip_hour": DOLLARS_PER_CHIP_HOUR.get(topology.chip.name),
    }  # fmt: skip
    compiler = compiler_for(topology)
    if options.search:
        found = search(model, train, topology, compiler, **of_plan)
        print(json.dumps(search_json(found)) if options.json else search_text(found, topology))
        return True
    made = make_plan(model, train, topology, compiler, **of_plan)
    print(json.dumps(made.as_json()) if options.json else plan_text(made, model, train))
    return True


if __name__ == "__main__":
    run_command("launch.plan", (__doc__ or "").strip(), lambda *given: None, ("model", "train"), Options, plan)
