"""pages/manifest.json: the list of input files, written by the stage that fetches pages and read by the next.

    {"files": [{"path", "name", "kind", "bytes", "pages", and fields that differ from their defaults}, …], …}

"path" is relative to the run folder for files in its pages/, otherwise absolute or an address. Tables and datasets
always have "text_field". "ranges" is {archive: [[offset, length], …]}, with archives relative to "path".
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

from lm.errors import MALFORMED, InputError
from lm.storage import Place, inside, is_url, place_of, write_json, writing
from lm.storage.objects import Object
from lm.storage.places import refused

MANIFEST = "pages/manifest.json"
ARCHIVE = "data_prep.sources.inputs"
KINDS = {
    "warc": ARCHIVE, "wet": ARCHIVE, "table": "data_prep.sources.tables", "tfds": "data_prep.sources.tfds",
    "ranges": "data_prep.common_crawl.ranges",
}  # fmt: skip
"""{kind of input file: module with read(file, damage, counts) and size(file)}."""
Ranges = tuple[tuple[str, tuple[tuple[int, int], ...]], ...]
"""Records of archives: (archive, ((offset, length) of each record, ...))."""
NEEDED = {"path": str, "name": str, "kind": str, "bytes": int}


def module_of(kind: str) -> ModuleType:
    """Import the module that reads input files of a `kind`, a key of KINDS."""
    return importlib.import_module(KINDS[kind])


@dataclass(frozen=True, slots=True)
class InputFile:
    """Input of one unit of work of a stage: a file, a range of rows of a dataset, or selected records of archives.
    Small, since it is sent to workers."""

    path: Place
    """The file; of a dataset, the folder with dataset_info.json; of selected records, the parent of the archives."""
    name: str
    """Name in Document.file_path, independent of the file's location."""
    kind: str
    """Key of KINDS."""
    bytes: int
    """Size; of a dataset, that of all files of the split, not only of `rows`; of records, the sum of their lengths."""
    pages: int | None = None
    """Number of pages or texts; None if unknown."""
    rows: tuple[int, int] | None = None
    """Dataset: first row in the split, and one past the last."""
    split: str = ""
    """Dataset: name of the split."""
    text_field: str = "text"
    """Table or dataset: column with the text; dots separate nested fields."""
    keep_columns: tuple[str, ...] = ()
    """Table: columns to keep with the documents (pages.keep_columns)."""
    etag: str = ""
    """ETag of the version to read; empty for local files, or if the server was not queried."""
    contents: str = ""
    """SHA-256, ETag or date, only if the file is known to have replaced another of the same size; otherwise empty."""
    estimated: bool = False
    """Whether `bytes` is an estimate, used to avoid one request per file."""
    ranges: Ranges = ()
    """Selected records, in order."""

    @property
    def identity(self) -> str:
        """SHA-256 of the fields that determine which texts are read. The path and `etag` are not included, so a copy of
        a file has the same identity."""
        parts = [
            self.name, self.kind, None if self.estimated else self.bytes, self.contents, self.rows, self.split,
            self.text_field, self.ranges, *([self.keep_columns] if self.keep_columns else []),
        ]  # fmt: skip
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    @property
    def version(self) -> Object | None:
        """Size and ETag of a remote file when it was listed, to detect changes; None for local files and estimated
        sizes."""
        return None if self.estimated or isinstance(self.path, Path) else Object(self.bytes, self.etag)

    def entry(self, run: Path) -> dict:
        """Return this file as an entry of pages/manifest.json in the run folder `run`."""
        inside = isinstance(self.path, Path) and self.path.is_relative_to((run / MANIFEST).parent)
        named = {*NEEDED, "pages"} | ({"text_field"} if self.kind in ("table", "tfds") else set())
        values = {one.name: (getattr(self, one.name), one.default) for one in dataclasses.fields(self)}
        entry = {name: value for name, (value, default) in values.items() if name in named or value != default}
        entry |= {"path": self.path.relative_to(run).as_posix() if inside else str(self.path)}
        return entry | ({"ranges": dict(self.ranges)} if self.ranges else {})


def write_manifest(run: Path, files: Iterable[InputFile], **facts: list) -> dict[str, list]:
    """Write pages/manifest.json in the run folder `run`; return its contents. `facts` are more keys besides "files"."""
    manifest: dict[str, list] = json.loads(json.dumps({"files": [file.entry(run) for file in files], **facts}))
    with writing(run / MANIFEST):
        write_json(run / MANIFEST, manifest)
    return manifest


def manifest_files(workdir: Place) -> list[InputFile]:
    """Return the input files in the manifest of a run folder, without checking that they exist. Raises InputError if
    the manifest cannot be read."""
    manifest = workdir / MANIFEST
    try:
        entries = json.loads(manifest.read_text(encoding="utf-8"))["files"]
        wrong = [key for entry in entries for key, kind in NEEDED.items() if not isinstance(entry.get(key), kind)]
    except (OSError, *MALFORMED) as error:
        raise InputError(
            f"{manifest} cannot be read: {error}. First run: python -m launch.fetch_pages CONFIG.py --workdir "
            f"{shlex.quote(str(workdir))}"
        ) from error
    wrong += [repr(entry["kind"]) for entry in entries if not wrong and entry["kind"] not in KINDS]
    if wrong:
        raise InputError(
            f"A file in {manifest} has no valid {wrong[0]}. Fetch the pages again: run this, and then your command: "
            f"{shlex.join(['rm', str(workdir / 'stages/pages.json')])}"
        )
    return [input_file(entry, workdir) for entry in entries]


def input_file(entry: dict, workdir: Place) -> InputFile:
    """Convert an entry of the manifest in the run folder `workdir` to an InputFile. Raises InputError if its name
    has a NUL, or its path leads out of the folder."""
    path = entry["path"]
    if "\0" in entry["name"]:
        raise refused(entry["name"], workdir / MANIFEST, "is not a file name")
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
