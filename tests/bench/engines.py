"""Pages a second of the stage texts by two worker processes: on a disk, and with inputs and outputs in a bucket.

    python -m tests.bench.engines [PAGES.warc.gz] [--copies 24]
    python -m tests.bench.engines --ray 90000        # what small units cost besides their work

Prints one JSON line. The store is moto's S3 server on this machine, whose work is done by the same cores. The rate
counts the seconds of the units alone, as their markers tell them, and not the start of the command.
"""

import argparse
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from data_prep.engine import Step, Unit, Workspace, identity_of
from data_prep.engine.attempts import read_manifest
from lm.storage import Place, Url, write_atomically
from tests import local_slurm
from tests.object_store import QUICK, serving, variables

REPOSITORY = Path(__file__).parents[2]
SAMPLE = REPOSITORY / "../shared/data/extraction/aeb.warc.gz"


def measured(run: Place, warcs: str, home: Path) -> dict[str, float]:
    """Seconds of the whole command, and pages a second that each of its two workers did."""
    home.mkdir()
    begin = time.perf_counter()
    options = ["--workdir", str(run), "--pages.warc", warcs, "--until", "texts", "--engine.workers", "2"]
    command = [sys.executable, "-m", "launch.pretrain", str(REPOSITORY / "configs/demo.py"), *options]
    environment = os.environ | {name: str(home) for name in ("XDG_CACHE_HOME", "TMPDIR", "HOME")}
    environment |= {"PYTHONPATH": str(REPOSITORY)}
    subprocess.run(command, cwd=home, env=environment, check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - begin
    made = read_manifest("texts", run).values()
    rate = sum(marker.counts["rows"] for marker in made) / sum(marker.seconds for marker in made)
    return {"seconds": round(seconds, 1), "rate": rate}


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
    """A unit of WORK_SECONDS of a core, and one small file."""
    end = time.process_time() + WORK_SECONDS
    while time.process_time() < end:
        pass
    write_atomically(space.output(f"out/{unit.input // 1000}/{unit.name}.txt"), unit.name, space.scratch)
    return {"rows": 1}


def small_units(count: int) -> Step[int]:
    units = tuple(Unit(f"{number:06d}", identity_of(number), 1000, number) for number in range(count))
    return Step("small", units, small_work)


def ray(count: int) -> dict[str, object]:
    """A step of small units on a Ray cluster of this machine: what a unit costs besides its work, and the memory and
    processor time of the driver."""
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


def slurm(count: int, tasks: int = 4) -> dict[str, object]:
    """A step of small units on a real Slurm of this machine: what a unit costs besides its work, and the memory and
    time of the processes that submit and continue."""
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("warc", type=Path, nargs="?", default=SAMPLE)
    parser.add_argument("--copies", type=int, default=24)
    parser.add_argument("--ray", type=int, default=0, help="only this many small units on Ray")
    parser.add_argument("--slurm", type=int, default=0, help="only this many small units on a Slurm of this machine")
    arguments = parser.parse_args()
    if arguments.ray or arguments.slurm:
        small = ray(arguments.ray) if arguments.ray else slurm(arguments.slurm)
        print(json.dumps({"benchmark": "engines"} | small))
        return
    if not arguments.warc.is_file():
        print(json.dumps({"benchmark": "engines", "skipped": f"there is no {arguments.warc}"}))
        return
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    data = arguments.warc.read_bytes()
    with tempfile.TemporaryDirectory() as folder, serving() as store:
        root = Path(folder)
        (root / "warc").mkdir()
        with variables(store.environment() | QUICK):
            store.bucket("bucket")
            for number in range(arguments.copies):
                (root / f"warc/{number:05d}.warc.gz").write_bytes(data)
                write_atomically(Url(f"s3://bucket/warc/{number:05d}.warc.gz"), data)
            disk = measured(root / "run", str(root / "warc"), root / "disk")
            bucket = measured(Url("s3://bucket/run"), "s3://bucket/warc", root / "bucket")
    result = {"benchmark": "engines", "files": arguments.copies}
    result |= {f"{name}_disk": round(value, 1) for name, value in disk.items()}
    result |= {f"{name}_bucket": round(value, 1) for name, value in bucket.items()}
    print(json.dumps(result | {"bucket_of_disk": round(bucket["rate"] / disk["rate"], 3)}))


if __name__ == "__main__":
    main()
