"""A folder that is there whole or not at all, and in whose place nothing of anybody else's is ever put."""

import contextlib
import json
import shutil
from collections.abc import Generator
from pathlib import Path

from lm.errors import UsageError
from lm.storage import unused, writing

RECORD = "gristmill_export.json"
"""In a folder that launch.export wrote: the run it is of, and the files that it wrote."""


def files_in(folder: Path) -> dict[str, int]:
    """{relative path: bytes} of all files below a folder."""
    return {str(p.relative_to(folder)): p.stat().st_size for p in sorted(folder.rglob("*")) if p.is_file()}


def refuse_others(out: Path, option: str) -> None:
    """Raises UsageError unless `out` is not there yet, is an empty folder, or holds what launch.export wrote alone."""
    if out.is_dir() and not any(out.iterdir()):
        return
    if not out.exists() and not out.is_symlink():
        return
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        record = json.loads((out / RECORD).read_bytes())
        found = files_in(out)
        found.pop(RECORD)
        if record["files"] == found:
            return
    raise UsageError(
        f"{option} {out} is there already, and is not what launch.export wrote alone. Nothing was changed. Give a "
        "folder that does not exist yet."
    )


@contextlib.contextmanager
def whole_folder(out: Path, option: str = "OUT") -> Generator[Path]:
    """The folder in which to write what shall be the folder `out`: beside it, and renamed when the block ends well;
    otherwise it is deleted. What launch.export wrote to `out` before gives way.

    Raises UsageError as `refuse_others`, InputError where the disk does not take it.
    """
    refuse_others(out, option)
    target = out.resolve() if out.is_symlink() else out.absolute()
    with writing(out):
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = unused(target.with_name(f".{target.name}.partial"))
        partial.mkdir()
        try:
            yield partial
            replaced = unused(target.with_name(f".{target.name}.replaced"))
            if target.exists():
                target.rename(replaced)  # kept until the new one is in its place
            try:
                partial.rename(target)
            except BaseException:
                if replaced.exists():
                    replaced.rename(target)
                raise
            shutil.rmtree(replaced, ignore_errors=True)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
