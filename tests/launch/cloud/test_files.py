"""The generated files, by what checks them: Kubernetes's schemas, JobSet's and SkyPilot's own types, shellcheck,
hadolint. And what is in them."""

import io
import json
import os
import subprocess
import tarfile

import pytest
import yaml

from launch.cloud import gke, skypilot, slurm, tools
from launch.cloud.names import hosts
from launch.cloud.sky_task import MEET
from launch.stages import processes
from lm.errors import InputError
from lm.planning.topology import topology_of
from tests.launch.cloud.programs import REPOSITORY, Programs, check, needs_checkers, shown_file

CONFIG = "configs/gpt2_124m.py"
ALL = [
    "--spot",
    "--queue",
    "team",
    "--account",
    "trainer",
    "--secret",
    "wandb",
    "--train.batch-size",
    "2048",
    "--train.micro-batches",
    "1",
]
JOBSETS = """
import json, sys, yaml
from kubeflow_trainer_api.models.jobset_v1alpha2_job_set import JobsetV1alpha2JobSet
for path in sys.argv[1:]:
    made = yaml.safe_load(open(path))
    print(json.dumps(made if JobsetV1alpha2JobSet.from_dict(made).to_dict() == made else "fields that JobSet has not"))
"""
TASKS = """
import json, sys, sky
for path in sys.argv[1:]:
    task = sky.Task.from_yaml(path)
    (found,) = task.resources
    print("read:", json.dumps([task.num_nodes, found.accelerators, found.use_spot, task.run, task.setup, task.volumes]))
"""


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch):
    monkeypatch.chdir(REPOSITORY)


def made_by(script, capsys, *words: str) -> str:
    script.main([CONFIG, "run", *words, "--dry-run"])
    return shown_file(capsys.readouterr().out)


def jobset(capsys, topology: str, *words: str) -> dict:
    folder = ["--workdir", "gs://bucket/runs/a"]
    if hosts(topology_of(topology)) > 1:
        folder = ["--volume", "runs:/mnt/shared", "--workdir", "/mnt/shared/a"]
    words = ("--image", "registry.example/gristmill:1", *folder, *words)
    return yaml.safe_load(made_by(gke, capsys, "--topology", topology, *words))


def pod_of(made: dict) -> dict:
    return made["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]


@needs_checkers
def test_jobsets_have_the_fields_of_kubernetes_and_of_jobset(capsys, tmp_path):
    topologies = ("v6e:2x4", "v5p:4x4x4", "2xv6e-256", "h100:1", "h200:8", "b200:64")
    every = [
        jobset(capsys, one, "--train.batch-size", "2048", "--train.micro-batches", "1", *words)
        for one in topologies
        for words in ([], ALL)
    ]
    paths = [tmp_path / f"{number}.yaml" for number in range(len(every))]
    for path, made in zip(paths, every, strict=True):
        path.write_text(yaml.safe_dump(made))
    read = check("python", "-c", JOBSETS, *map(str, paths))
    assert read.returncode == 0, read.stderr
    assert [json.loads(line) for line in read.stdout.splitlines()] == every
    for path, made in zip(paths, every, strict=True):
        (job,) = made["spec"]["replicatedJobs"]
        alone = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "a"}} | job["template"]
        path.write_text(json.dumps(alone))
    checked = check("kubernetes-validate", "--strict", *map(str, paths))
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_a_jobset_has_a_job_a_slice_and_a_pod_a_host(capsys):
    made = jobset(capsys, "2xv6e-256", "--train.batch-size", "512", "--train.micro-batches", "1")
    (job,) = made["spec"]["replicatedJobs"]
    assert (
        job["replicas"] == 2 and job["template"]["spec"]["completions"] == job["template"]["spec"]["parallelism"] == 64
    )
    pod = pod_of(made)
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v6e-slice", "cloud.google.com/gke-tpu-topology": "16x16"
    }  # fmt: skip
    assert pod["containers"][0]["resources"]["limits"] == {"google.com/tpu": 4}
    assert "exclusive-topology" in str(made["metadata"]["annotations"])


def test_gpu_nodes_are_told_who_they_are_and_where_they_meet(capsys):
    made = jobset(capsys, "h100:16", "--name", "big")
    environment = {one["name"]: one for one in pod_of(made)["containers"][0]["env"]}
    assert environment["JAX_COORDINATOR_ADDRESS"]["value"] == "big-slice-0-0.big:8476"
    assert environment["NUM_PROCESSES"]["value"] == "2"
    assert "job-completion-index" in str(environment["PROCESS_ID"])
    alone = jobset(capsys, "h100:8")
    assert "PROCESS" not in str(alone) and "JAX_" not in str(alone)


@pytest.fixture
def nobody_tells(monkeypatch):
    """No variable of this machine names processes; all others come after these."""
    for name in (*processes.ADDRESS, *processes.COUNT, *processes.INDEX):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("index", [0, 1])
