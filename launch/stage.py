"""What makes every stage restartable: done work is skipped, half-done work is invisible, changed work is refused.

A stage builds its outputs under `.partial/<stage>/` of the run folder; when all is there, they are moved into place and
`stages/<stage>.json` is written: the stamp. The stamp holds a key, the hash of everything that decides the outputs (the
stage's part of the config and the keys of the stages before it), and the outputs' sizes. A stage with a stamp of the
same key is up to date; with another key it belongs to another experiment, and nothing is touched.
"""

import contextlib
import dataclasses
import errno
import fcntl
import hashlib
import importlib.metadata
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path

from configs.experiment import Experiment, parse_command
from lm.errors import InputError, UsageError


@dataclass(frozen=True)
class Stage:
    """One step from pages to report."""

    name: str
    """Names the stamp."""
    script: str
    """The launch script that runs it alone, for messages."""
    after: tuple["Stage", ...]
    """Stages whose outputs it reads."""
    settings: Callable[[Experiment], dict[str, object]]
    """All of the config that decides its outputs; also facts about files outside the run folder."""
    make: Callable[[Experiment, Path, Path], None]
    """make(experiment, workdir, out): reads finished outputs in workdir, writes its own into out."""
    outputs: tuple[str, ...]
    """Files and folders, relative to the run folder, that `make` leaves in `out`, moved into place in this order."""
    in_place: bool = False
    """`out` is the run folder itself, and `make` resumes from what it finds there (training)."""


