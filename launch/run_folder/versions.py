"""Versions of the libraries that determine a stage's outputs: recorded at its start, compared when it resumes."""

import functools
import importlib.metadata
import platform
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from launch.run_folder.markers import differences
from launch.run_folder.outputs import remove_command
from lm.errors import UsageError


@functools.cache
def installed(library: str) -> str:
    """Installed version of a library, "" if it is not installed; "python": major and minor version."""
    if library == "python":
        return ".".join(platform.python_version_tuple()[:2])
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return ""


def compare_versions(stage: str, begun: Path, note: dict[str, Any], libraries: Iterable[str], warn_only: bool) -> None:
    """Raise UsageError if versions of the libraries changed since the parts of the unfinished stage were made, by its
    `note` in the file `begun`; with `warn_only`, print a warning."""
    old, new = note.get("versions", {}), {library: installed(library) for library in libraries}
    changed = differences(old, new, "when they were made", "now")
    if not changed:
        return
    told = f"{stage}: library versions changed since some parts were made"
    if warn_only:
        print(f"{told}; those parts are kept:\n" + "\n".join(changed), flush=True)
        return
    wanted = [f"{name}=={version}" for name, version in old.items() if version and version != new.get(name)]
    keep = f"To keep the parts, install those again ({' '.join(wanted)}). " if wanted else ""
    raise UsageError(
        f"{told}:\n" + "\n".join(changed) + f"\nNothing was changed. {keep}To start over: {remove_command(begun)}"
    )
