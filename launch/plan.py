"""Whether a run fits on hardware that is not here, how fast it can be, and what it costs, before anyone pays.

    python -m launch.plan configs/llama3_8b.py --topology v5p:4x4x2

For TPUs the true training step is compiled (`make libtpu` fetches the compiler); for GPUs memory is reckoned.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from configs.experiment import Experiment
from configs.recipes.prices import DOLLARS_PER_CHIP_HOUR
from launch.stages.command import run_command
from lm.errors import UsageError
from lm.planning.topology import topology_of


@dataclass(frozen=True)
class Options:
    topology: str = ""
    """The hardware, such as v5e:4x4, v5p-512 (which counts cores), 2xv6e-256 or h100:8."""
    json: tyro.conf.UseCounterAction[int] = 0  # a flag, which takes no value
    """Print the figures as one JSON object."""
    mfu: float = 0.4
    """The model FLOPs utilisation to reckon days and dollars with."""
    tokens: float | None = None
    """Tokens to train on, in place of those of train.steps."""


def plan(experiment: Experiment, workdir: Path, options: Options) -> bool:
    """Prints the plan; True, for that is all that the script does."""
    if not options.topology:
        raise UsageError("Name the hardware, such as --topology v5e:4x4, v5p-512, 2xv6e-256 or h100:8.")
    if not 0 < options.mfu <= 1:
        raise UsageError(f"--mfu is {options.mfu}; it must be above 0 and at most 1, as in --mfu 0.45.")
    topology = topology_of(options.topology)
    from lm.planner.libtpu import find_libtpu, one_at_a_time, prepare
    from lm.planner.plan import make_plan
    from lm.planner.text import plan_text

    say = lambda text: print(f"plan: {text}", file=sys.stderr, flush=True)
    model, train = experiment.model, experiment.train
    price = DOLLARS_PER_CHIP_HOUR.get(topology.chip.name)
    if topology.chip.torus:
        prepare(find_libtpu())
        say(f"compiling the step for {topology.name}, which takes seconds to minutes")
        with one_at_a_time(say):
            made = make_plan(model, train, topology, options.mfu, options.tokens, price)
    else:
        made = make_plan(model, train, topology, options.mfu, options.tokens, price)
    print(json.dumps(made.as_json()) if options.json else plan_text(made, model, train))
    return True


if __name__ == "__main__":
    run_command("launch.plan", (__doc__ or "").strip(), lambda *given: None, ("model", "train"), Options, plan)
