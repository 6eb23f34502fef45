"""What makes every stage restartable: done work is skipped, half-done work is invisible, changed work is refused.

A stage builds its outputs under `.partial/<stage>/` of the run folder; when all is there, they are moved into place and
`stages/<stage>.json` is written: the stamp. The stamp holds a key, the hash of everything that decides the outputs (the
stage's part of the config and the keys of the stages before it), and the outputs' sizes. A stage with a stamp of the
same key is up to date; with another key it belongs to another experiment, and nothing is touched.
"""

import dataclasses
import hashlib
import importlib.metadata
import itertools
import json
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from configs.experiment import Experiment
from launch.processes import place
from lm.errors import InputError, UsageError
from lm.files import write_atomically


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
    """All of the config that decides its outputs."""
    make: Callable[[Experiment, Path, Path], None]
    """make(experiment, workdir, out): reads finished outputs in workdir, writes its own into out."""
    outputs: tuple[str, ...]
    """Files and folders, relative to the run folder, that `make` leaves in `out`, moved into place in this order."""
    in_place: bool = False
    """`out` is the run folder itself, and `make` resumes from what it finds there (training)."""
    proof: Callable[[Path], tuple[str, ...]] | None = None
    """proof(workdir): those of the outputs without which the finished stage is undone; all of them, if not given."""
    by_products: tuple[str, ...] = ()
    """What `make` leaves besides, in place: logs that may be changed or deleted without making the stage undone."""
    together: bool = False
    """Several processes may make it together (launch/processes.py)."""
    versions_matter: bool = True
    """Half-done work is begun anew when the installed libraries have changed; not so what is only downloaded."""
    facts: Callable[[Experiment], dict[str, object]] = lambda experiment: {}
    """What else decides the outputs: files outside of the run folder, which only this stage has to find."""


def identifying(value: object) -> object:
    """`value` as JSON types, without the fields of dataclasses that are marked incidental."""
    if dataclasses.is_dataclass(value):
        fields = [f for f in dataclasses.fields(value) if not f.metadata.get("incidental")]
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


def stamp_path(stage: Stage, workdir: Path) -> Path:
    return workdir / "stages" / f"{stage.name}.json"


def read_json(path: Path) -> dict:
    """What we wrote there. Raises InputError when it is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error}). Delete it to make again what it stands for.") from error


def read_stamp(stage: Stage, workdir: Path) -> dict | None:
    """The stage's stamp, or None when it has not finished or its outputs are no longer all there.

    Raises InputError where None would mean to train anew over checkpoints that are left.
    """
    path = stamp_path(stage, workdir)
    if not path.is_file():
        return None
    stamp = read_json(path)
    for name, size in stamp["files"].items():
        file = workdir / name
        found = file.stat().st_size if file.is_file() else None
        if found != size and stage.in_place:
            raise InputError(
                f"{file} is {'missing' if found is None else f'{found} bytes'}, but {size} bytes were written. "
                f"Bring it back; or, to train again from step 0: rm {path}"
            )
        if found != size:
            return None
    return stamp


def settings_of(stage: Stage, experiment: Experiment) -> dict[str, object]:
    """The stage's own part of the config, as JSON gives it back."""
    return json.loads(json.dumps(identifying(stage.settings(experiment))))


def finished(before: Stage, stage: Stage, experiment: Experiment, workdir: Path) -> dict:
    """The stamp of `before`, whose outputs `stage` is about to read.

    Raises InputError when it has not finished, UsageError when its outputs, or what they were made from, are another
    experiment's.
    """
    stamp = read_stamp(before, workdir)
    if stamp is None:
        raise InputError(
            f"{stage.name} needs {', '.join(before.outputs)} in {workdir}, and that is missing or unfinished. "
            f"First run: python -m {before.script} CONFIG.py --workdir {workdir}  (or python -m launch.pretrain …)"
        )
    wanted = settings_of(before, experiment)
    for earlier in before.after:
        wanted[f"<{earlier.name}>"] = finished(earlier, before, experiment, workdir)["key"]
    if stamp["settings"] != wanted:
        refuse_other(before, stamp["settings"], wanted, workdir)
    return stamp


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
    stamps = " ".join(str(path) for path in what_follows(stage, workdir))
    raise UsageError(
        f"{', '.join(stage.outputs)} in {workdir} belong to another experiment:\n"
        + "\n".join(changed)
        + "\nNothing was changed. Choose another --workdir; or, to make them and all that follows from them again: "
        + f"rm {stamps}"
    )


