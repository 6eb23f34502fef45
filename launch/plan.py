"""Whether a run fits on hardware that is not here, how fast it can be, and what it costs, before anyone pays.

    python -m launch.plan configs/llama3_8b.py --topology v5p:4x4x2

For TPUs the true training step is compiled (`make libtpu` fetches the compiler); for GPUs memory is reckoned.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import tyro

from configs.experiment import Experiment
from configs.layouts import LAYOUTS
from configs.recipes.prices import DOLLARS_PER_CHIP_HOUR
from launch.stages.command import run_command
from lm.errors import UsageError
from lm.planner.compile import compile_on
from lm.planner.plan import make_plan
from lm.planner.text import plan_text
from lm.planning.topology import topology_of


@dataclass(frozen=True)
class Options:
    topology: str = ""
    """The hardware, such as v5e:4x4, v5p-512 (which counts cores), 2xv6e-256 or h100:8; that of train.layout, if not
    given."""
    json: tyro.conf.UseCounterAction[int] = 0  # a flag, which takes no value
    """Print the figures as one JSON object."""
    mfu: float | None = None
    """The model FLOPs utilisation to reckon days and dollars with; that of train.layout on its own hardware, else 0.4,
    if not given."""
    tokens: float | None = None
    """Tokens to train on, in place of those of train.steps."""


def plan(experiment: Experiment, workdir: Path, options: Options) -> bool:
    """Prints the plan; True, for that is all that the script does."""
    row = LAYOUTS.get(experiment.train.layout)
    hardware = options.topology or (row.topology if row else "")
    if not hardware:
        raise UsageError("Name the hardware, such as --topology v5e:4x4, v5p-512, 2xv6e-256 or h100:8.")
    if options.mfu is not None and not 0.01 <= options.mfu <= 1:
        raise UsageError(f"--mfu is {options.mfu}; it must be from 0.01 to 1, as in --mfu 0.45.")
    if options.tokens is not None and not 1 <= options.tokens < 1e18:
        raise UsageError(f"--tokens is {options.tokens}; it must be a number from 1 up, as in --tokens 15e12.")
    topology, model, train = topology_of(hardware), experiment.model, experiment.train
    own = row.mfu if row is not None and row.topology == topology.name else 0.4
    price = DOLLARS_PER_CHIP_HOUR.get(topology.chip.name)
    compiled = compile_on(topology, model, train) if topology.chip.torus else None
    made = make_plan(model, train, topology, options.mfu or own, options.tokens, price, compiled)
    print(json.dumps(made.as_json()) if options.json else plan_text(made, model, train))
    return True


if __name__ == "__main__":
    run_command("launch.plan", (__doc__ or "").strip(), lambda *given: None, ("model", "train"), Options, plan)
