"""A job as a batch script of Slurm. Options and signals: slurm.schedmd.com/sbatch.html and srun.html, read as stored
copies in November 2026."""

import re

from launch.cloud.job import STOPPED, Job
from launch.cloud.names import chips_per_host, hosts, is_tpu
from lm.errors import UsageError, shown
from lm.planning.topology import GPU_NODE

SAVE_SECONDS = 300
"""Between the signal and the end of the time limit: for the save."""
WAIT_SECONDS = 900
"""For which the tasks of a step are left alone once the first of them has ended: they may be saving."""


def slurm_time(text: str) -> str:
    """Return `text` if it is a time limit in one of sbatch's forms. Raises UsageError."""
    if not re.fullmatch(r"[0-9]+(:[0-5]?[0-9]){0,2}|[0-9]+-[0-9]+(:[0-5]?[0-9]){0,2}", text, re.ASCII):
        raise UsageError(
            f"--time is {shown(text)}. Give a time limit of Slurm's: 90 (minutes), 24:00:00 or 2-12:00:00."
        )
    return text


def batch_script(job: Job, time_limit: str, cpus_per_gpu: int) -> str:
    """The script for sbatch, run in the repository's folder. On one node a process has all of its GPUs; on several,
    each process has one, as JAX expects of Slurm.

    The time limit sends SIGTERM to the processes, not to the script: they save and end with STOPPED, and the script
    puts itself into the queue again, unless the file that the action `stop` writes is there. So does Slurm where it
    preempts the job or loses a node (--requeue). Raises UsageError for TPUs.
    """
    if is_tpu(job.topology):
        raise UsageError(
            f"{job.topology.name} are TPUs, which Slurm's clusters do not have. Choose GPUs, such as h100:16; for TPUs "
            "there are launch.cloud.tpu_vm, launch.cloud.gke and launch.cloud.skypilot."
        )
    nodes, gpus = hosts(job.topology), chips_per_host(job.topology)
    tasks = gpus if nodes > 1 else 1
    cpus = cpus_per_gpu * gpus // tasks
    whole = "#SBATCH --exclusive\n#SBATCH --mem=0\n" if gpus == GPU_NODE else ""
    return f"""#!/bin/bash
# {job.script} on {job.topology.name}
#SBATCH --job-name={job.name}
#SBATCH --nodes={nodes}
#SBATCH --ntasks-per-node={tasks}
#SBATCH --gpus-per-node={gpus}
#SBATCH --cpus-per-task={cpus}
{whole}#SBATCH --time={time_limit}
#SBATCH --signal=TERM@{SAVE_SECONDS}
#SBATCH --requeue
#SBATCH --output={job.file(".log")}
#SBATCH --open-mode=append
set -u
export PYTHONUNBUFFERED=1
code=0
srun --cpus-per-task={cpus} --kill-on-bad-exit=0 --wait={WAIT_SECONDS} \\
  {job.shell_command} || code=$?
if [ "$code" -eq {STOPPED} ] && [ ! -e {job.file(".stop")} ]; then
  exec scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
"""
