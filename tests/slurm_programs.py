"""A stand-in for Slurm: sbatch, squeue, scontrol and scancel that run jobs as local processes.

It implements arrays (MaxArraySize), dependencies (afterany), the working folder, logs, the variables of a task, SIGTERM
when a job is cancelled, and the error messages of Slurm 24.11. It has no nodes, no limits, and one queue, in which two
tasks run at a time.

    cluster = StandIn(folder)
    subprocess.run([...], env=os.environ | cluster.environment)
    cluster.wait()
"""

import json
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.run_files import HANG_SECONDS
from tests.until import until

PROGRAM = r"""#!{python} -SE
import json, os, signal, subprocess, sys, time
from pathlib import Path

root, name, words = Path({root!r}), Path(sys.argv[0]).name, sys.argv[1:]
given = dict(word.partition("=")[::2] for word in words if word.startswith("--"))


def fail(text):
    sys.exit(f"{{name}}: error: {{text}}")


def jobs():
    return sorted((path for path in (root / "jobs").iterdir()), key=lambda path: int(path.name))


def is_left(job):
    return not (job / "ended").exists()


def run(job):
    job = root / "jobs" / job
    (job / "pid").write_text(str(os.getpid()))
    given = json.loads((job / "given").read_text())
    after = given.get("--dependency", "").split(":")[1:]
    waits = lambda: (root / "hold").exists() or any(is_left(root / "jobs" / one) for one in after)
    while waits() and not (job / "cancelled").exists():
        time.sleep(0.05)
    first, _, last = given.get("--array", "").partition("-")
    left, running, codes = [*range(int(first), int(last) + 1)] if first else [None], [], []
    while (left or running) and not ((job / "cancelled").exists() and not running):
        if left and len(running) < 2 and not (job / "cancelled").exists():
            task = left.pop(0)
            place = given["--output"].replace("%a", str(task))
            variables = {{"SLURM_JOB_ID": job.name, "SLURM_CPUS_PER_TASK": given["--cpus-per-task"]}}
            if task is not None:
                variables |= {{"SLURM_ARRAY_JOB_ID": job.name, "SLURM_ARRAY_TASK_ID": str(task)}}
            with open(Path(given["--chdir"], place), "ab") as log:
                running.append(subprocess.Popen(
                    ["/bin/sh", "-c", given["--wrap"]], cwd=given["--chdir"], env=os.environ | variables,
                    stdin=subprocess.DEVNULL, stdout=log, stderr=log, process_group=0))
            continue
        if (job / "cancelled").exists():
            for one in running:
                os.killpg(one.pid, signal.SIGTERM)
        codes += [one.returncode for one in running if one.poll() is not None]
        running = [one for one in running if one.returncode is None]
        time.sleep(0.02)
    (job / "partial").write_text(json.dumps(codes))
    (job / "partial").rename(job / "ended")


if name == "sbatch":
    if (root / "refuse").exists() and any(word.startswith((root / "refuse").read_text()) for word in words):
        fail("Batch job submission failed: Invalid account or account/partition combination specified")
    if int(given.get("--array", "0").rpartition("-")[2]) >= {max_array_size}:
        fail("Batch job submission failed: Invalid job array specification")
    if strange := [word for word in words if not word.startswith("--")]:
        fail(f"Unable to open file {{strange[0]}}")
    number = 1
    while True:
        try:
            (job := root / "jobs" / str(number)).mkdir()
            break
        except FileExistsError:
            number += 1
    (job / "given").write_text(json.dumps(given))
    subprocess.Popen([sys.argv[0].replace("sbatch", "run"), str(number)], stdin=subprocess.DEVNULL,
                     stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    print(number)
elif name == "run":
    run(words[0])
elif name == "squeue":
    print("\n".join(job.name for job in jobs() if is_left(job)))
elif name == "scontrol":
    print("Configuration data as of now\nMaxArraySize            = {max_array_size}\nMaxJobCount = 10000")
elif name == "scancel":
    for job in words:
        (root / "jobs" / job / "cancelled").touch()
"""


@dataclass
class StandIn:
    folder: Path
    max_array_size: int = 5

    def __post_init__(self):
        (self.folder / "bin").mkdir(parents=True)
        (self.folder / "jobs").mkdir()
        text = PROGRAM.format(python=sys.executable, root=str(self.folder), max_array_size=self.max_array_size)
        for name in ("sbatch", "squeue", "scontrol", "scancel", "run"):
            path = self.folder / "bin" / name
            path.write_text(text)
            path.chmod(0o755)

    @property
    def environment(self) -> dict[str, str]:
        return {"PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}"}

    def hold(self) -> None:
        """Start no job before `release`."""
        (self.folder / "hold").touch()

    def release(self) -> None:
        (self.folder / "hold").unlink()

    def refuse(self, option: str) -> None:
        """Reject jobs with an option that begins with this text."""
        (self.folder / "refuse").write_text(option)

    def jobs(self) -> list[Path]:
        return sorted((self.folder / "jobs").iterdir(), key=lambda path: int(path.name))

    def submitted(self) -> list[dict[str, str]]:
        """The options of all jobs so far."""
        return [json.loads((job / "given").read_text()) for job in self.jobs()]

    def wait(self, seconds: float = HANG_SECONDS) -> None:
        """Wait until the queue is empty. Raises AssertionError."""
        until(lambda: all((job / "ended").exists() for job in self.jobs()), seconds=seconds)

    def codes(self) -> list[list[int]]:
        """Exit codes of the tasks of each finished job."""
        return [json.loads((job / "ended").read_text()) for job in self.jobs()]

    def end(self) -> None:
        """Cancel all remaining jobs."""
        for job in self.jobs():
            (job / "cancelled").touch()
        try:
            self.wait(60)
        except AssertionError:
            for job in self.jobs():
                if not (job / "ended").exists():
                    os.killpg(int((job / "pid").read_text()), signal.SIGKILL)
