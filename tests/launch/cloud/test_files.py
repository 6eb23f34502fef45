"""Checkers accept the files (Kubernetes schemas, types of JobSet and SkyPilot, shellcheck, hadolint, gcloud's
reference), and their contents are right."""

import importlib
import json
import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from launch.stages import processes
from lm.errors import UsageError
from tests.launch.cloud.files import ANY, REPOSITORY, WORDS, check, commands_in, dry_run, needs_checkers, pod_of

ALL = ["--spot", "--queue", "team", "--account", "trainer", "--secret", "wandb", "--volume", "runs:/mnt/shared"]
JOBSETS = """
import json, sys, yaml
from kubeflow_trainer_api.models.jobset_v1alpha2_job_set import JobsetV1alpha2JobSet
for path in sys.argv[1:]:
    made = yaml.safe_load(open(path))
    print(json.dumps(made if JobsetV1alpha2JobSet.from_dict(made).to_dict() == made else "fields that JobSet has not"))
"""
TASKS = """
import json, os, sys
os.environ["IS_SKYPILOT_SERVER"] = "1"  # with this and its plugins, SkyPilot refuses fields that it does not know
import sky, sky.server.plugins
sky.server.plugins.plugins_loaded = lambda: True
import yaml
for path in sys.argv[1:]:
    config = yaml.safe_load(open(path))  # the values that `sky jobs launch --env NAME --secret NAME` passes
    given = lambda part: [(name, "x") for name, value in config.get(part, {}).items() if value is None]
    task = sky.Task.from_yaml_config(config, env_overrides=given("envs"), secrets_overrides=given("secrets"))
    (found,) = task.resources
    print("read:", json.dumps([
        task.num_nodes, found.accelerators, found.network_tier.value if found.network_tier else None,
        sorted(task.secrets), found.use_spot, task.run, task.setup,
    ]))
from sky.client.cli.command import jobs
options = {name: [word for one in verb.params for word in one.opts] for name, verb in jobs.commands.items()}
print("read:", json.dumps(options))
"""
JOBS = {  # slices, hosts and chips each, GKE's labels, gcloud's type and runtime: docs.cloud.google.com/tpu/docs and
    # .../kubernetes-engine/docs/concepts
    "2xv6e-256": (2, 64, 4, "tpu-v6e-slice 16x16", "v6e-256 v2-alpha-tpuv6e"),
    "v5p:4x4x2": (1, 8, 4, "tpu-v5p-slice 2x4x4", "v5p-64 v2-alpha-tpuv5"),
    "v5p-8": (1, 1, 4, "tpu-v5p-slice 2x2x1", "v5p-8 v2-alpha-tpuv5"),
    "v5e-8": (1, 1, 8, "tpu-v5-lite-podslice 2x4", "v5litepod-8 v2-alpha-tpuv5-lite"),
    "v4-32": (1, 4, 4, "tpu-v4-podslice 2x2x4", "v4-32 tpu-ubuntu2204-base"),
    "ironwood:4x4x4": (1, 16, 4, "tpu7x 4x4x4", ""),
    "h100:2": (1, 1, 2, "nvidia-h100-80gb", ""),
    "b200:32": (1, 4, 8, "nvidia-b200", ""),
}
NETWORKS = [  # topology, options, GKE's label, networks, sidecar, script that sets NCCL's variables: Google's examples
    # (github.com/GoogleCloudPlatform/container-engine-accelerators)
    ("h100:16", [], "nvidia-h100-80gb", ["default", "vpc1", "vpc2", "vpc3", "vpc4"], "tcpx-daemon", ""),
    ("h100:16", ["--machine", "a3-megagpu-8g"], "nvidia-h100-mega-80gb",
     ["default", *(f"vpc{number}" for number in range(1, 9))], "tcpxo-daemon",
     "/usr/local/nvidia/lib64/nccl-env-profile.sh"),
    ("h200:16", [], "nvidia-h200-141gb", ["default", *(f"rdma-{number}" for number in range(8))], "",
     "/usr/local/gib/scripts/set_nccl_env.sh"),
    ("b200:16", [], "nvidia-b200", ["default", *(f"rdma-{number}" for number in range(8))], "",
     "/usr/local/gib/scripts/set_nccl_env.sh"),
    ("a100:16", [], "nvidia-a100-80gb", [], "", ""),
]  # fmt: skip
GCLOUD = {  # of the flags of cloud.google.com/sdk/gcloud/reference/(alpha/)compute/tpus/queued-resources
    "create": "accelerator-type autocheckpoint-enabled metadata-from-file node-count node-id node-prefix spot zone "
    "runtime-version",
    "describe": "format zone",
    "ssh": "command node worker zone",
    "delete": "async force zone",
}


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch):
    monkeypatch.chdir(REPOSITORY)


