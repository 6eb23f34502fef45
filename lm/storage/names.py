"""Checks of file names that come from a file, a listing or a server, before they are joined to a folder."""

import os
import re
from pathlib import Path
from typing import overload

from lm.errors import InputError, shown
from lm.storage.url import Url

DRIVE = re.compile("[A-Za-z]:")


def relative_name(name: object, source: object) -> str:
    """Return `name`, which `source` (a file or an address) names, if it is a plain relative path such as `a/b.txt`.

    Raises InputError for an absolute path, a drive letter, an empty name, a part that is empty, `.` or `..`, a
    backslash, and a NUL: joined to a folder, such a name can point outside of it, here or on another system.
    """
    plain = (
        isinstance(name, str)
        and not {"", ".", ".."} & {*name.split("/")}
        and not {"\0", "\\"} & {*name}
        and not DRIVE.match(name)
    )
    if not plain:
        raise refused(name, source, "is not a plain relative path")
    return str(name)


@overload
def inside(folder: Path, name: object, source: object) -> Path: ...
@overload
def inside(folder: Url, name: object, source: object) -> Url: ...
def inside(folder: Path | Url, name: object, source: object) -> Path | Url:
    """Return `folder / name`, where `source` names the file `name`.

    The first folder of the name may be a link, as an output folder on another disk is. Raises InputError as
    `relative_name`, and for a name that a link leads out of that folder.
    """
    plain = relative_name(name, source)
    if isinstance(folder, Url):
        return folder / plain
    path, (first, *others) = folder / plain, plain.split("/")
    real, *homes = (Path(os.path.realpath(one)) for one in (path, folder, folder / first if others else folder))
    if not any(real.is_relative_to(home) for home in homes):
        raise refused(name, source, f"leads through a link to {real}")
    return path


def refused(name: object, source: object, why: str) -> InputError:
    return InputError(
        f"{source} names the file {shown(name)}, which {why}. Nothing was changed. Delete {source} and make or "
        "download it again, or take it from a copy that you trust."
    )
