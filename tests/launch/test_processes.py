"""Who is who among several processes: what is set by hand, by schedulers and by Cloud TPU; half of it is refused."""

import http.server
import os
import subprocess
import sys
import threading
from collections.abc import Generator

import pytest

from launch.stages import processes
from launch.stages.processes import Found, find
from lm.errors import UsageError
from tests.run_files import QUICK, REPOSITORY
from tests.train_process import free_port, told_by

NAMES = ("COORDINATOR", "NUM_PROCESSES", "PROCESS_ID", "SLURM_", "OMPI_", "TPU_", "MEGASCALE_")


@pytest.fixture(autouse=True)
def bare(monkeypatch, tmp_path) -> None:
    """No variable of the machine that runs the tests, and a folder of PCI devices that is empty."""
    for name in list(os.environ):
        if any(part in name for part in NAMES):
            monkeypatch.delenv(name)
    monkeypatch.setattr(processes, "PCI_DEVICES", tmp_path)
    processes.by_tpu_metadata.cache_clear()


def found_by(monkeypatch, variables: str) -> Found:
    for one in variables.split():
        monkeypatch.setenv(*one.split("="))
    return find()


def test_without_a_word_it_is_one_process():
    assert find() == Found(0, 1, "nothing")


@pytest.mark.parametrize(
    ("variables", "index", "count", "address"),
    [
        ("JAX_COORDINATOR_ADDRESS=h:1 NUM_PROCESSES=4 PROCESS_ID=3", 3, 4, "h:1"),
        ("JAX_COORDINATOR_ADDRESS=h:1 JAX_NUM_PROCESSES=4 JAX_PROCESS_ID=0", 0, 4, "h:1"),
        ("COORDINATOR_ADDRESS=h COORDINATOR_PORT=6666 NUM_PROCESSES=2 PROCESS_ID=1", 1, 2, "h:6666"),  # Kubeflow
        ("SLURM_STEP_NUM_TASKS=4 SLURM_PROCID=2", 2, 4, None),
        ("SLURM_STEP_NUM_TASKS=4 SLURM_PROCID=2 JAX_COORDINATOR_ADDRESS=h:1", 2, 4, None),
        ("JAX_COORDINATOR_ADDRESS=h:1 NUM_PROCESSES=2 PROCESS_ID=1 SLURM_STEP_NUM_TASKS=4 SLURM_PROCID=2", 1, 2, "h:1"),
        ("SLURM_STEP_NUM_TASKS=1 SLURM_PROCID=0", 0, 1, None),
        ("OMPI_COMM_WORLD_SIZE=3 OMPI_COMM_WORLD_RANK=1", 1, 3, None),
        ("TPU_WORKER_HOSTNAMES=a,b,c,d TPU_WORKER_ID=3", 3, 4, None),
        ("TPU_WORKER_HOSTNAMES=a,b TPU_WORKER_ID=1 MEGASCALE_NUM_SLICES=3 MEGASCALE_SLICE_ID=2", 5, 6, None),
        ("TPU_WORKER_HOSTNAMES=localhost TPU_WORKER_ID=0", 0, 1, None),
        ("NUM_PROCESSES=1 TPU_WORKER_HOSTNAMES=a,b TPU_WORKER_ID=1", 0, 1, None),
        ("NUM_PROCESSES=1 SLURM_STEP_NUM_TASKS=4 SLURM_PROCID=2", 0, 1, None),
    ],
)
def test_who_says_it_is_believed_in_this_order(monkeypatch, variables, index, count, address):
    found = found_by(monkeypatch, variables)
    assert (found.index, found.count, found.address) == (index, count, address)
    assert processes.place() == (index, count)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ("JAX_COORDINATOR_ADDRESS=h:1", r"ADDRESS=h:1 is set, but NUM_PROCESSES and PROCESS_ID are not\. .*Unset them"),
        ("NUM_PROCESSES=2", r"NUM_PROCESSES=2 is set, but JAX_COORDINATOR_ADDRESS and PROCESS_ID are not"),
        ("PROCESS_ID=0", r"PROCESS_ID=0 is set, but JAX_COORDINATOR_ADDRESS and NUM_PROCESSES are not"),
        ("NUM_PROCESSES=2 PROCESS_ID=0", r"NUM_PROCESSES=2, PROCESS_ID=0 is set, but JAX_COORDINATOR_ADDRESS is not"),
        ("NUM_PROCESSES=2 PROCESS_ID=2 JAX_COORDINATOR_ADDRESS=h:1", r"NUM_PROCESSES is '2' and PROCESS_ID is '2'"),
        ("NUM_PROCESSES=x PROCESS_ID=0 JAX_COORDINATOR_ADDRESS=h:1", r"NUM_PROCESSES is 'x' and PROCESS_ID is '0'"),
        ("NUM_PROCESSES=2 PROCESS_ID=0 COORDINATOR_ADDRESS=h", r"COORDINATOR_ADDRESS='h' has no port\. Give HOST:PORT"),
        ("SLURM_STEP_NUM_TASKS=4", r"SLURM_STEP_NUM_TASKS is '4' and SLURM_PROCID is 'not set'.*set NUM_PROCESSES=1"),
        ("TPU_WORKER_HOSTNAMES=a,b", r"TPU_WORKER_ID is 'not set'"),
        ("TPU_WORKER_HOSTNAMES=a,b TPU_WORKER_ID=0 MEGASCALE_NUM_SLICES=2 MEGASCALE_SLICE_ID=2", r"SLICE_ID is"),
    ],
)  # fmt: skip
def test_half_of_it_or_what_makes_no_sense_is_refused_with_both_and_a_remedy(monkeypatch, variables, message):
    with pytest.raises(UsageError, match=message):
        found_by(monkeypatch, variables)


