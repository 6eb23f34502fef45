"""A step of units on a Ray cluster of four nodes, with its folder in a bucket, while workers, a node and requests fail.

    python -m tests.bench.cluster                     the cluster, undisturbed and disturbed
    python -m tests.bench.cluster --units 40 --seconds 0.5 --kill-every 5

The nodes are raylets of this machine (`ray.cluster_utils`), the bucket is moto's S3 server with the proxy of
tests/object_store.py. The driver is a separate process, and only its environment names the store.

Disturbed: a worker process is killed every 30 s, a node is removed after a third of the units and another is added
after half of them, and 5 % of the requests get a 500, a 503 or a truncated response. Requirements: the outputs have the
bytes of one process, no unit is quarantined, and the time is at most 1.3 times that of the undisturbed run. Units read
one object, use a processor for a fifth of their time, and write one object. Prints one JSON line for each run.
"""

import contextlib
import functools
import hashlib
import json
import logging
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from data_prep.config import EngineConfig
from data_prep.engine import Step, Unit, Workspace, identity_of, run_step, run_unit
from lm.storage import Url, write_atomically
from tests.bench.runner import REPOSITORY, run_benchmark
from tests.object_store import Request, Store, serving, variables
from tests.run_files import HANG_SECONDS

BUCKET, RUN = "bucket", Url("s3://bucket/run")
INPUT_BYTES = 200_000
NODES = 4
FAULTS = ("500", "503", "cut")
MOST_TIME, MOST_BYTES = 1.3, 1.1
"""Relative to the undisturbed run; relative to the bytes of the inputs."""


def input_of(name: str) -> bytes:
    return random.Random(name).randbytes(INPUT_BYTES)


def work(unit: Unit[float], space: Workspace) -> dict:
    """Read the input, work for `unit.input` seconds, a fifth of them on a processor, and write a hash and the input."""
    begin = time.perf_counter()
    data = space.input(f"in/{unit.name}").read_bytes()
    digest = hashlib.sha256(data).digest()
    while time.perf_counter() - begin < unit.input / 5:
        hashlib.sha256(data).digest()
    time.sleep(max(0.0, unit.input - (time.perf_counter() - begin)))
    write_atomically(space.output(f"out/{unit.name}"), digest + data[:1000], scratch=space.scratch)
    space.count(rows=1, bytes=len(data))
    return {"rows": 1}


def step_of(units: int, seconds: float) -> Step[float]:
    names = [f"{number:06d}" for number in range(units)]
    return Step("step", tuple(Unit(name, identity_of(name), INPUT_BYTES, seconds) for name in names), work)


def drive(units: int, seconds: float, **engine: Any) -> None:
    """Run the step as a user's process would; print its seconds."""
    begin = time.perf_counter()
    made = run_step(step_of(units, seconds), EngineConfig(runner="ray", **engine), RUN)
    print(json.dumps({"units": len(made), "seconds": round(time.perf_counter() - begin, 1)}))


def start_driver(store: Store, units: int, seconds: float, home: str, **engine: Any) -> subprocess.Popen:
    """Start the driver, which gets the store from its environment."""
    code = f"from tests.bench.cluster import *; drive({units}, {seconds}, **{engine!r})"
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", code], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True,
        env=os.environ | store.environment() | {"RAY_TMPDIR": home},
    )  # fmt: skip


def ended(driver: subprocess.Popen) -> dict:
    said, _ = driver.communicate(timeout=HANG_SECONDS)
    assert driver.returncode == 0, said
    return json.loads(next(line for line in reversed(said.splitlines()) if line.startswith("{")))  # Ray prints too


def fill(store: Store, units: int) -> None:
    """Create an empty bucket with the inputs of the units."""
    store.bucket(BUCKET)
    with variables(store.environment()), ThreadPoolExecutor(8) as pool:
        names = [unit.name for unit in step_of(units, 0).units]
        list(pool.map(lambda name: write_atomically(RUN / f"in/{name}", input_of(name)), names))
    store.requests.clear()
    store.downloaded.clear()


def outputs(store: Store) -> dict[str, str]:
    """Return {name: SHA-256} of the outputs in the bucket. Raises AssertionError if a unit was quarantined."""
    with variables(store.environment()):
        names = RUN.files()
        assert not [name for name in names if name.startswith("quarantine/")], "units were set aside"
        return {one: hashlib.sha256((RUN / one).read_bytes()).hexdigest() for one in names if one.startswith("out/")}


