"""A run on the GPU nodes of a Slurm cluster, from a login node, in a folder that all nodes see.

    python -m launch.cloud.slurm configs/gpt2_1558m.py run --topology h100:8 --flag=--partition=gpu
    python -m launch.cloud.slurm configs/gpt2_1558m.py logs --topology h100:8
    python -m launch.cloud.slurm configs/gpt2_1558m.py stop --topology h100:8

docs/cloud.md has what it needs, and what was never tried.
"""

import getpass
import sys

from launch.cloud.batch_script import batch_script, slurm_time
from launch.cloud.job import parse_job, parser_of
from launch.stages.command import told

ACTIONS = {
    "run": "write the batch script and submit it",
    "logs": "follow what the job prints",
    "stop": "end the job; it saves first, and is not queued again",
}


def main(words: list[str]) -> None:
    parser = parser_of("launch.cloud.slurm", __doc__ or "", ACTIONS)
    parser.add_argument("--time", default="24:00:00", help="limit of one turn, after which it queues again (24:00:00)")
    parser.add_argument("--cpus-per-gpu", type=int, default=8, help="cores for the process of a GPU (default: 8)")
    job, given, tools = parse_job(parser, words)
    script = batch_script(job, slurm_time(given.time), given.cpus_per_gpu)
    stop, mine = job.file(".stop"), [f"--name={job.name}", f"--user={getpass.getuser()}"]
    if given.action == "run":
        tools.remove(stop)
        tools.write(path := job.file(".sbatch"), script)
        tools.run("sbatch", *given.flag, str(path))
    elif given.action == "logs":
        tools.run("tail", "-n", "100", "-F", str(job.file(".log")))
    else:
        tools.write(stop, "asked to end\n")  # the script looks for it
        tools.run("scancel", *mine, "--state=PENDING")
        tools.run("scancel", *mine, "--signal=TERM")  # to what runs, which has all the time that its save takes


if __name__ == "__main__":
    with told("launch.cloud.slurm"):
        main(sys.argv[1:])
