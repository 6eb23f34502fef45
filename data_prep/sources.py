"""Where web pages come from: WARC files of one's own, or pages inside pinned packages, written as WARC files."""

import dataclasses
import glob
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import batched, takewhile
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
WILDCARD = re.compile(r"[*?[]")
WARC_BEGINS = (b"\x1f\x8b", b"WARC/")  # gzip, or uncompressed


def fetch_pages(
    config: PagesConfig,
    out: Path,
    progress: Callable[[str], None] = print,
    cache: Path | None = None,
    settings: PipSettings | None = None,
) -> dict[str, list]:
    """Brings the pages and writes out/pages/manifest.json, which is returned:

    {"files": [{"path", "name", "bytes", "pages"}], "packages": [{"name", "version", …, "pages", "html_bytes"}]}

    Own WARC files are listed where they lie, by absolute path and with pages null; files written here are relative to
    `out`. By `name` documents call their file, wherever it lies. `cache` and `settings` default to this user's cache
    folder and pip's settings. Raises UsageError when nothing is asked for or a pattern matches nothing, InputError when
    an own file is no WARC file, and as `fetch_package`, `read_members` and `pages_of_member` do.
    """
    if not config.warc and not config.packages:
        raise UsageError("pages.warc and pages.packages are both empty: there is nothing to read. Give WARC files.")
    manifest: dict[str, list] = {"files": [], "packages": []}
    if config.warc:
        for path, name in named_warc_files(config.warc).items():
            refuse_other_files(path)
            manifest["files"].append({"path": str(path), "name": name, "bytes": path.stat().st_size, "pages": None})
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
        files.append({"path": name, "name": name, "bytes": (out / name).stat().st_size, "pages": len(batch)})
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
    """Absolute paths of the files that the shell patterns match, in the order and with the errors of
    `named_warc_files`."""
    return list(named_warc_files(patterns))


def named_warc_files(patterns: Iterable[str]) -> dict[Path, str]:
    """{absolute path: name} of the files that the shell patterns match (`**` goes into folders), each once.

    The name is the path inside the folder where the pattern's wildcards begin, so that names and order are the same
    wherever that folder lies; the number of the pattern comes first where names alone would tell two files apart no
    more. Raises UsageError when a pattern matches no file.
    """
    found: dict[Path, tuple[str, str]] = {}  # path: (number of the pattern, name)
    for number, pattern in enumerate(patterns):
        try:
            expanded = Path(pattern).expanduser()
        except RuntimeError as error:
            raise UsageError(f"pages.warc: {pattern!r} names the home of a user that is not here. Mend it.") from error
        folder = Path(*takewhile(lambda part: not WILDCARD.search(part), expanded.parts[:-1]))
        matched = [path for path in map(Path, glob.glob(str(expanded), recursive=True)) if path.is_file()]  # noqa: PTH207
        if not matched:
            raise UsageError(
                f"pages.warc: {pattern!r} matches no file (seen from {Path.cwd()}). Mend the pattern, and quote it so "
                "that the shell passes it on whole."
            )
        for path in matched:
            found.setdefault(path.absolute(), (str(number), path.relative_to(folder).as_posix()))
    unique = len({name for _, name in found.values()}) == len(found)
    names = {path: name if unique else f"{number}/{name}" for path, (number, name) in found.items()}
    return dict(sorted(names.items(), key=lambda item: item[1].split("/")))


def refuse_other_files(path: Path) -> None:
    """Raises InputError when `path` does not begin as a WARC file does, or cannot be read."""
    try:
        with path.open("rb") as file:
            begin = file.read(max(map(len, WARC_BEGINS)))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}. Mend its permissions.") from error
    if not begin.startswith(WARC_BEGINS):
        raise InputError(
            f"{path} is no WARC file: it begins with {begin!r}, not with {WARC_BEGINS[0]!r} (gzip) or "
            f"{WARC_BEGINS[1]!r}. Leave it out by a narrower pattern (pages.warc)."
        )


def warc_files(workdir: Path) -> list[Path]:
    """The WARC files of a run, in the manifest's order.

    Raises InputError when the manifest or a file is missing, or a file has another size than when it was listed.
    """
    paths = []
    for entry in manifest_files(workdir):
        path = workdir / entry["path"]  # an absolute path stays as it is
        if not path.is_file():
            raise InputError(
                f"{path} stands in {workdir / MANIFEST}, but is gone. Bring it back, or fetch the pages again."
            )
        if (size := path.stat().st_size) != entry["bytes"]:
            raise InputError(
                f"{path} has {size} bytes, but {entry['bytes']} by {workdir / MANIFEST}. Bring the file back as it "
                "was, or fetch the pages again."
            )
        paths.append(path)
    return paths


def warc_names(workdir: Path) -> list[str]:
    """What documents call the files of `warc_files`, in the same order. Raises InputError without a whole manifest."""
    return [entry["name"] for entry in manifest_files(workdir)]


def manifest_files(workdir: Path) -> list[dict]:
    manifest = workdir / MANIFEST
    try:
        entries = json.loads(manifest.read_text(encoding="utf-8"))["files"]
        missing = [key for entry in entries for key in ("path", "name", "bytes") if key not in entry]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{manifest} cannot be read: {error}. First run: python -m launch.fetch_pages CONFIG.py --workdir {workdir}"
        ) from error
    if missing:
        raise InputError(
            f"A file in {manifest} has no {missing[0]!r}. Delete the run folder, and fetch the pages again."
        )
    return entries