@needs_checkers
def test_jobsets_have_the_fields_of_kubernetes_and_of_jobset(capsys, tmp_path):
    texts = [dry_run(capsys, "gke", topology, *ANY, *words) for topology in JOBS for words in ([], ALL)]
    texts += [dry_run(capsys, "gke", topology, *machine, *ALL) for topology, machine, *_ in NETWORKS]
    paths = [str(tmp_path / f"{number}.yaml") for number in range(len(texts))]
    for path, text in zip(paths, texts, strict=True):
        Path(path).write_text(text)
    read, every = check("python", "-c", JOBSETS, *paths), [yaml.safe_load(text) for text in texts]
    assert [json.loads(line) for line in read.stdout.splitlines()] == every, read.stderr
    for path, made in zip(paths, every, strict=True):
        (job,) = made["spec"]["replicatedJobs"]
        alone = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "a"}} | job["template"]
        Path(path).write_text(json.dumps(alone))
    checked = check("kubernetes-validate", "--strict", *paths)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize("topology", JOBS)
def test_a_jobset_has_a_job_for_each_slice_and_a_pod_for_each_host(topology, capsys):
    slices, pods, chips, labels, _ = JOBS[topology]
    made = yaml.safe_load(dry_run(capsys, "gke", topology, *ANY))
    (job,), pod, tpu = made["spec"]["replicatedJobs"], pod_of(made), labels.startswith("tpu")
    spec = job["template"]["spec"]
    assert (job["replicas"], spec["completions"], spec["parallelism"]) == (slices, pods, pods)
    assert pod["containers"][0]["resources"]["limits"] == {"google.com/tpu" if tpu else "nvidia.com/gpu": chips}
    assert " ".join(pod["nodeSelector"].values()) == labels and pod["hostNetwork"] == (slices > 1)
    assert ("exclusive-topology" in str(made["metadata"])) == (tpu and pods > 1)


@pytest.mark.parametrize("cloud", ["gke", "skypilot"])
@pytest.mark.parametrize("index", [0, 1])
def test_processes_of_gpu_nodes_discover_each_other(index, cloud, capsys, monkeypatch):
    for name in (*processes.ADDRESS, *processes.COUNT, *processes.INDEX):
        monkeypatch.delenv(name, raising=False)
    text = dry_run(capsys, cloud, "h100:16", "--name", "big")
    if cloud == "gke":  # without a value: Kubernetes writes the index
        (run,) = pod_of(yaml.safe_load(text))["containers"]
        told = {one["name"]: one.get("value", str(index)) for one in run["env"]}
    else:
        node = {"SKYPILOT_NODE_IPS": "10.0.0.7\n10.0.0.8", "SKYPILOT_NUM_NODES": "2", "SKYPILOT_NODE_RANK": str(index)}
        run = yaml.safe_load(text)["run"].partition(".venv")[0] + "env"
        done = subprocess.run(["bash", "-c", run], env=os.environ | node, capture_output=True, text=True)
        told = dict(line.split("=", 1) for line in done.stdout.splitlines() if re.match("(JAX|NUM|PROCESS)_", line))
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    found = processes.find()
    address = {"gke": "big-slice-0-0.big:8476", "skypilot": "10.0.0.7:8476"}[cloud]
    assert (found.index, found.count, found.address) == (index, 2, address)
    assert not re.search("PROCESS_ID|JAX_COORD", dry_run(capsys, cloud, "h100:8"))


