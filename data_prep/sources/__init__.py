"""Sources of web pages: the user's files, Common Crawl, tables, datasets, or pages in pinned packages."""

import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from data_prep.config import PagesConfig
from data_prep.config.pages import SOURCES
from data_prep.sources.listing import is_on_the_web
from data_prep.sources.manifest import MANIFEST, InputFile, manifest_files, module_of, write_manifest
from lm.errors import InputError
from lm.storage import Place, Url


def module_of_source(config: PagesConfig) -> ModuleType:
    return importlib.import_module(SOURCES[config.source].module)


def fetch_pages(config: PagesConfig, out: Path, progress: Callable[[str], None] = print) -> dict[str, list]:
    """Fetch the pages of the configured source, write out/pages/manifest.json (manifest.py), and return its contents.

    The user's files are listed, not copied. Resumes an interrupted attempt. Raises UsageError if the config names no
    pages, a pattern matches nothing, or the crawl or dataset does not exist; InputError if a file is of the wrong type
    or cannot be fetched.
    """
    files, packages = module_of_source(config).fetch(config, out, progress)
    return write_manifest(out, files, packages=packages)


def input_files(workdir: Place) -> list[InputFile]:
    """Return the input files of a run, in the order of the manifest.

    Raises InputError if the manifest or a local file is missing, or a local file's size differs from the manifest.
    Remote files are not checked, since that would take one request per file.
    """
    files = manifest_files(workdir)
    sizes: dict[tuple[Place, str], int] = {}  # a dataset has many entries, but is measured once
    for file in files:
        if isinstance(file.path, Url):
            continue
        key = file.path, file.split
        if key not in sizes and (size := module_of(file.kind).size(file)) is not None:
            sizes[key] = size
        if key not in sizes:
            raise InputError(
                f"{file.path} is in {workdir / MANIFEST}, but no longer exists. Restore it, or fetch the pages again."
            )
        if sizes[key] != file.bytes:
            raise InputError(
                f"{file.path} has {sizes[key]} bytes, but {file.bytes} are listed in {workdir / MANIFEST}. Restore the "
                "old file, or fetch the pages again."
            )
    return files


def own_inputs(config: PagesConfig) -> tuple[dict[str, object], dict[str, int | str]]:
    """Return ({path: size in bytes}, {path: modification time in ns, or ETag}) of the user's files in the config.

    For files on web servers, the size is None, and the ETag or date is included only if there are at most QUERIED of
    them (listing.py). Raises UsageError if a pattern matches nothing.
    """
    found = module_of_source(config).inputs(config)
    sizes: dict[str, object] = {str(one.place): None if is_on_the_web(one.place) else one.bytes for one in found}
    return sizes, {str(one.place): one.version for one in found if one.version is not None}