@pytest.mark.parametrize(
    ("variables", "whole_host"),
    [
        ("SLURM_STEP_NUM_TASKS=4 SLURM_PROCID=2 SLURM_STEP_TASKS_PER_NODE=1(x4)", True),
        ("SLURM_STEP_NUM_TASKS=4 SLURM_PROCID=2 SLURM_STEP_TASKS_PER_NODE=2(x2)", False),
        ("SLURM_STEP_NUM_TASKS=16 SLURM_PROCID=2 SLURM_STEP_TASKS_PER_NODE=16", False),
        ("OMPI_COMM_WORLD_SIZE=3 OMPI_COMM_WORLD_RANK=1 OMPI_COMM_WORLD_LOCAL_SIZE=1", True),
    ],
)
def test_the_only_process_of_a_host_takes_all_its_devices(monkeypatch, variables, whole_host):
    """JAX gives each one device under a scheduler, unless it is told otherwise."""
    assert found_by(monkeypatch, variables).whole_host == whole_host


ATTRIBUTES = {
    "agent-worker-number": "1",
    "worker-network-endpoints": "unknown:unknown:10.0.0.1,unknown:unknown:10.0.0.2",
    "tpu-env": "ACCELERATOR_TYPE: 'v5p-16'\nMEGASCALE_NUM_SLICES: '2'\nMEGASCALE_SLICE_ID: '1'\n",
}


@pytest.fixture
def metadata_server(monkeypatch) -> Generator[dict[str, str]]:
    """The metadata server of a TPU VM, on loopback; its attributes may be changed."""
    attributes = dict(ATTRIBUTES)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.removeprefix("/computeMetadata/v1/instance/attributes/")
            there = name in attributes and self.headers["Metadata-Flavor"] == "Google"
            self.send_response(200 if there else 404)
            self.end_headers()
            self.wfile.write(attributes[name].encode() if there else b"")

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("localhost", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv("GCE_METADATA_IP", f"localhost:{server.server_port}")
        yield attributes
        server.shutdown()
        thread.join()


def test_a_tpu_vm_is_asked_for_its_place_in_its_slice_and_of_its_slice(monkeypatch, tmp_path, metadata_server):
    assert find().count == 1  # nothing of Google's in this machine
    card = tmp_path / "0000:00:05.0"
    card.mkdir()
    (card / "vendor").write_text("0x1ae0\n")
    processes.by_tpu_metadata.cache_clear()
    found = find()
    assert (found.index, found.count, found.by) == (3, 4, "Cloud TPU (the metadata server)")
    metadata_server.clear()  # a virtual machine without TPUs
    processes.by_tpu_metadata.cache_clear()
    assert find().count == 1


@pytest.mark.slow
def test_a_wait_for_processes_that_do_not_come_says_what_is_missing():
    code = "from launch.stages import processes as p; p.MEETING_SECONDS, p.PATIENCE_SECONDS = 1, 0.1; p.join()"
    variables = told_by("hand", 1, 2, port := free_port())
    process = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, text=True, capture_output=True,
        env=os.environ | QUICK | variables,
    )  # fmt: skip
    assert process.returncode
    assert f"this is 1 of 2, by NUM_PROCESSES and PROCESS_ID, and still waits for the others at localhost:{port}" in (
        process.stdout
    )


def test_a_scheduler_that_does_not_say_where_to_meet_is_an_error_with_its_remedy():
    code = "from launch.stages.command import told\nfrom launch.stages.processes import join\nwith told('t'): join()"
    process = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, text=True, capture_output=True,
        env=os.environ | QUICK | {"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1"},
    )  # fmt: skip
    assert process.returncode == UsageError.exit_code
    assert "process 1 of 2, by Slurm" in process.stderr and "Set JAX_COORDINATOR_ADDRESS=HOST:PORT" in process.stderr
    assert "Traceback" not in process.stderr
