"""Units as Slurm array jobs, and the command as a chain of jobs: no process waits for another.

A step with remaining units becomes an array job, whose tasks run the units of a list in the step's folder, and a
single-core job that runs the command again after the array. That job reads the results of the tasks, submits units that
are still unfinished, and continues with the next step. The process that submitted the jobs ends.

    units/<step>.pickle     the list: step, units, folder, engine; its SHA-256 is in the command of the tasks
    units/<step>.submitted  the job IDs, so that a second command does not submit the units again
    units/<step>.stopped    the error that ended a task
"""

import contextlib
import dataclasses
import hashlib
import itertools
import json
import os
import pickle
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from data_prep.config.engine import EngineConfig
from data_prep.engine.attempts import HOPELESS, Attempts, names_in
from data_prep.engine.processes import REPOSITORY, run_in_processes
from data_prep.engine.progress import ProgressLine
from data_prep.engine.units import QUARANTINE, UNITS, ends_run, line_of, quarantine_of, read_record
from lm.errors import InputError, Stopped, UsageError, shown
from lm.storage import Place, place_of, write_atomically, writing
from lm.trusted_code import inherit

LOGS = Path("runs/cloud")
"""Folder of the jobs' logs, relative to the working folder. Created here, since Slurm does not create it."""
NO_RETRY = ["--engine.retry-failed", "False"]
PAUSES = (10, 60, 300)
"""Seconds between attempts to reach Slurm's controller from within a job, where an error would end the chain."""
UNREACHABLE = ("contact slurm controller", "timed out")


@dataclass(frozen=True)
class Submission:
    arrays: list[str]
    next: str
    """ID of the job that runs the command again."""
    left: int
    """Number of units that were not done at submission."""
    lost: int
    """Number of attempts at these units whose process had died before the submission."""
    log: str

    @property
    def jobs(self) -> list[str]:
        return [*self.arrays, *filter(None, [self.next])]


def run_units(attempts: Attempts) -> None:
    """Submit the queued units of a step, and a job that runs the command again after them; then raise Stopped. A step
    with a single unit runs in a local worker process instead. Raises InputError if Slurm fails, or if the last
    submission ended with an error or changed nothing: no unit of it is done or failed."""
    step, folder, engine = attempts.step, attempts.folder, attempts.engine
    if len(step.units) == 1:
        run_in_processes(attempts, 1)
        return
    before, left = read_submission(step.name, folder), len(attempts.queue)
    lost = sum(attempts.lost.values()) + len(attempts.suspects)
    if before and before.next == own_job():
        error = read_record(folder / UNITS / f"{step.name}.stopped")
        if isinstance(error.get("error"), str) and (error.get("ends_run") or not attempts.done):
            raise InputError(f"{error['error']}\nLog of the tasks: {before.log}")
        if left == before.left and lost <= before.lost:
            raise InputError(
                f"{step.name}: the array jobs {', '.join(before.arrays)} have ended, but no unit finished or failed. "
                f"See {before.log}: the nodes may lack this folder or its environment; a unit may need more time or "
                "memory than engine.slurm_options ask for; or the jobs were cancelled. The same command submits them "
                "again."
            )
    if engine.retry_failed:
        for name in names_in(folder / QUARANTINE / step.name) & {unit.name for unit in attempts.queue}:
            quarantine_of(step.name, name, folder).unlink(missing_ok=True)
    submitted = submit(attempts, left, lost)
    name = chain(engine)[0]
    raise Stopped(
        f"{step.name}: {left:,} units are submitted to Slurm as array {', '.join(submitted.arrays)}; then job "
        f"{submitted.next} continues this command. Logs: {submitted.log}. Status: squeue --name={name}. Cancel: "
        f"scancel --name={name}",
        exit_code=0,
    )


