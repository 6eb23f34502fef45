"""Overhead of small units in the executors Ray and Slurm: units of 3 ms of a core and one small file each.

    python -m tests.bench.engines --ray 90000
    python -m tests.bench.engines --slurm 90000

Prints one JSON line: seconds of the step, milliseconds per unit besides its work, memory and time of the driver.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from data_prep.engine import Step, Unit, Workspace, identity_of
from lm.storage import write_atomically
from tests import local_slurm
from tests.bench.runner import REPOSITORY, SkippedError, run_benchmark

WORK_SECONDS = 0.003
RAY_MAIN = """
import json, sys, time
from pathlib import Path
import psutil
from data_prep.config import EngineConfig
from data_prep.engine import run_step
from tests.bench.engines import small_units

def processor() -> float:
    "Seconds of this process and those that it started: the servers and workers of Ray."
    mine = [psutil.Process(), *psutil.Process().children(recursive=True)]
    return sum(sum(one.cpu_times()[:2]) for one in mine if one.is_running())

if __name__ == "__main__":
    engine = EngineConfig(runner="ray", workers=int(sys.argv[2]))
    run_step(small_units(int(sys.argv[2])), engine, Path("first"))  # starts the cluster and its workers
    begin, driver, every = time.perf_counter(), time.process_time(), processor()
    assert len(run_step(small_units(int(sys.argv[1])), engine, Path("run"))) == int(sys.argv[1])
    peak = Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]
    wall, driver, every = time.perf_counter() - begin, time.process_time() - driver, processor() - every
    print(json.dumps([wall, int(peak) * 1024, driver, every]))
"""


def small_work(unit: Unit[int], space: Workspace) -> dict[str, int]:
    """Use a core for WORK_SECONDS and write one small file."""
    end = time.process_time() + WORK_SECONDS
    while time.process_time() < end:
        pass
    write_atomically(space.output(f"out/{unit.input // 1000}/{unit.name}.txt"), unit.name, space.scratch)
    return {"rows": 1}


def small_units(count: int) -> Step[int]:
    units = tuple(Unit(f"{number:06d}", identity_of(number), 1000, number) for number in range(count))
    return Step("small", units, small_work)


def on_ray(count: int) -> dict[str, object]:
    """Run a step of small units on a local Ray cluster: overhead per unit, and memory and CPU time of the driver."""
    cores = os.cpu_count() or 1
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        (Path(folder) / "main.py").write_text(RAY_MAIN)
        environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "RAY_TMPDIR": folder}
        command = [sys.executable, "-W", "ignore", "main.py", str(count), str(cores)]
        ended = subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    wall, peak, driver, every = json.loads(ended.stdout.splitlines()[-1])
    return {
        "ray_units": count, "ray_cores": cores, "ray_seconds": round(wall, 1),
        "ray_ms_a_unit_besides_work": round(1000 * (wall / count - WORK_SECONDS / cores), 2),
        "ray_processor_ms_a_unit_besides_work": round(1000 * (every / count - WORK_SECONDS), 2),
        "ray_driver_bytes": peak, "ray_driver_seconds": round(driver, 1),
    }  # fmt: skip


SLURM_MAIN = """
import atexit, resource, sys, time
from pathlib import Path
from data_prep.config import EngineConfig
from data_prep.engine import run_step
from launch.stages.command import handle_cli_errors
from tests.bench.engines import small_units

def note() -> None:
    with open("drivers", "a") as file:
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, time.process_time(), file=file)

if __name__ == "__main__":
    atexit.register(note)
    with handle_cli_errors("main"):
        run_step(small_units(int(sys.argv[1])), EngineConfig(runner="slurm", workers=int(sys.argv[2])), Path("run"))
    Path("done").touch()
"""


def on_slurm(count: int, tasks: int = 4) -> dict[str, object]:
    """Run a step of small units on a real local Slurm: overhead per unit, and memory and time of the processes that
    submit and continue."""
    if reason := local_slurm.why_not():
        return {"slurm_skipped": reason}
    with tempfile.TemporaryDirectory() as folder, local_slurm.running(cpus=tasks // 2) as cluster:
        (Path(folder) / "main.py").write_text(SLURM_MAIN)
        environment = os.environ | cluster.environment | {"PYTHONPATH": str(REPOSITORY)}
        command = [sys.executable, "main.py", str(count), str(tasks)]
        start = time.perf_counter()
        subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
        while cluster.jobs():
            time.sleep(1)
        wall = time.perf_counter() - start
        assert Path(folder, "done").exists(), [path.read_text() for path in Path(folder).glob("runs/cloud/*.log")]
        drivers = [line.split() for line in Path(folder, "drivers").read_text().splitlines()]
    cores = min(tasks, os.cpu_count() or 1)
    return {
        "slurm_units": count, "slurm_tasks": tasks, "slurm_seconds": round(wall, 1),
        "slurm_ms_a_unit_besides_work": round(1000 * (wall / count - WORK_SECONDS / cores), 2),
        "slurm_driver_bytes": max(int(peak) for peak, _ in drivers),
        "slurm_driver_seconds": [round(float(seconds), 1) for _, seconds in drivers],
    }  # fmt: skip


def main(ray: int = 0, slurm: int = 0) -> Iterator[dict[str, object]]:
    """Args:
    ray: Number of small units on Ray.
    slurm: Number of small units on a Slurm of this machine.
    """
    if not ray and not slurm:
        raise SkippedError("give a number of units: --ray 90000 or --slurm 90000")
    yield on_ray(ray) if ray else on_slurm(slurm)


if __name__ == "__main__":
    run_benchmark(main)
