"""Runs on TPU VMs, over folders that stand for their hosts: what is sent there is run by a real bash."""

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from launch.cloud import queued_resource, tpu_vm
from lm.errors import InputError
from tests.launch.cloud.programs import REPOSITORY, Programs

CONFIG = str(REPOSITORY / "configs/gpt2_124m.py")
BUCKET = ["--workdir", "gs://bucket/runs/a"]
# In place of the environment that `make setup` brings, a Python that does what its turn says.
MAKE = """
import os
from pathlib import Path
Path(".venv/bin").mkdir(parents=True, exist_ok=True)
Path("made").write_text(" ".join(sys.argv[1:]))
Path(".venv/bin/python").write_text('#!/bin/bash\\necho "$@" >> "$CLOUD/started"\\nsource "$CLOUD/turn"\\n')
Path(".venv/bin/python").chmod(0o755)
"""


class Cloud:
    """One queued resource, and what its hosts are to do."""

    def __init__(self, folder: Path, programs: Programs):
        self.folder, self.programs = folder, programs

    def turn(self, body: str) -> None:
        """What the script does on a host, in bash."""
        (self.folder / "turn").write_text(body)

    def act(self, action: str, *words: str, topology: str = "v6e:2x4") -> None:
        tpu_vm.main([CONFIG, action, "--topology", topology, "--zone", "us-east5-b", *words])

    def verbs(self) -> list[str]:
        """What gcloud was asked to do, without the questions how it stands."""
        asked = [call for call in self.programs.calls() if call[0] == "gcloud" and "--worker=0" not in call]
        return [call[4] for call in asked if call[4] != "describe"]

    def host(self, name: str = "gpt2-124m@0") -> Path:
        return self.folder / "hosts" / name / "gristmill"

    def started(self) -> list[str]:
        path = self.folder / "started"
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def cloud(tmp_path, monkeypatch):
    programs = Programs(tmp_path, monkeypatch)
    programs.add("gcloud", (Path(__file__).parent / "gcloud.py").read_text())
    programs.add("make", MAKE)
    monkeypatch.setenv("CLOUD", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(queued_resource, "POLL_SECONDS", 0.05)
    made = Cloud(tmp_path, programs)
    yield made
    for pid in (tmp_path / "hosts").rglob("run.pid"):
        subprocess.run(["kill", "-KILL", pid.read_text().strip()], stderr=subprocess.DEVNULL)


def until(true: Callable[[], bool]) -> None:
    while not true():
        time.sleep(0.02)


def test_create_install_run_logs_stop_delete(cloud):
    cloud.turn('trap "exit 75" TERM; echo step 1; touch "$CLOUD/ready"; while true; do sleep 0.05; done')
    cloud.act("create", "--spot", "--flag=--service-account=a@b")
    (create,) = [call for call in cloud.programs.calls() if "create" in call]
    assert create == [
        "gcloud", "compute", "tpus", "queued-resources", "create", "gpt2-124m", "--zone=us-east5-b",
        "--node-id=gpt2-124m", "--accelerator-type=v6e-8", "--runtime-version=v2-alpha-tpuv6e", "--spot",
        "--service-account=a@b",
    ]  # fmt: skip
    cloud.act("install")
    assert (cloud.host() / "configs/gpt2_124m.py").is_file()
    assert (cloud.host() / "made").read_text() == "setup ACCELERATOR=tpu UV_PYTHON_DOWNLOADS=automatic"
    cloud.act("run", *BUCKET, "--sample.prompts", 'It\'s "odd" $HOME')
    until(lambda: (cloud.folder / "ready").exists())
    assert cloud.started() == [
        "-m launch.supervise --stopped-code 75 launch.pretrain configs/gpt2_124m.py --workdir gs://bucket/runs/a "
        '--sample.prompts It\'s "odd" $HOME'
    ]
    assert (cloud.host() / "run.log").read_text() == "step 1\n"
    with pytest.raises(InputError, match="ended with code 1"):  # it runs already
        cloud.act("run", *BUCKET)
    assert len(cloud.started()) == 1
    cloud.act("stop")
    until(lambda: (cloud.host() / "run.code").exists() and (cloud.host() / "run.code").read_text() == "75\n")
    cloud.act("delete")
    assert not (cloud.folder / "state").exists()


@pytest.mark.slow
def test_several_slices_are_nodes_of_one_queued_resource(cloud, monkeypatch):
    monkeypatch.setenv("HOSTS", "3")
    cloud.turn("exit 0")
    for action in ("create", "install", "run"):
        cloud.act(
            action,
            "--workdir",
            "/mnt/shared/a",
            "--project",
            "p",
            "--train.batch-size",
            "512",
            "--train.micro-batches",
            "1",
            topology="2xv6e-256",
        )
    (create,) = [call for call in cloud.programs.calls() if "create" in call]
    assert {"--node-count=2", "--node-prefix=gpt2-124m", "--accelerator-type=v6e-256", "--project=p"} <= set(create)
    assert not any(word.startswith("--node-id") for word in create)
    hosts = [cloud.host(f"gpt2-124m-{node}@{host}") for node in range(2) for host in range(3)]
    until(lambda: all((host / "run.code").exists() for host in hosts))
    assert len(cloud.started()) == 6 and "launch.train" in cloud.started()[0]


def test_keep_brings_a_run_to_its_end(cloud, capfd):
    cloud.turn("exit 0")
    cloud.act("keep", *BUCKET, "--spot")
    assert cloud.verbs() == ["create", "scp", "ssh", "ssh"]
    assert "the run is done, in gs://bucket/runs/a" in capfd.readouterr().err


@pytest.mark.slow
def test_keep_asks_again_for_a_slice_that_was_taken_away(cloud):
    gone = 'echo SUSPENDED > "$CLOUD/new"; mv "$CLOUD/new" "$CLOUD/state"'
    cloud.turn(f'echo "exit 0" > "$CLOUD/turn"; {gone}; exec sleep 600')
    cloud.act("keep", *BUCKET, "--spot")
    verbs = [verb for verb in cloud.verbs() if verb != "ssh"]
    assert verbs == ["create", "scp", "delete", "create", "scp"]
    assert len(cloud.started()) == 2


def test_keep_starts_again_what_ended_with_its_host_and_not_what_was_stopped_by_hand(cloud):
    cloud.turn('echo "touch run.stop; exit 75" > "$CLOUD/turn"; exit 75')
    with pytest.raises(InputError, match=r"was stopped by hand.*it goes on"):
        cloud.act("keep", *BUCKET)
    assert len(cloud.started()) == 2


@pytest.mark.parametrize("code", [1, 2])
def test_keep_ends_where_the_run_failed(cloud, code):
    cloud.turn(f"exit {code}")
    with pytest.raises(InputError, match=f"ended with code {code}.*logs"):
        cloud.act("keep", *BUCKET)
    assert len(cloud.started()) == 1


def test_what_was_stopped_by_hand_goes_on_when_it_is_run_again(cloud):
    cloud.turn("exit 0")
    cloud.act("create")
    cloud.act("install")
    for name, text in (("run.code", "75"), ("run.stop", "")):
        (cloud.host() / name).write_text(text)
    cloud.turn('while [ ! -f "$CLOUD/end" ]; do sleep 0.05; done')
    cloud.act("run", *BUCKET)
    assert not (cloud.host() / "run.code").exists() and not (cloud.host() / "run.stop").exists()
    (cloud.folder / "end").touch()
    cloud.act("keep", *BUCKET)
    assert len(cloud.started()) == 1


def test_keep_leaves_a_run_alone_that_is_there(cloud):
    cloud.turn('while [ ! -f "$CLOUD/end" ]; do sleep 0.05; done')
    for action in ("create", "install", "run"):
        cloud.act(action, *BUCKET)
    until(lambda: bool(cloud.started()))
    (cloud.folder / "end").touch()
    cloud.act("keep", *BUCKET)
    assert len(cloud.started()) == 1 and cloud.verbs().count("create") == 1


def test_keep_gives_up_where_the_service_refuses_again_and_again_and_leaves_nothing_asked_for(cloud, monkeypatch):
    monkeypatch.setenv("FIRST_STATE", "FAILED")
    with pytest.raises(InputError, match="5 failures in a row, so keep ends: FAILED"):
        cloud.act("keep", *BUCKET)
    assert cloud.verbs() == ["create", *["delete", "create"] * 4]
    assert (cloud.folder / "state").read_text() == "FAILED"


def test_keep_ends_where_gcloud_can_never_tell(cloud):
    cloud.programs.add("gcloud", 'sys.exit("ERROR: You do not currently have an active account selected.")')
    with pytest.raises(InputError, match=r"(?s)cannot tell the state .* active account.*action delete"):
        cloud.act("keep", *BUCKET)


def test_keep_outlives_hosts_that_do_not_answer_yet(cloud, capfd):
    cloud.turn("exit 0")
    real = (cloud.folder / "programs/gcloud").read_text()
    twice = (
        "from pathlib import Path\nasked = Path(__file__).with_name('asked')\n"
        "times = len(asked.read_text()) if asked.exists() else 0\n"
        "if 'scp' in sys.argv and times < 2:\n    asked.write_text('x' * (times + 1))\n    sys.exit(255)\n"
    )
    (cloud.folder / "programs/gcloud").write_text(real.replace("compute, tpus, group", f"{twice}compute, tpus, group"))
    cloud.act("keep", *BUCKET)
    assert cloud.verbs() == ["create", "scp", "scp", "scp", "ssh", "ssh"]
    assert "gcloud ended with code 255" in capfd.readouterr().err


def test_a_number_that_another_process_has_now_is_no_run(cloud):
    cloud.turn("exit 0")
    cloud.act("create")
    cloud.act("install")
    with subprocess.Popen(["sleep", "600"]) as other:
        for file in ("run.shell", "run.pid"):
            (cloud.host() / file).write_text(str(other.pid))
        cloud.act("stop")
        cloud.act("run", *BUCKET)
        until(lambda: (cloud.host() / "run.code").exists())
        assert len(cloud.started()) == 1 and other.poll() is None
        other.kill()
