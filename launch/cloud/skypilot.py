"""Write the task of a run as a managed job of SkyPilot, on whatever cloud has the hardware.

    python -m launch.cloud.skypilot configs/gpt2_124m.py --topology h100:8 --spot --workdir s3://BUCKET/runs/a

Fields and variables: docs.skypilot.co/en/latest/reference/yaml-spec.html, .../running-jobs/distributed-jobs.html.
"""

import math

import yaml

from launch.cloud.job import PORT, STOPPED, check_workdir, job_parser, parse_job, write_job
from launch.stages.command import handle_cli_errors

# Coordinator address for several GPU nodes. TPU VMs do not need it.
MEET = f'JAX_COORDINATOR_ADDRESS="$(head -n 1 <<< "$SKYPILOT_NODE_IPS"):{PORT}" '
MEET += 'NUM_PROCESSES="$SKYPILOT_NUM_NODES" PROCESS_ID="$SKYPILOT_NODE_RANK" '


def main(arguments: list[str] | None = None) -> None:
    parser = job_parser("skypilot", __doc__)
    parser.add_argument("--spot", action="store_true", help="cheaper machines that may be preempted")
    job, given = parse_job(parser, arguments)
    check_workdir(job, "gs://", "s3://")
    nodes = 1 if job.tpu else job.hosts
    task = {
        "name": job.name,
        "workdir": ".",
        "num_nodes": nodes,
        "resources": {
            "accelerators": job.accelerator,
            "use_spot": given.spot,
            "job_recovery": {"max_restarts_on_errors": 3, "recover_on_exit_codes": [STOPPED]},
        },
        "envs": job.environment,
        "setup": job.setup,
        "run": (MEET if nodes > 1 else "") + job.command,
    }
    commands = {
        "submit": f"sky jobs launch --name={job.name} {job.file}.sky.yaml",
        "follow": f"sky jobs logs --follow --name={job.name}",
        "stop": f"sky jobs cancel --name={job.name}",
    }
    write_job(job, ".sky.yaml", yaml.safe_dump(task, sort_keys=False, width=math.inf), commands, given.dry_run)


if __name__ == "__main__":
    with handle_cli_errors("launch.cloud.skypilot"):
        main()