def what_follows(stage: Stage, workdir: Path) -> list[Path]:
    """What to delete so that the stage, finished or half done, and all that was made from its outputs is made again."""
    settings = {path: read_json(path)["settings"] for path in (workdir / "stages").glob("*.json")}
    found = [stamp_path(stage, workdir)]
    for path in found:  # grows while it is walked
        found += [other for other in sorted(settings) if f"<{path.stem}>" in settings[other] and other not in found]
    return [path for path in (begun_path(stage, workdir), *found) if path.exists()]


def begun_path(stage: Stage, workdir: Path) -> Path:
    """Where it stands what an unfinished stage is making: beside its parts, or, in place, where a copy of the run
    folder without hidden files has it too."""
    return workdir / (f"stages/{stage.name}.begun" if stage.in_place else f".partial/{stage.name}/begun.json")


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
    """Brings one stage up to date; False when it already was.

    Raises UsageError when the outputs, or those that it reads, are another experiment's; then nothing is changed.
    """
    settings = settings_of(stage, experiment)
    for before in stage.after:
        settings[f"<{before.name}>"] = finished(before, stage, experiment, workdir)["key"]
    facts = json.loads(json.dumps(stage.facts(experiment)))
    key = hashlib.sha256(json.dumps([stage.name, settings, facts], sort_keys=True).encode()).hexdigest()
    stamp = read_stamp(stage, workdir)
    if stamp and stamp["key"] == key:
        return False
    if stamp:
        refuse_other(stage, stamp["settings"] | stamp["facts"], settings | facts, workdir)
    index, processes = place()
    if processes > 1 and not stage.together:
        raise UsageError(
            f"{stage.name} is the work of one process, but there are {processes} here. Run {stage.script} in one, and "
            "only training in all of them: python -m launch.train CONFIG.py"
        )
    if index > 0:  # process 0 keeps the books
        stage.make(experiment, workdir, workdir)
        return True

    partial, begun = workdir / ".partial" / stage.name, begun_path(stage, workdir)
    described = {"key": key, "settings": settings, "facts": facts}
    found = read_json(begun) if begun.is_file() else None
    if found and found["key"] != key and stage.in_place:
        refuse_other(stage, found["settings"] | found["facts"], settings | facts, workdir)
    # Parts made by other versions of the libraries are not mixed with these; a training run goes on all the same.
    mixes = stage.versions_matter and not stage.in_place
    if not found or found["key"] != key or (mixes and found["environment"] != environment()):
        begun.unlink(missing_ok=True)  # first, so that a kill on the way leaves nothing that looks whole
        remove([partial])
        if stage.in_place:  # of a run whose stamp was deleted in order to make it again
            set_aside(workdir, (*stage.outputs, *stage.by_products))
        write_atomically(begun, json.dumps({**described, "environment": environment()}))
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
    done = {**described, "seconds": round(time.perf_counter() - start, 3)}  # of this attempt
    proof = stage.proof(workdir) if stage.proof else stage.outputs
    write_atomically(stamp_path(stage, workdir), json.dumps({**done, "files": files_in(workdir, proof)}, indent=1))
    begun.unlink(missing_ok=True)
    remove([partial])
    return True


def set_aside(workdir: Path, names: tuple[str, ...]) -> None:
    """Moves what is there to replaced-N/: days of training are not deleted because a file of ours was lost."""
    there = [name for name in names if (workdir / name).exists()]
    if there:
        aside = next(path for n in itertools.count(1) if not (path := workdir / f"replaced-{n}").exists())
        aside.mkdir()
        for name in there:
            (workdir / name).replace(aside / name)
        of_it = f"{', '.join(there)} of {workdir}"
        print(f"{of_it} are of a run whose stamp is gone; they were moved to {aside}, and are made anew.", flush=True)


def remove(paths: list[Path]) -> None:
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