@functools.cache
def expected(units: int) -> dict[str, str]:
    """Return the `outputs` of one process."""
    step = step_of(units, 0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "in").mkdir()
        for unit in step.units:
            (folder / f"in/{unit.name}").write_bytes(input_of(unit.name))
            run_unit(step, unit, folder, EngineConfig())
        return {f"out/{one.name}": hashlib.sha256(one.read_bytes()).hexdigest() for one in (folder / "out").iterdir()}


@contextlib.contextmanager
def cluster(home: str) -> Generator[Any]:
    """Start a Ray cluster of four nodes with one CPU each."""
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
    from ray._common.utils import get_default_ray_temp_dir  # ty: ignore[import-not-found]
    from ray.cluster_utils import Cluster  # ty: ignore[import-not-found]

    logging.disable(logging.INFO)
    # Ray writes the address there, whatever temp_dir is, and the folder is missing before the first cluster.
    Path(get_default_ray_temp_dir()).mkdir(parents=True, exist_ok=True)
    nodes = patiently(lambda: Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "temp_dir": home}))
    try:
        for _ in range(NODES - 1):
            patiently(lambda: nodes.add_node(num_cpus=1))
        yield nodes
    finally:
        nodes.shutdown()


def patiently[T](begin: Callable[[], T], tries: int = 5) -> T:
    """Retry: Ray gives a node 30 s to start, which a busy machine may exceed."""
    try:
        return begin()
    except Exception:
        if tries == 1:
            raise
        return patiently(begin, tries - 1)


def kill_worker(draw: random.Random) -> bool:
    """Kill a random process that runs a unit; return whether there is one."""
    import psutil

    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if process.cmdline()[:1] and process.cmdline()[0].startswith("ray::step"):
                found.append(process)
    if found:
        with contextlib.suppress(psutil.Error):
            draw.choice(found).kill()
    return bool(found)


def disturbing(draw: random.Random, share: float = 0.05) -> Callable[[Request], str | None]:
    """Injected faults of the store."""

    def fault(request: Request) -> str | None:
        return draw.choice(FAULTS) if draw.random() < share else None

    return fault


def measured(store: Store, nodes: Any, home: str, units: int, seconds: float, kill_every: float = 0) -> dict:
    """Return the time and the injected faults of one run. Raises AssertionError if an output differs."""
    fill(store, units)
    draw, killed, removed, added = random.Random(0), 0, None, False
    done = lambda: len([one for one in store.requests if one.method == "PUT" and "/units/step/" in one.path
                        and one.path.endswith(".json")])  # fmt: skip
    if kill_every:
        store.fail(disturbing(draw))
    driver = start_driver(store, units, seconds, home, address=nodes.address)
    last = time.monotonic()
    while driver.poll() is None:
        time.sleep(0.2)
        if kill_every and time.monotonic() - last >= kill_every:
            killed += kill_worker(draw)
            last = time.monotonic()
        if kill_every and removed is None and done() > units / 3:
            removed = next(iter(nodes.worker_nodes))
            nodes.remove_node(removed, allow_graceful=False)
        if kill_every and removed and not added and done() > units / 2:
            patiently(lambda: nodes.add_node(num_cpus=1))
            added = True
    result = ended(driver)
    store.fail(lambda request: None)
    inputs = sum(size for path, size in store.downloaded.items() if "/run/in/" in path)
    result |= {"killed": killed, "node removed and added": added, "requests": len(store.requests)}
    result["input bytes read, of their size"] = round(inputs / (units * INPUT_BYTES), 3)
    result["all bytes read, of the inputs"] = round(sum(store.downloaded.values()) / (units * INPUT_BYTES), 3)
    assert outputs(store) == expected(units), "the bytes are not those of one process"
    return result


def main(
    units: int = 320, seconds: float = 1.2, kill_every: float = 30.0, any_time: bool = False
) -> Iterator[dict[str, Any]]:
    """Args:
    units: Number of units.
    seconds: Duration of a unit.
    kill_every: Seconds between killed workers.
    any_time: Do not compare times with the undisturbed run.
    """
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as home, serving() as store:
        with cluster(home) as nodes:
            quiet = measured(store, nodes, home, units, seconds)
            yield {"run": "undisturbed"} | quiet
            loud = measured(store, nodes, home, units, seconds, kill_every)
            times = round(loud["seconds"] / quiet["seconds"], 3)
            yield {"run": "disturbed"} | loud | {"times": times}
        assert quiet["all bytes read, of the inputs"] <= MOST_BYTES and loud["node removed and added"]
        assert any_time or times <= MOST_TIME, f"{times} times the undisturbed run"


if __name__ == "__main__":
    run_benchmark(main)
