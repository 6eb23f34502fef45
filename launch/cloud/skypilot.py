"""Write the task of a run as a managed job of SkyPilot, on whatever cloud has the hardware.

    python -m launch.cloud.skypilot configs/gpt2_124m.py --topology h100:8 --spot --workdir s3://BUCKET/runs/a

Follows "SkyPilot YAML", "Distributed Multi-Node Jobs" and "Environment Variables and Secrets" of version 0.14.1
(docs.skypilot.co/en/latest: reference/yaml-spec.html, running-jobs/distributed-jobs.html, running-jobs/
environment-variables.html), read on 2 December 2026. Never run on a cloud.
"""

import math
import os
import shlex

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
    # SkyPilot copies ~/.aws to the machines, but runs do not read it: the shell that submits passes its variables. For
    # gs://, SkyPilot copies gcloud's application default credentials, which runs read.
    in_s3 = job.workdir.startswith("s3://")
    region, keys = (("AWS_REGION",), ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")) if in_s3 else ((), ())
    server = {name: os.environ[name] for name in ("AWS_ENDPOINT_URL",) if in_s3 and name in os.environ}
    task = {
        "name": job.name,
        "workdir": ".",
        "num_nodes": nodes,
        "resources": {
            "accelerators": job.accelerator,
            "use_spot": given.spot,
            # GPUDirect, EFA or InfiniBand, only on clouds where SkyPilot can set it up.
            **({"network_tier": "best"} if nodes > 1 else {}),
            "job_recovery": {"max_restarts_on_errors": 3, "recover_on_exit_codes": [STOPPED]},
        },
        "envs": job.environment | dict.fromkeys(region) | server,
        **({"secrets": dict.fromkeys(keys)} if keys else {}),
        "setup": job.setup,
        "run": (MEET if nodes > 1 else "") + job.command,
    }
    passed = [*(f"--env={name}" for name in region), *(f"--secret={name}" for name in keys)]
    commands = {
        "submit": shlex.join(["sky", "jobs", "launch", *passed, f"--name={job.name}", f"{job.file}.sky.yaml"]),
        "follow": f"sky jobs logs --follow --name={job.name}",
        "stop": f"sky jobs cancel --name={job.name}",
    }
    write_job(job, ".sky.yaml", yaml.safe_dump(task, sort_keys=False, width=math.inf), commands, given.dry_run)


if __name__ == "__main__":
    with handle_cli_errors("launch.cloud.skypilot"):
        main()
