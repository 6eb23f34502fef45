"""What a finished stage's units left (data_prep.engine), in a run folder: taken over when the stage is made again, so
that only units that changed are made."""

from collections.abc import Iterable
from pathlib import Path

from data_prep.engine.units import read_marker
from launch.folder.taking import bring
from launch.folder.written import read_record
from lm.run_paths import RunPaths


def folders(steps: tuple[str, ...]) -> tuple[str, ...]:
    """The folders of the steps' markers and quarantine records, relative to the run folder."""
    return tuple(f"{top}/{step}" for top in (RunPaths.units, RunPaths.quarantine) for step in steps)


def take_over(steps: tuple[str, ...], workdir: Path, out: Path) -> None:
    """Links the units' outputs and markers into `out`, where they are judged; what is there already stays, and the run
    folder is left as it is until everything is made."""
    for step in steps:
        for path in sorted((workdir / RunPaths.units / step).glob("*.json")):
            marker = read_marker(path)
            files = [workdir / name for name in marker.outputs] if marker else []
            if files and not (out / path.relative_to(workdir)).exists():
                missing = [file for file in files if not (out / file.relative_to(workdir)).exists()]
                bring([*missing, path], workdir, out, link=True)


def set_aside(files: Iterable[str]) -> list[str]:
    """The units that were set aside, as step/name, by the names of a stage's files, its quarantine records among them:
    without them the stage was finished."""
    found = (f"/{name}".partition(f"/{RunPaths.quarantine}/")[2] for name in files)
    return sorted(name.removesuffix(".json") for name in found if name)


def records(stage: str, workdir: Path, out: Path) -> tuple[str, ...]:
    """The folders of quarantine records that the stage leaves in `out`, or left in the run folder when it was made
    before, relative to these: of whatever steps it ran."""
    found = [path.relative_to(out).as_posix() for path in (out / RunPaths.quarantine).glob("*/*.json")]
    named = set_aside([*found, *read_record(stage, workdir)])
    return tuple(dict.fromkeys(f"{RunPaths.quarantine}/{name.partition('/')[0]}" for name in named))