@pytest.mark.parametrize(("topology", "machine", "label", "networks", "sidecar", "profile"), NETWORKS)
def test_gpu_pods_of_several_nodes_have_the_network_of_their_machine(
    topology, machine, label, networks, sidecar, profile, capsys
):
    text = dry_run(capsys, "gke", topology, *machine)
    pod, (job,) = pod_of(yaml.safe_load(text)), yaml.safe_load(text)["spec"]["replicatedJobs"]
    assert list(pod["nodeSelector"].values()) == [label]
    marks = job["template"]["spec"]["template"]["metadata"]["annotations"]
    attached = {
        one["interfaceName"]: one["network"] for one in json.loads(marks.get("networking.gke.io/interfaces", "[]"))
    }
    assert list(attached.values()) == networks and marks.get("networking.gke.io/default-interface", "eth0") == "eth0"
    containers = {one["name"]: one for one in [*pod["initContainers"], *pod["containers"]]}
    assert list(containers) == [*([sidecar] if sidecar else []), "run"]
    volumes = {one["name"] for one in pod["volumes"]}
    for container in containers.values():
        assert {one["name"] for one in container["volumeMounts"]} <= volumes
    if sidecar:  # Kubernetes stops it after the run only with this restart policy
        assert containers[sidecar]["restartPolicy"] == "Always"
        devices = [one["path"] for one in yaml.safe_load(marks[f"devices.gke.io/container.{sidecar}"])]
        assert devices[:8] == [f"/dev/nvidia{number}" for number in range(8)]
    environment = {one["name"]: one.get("value", "") for one in containers["run"]["env"]}
    for name in ("NCCL_SOCKET_IFNAME", "NCCL_GPUDIRECTTCPX_SOCKET_IFNAME", "NCCL_GPUDIRECTTCPX_CTRL_DEV"):
        assert {*environment.get(name, "eth0").split(",")} <= {"eth0", *attached}
    command = containers["run"]["command"]
    assert (command[2].replace("$$", "$") if command[0] == "bash" else "") == (
        f'. {profile} && exec "$@"' if profile else ""
    )
    assert "never tried" in text or not networks


def test_the_machine_type_is_only_for_h100_and_one_node_and_tpus_have_no_gpu_network(capsys):
    for topology in ("h100:8", "v6e:4x4"):
        text = dry_run(capsys, "gke", topology)
        assert "networking.gke.io" not in text and "hostPath" not in text
    alone = pod_of(yaml.safe_load(dry_run(capsys, "gke", "h100:8", "--machine", "a3-megagpu-8g")))
    assert list(alone["nodeSelector"].values()) == ["nvidia-h100-mega-80gb"]
    with pytest.raises(UsageError, match="--machine is a3-megagpu-8g, but the topology is h200:16"):
        dry_run(capsys, "gke", "h200:16", "--machine", "a3-megagpu-8g")


@pytest.mark.parametrize("place", ["s3://bucket/a", "gs://bucket/a"])
def test_a_skypilot_task_names_the_keys_of_its_bucket_and_has_none(place, capsys, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "kept-secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "kept-secret")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://store.example")
    text = dry_run(capsys, "skypilot", "h100:8", "--workdir", place)
    task, submit = yaml.safe_load(text), commands_in(text)["submit"]
    in_s3 = place.startswith("s3://")
    keys = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"] if in_s3 else []
    assert task.get("secrets", {}) == dict.fromkeys(keys) and "kept-secret" not in text
    assert task["envs"].get("AWS_ENDPOINT_URL") == ("https://store.example" if in_s3 else None)
    asked = {name for name, value in task["envs"].items() if value is None}
    assert asked == ({"AWS_REGION"} if in_s3 else set())
    assert submit[3:-2] == [*(f"--env={name}" for name in asked), *(f"--secret={name}" for name in keys)]


@pytest.mark.parametrize("module", [*WORDS, "gpudirect"])
def test_a_template_cites_the_page_that_it_follows_with_the_date_and_says_where_it_never_ran(module):
    text = " ".join((importlib.import_module(f"launch.cloud.{module}").__doc__ or "").split())
    assert re.search(r'Follows "?\w.*\([\w.]+\.\w+[/:].*, read (on \d+|in) \w+ 2026\.', text), text
    assert re.search(r"(?i)never (run )?on a (cloud|cluster)", text), text


def test_pods_have_disks_and_secret_and_restart_unless_the_command_is_wrong(capsys):
    made = yaml.safe_load(dry_run(capsys, "gke", "h100:16", *ALL))
    pod, spec = pod_of(made), made["spec"]
    sources = {one.pop("name"): one for one in pod["volumes"]}
    mounted = {one["mountPath"]: sources[one["name"]] for one in pod["containers"][0]["volumeMounts"]}
    assert (
        mounted["/mnt/shared"] == {"persistentVolumeClaim": {"claimName": "runs"}} and "emptyDir" in mounted["/dev/shm"]
    )
    assert pod["containers"][0]["envFrom"] == [{"secretRef": {"name": "wandb"}}]
    assert pod["nodeSelector"]["cloud.google.com/gke-spot"] == "true"
    (rule,) = spec["replicatedJobs"][0]["template"]["spec"]["podFailurePolicy"]["rules"]
    assert (rule["onExitCodes"]["values"], rule["action"]) == ([2], "FailJob")
    assert spec["failurePolicy"]["maxRestarts"] and spec["failurePolicy"]["rules"][0]["action"] == "FailJobSet"