def test_a_run_finds_itself_by_what_a_jobset_tells_its_pods(index, capsys, monkeypatch, nobody_tells):
    made = jobset(capsys, "h100:16", "--name", "big")
    for one in pod_of(made)["containers"][0]["env"]:
        monkeypatch.setenv(one["name"], one.get("value", str(index)))  # without a value: Kubernetes writes the index
    found = processes.find()
    assert (found.index, found.count, found.address) == (index, 2, "big-slice-0-0.big:8476")


@pytest.mark.parametrize("index", [0, 1])
def test_a_run_finds_itself_by_what_a_task_of_skypilot_tells_its_nodes(index, monkeypatch, nobody_tells):
    told = {"SKYPILOT_NODE_IPS": "10.0.0.7\n10.0.0.8", "SKYPILOT_NUM_NODES": "2", "SKYPILOT_NODE_RANK": str(index)}
    done = subprocess.run(["bash", "-c", f"{MEET}env"], env=os.environ | told, capture_output=True, text=True)
    for name, _, value in (line.partition("=") for line in done.stdout.splitlines()):
        if name in (*processes.ADDRESS, *processes.COUNT, *processes.INDEX):
            monkeypatch.setenv(name, value)
    found = processes.find()
    assert (found.index, found.count, found.address) == (index, 2, "10.0.0.7:8476")


def test_all_pods_mount_the_disk_of_the_run_folder(capsys):
    for topology, others in (("v5p:4x4x4", []), ("h100:16", ["/dev/shm"])):
        pod = pod_of(jobset(capsys, topology))
        (shared,) = (one["name"] for one in pod["volumes"] if one.get("persistentVolumeClaim") == {"claimName": "runs"})
        paths = {one["mountPath"]: one["name"] for one in pod["containers"][0]["volumeMounts"]}
        assert paths.pop("/mnt/shared") == shared and list(paths) == others


def test_a_pod_that_was_asked_to_end_has_not_succeeded_and_a_wrong_command_is_not_started_again(capsys):
    made = jobset(capsys, "h100:8", "--restarts", "7")
    command = pod_of(made)["containers"][0]["command"]
    assert command[command.index("--stopped-code") + 1] == "75"
    policy = made["spec"]["replicatedJobs"][0]["template"]["spec"]["podFailurePolicy"]
    assert policy["rules"][0]["onExitCodes"]["values"] == [2] and policy["rules"][0]["action"] == "FailJob"
    assert made["spec"]["failurePolicy"]["rules"][0]["action"] == "FailJobSet"
    assert made["spec"]["failurePolicy"]["maxRestarts"] == 7


def test_a_secret_is_named_and_not_written(capsys, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "abc123secret")
    made = jobset(capsys, "h100:8", "--secret", "wandb")
    assert "abc123secret" not in str(made)
    assert pod_of(made)["containers"][0]["envFrom"] == [{"secretRef": {"name": "wandb"}}]


@needs_checkers
def test_skypilot_reads_the_tasks(capsys, tmp_path, monkeypatch):
    expected = {
        "h100:8": (1, {"H100": 8}), "b200:16": (2, {"B200": 8}), "v6e:2x4": (1, {"tpu-v6e-8": 1}),
        "v5p-64": (1, {"tpu-v5p-64": 1}),
    }  # fmt: skip
    paths = [tmp_path / f"{number}.yaml" for number in range(len(expected))]
    for path, topology in zip(paths, expected, strict=True):
        several = hosts(topology_of(topology)) > 1
        folder = "/mnt/shared/a" if several else "s3://bucket/a"
        volume = ["--volume", "runs:/mnt/shared"] if several else []
        path.write_text(made_by(skypilot, capsys, "--topology", topology, "--workdir", folder, *volume, "--spot"))
    monkeypatch.setenv("HOME", str(tmp_path))
    read = check("python", "-c", TASKS, *map(str, paths))
    assert read.returncode == 0, read.stderr
    tasks = [json.loads(line.removeprefix("read:")) for line in read.stdout.splitlines() if line.startswith("read:")]
    for (topology, (nodes, accelerators)), task in zip(expected.items(), tasks, strict=True):
        count, found, spot, run, setup, volumes = task
        assert (count, found, spot) == (nodes, accelerators, True)
        several = hosts(topology_of(topology)) > 1
        assert run.splitlines()[-1].endswith("--workdir /mnt/shared/a" if several else "--workdir s3://bucket/a")
        assert volumes == ({"/mnt/shared": "runs"} if several else {})
        assert ("NUM_PROCESSES" in run) == (nodes > 1)
        assert f"ACCELERATOR={'tpu' if 'v' in topology else 'cuda13'} " in setup
        (tmp_path / "run.sh").write_text(f"#!/bin/bash\n{run}\n{setup}\n")
        checked = check("shellcheck", str(tmp_path / "run.sh"))
        assert checked.returncode == 0, checked.stdout


