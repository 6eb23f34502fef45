"""A run on TPU VMs: Google's machines with TPUs, one slice or several, asked for as a queued resource.

    python -m launch.cloud.tpu_vm configs/gpt2_124m.py create --topology v6e:2x4 --zone us-east5-b --spot
    python -m launch.cloud.tpu_vm configs/gpt2_124m.py install --topology v6e:2x4 --zone us-east5-b
    python -m launch.cloud.tpu_vm configs/gpt2_124m.py run --topology v6e:2x4 --zone us-east5-b \\
        --workdir gs://BUCKET/runs/a

`keep` does all three, and again whenever a spot slice is taken away, until the run is done; it runs on your machine.
"""

import sys

from launch.cloud.job import parse_job, parser_of
from launch.cloud.names import TPUS
from launch.cloud.queued_resource import QueuedResource, keep
from launch.stages.command import told

ACTIONS = {
    "create": "ask for the slice",
    "state": "say how far the asking is",
    "install": "bring the code and its environment to every host",
    "run": "start the script on every host, in the background",
    "logs": "follow what host 0 prints",
    "stop": "end the script; it saves first",
    "delete": "give the slice back",
    "keep": "create, install and run, again and again until the run is done",
}


def main(words: list[str]) -> None:
    parser = parser_of("launch.cloud.tpu_vm", __doc__ or "", ACTIONS)
    parser.add_argument("--zone", required=True, help="such as us-east5-b")
    parser.add_argument("--project", help="Google Cloud project (default: gcloud's)")
    parser.add_argument("--spot", action="store_true", help="capacity that costs less and may be taken away")
    parser.add_argument("--runtime-version", help=f"of the VM (default: {', '.join(n.runtime for n in TPUS.values())})")
    job, given, tools = parse_job(parser, words)
    resource = QueuedResource(
        job, tools, given.zone, given.project, given.spot, given.runtime_version or "", tuple(given.flag)
    )
    if given.action == "keep":
        keep(resource)
    else:
        getattr(resource, given.action)()


if __name__ == "__main__":
    with told("launch.cloud.tpu_vm"):
        main(sys.argv[1:])
