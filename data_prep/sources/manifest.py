"""pages/manifest.json: the list of input files, by which the next stage finds what this one brought.

    {"files": [{"path", "name", "kind", "bytes", "pages", and fields that differ from their defaults}, …], …}

"path" is relative to the run folder if the file is in its pages/; it may be an address. "text_field" is always there
for tables and datasets; "ranges" is {archive: [[offset, length], …]}, each below "path".
"""

import dataclasses
import hashlib
import importlib
import json
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from lm.errors import InputError
from lm.storage import Place, inside, is_url, place_of, write_json, writing
from lm.storage.names import refused
from lm.storage.objects import Object

MANIFEST = "pages/manifest.json"
ARCHIVE = "data_prep.sources.inputs"
KINDS = {
    "warc": ARCHIVE, "wet": ARCHIVE, "table": "data_prep.sources.tables", "tfds": "data_prep.sources.tfds",
    "ranges": "data_prep.common_crawl.ranges",
}  # fmt: skip
"""{kind of input file: the module that has read(file, damage, counts), and size(file)}."""
NEEDED = {"path": str, "name": str, "kind": str, "bytes": int}


def module_of(kind: str) -> ModuleType:
    """The reader of a kind of input files."""
    return importlib.import_module(KINDS[kind])


@dataclass(frozen=True, slots=True)
class InputFile:
    """One unit of work: a file, or a range of rows of a dataset. Light, so that it may travel to workers."""

    path: Place
    """Where it lies; of a dataset, the folder with its dataset_info.json; of ranges, what the archives lie below."""
    name: str
    """What documents call it: the same wherever it lies."""
    kind: str
    """How it is read, one of KINDS."""
    bytes: int
    """Its size; of a dataset, that of all files of the split, whatever the range; of ranges, their sum."""
    pages: int | None = None
    """How many pages or texts it holds, None where that is not known."""
    rows: tuple[int, int] | None = None
    """Of a dataset: first row of the split, and the one after the last."""
    split: str = ""
    """Of a dataset: its split."""
    text_field: str = "text"
    """Of a table or dataset: what holds the text; a dot goes into a nested field."""
    keep_columns: tuple[str, ...] = ()
    """Of a table: columns that stay with the documents (pages.keep_columns)."""
    etag: str = ""
    """The version to read, as a store tells it; "" of a file of a disk, or if the server was not asked."""
    contents: str = ""
    """SHA-256, ETag or date of a file that is known to have replaced another of its size; else ""."""
    estimated: bool = False
    """Whether `bytes` is a guess, made where each file would have been a request."""
    ranges: tuple[tuple[str, tuple[tuple[int, int], ...]], ...] = ()
    """Of records chosen from archives: (archive, (offset, length) of each record, in order)."""

    @property
    def identity(self) -> str:
        """SHA-256 of what is read from it: never where it is stored, when it was written, or its ETag: a copy is the
        same input."""
        told = [
            self.name, self.kind, None if self.estimated else self.bytes, self.contents, self.rows, self.split,
            self.text_field, self.ranges, *([self.keep_columns] if self.keep_columns else []),
        ]  # fmt: skip
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()

    @property
    def version(self) -> Object | None:
        """Of one that lies elsewhere, as it was listed: what reading holds it against. None where that is not known."""
        return None if self.estimated or isinstance(self.path, Path) else Object(self.bytes, self.etag)

    def entry(self, run: Path) -> dict:
        """Its entry in the manifest of the run folder `run`."""
        inside = isinstance(self.path, Path) and self.path.is_relative_to((run / MANIFEST).parent)
        named = {*NEEDED, "pages"} | ({"text_field"} if self.kind in ("table", "tfds") else set())
        values = {one.name: (getattr(self, one.name), one.default) for one in dataclasses.fields(self)}
        entry = {name: value for name, (value, default) in values.items() if name in named or value != default}
        entry |= {"path": self.path.relative_to(run).as_posix() if inside else str(self.path)}
        return entry | ({"ranges": dict(self.ranges)} if self.ranges else {})


def write_manifest(run: Path, files: Iterable[InputFile], **facts: list) -> dict[str, list]:
    """Write run/pages/manifest.json, which is returned; `facts` are next to the files."""
    manifest: dict[str, list] = json.loads(json.dumps({"files": [file.entry(run) for file in files], **facts}))
    with writing(run / MANIFEST):
        write_json(run / MANIFEST, manifest)
    return manifest


def manifest_files(workdir: Place) -> list[InputFile]:
    """The entries of the manifest, whether or not the files are there. Raises InputError when it cannot be read."""
    manifest = workdir / MANIFEST
    try:
        entries = json.loads(manifest.read_text(encoding="utf-8"))["files"]
        wrong = [key for entry in entries for key, kind in NEEDED.items() if not isinstance(entry.get(key), kind)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{manifest} cannot be read: {error}. First run: python -m launch.fetch_pages CONFIG.py --workdir "
            f"{shlex.quote(str(workdir))}"
        ) from error
    wrong += [repr(entry["kind"]) for entry in entries if not wrong and entry["kind"] not in KINDS]
    if wrong:
        raise InputError(
            f"A file in {manifest} has no {wrong[0]}, or one of another version of this program. Fetch the pages "
            f"again: {shlex.join(['rm', str(workdir / 'stages/pages.json')])}"
        )
    return [input_file(entry, workdir) for entry in entries]


def input_file(entry: dict, workdir: Place) -> InputFile:
    """What an entry of the manifest in `workdir` names."""
    path = entry["path"]
    if "\0" in entry["name"]:
        raise refused(entry["name"], workdir / MANIFEST, "is no name of a file")
    whole = is_url(path) or Path(path).is_absolute()
    ranges = entry.get("ranges", {}).items()
    tuples: dict[str, Any] = {
        "path": place_of(path) if whole else inside(workdir, path, workdir / MANIFEST),
        "rows": (entry["rows"][0], entry["rows"][1]) if entry.get("rows") else None,
        "keep_columns": tuple(map(str, entry.get("keep_columns", ()))),
        "ranges": tuple((name, tuple((start, length) for start, length in some)) for name, some in ranges),
    }
    names = {one.name for one in dataclasses.fields(InputFile)}
    return InputFile(**({name: value for name, value in entry.items() if name in names} | tuples))
