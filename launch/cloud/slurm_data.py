"""The data stages as an array job of Slurm, from a login node, in a folder that all nodes see.

    python -m launch.cloud.slurm_data configs/fineweb.py run --tasks 200 --cpus 8 --workdir s3://BUCKET/run
    python -m launch.cloud.slurm_data configs/fineweb.py logs
    python -m launch.cloud.slurm_data configs/fineweb.py stop

Each task of the array is one rank of launch.data (docs/engines.md).
"""

import argparse
import getpass
import re
import shlex
import sys
from pathlib import Path

from configs.experiment import parse_run
from launch.cloud.batch_script import slurm_memory, slurm_time
from launch.cloud.job import NAME, PYTHON, config_here
from launch.cloud.tools import REPOSITORY, Tools
from launch.data import READS, Options
from launch.stages.command import told
from lm.errors import UsageError, shown

ACTIONS = {
    "run": "write the array script and submit it",
    "logs": "follow what the tasks print",
    "stop": "end the job; what is done is kept",
}
MOST_TASKS = 100_000


def array_script(name: str, command: list[str], tasks: int, at_once: int, cpus: int, memory: str, limit: str) -> str:
    """The script for sbatch, run in the repository's folder. A task that ends by its time limit, or with its node, is
    queued again and goes on; others do its units meanwhile."""
    return f"""#!/bin/bash
# launch.data by {tasks} tasks
#SBATCH --job-name={name}
#SBATCH --array=0-{tasks - 1}{f"%{at_once}" if at_once else ""}
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task={cpus}
#SBATCH --mem={memory}
#SBATCH --time={limit}
#SBATCH --signal=B:TERM@60
#SBATCH --requeue
#SBATCH --output=runs/cloud/{name}.%a.log
#SBATCH --open-mode=append
set -u
export PYTHONUNBUFFERED=1 OMP_NUM_THREADS=1
work=
again() {{
  [ -z "$work" ] || kill -TERM "$work"
  exec scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_${{SLURM_ARRAY_TASK_ID}}"
}}
trap again TERM
{shlex.join(command)} &
work=$!
wait "$work"
"""


def main(words: list[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m launch.cloud.slurm_data", description=__doc__, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="All other options go to launch.data: --workdir, --until, --pages.warc and so on.",
    )  # fmt: skip
    parser.add_argument("config", metavar="CONFIG.py", help="a config in this repository")
    parser.add_argument("action", choices=ACTIONS, help="; ".join(f"{name}: {does}" for name, does in ACTIONS.items()))
    parser.add_argument("--tasks", type=int, default=16, help="how many ranks there are (16)")
    parser.add_argument("--at-once", type=int, default=0, help="tasks that run at a time, at most; 0 for all (0)")
    parser.add_argument("--cpus", type=int, default=8, help="cores of a task, one worker process each (8)")
    parser.add_argument("--memory", default="", help="of a task, as Slurm takes it (2 GB a core)")
    parser.add_argument("--time", default="24:00:00", help="limit of a task, after which it is queued again (24:00:00)")
    parser.add_argument("--name", help="of the job (default: the config's)")
    parser.add_argument("--flag", action="append", default=[], metavar="=FLAG", help="one more flag for sbatch, such "
                        "as --flag=--partition=cpu; may be given again")  # fmt: skip
    parser.add_argument("--dry-run", action="store_true", help="only show the commands and files; nothing is needed")
    given, options = parser.parse_known_args(words)
    config = config_here(given.config)
    name = given.name or f"{Path(config).stem.lower().replace('_', '-')}-data"
    refuse_impossible(name, given.tasks, given.at_once, given.cpus)
    memory = slurm_memory(given.memory or f"{2 * given.cpus}G")
    tools = Tools(given.dry_run)
    if given.action == "run":
        asked = [*options, "--engine.world", str(given.tasks), "--engine.workers", str(given.cpus)]
        parse_run("launch.data", "", [str(REPOSITORY / config), *asked], READS, Options)
        command = [PYTHON, "-m", "launch.data", config, *asked]
        script = array_script(name, command, given.tasks, given.at_once, given.cpus, memory, slurm_time(given.time))
        tools.write(path := Path("runs/cloud") / f"{name}.sbatch", script)
        tools.run("sbatch", *given.flag, str(path))
    elif given.action == "logs":
        tools.run("tail", "-n", "20", "-F", *(f"runs/cloud/{name}.{rank}.log" for rank in range(min(given.tasks, 64))))
    else:
        tools.run("scancel", f"--name={name}", f"--user={getpass.getuser()}")


def refuse_impossible(name: str, tasks: int, at_once: int, cpus: int) -> None:
    """Raises UsageError for what Slurm or the names of files do not take."""
    if not re.fullmatch(NAME, name):
        raise UsageError(
            f"The name of the job is {shown(name)}. Give one with --name: a letter, then at most 38 letters, digits "
            "and hyphens, all in lower case, no hyphen at the end."
        )
    for option, value, least in (("--tasks", tasks, 1), ("--at-once", at_once, 0), ("--cpus", cpus, 1)):
        if not least <= value <= MOST_TASKS:
            raise UsageError(f"{option} is {value}; give a number from {least} to {MOST_TASKS:,}.")


if __name__ == "__main__":
    with told("launch.cloud.slurm_data"):
        main(sys.argv[1:])
