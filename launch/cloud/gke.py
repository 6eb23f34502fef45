"""A run on Google Kubernetes Engine, on TPU slices or GPU nodes, as a JobSet.

    python -m launch.cloud.gke configs/llama3_8b.py image --topology v5p:4x4x4 --image REGISTRY/gristmill:1
    python -m launch.cloud.gke configs/llama3_8b.py run --topology v5p:4x4x4 --image REGISTRY/gristmill:1 \\
        --volume runs:/mnt/shared --workdir /mnt/shared/runs/8b
    python -m launch.cloud.gke configs/llama3_8b.py logs --topology v5p:4x4x4

docs/cloud.md has what the cluster needs, and what was never tried.
"""

import sys

from launch.cloud.job import parse_job, parser_of, refuse_lost, volume_of
from launch.cloud.jobset import as_yaml, jobset, process_0
from launch.stages.command import told
from lm.errors import UsageError

ACTIONS = {
    "image": "build and push the image",
    "run": "write the JobSet and apply it",
    "logs": "follow what process 0 prints",
    "delete": "end the job; it saves first",
}


def main(words: list[str]) -> None:
    parser = parser_of("launch.cloud.gke", __doc__ or "", ACTIONS)
    parser.add_argument("--image", default="", help="the image's name in a registry that the cluster reads")
    parser.add_argument("--spot", action="store_true", help="on spot nodes")
    parser.add_argument("--restarts", type=int, default=100, help="of the whole job, at most (default: 100)")
    parser.add_argument("--queue", default="", help="Kueue's local queue")
    parser.add_argument("--account", default="", help="Kubernetes's service account, which may use the bucket")
    parser.add_argument("--secret", default="", help="a Secret of the cluster; its keys become environment variables")
    parser.add_argument(
        "--volume", default="", metavar="CLAIM:/PATH", help="a PersistentVolumeClaim that all pods mount"
    )
    job, given, tools = parse_job(parser, words)
    if given.action in ("image", "run") and not given.image:
        raise UsageError("Name the image, such as --image us-docker.pkg.dev/PROJECT/REPOSITORY/gristmill:1.")
    if given.action == "image":
        tools.bundle(archive := job.file(".tar.gz"), job.config)
        build = [f"--build-arg=ACCELERATOR={job.accelerator}", "--file=launch/cloud/Dockerfile"]
        tools.run("docker", "build", f"--tag={given.image}", *build, *given.flag, "-", stdin=archive)
        tools.run("docker", "push", given.image)
    elif given.action == "run":
        refuse_lost(job, "which goes with its pod", shared=(volume := volume_of(given.volume))[1])
        made = jobset(job, given.image, given.spot, given.restarts, given.queue, given.account, given.secret, volume)
        tools.write(path := job.file(".jobset.yaml"), as_yaml(made, f"{job.script} on {job.topology.name}"))
        tools.run("kubectl", "apply", *given.flag, f"--filename={path}")
    elif given.action == "logs":
        tools.run("kubectl", "logs", *given.flag, "--follow", "--tail=100", f"--selector={process_0(job)}")
    else:
        tools.run("kubectl", "delete", *given.flag, f"jobset/{job.name}")


if __name__ == "__main__":
    with told("launch.cloud.gke"):
        main(sys.argv[1:])
