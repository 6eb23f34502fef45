"""A run on whatever cloud SkyPilot finds the hardware in, as a managed job, which outlives spot machines.

    python -m launch.cloud.skypilot configs/gpt2_124m.py run --topology h100:8 --spot --workdir s3://BUCKET/runs/a
    python -m launch.cloud.skypilot configs/gpt2_124m.py logs --topology h100:8 --workdir s3://BUCKET/runs/a
    python -m launch.cloud.skypilot configs/gpt2_124m.py stop --topology h100:8 --workdir s3://BUCKET/runs/a

docs/cloud.md has what it needs, and what was never tried.
"""

import sys

from launch.cloud.job import parse_job, parser_of, refuse_lost, volume_of
from launch.cloud.jobset import as_yaml
from launch.cloud.sky_task import sky_task
from launch.stages.command import told

ACTIONS = {
    "run": "write the task and launch it",
    "logs": "follow what it prints",
    "stop": "end it, and give the machines back",
}


def main(words: list[str]) -> None:
    parser = parser_of("launch.cloud.skypilot", __doc__ or "", ACTIONS)
    parser.add_argument("--spot", action="store_true", help="on machines that cost less and may be taken away")
    parser.add_argument("--volume", default="", metavar="NAME:/PATH", help="one of SkyPilot's volumes, on all nodes")
    job, given, tools = parse_job(parser, words)
    task = sky_task(job, given.spot, volume := volume_of(given.volume))
    if given.action == "run":
        refuse_lost(job, "which goes when the job has ended", shared=volume[1])
        tools.write(path := job.file(".sky.yaml"), as_yaml(task, f"{job.script} on {job.topology.name}"))
        tools.run("sky", "jobs", "launch", "--yes", f"--name={job.name}", *given.flag, str(path))
    elif given.action == "logs":
        tools.run("sky", "jobs", "logs", "--follow", f"--name={job.name}")
    else:
        tools.run("sky", "jobs", "cancel", "--yes", f"--name={job.name}")


if __name__ == "__main__":
    with told("launch.cloud.skypilot"):
        main(sys.argv[1:])
