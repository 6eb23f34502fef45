"""The main function of every launch script: one process per run folder; errors that users can fix become messages."""

import contextlib
import dataclasses
import errno
import fcntl
import json
import os
import sys
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import tyro

from configs.experiment import Command, Experiment, Fit, parse_run
from launch.run_folder import bucket
from launch.run_folder.checks import break_links, refuse_inputs_in_outputs, refuse_links, refuse_no_run
from launch.run_folder.markers import read_note
from launch.run_folder.reuse import check_source
from launch.stages.processes import ending_together, process_count, process_index, require_one_process
from launch.stages.stage import Stage, run_stage, take_before
from lm.errors import MALFORMED, InputError, Stopped, UsageError, for_terminal
from lm.gpu_memory import set_gpu_memory
from lm.run_paths import RunPaths
from lm.storage import local_copy_of, shown_place


class Measure(NamedTuple):
    """How a command measures the data to which the function `fit` of a config file fits its defaults."""

    sizes: Callable[..., tuple[int, ...]]
    """NamedTuple of the sizes, whole numbers."""
    stage: str
    """Stage that reads the data. Once it is finished, the sizes in config.json count, so that defaults stay."""
    measure: Callable[[Experiment], tuple[int, ...]]


LONGEST_LINE, LINE_BEGIN, LINE_END = 1500, 900, 500
REMEDIES = (
    dict.fromkeys(
        (errno.EEXIST, errno.EISDIR, errno.ENOTDIR),
        (
            "There is a file instead of a folder, or a folder instead of a file. Move it away, and run the command "
            "again."
        ),
    )
    | dict.fromkeys(
        (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM),
        "Finished work is kept; free space or fix the permissions, and run the command again.",
    )
    | {errno.ENAMETOOLONG: "Give a shorter --workdir, or files with shorter names."}
)
"""{errno of a disk error: remedy to print}; any other OSError is a bug."""


