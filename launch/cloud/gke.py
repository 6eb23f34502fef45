"""Write the JobSet of a run on Google Kubernetes Engine: one Job for each TPU slice, or one for all GPU nodes.

    python -m launch.cloud.gke configs/llama3_8b.py --topology v5p:4x4x2 --image REGISTRY/gristmill:1 --workdir gs://BUCKET/a

Follows JobSet's reference for version 0.6 or newer (jobset.sigs.k8s.io/docs/reference/jobset.v1alpha2) and pages of GKE
such as "Deploy TPU Multislices in GKE" (docs.cloud.google.com/kubernetes-engine/docs/how-to: tpu-multislice, gpus),
read in November 2026. Never run on a cluster.
"""

import dataclasses
import math
import os
import shlex

import yaml

from launch.cloud.gpudirect import MACHINES, mounts_of
from launch.cloud.job import PORT, check_workdir, job_parser, parse_job, write_job
from launch.stages.command import handle_cli_errors
from lm.errors import UsageError, shown
from lm.planner.topology import SHAPES

TEMPLATE = """apiVersion: jobset.x-k8s.io/v1alpha2
kind: JobSet
metadata: {{name: {name}, labels: {labels}, annotations: {annotations}}}
spec:
  failurePolicy: # restart all pods, unless the command cannot run as it is (exit code 2)
    maxRestarts: 100
    rules: [{{name: usageError, action: FailJobSet, onJobFailureReasons: [PodFailurePolicy]}}]
  replicatedJobs:
  - name: slice
    replicas: {slices}
    template:
      spec:
        parallelism: {hosts}
        completions: {hosts}
        completionMode: Indexed
        backoffLimit: 0
        podFailurePolicy:
          rules: [{{action: FailJob, onExitCodes: {{containerName: run, operator: In, values: [2]}}}}]
        template:
          metadata: {{labels: {{app: {name}}}, annotations: {pod_annotations}}}
          spec:
            restartPolicy: Never
            terminationGracePeriodSeconds: 600 # for the save after SIGTERM; GKE gives spot nodes 15 s
            serviceAccountName: {account}
            nodeSelector: {nodes}
            hostNetwork: {network}
            dnsPolicy: {dns}
            volumes: {volumes}
            initContainers: {sidecars}
            containers:
            - name: run
              image: {image}
              command: {command}
              env: {environment}
              envFrom: {secrets}
              securityContext: {security}
              resources: {{limits: {chips}}}
              volumeMounts: {mounts}
"""
FIRST = "batch.kubernetes.io/job-completion-index=0"
INDEX = {"fieldRef": {"fieldPath": "metadata.annotations['batch.kubernetes.io/job-completion-index']"}}


