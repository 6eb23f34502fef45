"""JSON records of stages in a run folder: the marker of a finished one, and `.begun` of an unfinished one.

    {"key", "settings", "external_inputs", "replaces", "continued_from", "seconds", "files", "checksums", "damaged"}

`key` is the hash of everything that determines the outputs. `replaces` lists the keys that the stage had before
training continued: later stages with inputs of those keys are outdated, but belong to the same experiment.
`continued_from` has the earlier lengths of training. `checksums` and `damaged` are about logs (lm/checksums.py).
"""

import functools
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from launch.run_folder.outputs import remove_command
from lm.checksums import damage
from lm.errors import InputError, UsageError, print_untrusted
from lm.fields import flatten
from lm.run_paths import RunPaths
from lm.storage import relative_name, shown_place
from lm.versions import installed

KINDS: dict[str, Any] = {
    "key": str, "settings": dict, "external_inputs": dict, "replaces": list, "continued_from": list, "files": dict,
    "versions": dict, "seconds": (int | float), "checksums": dict, "damaged": list,
}  # fmt: skip
"""Types of the fields."""


def key_of(name: str, settings: dict, external_inputs: dict, continued_from: list) -> str:
    """Return the key of a stage: the SHA-256, in hex, of everything that determines its outputs."""
    described = [name, settings, external_inputs, *([continued_from] if continued_from else [])]
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()


def settings_and_inputs(note: dict[str, Any]) -> dict[str, Any]:
    """Return the settings and external inputs in a stage's record, as one dict."""
    return note["settings"] | note["external_inputs"]


NEEDED = ("key", "settings", "external_inputs", "replaces")
"""Fields of every note; a marker, <stage>.json, also has `continued_from` and `files`."""


def read_note(path: Path) -> dict[str, Any] | None:
    """Return the JSON record of a finished stage (its marker) or of an unfinished one (`.begun`); None if there is
    none. Raises InputError if it is damaged, lacks a field, or lists a file outside of the run folder."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError(f"it holds {json.dumps(found)[:40]} instead of an object")
        for name in (*NEEDED, *(("continued_from", "files") if path.suffix == ".json" else ())):
            if name not in found:
                raise ValueError(f"it has no {name!r}")
        for name in found.keys() & KINDS.keys():
            if not isinstance(found[name], KINDS[name]):
                raise ValueError(f"its {name!r} is {json.dumps(found[name])[:40]}")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}. Check its permissions.") from error
    except (ValueError, RecursionError) as error:
        wrong = str(error) or type(error).__name__
        raise InputError(
            f"{shown_place(path)} is damaged ({wrong}). To run the stage again, delete the file: {remove_command(path)}"
        ) from error
    for name in found.get("files", {}):
        relative_name(name, path)
    found["replaces"] = [key for key in found["replaces"] if isinstance(key, str)]
    return found


def report_damage(name: str, workdir: Path, marker: dict[str, Any], remedy: str) -> list[str]:
    """Print the files that differ from the checksums in the `marker` of stage `name`, each with `remedy`, once per
    process; return the messages, one per file. Files that are only in a bucket are not checked."""
    here = {file: one for file, one in marker.get("checksums", {}).items() if (workdir / file).is_file()}
    damaged = damage(workdir, here, RunPaths(workdir).marker(name))
    for one in damaged:
        print_once(f"{name}: {one}{remedy}")
    return damaged


@functools.cache
def print_once(text: str) -> None:
    print_untrusted(text)


MOST_FILES = 20
"""Maximum input files that `differences` names."""


def differences(old: dict, new: dict, there: str = "there", here: str = "asked for") -> list[str]:
    """Return a line for each setting that differs, such as "  train.steps: 10 there, 20 asked for"; `there` follows the
    old value, `here` the new one. At most MOST_FILES input files are listed."""
    old_flat, new_flat = flatten(old), flatten(new)
    names = sorted(k for k in old_flat.keys() | new_flat.keys() if old_flat.get(k) != new_flat.get(k))
    untold = [name for name in names if " of input files." in name][MOST_FILES:]
    lines = [
        f"  {name[1:-1]}: written again since, with other contents"
        if name.startswith("<")
        else f"  {name}: {old_flat.get(name)!r} {there}, {new_flat.get(name)!r} {here}"
        for name in sorted({*names} - {*untold})
    ]
    return [*lines, *([f"  and {len(untold):,} more input files"] if untold else [])]


def refuse_trained(workdir: Path, stage: str) -> None:
    """Raise UsageError if the run began training on the outputs of `stage`, which engine.retry_failed would replace."""
    run = RunPaths(workdir)
    if run.marker("train").is_file() or run.begun("train").is_file():
        raise UsageError(
            f"engine.retry_failed is given, but {shown_place(workdir)} has already trained on {stage} without the "
            "failed units. Nothing was changed. Remove engine.retry_failed, or use --from this run in a new --workdir."
        )


def compare_versions(stage: str, begun: Path, note: dict[str, Any], libraries: Iterable[str], warn_only: bool) -> None:
    """Raise UsageError if library versions changed since an unfinished stage began; with `warn_only`, print a warning
    instead. `note`, the contents of the file `begun`, has the old versions."""
    old, new = note.get("versions", {}), {library: installed(library) for library in libraries}
    changed = differences(old, new, "when they were written", "now")
    if not changed:
        return
    told = f"{stage}: library versions have changed since some parts were written"
    if warn_only:
        print_untrusted(f"{told}; those parts are kept:\n" + "\n".join(changed))
        return
    wanted = [f"{name}=={version}" for name, version in old.items() if version and version != new.get(name)]
    keep = f"To keep the parts, install those versions ({' '.join(wanted)}). " if wanted else ""
    raise UsageError(
        f"{told}:\n" + "\n".join(changed) + f"\nNothing was changed. {keep}To start over: {remove_command(begun)}"
    )