@contextlib.contextmanager
def locked(workdir: Path) -> Generator[None]:
    """Create the run folder and lock it against other processes until the block ends; for a run in a bucket, also hold
    its lease. Of several processes that train on one disk, process 0 holds the lock for all. Raises UsageError if the
    folder is neither empty nor a run, InputError if it is not writable, or if another process holds the lock."""
    if process_index() > 0 and local_copy_of(workdir) is None:
        refuse_links(workdir)
        yield
        return
    try:
        refuse_no_run(workdir)
        made = not workdir.exists()
        workdir.mkdir(parents=True, exist_ok=True)
        lock = RunPaths(workdir).lock.open("a+")
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise
        raise InputError(
            f"The run folder {workdir} cannot be written: {error.strerror or error}. Give a writable --workdir, or "
            "fix its permissions."
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the system releases it when the process ends
        except BlockingIOError as error:
            lock.seek(0)
            raise InputError(
                f"Another process ({lock.read().strip() or 'unknown'}) is working in {shown_place(workdir)}. Wait for "
                "it to end, or give another --workdir."
            ) from error
        if os.fstat(lock.fileno()).st_nlink == 1:  # otherwise it is another file of the user's too
            lock.truncate(0)
            lock.write(f"process {os.getpid()}")
            lock.flush()
        break_links(workdir)
        try:
            with bucket.held(workdir, process_index()):
                yield
        finally:
            if made and list(workdir.glob("*")) == [RunPaths(workdir).lock]:  # rejected before any work
                RunPaths(workdir).lock.unlink()
                workdir.rmdir()


@contextlib.contextmanager
def handle_cli_errors(program: str, interrupted: str = "interrupted; nothing was written.") -> Generator[None]:
    """Turn errors that users can fix into a message and an exit code. On Ctrl-C, print `interrupted`."""
    try:
        yield
    except InputError as error:
        print(f"{program}: {cut_lines(for_terminal(str(error)))}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    except Stopped as stopped:
        print(f"{program}: {stopped}", flush=True)
        raise SystemExit(stopped.exit_code) from None
    except BrokenPipeError:  # the reader of our output has gone, as in `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(InputError.exit_code) from None
    except OSError as error:
        if error.errno not in REMEDIES:
            raise
        print(f"{program}: {error}. {REMEDIES[error.errno]}", file=sys.stderr)
        raise SystemExit(InputError.exit_code) from None
    except KeyboardInterrupt:
        print(f"\n{program}: {interrupted}", file=sys.stderr)
        raise SystemExit(130) from None


def cut_lines(text: str) -> str:
    """Shorten long lines of a message: keep their beginning, and their end, which has the remedy."""
    cut = lambda line: (
        f"{line[:LINE_BEGIN]} [... {len(line) - LINE_BEGIN - LINE_END:,} characters ...] {line[-LINE_END:]}"
    )
    return "\n".join(cut(line) if len(line) > LONGEST_LINE else line for line in text.split("\n"))


def main_docstring() -> str:
    """Docstring of the script that Python runs, its description in --help."""
    return (sys.modules["__main__"].__doc__ or "").strip()


def run_command(
    program: str,
    run: Callable[..., None] | None,
    reads: Sequence[str] | None = None,
    *,
    options: type | None = None,
    on_the_side: Callable[[Experiment, Path, Any], bool] | None = None,
    from_run: str = "",
    measure: Measure | None = None,
) -> None:
    """Main function of a script that works in a run folder: parse the command line, call `run`, handle errors.
    `from_run` is as in configs.experiment.parse_run; `measure` measures the data for `fit` of the config file, by
    default the pages.

    `run` gets the experiment, the run folder, the run folder of --from (None without it) and, if there is no
    `on_the_side`, an instance of `options`, the class of the script's own options. `reads` are the config sections that
    --help shows; default: all. `on_the_side` is called first, with experiment, run folder and options: it does what the
    options request without changing the run, or returns False if no option is set; then `run` is called.
    """
    with (
        ending_together(),
        handle_cli_errors(program, "interrupted; finished work is kept; run the same command to continue."),
    ):
        if process_count() > 1:
            from launch.stages.parent import run_in_child

            run_in_child(program)
        set_gpu_memory()
        command = parse_run(program, main_docstring(), sys.argv[1:], reads, options, from_run)
        with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):
            command.workdir.stat()  # reject a path that is too long before anything else
        experiment, workdir = fit_to_data(command, measure), command.workdir
        source, asked = command.source, command.options
        if source is not None and on_the_side and options is not None and asked != options():
            raise UsageError(
                f"--from {source} starts a run in {workdir}, but this command only prints. Remove --from; to query "
                f"the run in {source}: python -m {program} {source}"
            )
        with handle_cli_errors(program, "interrupted; the run was not changed."):
            if on_the_side and on_the_side(experiment, bucket.to_read(workdir) if options else workdir, asked):
                return
        assert run is not None, "nothing to do: on_the_side did the work"
        experiment = dataclasses.replace(experiment)  # reads all sections, before any work
        refuse_inputs_in_outputs(experiment, workdir)
        if source is not None:
            check_source(source, workdir)
            require_one_process(
                f"--from {source}",
                "First run launch.write_shards with --from in one process, then launch.train without --from in all "
                "processes.",
            )
        workdir = bucket.process_folder(workdir, process_index())
        with locked(workdir):
            run(experiment, workdir, source, *([asked] if options is not None and not on_the_side else []))


def run_without_config[Command](program: str, command: type[Command], run: Callable[[Command], None]) -> None:
    """Main function of a script that needs no config; `run` gets its options, an instance of the class `command`."""
    with handle_cli_errors(program):
        run(
            tyro.cli(
                command, prog=f"python -m {program}", description=main_docstring(),
                config=(tyro.conf.FlagCreatePairsOff,),
            )
        )  # fmt: skip


def run_stage_command(stage: Stage, *reads: str, **on_the_side: Any) -> None:
    """Main function of a script that runs one stage. `reads` are the sections of the config that the stage reads;
    `on_the_side` are keyword arguments for `run_command`."""

    def run(experiment: Experiment, workdir: Path, source: Path | None) -> None:
        if source is not None:
            take_before(stage, experiment, workdir, source)
        made = run_stage(stage, experiment, workdir, source)
        if process_index() == 0:
            files = (read_note(RunPaths(workdir).marker(stage.name)) or {"files": {}})["files"]
            there = {file.split("/", 1)[0] for file in files}
            names = ", ".join(name for name in stage.outputs if name not in stage.optional or name in there)
            print(f"{stage.name}: {'done' if made else 'up to date'} ({names} in {shown_place(workdir)})")

    run_command(stage.script, run, reads, **on_the_side)


def fit_to_data(command: Command, measure: Measure | None = None) -> Experiment:
    """Return the experiment of the command. If its config file has a function `fit`, or if it trains an imported model
    in a new run folder, `fit` chooses defaults by the size of the data, which `measure` measures, by default the pages.
    Defaults and reasons are printed.

    Once the run has read its data, later commands take the size from config.json, so new input files, or another
    machine, change no default. Raises the errors of `measure` and `fit`.
    """
    fit = command.fit
    run = command.run
    new = run is not None and run.root.resolve() != command.workdir.resolve()
    if measure is None and run is not None and new and run.marker("imported").exists():
        from configs import own_text

        fit = cast(Fit, own_text.fit)
    if fit is None:
        return command.experiment
    if measure is None:
        from data_prep.sources.sizes import InputSizes, input_sizes

        measure = Measure(InputSizes, "documents", lambda experiment: input_sizes(experiment.pages))
    recorded = recorded_sizes(bucket.to_read(command.workdir), measure)
    sizes = recorded or measure.measure(command.experiment)
    experiment, reasons = fit(command.experiment, sizes, command.given)
    if recorded is None and process_index() == 0:
        print("Defaults chosen for this data; change one with the option of the same name:")
        print("".join(f"  {line}\n" for line in reasons), flush=True)
    return dataclasses.replace(experiment, fitted_to=tuple(sizes))


def recorded_sizes(workdir: Path, measure: Measure) -> tuple[int, ...] | None:
    """Return the sizes, recorded in config.json, by which defaults were chosen. None before the run has read its data,
    or if config.json is unreadable."""
    run = RunPaths(workdir)
    if not run.marker(measure.stage).exists():
        return None
    try:
        return measure.sizes(*map(int, json.loads(run.config_json.read_text(encoding="utf-8"))["fitted_to"]))
    except (OSError, *MALFORMED):
        return None
