"""A job as a task of SkyPilot: docs.skypilot.co/en/latest/reference/yaml-spec.html, read as a stored copy in November
2026; the tests give it to SkyPilot's own parser."""

from typing import Any

from launch.cloud.job import STOPPED, Job
from launch.cloud.names import TPUS, hosts, is_tpu, sky_accelerator

PORT = 8476
# SkyPilot's names of these: docs.skypilot.co/en/latest/running-jobs/distributed-jobs.html
MEET = f"""first=$(head -n 1 <<< "$SKYPILOT_NODE_IPS")
export JAX_COORDINATOR_ADDRESS="$first:{PORT}"
export NUM_PROCESSES="$SKYPILOT_NUM_NODES" PROCESS_ID="$SKYPILOT_NODE_RANK"
"""
"""Tells the processes of several GPU nodes who they are. TPU VMs know it."""


def sky_task(job: Job, spot: bool = False, volume: tuple[str, str] = ("", "")) -> dict[str, Any]:
    """The task: SkyPilot brings the files of this folder that .gitignore does not name, and the environment, and starts
    the run again on other machines where these are taken away. `volume` is the name of one of SkyPilot's volumes and
    where all nodes mount it. Raises UsageError where it has no such hardware."""
    resources: dict[str, Any] = {
        "accelerators": sky_accelerator(job.topology),
        "use_spot": spot,
        "job_recovery": {"max_restarts_on_errors": 3, "recover_on_exit_codes": [STOPPED]},
    }
    tpu = is_tpu(job.topology)
    if tpu:
        resources["accelerator_args"] = {"runtime_version": TPUS[job.topology.chip.name].runtime}
    several = not tpu and hosts(job.topology) > 1
    return {
        "name": job.name,
        "workdir": ".",
        "num_nodes": 1 if tpu else hosts(job.topology),
        "resources": resources,
        **({"volumes": {volume[1]: volume[0]}} if volume[0] else {}),
        "setup": job.setup,
        "run": (MEET if several else "") + job.shell_command,
    }
