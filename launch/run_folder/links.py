"""Links in a run folder. A run never writes through a link to files that are not its own.

A run folder may come from a stranger, with links to your files. So only one kind of link under a name that a run uses
is followed: a link to a folder of outputs or of work (`parts`, `scratch`, `units`) on another disk. That folder must be
empty when a run first uses it. The run then writes the file `.gristmill-run` there, with the path of the run folder,
and the folder belongs to this run folder only.

Hard links look like the run's own files. Those that a run would write to are replaced by copies.
"""

import contextlib
import os
import shlex
from collections.abc import Iterable
from pathlib import Path

from lm.errors import InputError, UsageError
from lm.run_paths import Part, RunPaths
from lm.storage import break_hard_links

CLAIM = ".gristmill-run"
PARTS = [part.name for part in vars(RunPaths).values() if isinstance(part, Part)]
NAMES = {part.split("/")[0] for part in PARTS} - {RunPaths.replaced}
"""Files and folders at the top of a run folder that a run writes, besides names that begin with PREFIXES."""
PREFIXES = ("heartbeat", "supervisor")
SYSTEM = {"lost+found", ".DS_Store"}
"""Names that operating systems create in an empty folder or disk."""


def refuse_links(workdir: Path, claim: bool = True) -> None:
    """Raise UsageError for the first link in the run folder through which a run would write to files that are not its
    own, and for a pipe or device; InputError for a link to an output folder that is missing. Links under names that no
    run uses are allowed.

    With `claim`, empty folders to which output folders are links are this run's from then on.
    """
    if not workdir.is_dir():
        return
    there = sorted(path.name for path in workdir.iterdir())
    names = [name for name in there if name in NAMES or name.startswith(PREFIXES)]
    claim_links(workdir, names, claim=False)
    folders = [os.path.realpath(workdir / name) for name in names if (workdir / name).is_dir()]
    homes = [os.path.realpath(workdir), *folders]
    for name in names:
        refuse_special(workdir / name)
    for folder in folders:  # grows while it is walked
        with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:  # another process may delete it
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                elif entry.is_symlink():
                    real = Path(os.path.realpath(entry.path))
                    if not any(real.is_relative_to(home) for home in homes):
                        raise UsageError(
                            f"{entry.path} is a link to {Path(entry.path).readlink()}, outside of the run folder. A "
                            "run does not write through links within its folders. Nothing was changed. To delete the "
                            f"link (the files that it leads to stay): {shlex.join(['rm', entry.path])}"
                        )
                elif not entry.is_file():
                    refuse_special(Path(entry.path))
    if claim:
        claim_links(workdir, names)


def claim_links(workdir: Path, names: Iterable[str], claim: bool = True) -> None:
    """Make the folders to which files of these names in the run folder are links this run's; without `claim`, only
    check whether that is possible.

    Raises UsageError for a folder that is neither empty nor was claimed by this run folder before, and for a link to a
    file; InputError for a link to a missing folder.
    """
    for path in (workdir / name for name in names):
        if path.is_symlink():
            claim_link(workdir, path, claim)


def claim_link(workdir: Path, path: Path, claim: bool) -> None:
    """Like `claim_links`, for one link."""
    refuse_broken_link(path)
    behind, home = path.resolve(), workdir.resolve()
    if not behind.is_dir():
        raise UsageError(
            f"{path} is a link to the file {behind}. A run does not write through a link to a file. Nothing was "
            f"changed. To delete the link (the file stays): {shlex.join(['rm', str(path)])}"
        )
    note = behind / CLAIM
    owner = note.read_text(encoding="utf-8", errors="replace").strip() if note.is_file() else ""
    if owner == str(home):
        return
    found = contents(behind)
    if not owner and not found and not note.is_symlink():
        if claim:
            note.write_text(f"{home}\n", encoding="utf-8")
        return
    why = f"it belongs to the run in {owner}" if owner else f"it holds {', '.join(found[:3] or [CLAIM])}"
    raise UsageError(
        f"{path} is a link to the folder {behind}, which is not known to belong to this run: {why}. Nothing was "
        "changed. Link to an empty folder. Only if you are sure that this run wrote what is in there: "
        f"echo {shlex.quote(str(home))} > {shlex.quote(str(note))}"
    )


def break_links(workdir: Path) -> None:
    """Replace files that a run writes in place and that have other hard links by copies. Only for the process that
    holds the lock: another one may have these files open."""
    paths, names = RunPaths(workdir), NAMES - {RunPaths.lock}
    logs = [path for path in workdir.iterdir() if path.name in names or path.name.startswith(PREFIXES)]
    for folder in (paths.hangs, paths.tensorboard):
        logs += folder.rglob("*")
    logs += paths.pages.glob("*.part")  # a download that is continued
    for path in logs:
        break_hard_links(path)


def contents(folder: Path) -> list[str]:
    """Names in the folder, without what a run or an operating system leaves in an empty one."""
    return sorted(one.name for one in folder.iterdir() if one.name not in SYSTEM and one.name != CLAIM)


def refuse_special(path: Path) -> None:
    """Raise UsageError for a pipe, socket or device: reading or writing it could block forever."""
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise UsageError(
            f"{path} is a pipe, socket or device, where a run has files. Nothing was changed. To delete it: "
            f"{shlex.join(['rm', str(path)])}"
        )


def refuse_broken_link(path: Path) -> None:
    """Raise InputError if `path` is a link to a missing file or folder, such as a disk that is not mounted."""
    if path.is_symlink() and not path.exists():
        raise InputError(
            f"{path} is a link to {path.readlink()}, which is not there. Mount its disk or make that folder; or, to "
            f"keep {path.name} in the run folder: {shlex.join(['rm', str(path)])}"
        )
