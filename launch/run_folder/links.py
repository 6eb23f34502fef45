"""Links in a run folder. A run folder may come from a stranger, with links to your files, so a run refuses links.

The run folder itself may be a link, and links under names that no run uses are allowed. Hard links look like the run's
own files: those that a run would write to are replaced by copies.
"""

import contextlib
import os
import shlex
import stat
from pathlib import Path

from lm.errors import UsageError
from lm.run_paths import Part, RunPaths
from lm.storage import break_hard_links

PARTS = [part.name for part in vars(RunPaths).values() if isinstance(part, Part)]
NAMES = {part.split("/")[0] for part in PARTS} - {RunPaths.replaced}
"""Files and folders at the top of a run folder that a run writes, besides names that begin with PREFIXES."""
PREFIXES = ("heartbeat", "supervisor")


def refuse_links(workdir: Path) -> None:
    """Raise UsageError for the first link in the run folder, at a path that a run uses, that leads to files outside of
    it, and for a pipe or device."""
    if not workdir.is_dir():
        return
    names = sorted(path.name for path in workdir.iterdir() if path.name in NAMES or path.name.startswith(PREFIXES))
    for name in names:
        refuse_link(workdir / name)
    home, folders = Path(os.path.realpath(workdir)), [workdir / name for name in names if (workdir / name).is_dir()]
    for folder in folders:  # grows while it is walked
        with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:  # another process may delete it
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(Path(entry.path))
                elif not entry.is_symlink() or not Path(os.path.realpath(entry.path)).is_relative_to(home):
                    refuse_link(Path(entry.path))


def refuse_link(path: Path) -> None:
    """Raise UsageError if `path` is a link, or a pipe, socket or device, which could block forever."""
    try:
        mode = path.lstat().st_mode
    except OSError:  # another process may have deleted it
        return
    remove = shlex.join(["rm", str(path)])
    if stat.S_ISLNK(mode):
        raise UsageError(
            f"{path} is a link to {path.readlink()}, but a run follows no link in its folder. Nothing was changed. "
            f"Choose a --workdir on that disk, or delete the link (the files that it leads to stay): {remove}"
        )
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise UsageError(
            f"{path} is a pipe, socket or device, where a run has files. Nothing was changed. To delete it: {remove}"
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