@needs_checkers
@pytest.mark.parametrize("topology", ["h100:1", "h100:8", "h200:64"])
def test_shellcheck_finds_nothing_in_the_batch_script(topology, capsys, tmp_path):
    (tmp_path / "job.sh").write_text(made_by(slurm, capsys, "--topology", topology))
    checked = check("shellcheck", str(tmp_path / "job.sh"))
    assert checked.returncode == 0, checked.stdout


@needs_checkers
def test_hadolint_finds_nothing_in_the_dockerfile():
    checked = check("hadolint", str(REPOSITORY / "launch/cloud/Dockerfile"))
    assert checked.returncode == 0, checked.stdout


@needs_checkers
def test_the_checkers_find_what_is_wrong(tmp_path):
    """Else they could say nothing of the files above."""
    (tmp_path / "job.sh").write_text("#!/bin/bash\ncd $1\n")
    (tmp_path / "Dockerfile").write_text("FROM python\n")
    (tmp_path / "job.json").write_text('{"apiVersion": "batch/v1", "kind": "Job", "spec": {"paralelism": 1}}')
    (tmp_path / "task.yaml").write_text("num_node: 2\n")
    (tmp_path / "jobset.yaml").write_text("apiVersion: jobset.x-k8s.io/v1alpha2\nkind: JobSet\nspec: {replicas: 1}\n")
    assert check("shellcheck", str(tmp_path / "job.sh")).returncode
    assert check("hadolint", str(tmp_path / "Dockerfile")).returncode
    assert check("kubernetes-validate", "--strict", str(tmp_path / "job.json")).returncode
    assert check("python", "-c", TASKS, str(tmp_path / "task.yaml")).returncode
    assert "fields that JobSet has not" in check("python", "-c", JOBSETS, str(tmp_path / "jobset.yaml")).stdout


def test_a_bundle_has_what_git_tracks_and_the_config_alone(monkeypatch, tmp_path):
    for name in ("kept.py", "deleted.py", "configs/mine.py", "secrets.env"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    subprocess.run(["git", "-C", tmp_path, "add", "kept.py", "deleted.py"], check=True)
    (tmp_path / "deleted.py").unlink()
    monkeypatch.setattr(tools, "REPOSITORY", tmp_path)
    tools.Tools().bundle(tmp_path / "runs/a.tar.gz", "configs/mine.py")
    with tarfile.open(tmp_path / "runs/a.tar.gz") as archive:
        assert archive.getnames() == ["configs/mine.py", "kept.py"]


def test_outside_of_a_clone_nothing_is_packed(monkeypatch, tmp_path):
    monkeypatch.setattr(tools, "REPOSITORY", tmp_path)
    with pytest.raises(InputError, match="Work in a clone of it"):
        tools.Tools().bundle(tmp_path / "a.tar.gz", "configs/mine.py")
    assert not list(tmp_path.iterdir())


def test_the_image_is_built_of_the_bundle_for_the_accelerator_and_pushed(monkeypatch, tmp_path):
    programs = Programs(tmp_path, monkeypatch)
    programs.add("docker", reads_stdin=True)
    monkeypatch.chdir(tmp_path)
    gke.main([str(REPOSITORY / CONFIG), "image", "--topology", "v5p:2x2x1", "--image", "r/g:1"])
    with tarfile.open(fileobj=io.BytesIO(programs.stdin())) as archive:
        assert {CONFIG, "Makefile", "requirements.lock"} <= set(archive.getnames())
    assert programs.calls() == [
        ["docker", "build", "--tag=r/g:1", "--build-arg=ACCELERATOR=tpu", "--file=launch/cloud/Dockerfile", "-"],
        ["docker", "push", "r/g:1"],
    ]  # fmt: skip


def test_a_file_is_written_before_it_is_submitted(monkeypatch, tmp_path, capsys):
    programs = Programs(tmp_path, monkeypatch)
    read = "print(open(sys.argv[-1].removeprefix('--filename=')).read().count('gpt2_124m.py'))"
    programs.add("sky", read)
    programs.add("kubectl", read)
    monkeypatch.chdir(tmp_path)
    config, bucket = str(REPOSITORY / CONFIG), ["--workdir", "gs://b/a"]
    skypilot.main([config, "run", "--topology", "h100:8", *bucket, "--flag=--async"])
    gke.main([config, "run", "--topology", "h100:8", "--image", "i", *bucket, "--flag=--namespace=team"])
    assert programs.calls() == [
        ["sky", "jobs", "launch", "--yes", "--name=gpt2-124m", "--async", "runs/cloud/gpt2-124m.sky.yaml"],
        ["kubectl", "apply", "--namespace=team", "--filename=runs/cloud/gpt2-124m.jobset.yaml"],
    ]