def submit(attempts: Attempts, left: int, lost: int) -> Submission:
    """Submit an array job for the queued units, and a job that runs this command after it. The returned Submission has
    `left`, the number of units, and `lost`, the number of earlier attempts at them that died. Raises InputError, after
    cancelling the jobs already submitted."""
    step, folder, engine = attempts.step, attempts.folder, attempts.engine
    most = max_array_size()
    name, command = chain(engine)
    log = LOGS / f"{name}*.log"
    with writing(LOGS):
        LOGS.mkdir(parents=True, exist_ok=True)
    listed = folder / UNITS / f"{step.name}.pickle"
    engine = dataclasses.replace(engine, retry_failed=False)
    data = pickle.dumps((dataclasses.replace(step, units=()), list(attempts.queue), folder, engine))
    with writing(folder):
        write_atomically(listed, data)
        (folder / UNITS / f"{step.name}.stopped").unlink(missing_ok=True)
    world = min(engine.workers, left)
    path = os.pathsep.join([str(REPOSITORY), *filter(None, sys.path)])
    run = ["env", f"PYTHONPATH={path}", "PYTHONUNBUFFERED=1", sys.executable, "-P", "-m", "data_prep.engine.slurm"]
    given = Submission([], "", left, lost, str(Path.cwd() / log))
    try:
        for first in range(0, world, most):
            last = min(world - first, most) - 1
            words = [*run, str(listed), hashlib.sha256(data).hexdigest(), str(first), str(world)]
            shown_rank = f"{first}+%a" if first else "%a"
            array = sbatch(engine, name, words, f"{name}.{shown_rank}.log", f"--array=0-{last}")
            given = dataclasses.replace(given, arrays=[*given.arrays, array])
            write_submission(step.name, folder, given)
        after = f"--dependency=afterany:{':'.join(given.arrays)}"
        after_array = sbatch(engine, name, command, f"{name}.log", after, "--cpus-per-task=1")
        given = dataclasses.replace(given, next=after_array)
        write_submission(step.name, folder, given)
    except BaseException:
        if given.arrays:
            with contextlib.suppress(InputError):
                ask("scancel", *given.jobs)
        raise
    return given


def sbatch(engine: EngineConfig, name: str, command: list[str], log: str, *words: str) -> str:
    """Submit a job that runs `command` in the working folder, and return its job ID. `log` is the name of its log in
    LOGS. `words` are options of sbatch that override engine.slurm_options. Raises InputError if sbatch fails."""
    printed = ask(
        "sbatch", "--parsable", "--cpus-per-task=1", *shlex.split(engine.slurm_options), "--nodes=1", "--ntasks=1",
        "--requeue", "--open-mode=append", f"--job-name={name}", f"--chdir={Path.cwd()}", f"--output={LOGS / log}",
        *words, f"--wrap=exec {shlex.join(command)}",
    )  # fmt: skip
    job = printed.strip().rpartition("\n")[2].partition(";")[0]
    if not job.isdigit():
        raise InputError(f"sbatch printed {shown(printed)}, and no job ID. Check that this sbatch is part of Slurm.")
    return job


def chain(engine: EngineConfig) -> tuple[str, list[str]]:
    """Return (name for all jobs of this command, command that continues it without retrying failed units)."""
    words = sys.orig_argv[1:]
    continued = words[-2:] == NO_RETRY
    words = words[:-2] if continued else words
    retried = NO_RETRY if continued or engine.retry_failed else []
    name = "gristmill-" + hashlib.sha256(json.dumps([str(Path.cwd()), *words]).encode()).hexdigest()[:8]
    return name, [sys.executable, *words, *retried]


def max_array_size() -> int:
    """Return Slurm's limit on the tasks of an array job. Raises UsageError if this Slurm has no array jobs."""
    lines = [line.partition("=") for line in ask("scontrol", "show", "config").splitlines()]
    found = {name.strip(): value.strip() for name, _, value in lines}.get("MaxArraySize", "")
    if not found.isdigit() or int(found) < 2:
        raise UsageError(
            f"Slurm's MaxArraySize is {found or 'unknown'}, but engine.runner slurm needs arrays. Give another runner."
        )
    return int(found)