@needs_checkers
@pytest.mark.slow
def test_skypilot_reads_the_tasks_and_has_the_options(capsys, tmp_path, monkeypatch):
    keys = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]
    expected = {
        "h100:8": (1, {"H100": 8}, None, keys), "h200:2": (1, {"H200": 2}, None, keys),
        "b200:16": (2, {"B200": 8}, "best", keys), "v6e:2x4": (1, {"tpu-v6e-8": 1}, None, keys),
        "v5p-64": (1, {"tpu-v5p-64": 1}, None, keys), "v5e-8": (1, {"tpu-v5litepod-8": 1}, None, keys),
    }  # fmt: skip
    texts = [dry_run(capsys, "skypilot", topology, "--spot") for topology in expected]
    for number, text in enumerate(texts):
        (tmp_path / f"{number}.yaml").write_text(text)
    monkeypatch.setenv("HOME", str(tmp_path))
    read = check("python", "-c", TASKS, *(str(tmp_path / f"{number}.yaml") for number in range(len(texts))))
    *tasks, options = [json.loads(line[5:]) for line in read.stdout.splitlines() if line.startswith("read:")]
    for wanted, (*found, spot, run, setup) in zip(expected.values(), tasks, strict=True):
        assert (tuple(found), spot) == (wanted, True)
        (tmp_path / "run.sh").write_text(f"#!/bin/bash\n{run}\n{setup}\n")
        assert check("shellcheck", str(tmp_path / "run.sh")).returncode == 0
    for _, _, verb, *words in (words for words in commands_in(texts[0]).values() if words[0] == "sky"):
        assert {word.partition("=")[0] for word in words if word.startswith("--")} <= set(options[verb])


@needs_checkers
@pytest.mark.parametrize("topology", ["h100:1", "h100:8", "h100:64", "v6e-8", "2xv4-16"])
def test_shellcheck_and_hadolint_find_nothing(topology, capsys, tmp_path):
    cloud = "slurm" if topology.startswith("h100") else "tpu_vm"
    (tmp_path / "job.sh").write_text(dry_run(capsys, cloud, topology, *ANY))
    checked = check("shellcheck", str(tmp_path / "job.sh"))
    assert checked.returncode == 0, checked.stdout
    assert check("hadolint", str(REPOSITORY / "launch/cloud/Dockerfile")).returncode == 0


@pytest.mark.parametrize("topology", [name for name, job in JOBS.items() if job[-1]])
def test_gcloud_gets_the_flags_of_its_reference(topology, capsys):
    commands = commands_in(dry_run(capsys, "tpu_vm", topology, "--name", "a", "--spot", *ANY))
    assert commands["submit"].pop(1) == "alpha"  # the stable reference has no --autocheckpoint-enabled
    used = [words for words in commands.values() if words[:4] == ["gcloud", "compute", "tpus", "queued-resources"]]
    assert [words[4] for words in used] == ["create", "describe", "ssh", "ssh", "delete"]
    for verb, name, zone, *flags in (words[4:] for words in used):
        assert (name, zone) == ("a", "--zone=us-east5-b")
        assert {flag.partition("=")[0] for flag in flags} <= {f"--{flag}" for flag in GCLOUD[verb].split()}
    (slices, *_, names), metadata = JOBS[topology], "--metadata-from-file=startup-script=runs/cloud/a.sh"
    nodes = ["--node-id=a"] if slices == 1 else [f"--node-count={slices}", "--node-prefix=a"]
    kind = [
        f"--{flag}={name}" for flag, name in zip(("accelerator-type", "runtime-version"), names.split(), strict=True)
    ]
    assert commands["submit"][7:] == [*nodes, *kind, "--autocheckpoint-enabled", "--spot", metadata]
    assert commands["upload the code"][-5:] == ["gcloud", "storage", "cp", "-", "gs://bucket/runs/a.code.tar.gz"]


@needs_checkers
@pytest.mark.slow
def test_the_checkers_find_errors(tmp_path):
    for text, *program in (
        ("#!/bin/bash\ncd $1\n", "shellcheck"),
        ("FROM python\n", "hadolint"),
        ('{"apiVersion": "batch/v1", "kind": "Job", "spec": {"paralelism": 1}}', "kubernetes-validate", "--strict"),
        ("num_node: 2\n", "python", "-c", TASKS),
    ):
        (tmp_path / "file.yaml").write_text(text)
        assert check(*program, str(tmp_path / "file.yaml")).returncode
    (tmp_path / "file.yaml").write_text("apiVersion: jobset.x-k8s.io/v1alpha2\nkind: JobSet\nspec: {replicas: 1}\n")
    assert "fields that JobSet has not" in check("python", "-c", JOBSETS, str(tmp_path / "file.yaml")).stdout
