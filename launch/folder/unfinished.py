"""Finished parts of an unfinished stage, in `.partial/<stage>/`: gone on with, kept for later, or refused; never
deleted unasked.

`begun.json` there says what is being made. Parts that were made with other settings are moved to
`.partial/<stage>.<key>/`, where the same settings find them again. Parts that other versions of the libraries made are
neither mixed with new ones nor passed over: the user chooses.
"""

import functools
import importlib.metadata
import itertools
import json
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

from launch.folder.markers import differences, read_note
from launch.folder.written import BEGUN, MADE, MOVING, can_go_on, clear_away, remove, remove_command
from lm.errors import UsageError
from lm.run_paths import RunPaths
from lm.storage import write_atomically


def begin(
    name: str,
    workdir: Path,
    note: dict[str, Any],
    outputs: tuple[str, ...],
    libraries: tuple[str, ...] | None,
    parts_fit: Callable[[dict, dict], bool] | None = None,
    told: bool = False,
) -> bool:
    """Makes `.partial/<name>/` ready for the work that `note` describes. True when everything was made before, so that
    only the moving into place is left.

    `note` gets the "replaces" of an attempt before. `outputs` are those of the stage. `libraries` are those that decide
    the bytes of the parts; None for a stage that cannot go on from parts. Parts of another key stay in place if
    `parts_fit(old, new)`, of the settings with external inputs: the stage then checks them one by one. With `told`,
    other versions of libraries are only reported. Raises UsageError if other parts are there that other versions made.
    """
    partial = RunPaths(workdir).partial(name)
    found = read_begun(partial)
    if found and found["key"] != note["key"] and parts_fit and parts_fit(all_of(found), all_of(note)):
        found |= {"key": note["key"]}
        for made_list in (MADE, MOVING):
            (partial / made_list).unlink(missing_ok=True)
    if found and found["key"] != note["key"]:
        put_by(name, workdir, found, note, libraries is not None)
        found = None
    if not found:
        clear_away(partial, workdir)
    kept = parked(name, workdir, note["key"])
    if not found and kept.is_dir():
        kept.rename(partial)
        found = read_begun(partial)
        print(f"{name}: going on with the parts in {kept}", flush=True)
    made = found is not None and can_go_on(workdir, partial, outputs)
    versions = {library: installed(library) for library in libraries or ()}
    if found and libraries and not made and has_parts(partial):
        refuse_other_versions(partial, found.get("versions"), versions, told)
    if found and libraries is None and not made:
        remove(partial / "out")
    if found:
        note["replaces"] = list(dict.fromkeys([*found["replaces"], *note["replaces"]]))
    write_atomically(partial / BEGUN, json.dumps(note | {"versions": versions}))
    return made


def all_of(note: dict[str, Any]) -> dict[str, Any]:
    """The settings with the external inputs."""
    return note["settings"] | note["external_inputs"]


def read_begun(partial: Path) -> dict[str, Any] | None:
    return read_note(partial / BEGUN, "key", "settings", delete=partial)


def has_parts(partial: Path) -> bool:
    return any(path.is_file() and path != partial / BEGUN for path in partial.rglob("*"))


def parked(name: str, workdir: Path, key: str) -> Path:
    """Where parts that have this key are kept while others are being made."""
    return RunPaths(workdir).partial(f"{name}.{key[:16]}")


def put_by(name: str, workdir: Path, found: dict, note: dict, keep: bool) -> None:
    """Moves parts of other settings out of the way; without any, or where nothing could `keep` them, there is nothing
    to lose."""
    partial = RunPaths(workdir).partial(name)
    if not (keep and has_parts(partial)):
        return
    target = parked(name, workdir, found["key"])
    aside = next(path for n in itertools.count() if not (path := target.with_name(f"{target.name}{'.' * n}")).exists())
    partial.rename(aside)
    changed = differences(all_of(found), all_of(note))
    print(
        f"{name}: parts of an interrupted run were made with other settings:\n"
        + "\n".join(changed)
        + f"\nThey are kept in {aside}: with those settings, the same command goes on from them. To delete them: "
        + remove_command(aside, folders=True),
        flush=True,
    )


@functools.cache
def installed(library: str) -> str:
    """Its version, "" where it is not installed; of Python the one that decides its tables of characters."""
    if library == "python":
        return ".".join(platform.python_version_tuple()[:2])
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return ""


def refuse_other_versions(partial: Path, old: dict | None, new: dict[str, str], told: bool) -> None:
    """Raises UsageError when the parts were made by other versions of the libraries; where that may only be `told`,
    prints it."""
    if old is None:
        changed = ["  an older version of this program made them, and did not note its libraries"]
    else:
        changed = differences(old, new, "when they were made", "now")
    if old is not None and not changed:
        return
    if told:
        print(
            f"{partial} is gone on with by other versions of libraries that decide its bytes:\n"
            + "\n".join(changed)
            + f"\nTo make it anew by these alone: {remove_command(partial, folders=True)}",
            flush=True,
        )
        return
    wanted = [f"{name}=={version}" for name, version in (old or {}).items() if version and version != new.get(name)]
    again = f"install those again ({' '.join(wanted)}); or, " if wanted else ""
    raise UsageError(
        f"{partial} holds finished parts of an interrupted stage, and versions of libraries that decide their bytes "
        "have changed:\n"
        + "\n".join(changed)
        + f"\nNothing was changed. To go on from them, {again}to make them anew: "
        + remove_command(partial, folders=True)
    )
