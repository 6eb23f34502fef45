"""Write the batch script of a run on the GPU nodes of a Slurm cluster.

    python -m launch.cloud.slurm configs/gpt2_1558m.py --topology h100:8

Run it in a clone that all nodes see. Options of sbatch replace those in the file.

Follows "sbatch" and "srun" (slurm.schedmd.com/sbatch.html, srun.html), read in November 2026. Run with Slurm 24.11 on a
machine without GPUs, never on a cluster.
"""

from launch.cloud.job import BASH, STOPPED, exports, job_parser, parse_job, write_job
from launch.stages.command import handle_cli_errors
from lm.planner.topology import GPU_NODE


def main(arguments: list[str] | None = None) -> None:
    job, given = parse_job(job_parser("slurm", __doc__), arguments)
    tasks = (
        job.chips if job.hosts > 1 else 1
    )  # one node: one process with all GPUs; several nodes: JAX expects one process per GPU
    whole = "#SBATCH --exclusive\n#SBATCH --mem=0\n" if job.chips == GPU_NODE else ""
    stop, cancel = f"{job.file}.stop", f'scancel --name={job.name} --user="$USER"'
    text = f"""{BASH}#SBATCH --job-name={job.name}
#SBATCH --nodes={job.hosts}
#SBATCH --ntasks-per-node={tasks}
#SBATCH --gpus-per-node={job.accelerator}
#SBATCH --cpus-per-task={8 * job.chips // tasks}
{whole}#SBATCH --time=24:00:00
#SBATCH --output={job.file}.log
#SBATCH --open-mode=append
# Slurm requeues the job after a preemption or a lost node. Five minutes before the time limit it sends SIGTERM to the
# processes, not to this script: they save and exit with {STOPPED}, and this script requeues the job. Exit
# code 4: a process did not join the others for two hours.
#SBATCH --requeue
#SBATCH --signal=TERM@300
set -u
{exports(job)}
if [ "${{SLURM_RESTART_COUNT:-0}}" -eq 0 ]; then rm -f {stop}; fi
# srun does not inherit --cpus-per-task. After the first task has ended, the others may still be saving: wait for them.
srun --cpus-per-task="$SLURM_CPUS_PER_TASK" --kill-on-bad-exit=0 --wait=900 \\
  {job.command}
code=$?
if [ "$code" -eq {STOPPED} ] && [ ! -e {stop} ]; then
  exec scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
"""
    commands = {
        "submit": f"sbatch {job.file}.sbatch",
        "follow": f"tail -n 100 -F {job.file}.log",
        "stop": f"touch {stop}; {cancel} --state=PENDING; {cancel} --signal=TERM",
    }
    write_job(job, ".sbatch", text, commands, given.dry_run)


if __name__ == "__main__":
    with handle_cli_errors("launch.cloud.slurm"):
        main()
