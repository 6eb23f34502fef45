"""Where web pages come from: files of one's own, Common Crawl, tables, datasets, or pages inside pinned packages."""

from collections.abc import Callable, Iterator
from pathlib import Path

from data_prep.config import PagesConfig
from data_prep.documents import Document
from data_prep.packages.pip_settings import PipSettings
from data_prep.sources.columns import DeadLetter
from data_prep.sources.common_crawl import crawl_files
from data_prep.sources.local import named_files, own_files
from data_prep.sources.manifest import MANIFEST, InputFile, manifest_files, write_manifest
from data_prep.sources.tables import read_table
from data_prep.sources.tfds import INFO, dataset_files, read_tfds, split_bytes
from lm.errors import InputError, UsageError

__all__ = [
    "MANIFEST",
    "DeadLetter",
    "InputFile",
    "fetch_pages",
    "input_files",
    "input_sizes",
    "read_documents",
    "read_table",
    "read_tfds",
]


def fetch_pages(
    config: PagesConfig,
    out: Path,
    progress: Callable[[str], None] = print,
    cache: Path | None = None,
    settings: PipSettings | None = None,
) -> dict[str, list]:
    """Brings the pages and writes out/pages/manifest.json, which is returned (manifest.py tells its form).

    Own files are listed where they lie, files written or fetched here relative to `out`; what an interrupted attempt
    left in `out` is gone on with. "packages" tells of the pinned packages. `cache` and `settings` default to this
    user's cache folder and pip's settings. Raises UsageError when nothing is asked for, a pattern matches nothing, or
    there is no such crawl or dataset; InputError when a file is of another kind, or cannot be had.
    """
    packages: list[dict] = []
    match config.source:
        case "warc" | "tables":
            files = own_files(config.warc, config.tables, config.text_field)
        case "common_crawl":
            files = crawl_files(config.common_crawl, out, progress)
        case "tfds":
            files = dataset_files(config.tfds, config.text_field, progress)
        case "packages":
            from data_prep.sources.packages import package_files

            if not config.packages:
                raise UsageError(
                    "pages.warc and pages.packages are both empty, and no other source is given: there is nothing to "
                    "read. Give WARC files (pages.warc), tables, a crawl or a dataset."
                )
            files, packages = package_files(config, out, progress, cache, settings)
    return write_manifest(out, files, packages=packages)


def input_files(workdir: Path) -> list[InputFile]:
    """The input files of a run, in the manifest's order.

    Raises InputError when the manifest or a file is missing, or a file has another size than when it was listed.
    """
    files = manifest_files(workdir)
    sizes: dict[tuple[Path, str], int] = {}  # a dataset has many entries, but is measured once
    for file in files:
        key = file.path, file.split
        if key not in sizes:
            sizes[key] = size_of(file, workdir)
        if sizes[key] != file.bytes:
            raise InputError(
                f"{file.path} has {sizes[key]} bytes, but {file.bytes} by {workdir / MANIFEST}. Bring it back as it "
                "was, or fetch the pages again."
            )
    return files


def size_of(file: InputFile, workdir: Path) -> int:
    """Bytes on disk; of a dataset, of all files of its split."""
    if file.kind == "tfds":
        return split_bytes(file.path, file.split)
    if not file.path.is_file():
        raise InputError(
            f"{file.path} stands in {workdir / MANIFEST}, but is gone. Bring it back, or fetch the pages again."
        )
    return file.path.stat().st_size


def input_sizes(config: PagesConfig) -> dict[str, int]:
    """{path: bytes} of the files of one's own that the config names: what it reads beside its fields.

    Raises UsageError when a pattern matches nothing.
    """
    found = named_files("pages.warc", config.warc) | named_files("pages.tables", config.tables)
    dataset = Path(config.tfds.dataset).expanduser()
    if config.source == "tfds" and (dataset / INFO).is_file():
        found |= {path.absolute(): "" for path in sorted(dataset.iterdir()) if path.is_file()}
    return {str(path): path.stat().st_size for path in found}


def read_documents(
    file: InputFile, dump: str = "", on_dead_letter: Callable[[DeadLetter], None] | None = None
) -> Iterator[Document]:
    """The documents of an input file whose texts are extracted already: a table, or rows of a dataset.

    Raises InputError as `read_table` and `read_tfds` do.
    """
    name, field = file.name, file.text_field
    if file.kind == "table":
        return read_table(file.path, name=name, dump=dump, text_field=field, on_dead_letter=on_dead_letter)
    if file.kind == "tfds":
        return read_tfds(
            file.path, file.split, file.rows, name=name, dump=dump, text_field=field, on_dead_letter=on_dead_letter
        )
    raise ValueError(f"{file.name} is of kind {file.kind}: its pages are read by data_prep.warc")