def ask(*words: str) -> str:
    """Run a Slurm command and return its output. Within a job, waits and retries if Slurm's controller cannot be
    reached. Raises UsageError if the command is not installed, InputError if it fails."""
    for pause in (*(PAUSES if own_job() else ()), None):
        try:
            ended = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")
        except OSError as error:
            raise UsageError(
                f"{words[0]} cannot be run: {error.strerror or error}. It is part of Slurm: run this on a login node, "
                "in a folder that the nodes share, or choose another --engine.runner."
            ) from error
        if not ended.returncode:
            return ended.stdout
        if pause is None or not any(one in ended.stderr for one in UNREACHABLE):
            break
        time.sleep(pause)
    raise InputError(
        f"{words[0]} fails: {shown(' '.join(ended.stderr.split()) or f'exit code {ended.returncode}', quotes=False)}. "
        "For a wrong option, change engine.slurm_options; finished work is kept, and the same command continues."
    )


def own_job() -> str:
    """Return the ID of this process's Slurm job; "" outside of Slurm."""
    return os.environ.get("SLURM_JOB_ID", "")


def refuse_submitted(step: str, folder: Place) -> None:
    """Raise InputError if jobs that another command submitted for this step are still in Slurm's queue."""
    submitted = read_submission(step, folder)
    if submitted is None or submitted.next == own_job() != "":
        return
    place = folder / UNITS / f"{step}.submitted"
    try:
        queued = {*ask("squeue", "--noheader", "--format=%F").split()} & {*submitted.jobs}
    except InputError as error:
        raise InputError(
            f"{step}: jobs {', '.join(submitted.jobs)} of Slurm may be working on this step. {error} If all of them "
            f"have ended, delete {place}."
        ) from error
    if queued:
        done, last = len(names_in(folder / UNITS / step)), submitted.next
        continues = f", of which {last} continues the command" if last in queued else ""
        raise InputError(
            f"{step}: {done:,} units are done, and Slurm's queue has the jobs "
            f"{', '.join(sorted(queued, key=int))}{continues}. Wait for them, or cancel them: scancel "
            f"{' '.join(submitted.jobs)}"
        )


def write_submission(step: str, folder: Place, submission: Submission) -> None:
    with writing(folder):
        write_atomically(folder / UNITS / f"{step}.submitted", json.dumps(dataclasses.asdict(submission)) + "\n")


def read_submission(step: str, folder: Place) -> Submission | None:
    """Return the job IDs and counts stored when a step was last submitted; None if they are missing or damaged."""
    found = read_record(folder / UNITS / f"{step}.submitted")
    try:
        return Submission(
            [str(int(job)) for job in found["arrays"]], found["next"] and str(int(found["next"])), int(found["left"]),
            int(found["lost"]), str(found["log"]),
        )  # fmt: skip
    except (ValueError, ArithmeticError, KeyError, TypeError):
        return None


def main(words: list[str]) -> None:
    """Run one task of an array job. `words` are the path of the pickled list of units, its SHA-256, the rank of the
    array's first task, and `world`, the number of tasks in all arrays. The task of rank r runs the units r, r + world,
    r + 2 world, ... of the list, with one worker process per core. Raises InputError, before any unit runs, if the list
    has another SHA-256."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # a time limit is not an attempt
    listed, sha256, first, world = words
    data = place_of(listed).read_bytes()
    if hashlib.sha256(data).hexdigest() != sha256:
        raise InputError(f"{listed} is not the list that was submitted, so no unit was run. Repeat the command.")
    inherit()  # unpickling imports modules that the step names
    step, units, folder, engine = pickle.loads(data)
    rank = int(first) + int(os.environ["SLURM_ARRAY_TASK_ID"])
    step = dataclasses.replace(step, units=tuple(itertools.islice(units, rank, None, int(world))))
    cpus = int(os.environ.get("SLURM_CPUS_PER_TASK") or 1)
    label = f"task {rank} of {world}"
    with ProgressLine(label) as progress:
        attempts = Attempts(step, dataclasses.replace(engine, workers=cpus), folder, progress)
        try:
            run_in_processes(attempts, cpus)
        except Exception as error:
            hopeless = not attempts.done and (not attempts.queue or len(attempts.tried) >= HOPELESS)
            found = {"error": line_of(error), "ends_run": ends_run(error) or not hopeless}
            with contextlib.suppress(OSError, InputError):
                write_atomically(folder / UNITS / f"{step.name}.stopped", json.dumps(found) + "\n")
            raise
    print(f"{label}: {len(attempts.done):,} units done, {len(attempts.failed):,} quarantined", flush=True)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except InputError as error:
        raise SystemExit(str(error)) from None
