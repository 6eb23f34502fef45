"""Versions of the installed libraries."""

import functools
import importlib.metadata
import platform


@functools.cache
def installed(library: str) -> str:
    """Installed version of a library; "" if not installed. "python" gives major and minor version, such as "3.13"."""
    if library == "python":
        return ".".join(platform.python_version_tuple()[:2])
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return ""