def main(arguments: list[str] | None = None) -> None:
    parser = job_parser("gke", __doc__)
    parser.add_argument("--image", required=True, help="name of the image in a registry that the cluster can access")
    parser.add_argument("--spot", action="store_true", help="on spot nodes")
    parser.add_argument("--queue", help="Kueue's local queue")
    parser.add_argument("--account", default="default", help="Kubernetes service account that may use the bucket")
    parser.add_argument("--secret", help="a Secret of the cluster; its keys become environment variables")
    parser.add_argument("--volume", default="", metavar="CLAIM:/PATH", help="a PersistentVolumeClaim, in all pods")
    machines = {machine: label for label, (machine, _) in MACHINES.items() if "h100" in label}
    parser.add_argument("--machine", choices=machines, help="machine type of H100 nodes (default: a3-highgpu-8g)")
    job, given = parse_job(parser, arguments)
    if given.machine and job.accelerator not in machines.values():
        raise UsageError(f"--machine is {given.machine}, but the topology is {job.topology.name}. It is only for H100.")
    accelerator = machines[given.machine] if given.machine else job.accelerator
    label, several, (claim, _, path) = "cloud.google.com/gke-", job.topology.slices > 1, given.volume.partition(":")
    if given.volume and not (claim and path.startswith("/") and os.path.normpath(path) == path != "/"):
        raise UsageError(f"--volume is {shown(given.volume)}. Give CLAIM:/PATH, such as --volume runs:/mnt/shared.")
    check_workdir(job, "gs://", "s3://", *([f"{path}/"] if path else []))
    mounts = [{"name": "shared", "mountPath": path}] if path else []
    volumes: list[dict] = [{"name": "shared", "persistentVolumeClaim": {"claimName": claim}}] if path else []
    expanded = {name: value.replace("$", "$$") for name, value in job.environment.items()}  # like `command` below
    environment: list[dict] = [{"name": name, "value": value} for name, value in expanded.items()]
    if job.tpu:  # the label has each shape in one order: 2x4x4 also for v5p:4x4x2
        shapes = SHAPES[job.topology.chip.torus].values()
        shape = next(shape for shape in shapes if sorted(shape) == sorted(job.topology.shape))
        nodes = {f"{label}tpu-accelerator": job.accelerator, f"{label}tpu-topology": "x".join(map(str, shape))}
    else:
        nodes = {f"{label}accelerator": accelerator}
        volumes.append({"name": "shm", "emptyDir": {"medium": "Memory"}})  # NCCL needs more than the usual 64 MB
        mounts.append({"name": "shm", "mountPath": "/dev/shm"})
        environment.append({"name": "LD_LIBRARY_PATH", "value": "/usr/local/nvidia/lib64"})  # GKE's driver directory
    command, notes, annotations, sidecars, capabilities = shlex.split(job.command), [*job.notes], {}, [], ()
    if not job.tpu and job.hosts > 1:
        environment += [  # on TPUs, GKE sets the process index
            {"name": "JAX_COORDINATOR_ADDRESS", "value": f"{job.name}-slice-0-0.{job.name}:{PORT}"},
            {"name": "NUM_PROCESSES", "value": str(job.hosts)},
            {"name": "PROCESS_ID", "valueFrom": INDEX},
        ]
        machine, network = MACHINES.get(accelerator, ("", None))
        if network is None:
            notes.append("network: TCP, which is slow between nodes; GKE has GPUDirect for A3 and A4 machines")
        else:
            annotations, sidecars, capabilities = network.annotations(), network.sidecars(), network.capabilities
            volumes += network.volumes()
            mounts += mounts_of(network.mounts)
            environment += [{"name": name, "value": value} for name, value in network.environment.items()]
            if network.profile:
                command = ["bash", "-c", f'. {network.profile} && exec "$@"', "bash", *command]
            notes.append(f"network: {network.name} on {machine}, never tried; {network.needs}")
    placed = {"alpha.jobset.sigs.k8s.io/exclusive-topology": f"{label}nodepool"}
    values = {
        "name": job.name, "slices": job.topology.slices, "hosts": job.hosts, "image": given.image,
        "labels": {"kueue.x-k8s.io/queue-name": given.queue} if given.queue else {},
        "annotations": placed if job.tpu and job.hosts > 1 else {}, "account": given.account,
        "nodes": nodes | ({f"{label}spot": "true"} if given.spot else {}),
        "network": several, "dns": "ClusterFirstWithHostNet" if several else "ClusterFirst",
        "pod_annotations": annotations, "sidecars": sidecars,
        "security": {"capabilities": {"add": [*capabilities]}} if capabilities else {},
        "command": [word.replace("$", "$$") for word in command],  # Kubernetes expands $(NAME)
        "environment": environment, "secrets": [{"secretRef": {"name": given.secret}}] if given.secret else [],
        "chips": {"google.com/tpu" if job.tpu else "nvidia.com/gpu": job.chips}, "volumes": volumes, "mounts": mounts,
    }  # fmt: skip
    flow = lambda value: yaml.safe_dump([value], default_flow_style=True, width=math.inf).strip()[1:-1]
    build = ["docker", "build", f"--tag={given.image}", f"--build-arg=ACCELERATOR={'tpu' if job.tpu else given.cuda}"]
    commands = {
        "build": f"{job.pack} | {shlex.join(build)} --file=launch/cloud/Dockerfile -",
        "push": shlex.join(["docker", "push", given.image]),
        "submit": f"kubectl apply --filename={job.file}.jobset.yaml",
        "follow": f"kubectl logs -f --container=run --tail=100 --selector=app={job.name},{FIRST}",
        "stop": f"kubectl delete jobset/{job.name}",
    }
    text = TEMPLATE.format_map({name: flow(value) for name, value in values.items()})
    write_job(dataclasses.replace(job, notes=notes), ".jobset.yaml", text, commands, given.dry_run)


if __name__ == "__main__":
    with handle_cli_errors("launch.cloud.gke"):
        main()
