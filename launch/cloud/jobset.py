"""A job as a JobSet of Kubernetes: a Job for each TPU slice, or one for all GPU nodes, started again as a whole.

The API: jobset.sigs.k8s.io/docs/reference/jobset.v1alpha2, version 0.6 or newer for the rules of failurePolicy. TPUs:
docs.cloud.google.com/kubernetes-engine/docs/how-to/tpu-multislice; GKE itself tells the processes who they are. GPUs:
docs.cloud.google.com/kubernetes-engine/docs/how-to/gpus. Read as stored copies in November 2026.
"""

from typing import Any

import yaml

from launch.cloud.job import USAGE, Job
from launch.cloud.names import GKE_GPUS, TPUS, chips_per_host, hosts_per_slice, is_tpu, slice_shape
from lm.planning.topology import GPU_NODE

PORT = 8476
"""At which process 0 of a job on GPUs meets the others."""
GRACE_SECONDS = 600
"""For the save between SIGTERM and SIGKILL. GKE gives spot nodes 15 s, whatever is asked for."""
type Mount = tuple[str, dict[str, Any], str]
"""(name, what it is, the path at which it is mounted)."""
INDEX = "metadata.annotations['batch.kubernetes.io/job-completion-index']"


def jobset(
    job: Job,
    image: str,
    spot: bool = False,
    restarts: int = 100,
    queue: str = "",
    account: str = "",
    secret: str = "",
    volume: tuple[str, str] = ("", ""),
) -> dict[str, Any]:
    """The JobSet that runs `job` from `image`. `queue` is Kueue's, `account` a Kubernetes service account that may read
    and write the run folder, `secret` a Secret whose keys become environment variables: only its name is here, `volume`
    the name of a PersistentVolumeClaim and where all pods mount it."""
    hosts, mounted = hosts_per_slice(job.topology), mounts(job, *volume)
    pod = {
        "metadata": {"labels": {"app": job.name}},
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": GRACE_SECONDS,
            **({"serviceAccountName": account} if account else {}),
            "nodeSelector": nodes_of(job) | ({"cloud.google.com/gke-spot": "true"} if spot else {}),
            **surroundings(job, mounted),
            "containers": [container(job, image, secret, mounted)],
        },
    }
    spec = {
        "parallelism": hosts,
        "completions": hosts,
        "completionMode": "Indexed",
        "backoffLimit": 0,
        # A command that cannot be run as it is ends it all; whatever else ends a pod starts all of them again.
        "podFailurePolicy": {
            "rules": [
                {"action": "FailJob", "onExitCodes": {"containerName": "run", "operator": "In", "values": [USAGE]}}
            ]
        },
        "template": pod,
    }
    placed = {"alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"}
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": {
            "name": job.name,
            **({"labels": {"kueue.x-k8s.io/queue-name": queue}} if queue else {}),
            **({"annotations": placed} if is_tpu(job.topology) and hosts > 1 else {}),
        },
        "spec": {
            "failurePolicy": {
                "maxRestarts": restarts,
                "rules": [{"name": "usageError", "action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}],
            },
            "replicatedJobs": [{"name": "slice", "replicas": job.topology.slices, "template": {"spec": spec}}],
        },
    }


def nodes_of(job: Job) -> dict[str, str]:
    """The labels of the nodes that a pod may be on."""
    chip = job.topology.chip.name
    if not is_tpu(job.topology):
        return {"cloud.google.com/gke-accelerator": GKE_GPUS[chip]}
    return {
        "cloud.google.com/gke-tpu-accelerator": TPUS[chip].gke,
        "cloud.google.com/gke-tpu-topology": slice_shape(job.topology),
    }


def surroundings(job: Job, mounted: list[Mount]) -> dict[str, Any]:
    """The volumes of a pod; of several TPU slices, the network of the host."""
    found: dict[str, Any] = {"volumes": [{"name": name} | source for name, source, _ in mounted]} if mounted else {}
    several = {"hostNetwork": True, "dnsPolicy": "ClusterFirstWithHostNet"} if job.topology.slices > 1 else {}
    return found | several


def mounts(job: Job, claim: str, path: str) -> list[Mount]:
    """All that a pod mounts. Of GPUs, shared memory for NCCL: containers have but 64 MB."""
    found: list[Mount] = []
    if not is_tpu(job.topology):
        found.append(("shm", {"emptyDir": {"medium": "Memory"}}, "/dev/shm"))
    if claim:
        found.append(("shared", {"persistentVolumeClaim": {"claimName": claim}}, path))
    return found


def container(job: Job, image: str, secret: str, mounted: list[Mount]) -> dict[str, Any]:
    """The one container of a pod: a process for all chips of its host."""
    chips, tpu = chips_per_host(job.topology), is_tpu(job.topology)
    made: dict[str, Any] = {
        "name": "run",
        "image": image,
        "command": job.command,
        "env": [{"name": "PYTHONUNBUFFERED", "value": "1"}],
        "resources": {"limits": {"google.com/tpu" if tpu else "nvidia.com/gpu": chips}},
    }
    if secret:
        made["envFrom"] = [{"secretRef": {"name": secret}}]
    if mounted:
        made["volumeMounts"] = [{"name": name, "mountPath": path} for name, _, path in mounted]
    if not tpu:
        made["env"] += gpu_environment(job)
    return made


def gpu_environment(job: Job) -> list[dict[str, Any]]:
    """Where GKE puts the driver; of several nodes, which of the processes this is and where they meet
    (launch/stages/processes.py). A JobSet names its first pod JOBSET-slice-0-0, in a domain of its own name."""
    found: list[dict[str, Any]] = [{"name": "LD_LIBRARY_PATH", "value": "/usr/local/nvidia/lib64"}]
    if job.topology.chips > GPU_NODE:
        found += [
            {"name": "JAX_COORDINATOR_ADDRESS", "value": f"{job.name}-slice-0-0.{job.name}:{PORT}"},
            {"name": "NUM_PROCESSES", "value": str(hosts_per_slice(job.topology))},
            {"name": "PROCESS_ID", "valueFrom": {"fieldRef": {"fieldPath": INDEX}}},
        ]
    return found


def process_0(job: Job) -> str:
    """The labels of its pod."""
    return (
        f"jobset.sigs.k8s.io/jobset-name={job.name},jobset.sigs.k8s.io/job-index=0,"
        "batch.kubernetes.io/job-completion-index=0"
    )


class Dumper(yaml.SafeDumper):
    """Writes texts of several lines as they are."""


Dumper.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None),
)


def as_yaml(made: dict[str, Any], about: str) -> str:
    """A YAML file that begins with a comment."""
    return f"# {about}\n{yaml.dump(made, Dumper=Dumper, sort_keys=False, width=110)}"
