"""Units on Ray: the same bytes whatever workers and nodes do, and no port open to others.

Each test runs in a separate process, because Ray starts servers and threads that end with the process.
"""

import json
import os
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from data_prep.config import ONE_PROCESS, EngineConfig
from data_prep.engine import run_step
from lm.errors import UsageError
from tests.data_prep.engine.test_executors import short_folder
from tests.data_prep.engine.test_units import BAD, check_failures, contents, members, records, step_of, texts
from tests.run_files import HANG_SECONDS
from tests.until import until

REPOSITORY = Path(__file__).parents[3]
needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed (make ray)")

MAIN = """
import dataclasses, os, sys, time
from pathlib import Path
from data_prep.config import EngineConfig
from data_prep.engine import run_step
from tests.data_prep.engine.test_ray import listening
from tests.data_prep.engine.test_units import BAD, Hurried, step_of, texts, work

def engine(**more):
    return EngineConfig(runner="ray", workers=2, max_failed=0.5, attempts=2, **more)
"""

UNITS = """
if __name__ == "__main__":
    assert len(run_step(step_of(texts(100)), engine(), Path("first"))) == 100
    print(listening())
    step = dataclasses.replace(step_of(texts(200) | BAD), work=Hurried(work))
    assert len(run_step(step, engine(unit_hours=30 / 3600), Path("run"))) == 200
"""

INTERRUPTED = """
if __name__ == "__main__":
    try:
        run_step(step_of(texts(20) | {"wait-0": "wait", "wait-1": "wait"}), engine(), Path("run"))
    except KeyboardInterrupt:
        print("interrupted")
"""

UNREACHABLE = """
if __name__ == "__main__":
    from lm.errors import InputError
    try:
        run_step(step_of(texts(2)), engine(address="127.0.0.1:1"), Path("run"))
    except InputError as error:
        print(error)
"""

LOST = """
import ray
from ray.cluster_utils import Cluster

from data_prep.engine.ray_tasks import result_of
from data_prep.engine.units import Unit

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": 100 << 20})
node = cluster.add_node(num_cpus=1, object_store_memory=100 << 20)
ray.init(cluster.address, log_to_driver=False)
task = ray.remote(num_cpus=1, max_retries=0)(lambda: bytes(1 << 20)).remote()
ray.wait([task], fetch_local=False)
cluster.remove_node(node)
lost_nodes = {}
print(result_of(task, None, Unit("unit", "", 1, None), lost_nodes), lost_nodes)
ray.shutdown()
cluster.shutdown()
"""
"""The node of a finished task is lost before its large result is read."""


def listening() -> list[str]:
    """The local addresses, in hex, on which this process and its descendants listen (Linux)."""
    pids, sockets = members(os.getsid(0)), set()
    for pid in pids:
        for handle in Path(f"/proc/{pid}/fd").glob("*"):
            try:
                sockets.add(str(handle.readlink()))
            except OSError:
                continue
    lines = [line.split() for table in ("tcp", "tcp6") for line in Path(f"/proc/net/{table}").read_text().splitlines()]
    return sorted({line[1].split(":")[0] for line in lines if line[3] == "0A" and f"socket:[{line[9]}]" in sockets})


def start(folder: Path, home: str, code: str) -> subprocess.Popen:
    (folder / "main.py").write_text(MAIN + code)
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "HOME": home, "RAY_TMPDIR": home}
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "main.py"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        cwd=folder, env=environment, start_new_session=True,
    )  # fmt: skip


def said_by(process: subprocess.Popen) -> str:
    """Return the output, and check that no process of it is left."""
    said, errors = process.communicate(timeout=HANG_SECONDS)
    assert process.returncode == 0, errors
    until(lambda: not members(process.pid))
    return said


@pytest.mark.slow
@needs_ray
@pytest.mark.skipif(sys.platform != "linux", reason="open ports are read from /proc")
def test_units_that_fail_kill_or_hang_are_quarantined_and_servers_listen_only_on_loopback(tmp_path):
    run_step(step_of(texts(200)), ONE_PROCESS, tmp_path / "alone")
    with short_folder() as home:
        said = said_by(start(tmp_path, home, UNITS))
    addresses = said.splitlines()[0]
    assert "0100007F" in addresses and "'00000000" not in addresses.replace("'0000000000000000FFFF00000100007F'", "")
    assert contents(tmp_path / "run") == contents(tmp_path / "alone")
    found = records(tmp_path / "run")
    assert found.keys() == BAD.keys()
    check_failures(found)
    assert not list((tmp_path / "run").rglob("*.running"))


@needs_ray
@pytest.mark.slow
def test_an_interrupt_stops_the_cluster_and_keeps_finished_units(tmp_path):
    with short_folder() as home:
        process = start(tmp_path, home, INTERRUPTED)
        until(lambda: len(list(tmp_path.rglob("wait-*.running"))) == 2 or process.poll() is not None)
        process.send_signal(signal.SIGINT)
        assert said_by(process).splitlines()[-1] == "interrupted"
    assert len(contents(tmp_path / "run")) == 20 and not list(tmp_path.rglob("*.running"))


@needs_ray
@pytest.mark.slow
def test_a_unit_runs_again_if_its_result_was_lost_with_a_node(tmp_path):
    with short_folder() as home:
        said = said_by(start(tmp_path, home, LOST))
    assert said.splitlines()[-1] == "None {'unit': 1}"


@needs_ray
@pytest.mark.slow
def test_an_unreachable_cluster_is_reported_in_one_line(tmp_path):
    with short_folder() as home:
        (line,) = said_by(start(tmp_path, home, UNREACHABLE)).splitlines()
    assert line.startswith("No Ray cluster can be used at engine.address 127.0.0.1:1: ")


@needs_ray
@pytest.mark.slow
def test_killed_workers_lost_nodes_and_failing_bucket_requests_do_not_change_the_bytes():
    """The nodes get the store only from the driver."""
    command = [sys.executable, "-m", "tests.bench.cluster", "--units", "60", "--seconds", "0.5", "--kill-every", "4"]
    ended = subprocess.run(
        [*command, "--any-time"], cwd=REPOSITORY, capture_output=True, text=True, timeout=HANG_SECONDS
    )
    assert ended.returncode == 0, ended.stderr
    run = json.loads(ended.stdout.splitlines()[-1])
    assert run["killed"] and run["node removed and added"]


def test_options_of_another_executor_are_rejected():
    with pytest.raises(UsageError, match=r"engine\.address is 'x', but engine\.runner is processes; only ray uses it"):
        EngineConfig(address="x")


def test_a_missing_ray_is_reported_with_the_install_command(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "")
    with pytest.raises(UsageError, match=r"Ray is not installed .* make ray"):
        run_step(step_of(texts(2)), EngineConfig(runner="ray"), tmp_path)