def identifying(value: object) -> object:
    """`value` as JSON types, without the fields of dataclasses that are marked speed_only."""
    if dataclasses.is_dataclass(value):
        fields = [f for f in dataclasses.fields(value) if not f.metadata.get("speed_only")]
        return {f.name: identifying(getattr(value, f.name)) for f in fields}
    if isinstance(value, dict):
        return {key: identifying(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [identifying(item) for item in value]
    return value


def flatten(value: object, path: str = "") -> dict[str, object]:
    """{"a.b": leaf} of nested dicts; lists are leaves."""
    if not isinstance(value, dict):
        return {path: value}
    return {
        k: v for key, item in value.items() for k, v in flatten(item, f"{path}.{key}" if path else str(key)).items()
    }


def write_atomically(path: Path, text: str) -> None:
    """Writes `text` to `path`, or leaves what was there: never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def stamp_path(stage: Stage, workdir: Path) -> Path:
    return workdir / "stages" / f"{stage.name}.json"


def read_stamp(stage: Stage, workdir: Path) -> dict | None:
    """The stage's stamp, or None when it has not finished or its outputs are no longer all there."""
    path = stamp_path(stage, workdir)
    if not path.is_file():
        return None
    stamp = json.loads(path.read_text(encoding="utf-8"))
    intact = all(
        (workdir / name).is_file() and (workdir / name).stat().st_size == size for name, size in stamp["files"].items()
    )
    return stamp if intact else None


def wanted_settings(stage: Stage, experiment: Experiment, workdir: Path) -> dict[str, object]:
    """What decides the stage's outputs. Raises InputError when a stage before it has not finished."""
    settings = identifying(stage.settings(experiment))
    assert isinstance(settings, dict)
    for before in stage.after:
        stamp = read_stamp(before, workdir)
        if stamp is None:
            raise InputError(
                f"{stage.name} needs {', '.join(before.outputs)} in {workdir}, and that is missing or unfinished. "
                f"First run: python -m {before.script} CONFIG.py --workdir {workdir}  (or python -m launch.pretrain …)"
            )
        settings[f"<{before.name}>"] = stamp["key"]
    return json.loads(json.dumps(settings))


def refuse_other(stage: Stage, old: dict, new: dict, workdir: Path) -> None:
    """Raises UsageError that shows every setting in which `old` and `new` differ."""
    old_flat, new_flat = flatten(old), flatten(new)
    names = sorted(k for k in old_flat.keys() | new_flat.keys() if old_flat.get(k) != new_flat.get(k))
    changed = []
    for name in names:
        if name.startswith("<"):
            changed.append(f"  {name[1:-1]}: made again since, with other contents")
        else:
            changed.append(f"  {name}: {old_flat.get(name)!r} there, {new_flat.get(name)!r} asked for")
    stamps = " ".join(str(path) for path in stamps_from(stage, workdir))
    raise UsageError(
        f"{', '.join(stage.outputs)} in {workdir} belong to another experiment:\n"
        + "\n".join(changed)
        + "\nNothing was changed. Choose another --workdir; or, to make them and all that follows from them again: "
        + f"rm {stamps}"
    )


def stamps_from(stage: Stage, workdir: Path) -> list[Path]:
    """The stamps in `workdir` of the stage and of all that was made from its outputs."""
    settings = {
        path: json.loads(path.read_text(encoding="utf-8"))["settings"] for path in (workdir / "stages").glob("*.json")
    }
    found = [stamp_path(stage, workdir)]
    for path in found:  # grows while it is walked
        found += [other for other in sorted(settings) if f"<{path.stem}>" in settings[other] and other not in found]
    return found


def environment() -> str:
    """A hash over Python's version and those of all installed packages."""
    versions = sorted(f"{item.name}=={item.version}" for item in importlib.metadata.distributions())
    return hashlib.sha256("\n".join([sys.version, *versions]).encode()).hexdigest()


def files_in(workdir: Path, outputs: tuple[str, ...]) -> dict[str, int]:
    """{relative path: bytes} of all files that the outputs consist of."""
    found = {}
    for output in outputs:
        path = workdir / output
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file():
                found[str(file.relative_to(workdir))] = file.stat().st_size
    return found


def run_stage(stage: Stage, experiment: Experiment, workdir: Path) -> bool:
    """Brings one stage up to date; False when it already was. Raises UsageError when the outputs are another
    experiment's."""
    settings = wanted_settings(stage, experiment, workdir)
    key = hashlib.sha256(json.dumps([stage.name, settings], sort_keys=True).encode()).hexdigest()
    stamp = read_stamp(stage, workdir)
    if stamp and stamp["key"] == key:
        return False
    if stamp:
        refuse_other(stage, stamp["settings"], settings, workdir)

    partial = workdir / ".partial" / stage.name
    begun = partial / "begun.json"
    if begun.is_file():
        found = json.loads(begun.read_text(encoding="utf-8"))
        made_in_place = stage.in_place and any((workdir / output).exists() for output in stage.outputs)
        if found["key"] != key and made_in_place:
            refuse_other(stage, found["settings"], settings, workdir)
        if found["key"] != key or (found["environment"] != environment() and not stage.in_place):
            shutil.rmtree(partial)  # parts made by other versions of the libraries are not mixed with these
    elif partial.exists():
        shutil.rmtree(partial)
    if not begun.is_file():
        if stage.in_place:  # leftovers of a run whose stamp was deleted in order to make it again
            remove([workdir / output for output in stage.outputs])
        write_atomically(begun, json.dumps({"key": key, "settings": settings, "environment": environment()}))
    stamp_path(stage, workdir).unlink(missing_ok=True)
    write_atomically(workdir / "config.json", json.dumps(dataclasses.asdict(experiment), indent=1))

    start = time.perf_counter()
    out = workdir if stage.in_place else partial / "out"
    out.mkdir(parents=True, exist_ok=True)
    stage.make(experiment, workdir, out)
    if not stage.in_place:
        for output in stage.outputs:
            remove([workdir / output])
            (workdir / output).parent.mkdir(parents=True, exist_ok=True)
            (out / output).replace(workdir / output)
    done = {"key": key, "settings": settings, "seconds": round(time.perf_counter() - start, 3)}
    write_atomically(
        stamp_path(stage, workdir), json.dumps({**done, "files": files_in(workdir, stage.outputs)}, indent=1)
    )
    shutil.rmtree(partial)
    return True


def remove(paths: list[Path]) -> None:
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(workdir: Path) -> Generator[None]:
    """Makes the run folder and holds it for this process. Raises InputError when it cannot be written or is held."""
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        lock = (workdir / ".lock").open("a+")
    except OSError as error:
        raise InputError(
            f"The run folder {workdir} cannot be written: {error.strerror or error}. "
            "Give a folder of yours with --workdir, or mend its permissions."
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the system lets go of it when the process ends, however
        except OSError as error:
            lock.seek(0)
            raise InputError(
                f"Another process ({lock.read().strip() or 'unknown'}) is at work in {workdir}. "
                "Wait for it to end, or give another folder with --workdir."
            ) from error
        lock.truncate(0)
        lock.write(f"process {os.getpid()}")
        lock.flush()
        yield


def run_command(program: str, description: str, run: Callable[[Experiment, Path], None]) -> None:
    """The main of every launch script: parses, runs, and turns what a user can mend into a message and an exit code."""
    try:
        experiment, workdir = parse_command(program, description, sys.argv[1:])
        with locked(workdir):
            run(experiment, workdir)
    except InputError as error:
        print(f"{program}: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    except BrokenPipeError:  # whoever read our output has gone, as in `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(InputError.exit_code) from None
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM):
            raise
        print(
            f"{program}: {error}. What is done is kept; free space or mend permissions, then run again.",
            file=sys.stderr,
        )
        raise SystemExit(InputError.exit_code) from None
    except KeyboardInterrupt:
        print(
            f"\n{program}: interrupted; what is done is kept, and the same command goes on from there.", file=sys.stderr
        )
        raise SystemExit(130) from None


def run_stage_command(stage: Stage) -> None:
    """The main of a script that runs one stage."""

    def run(experiment: Experiment, workdir: Path) -> None:
        made = run_stage(stage, experiment, workdir)
        print(f"{stage.name}: {'done' if made else 'up to date'} ({', '.join(stage.outputs)} in {workdir})")

    run_command(stage.script, (sys.modules["__main__"].__doc__ or "").strip(), run)
