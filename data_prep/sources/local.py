"""The user's files, found by shell patterns and classified by their first bytes as WARC, WET or table."""

import dataclasses
import re
from collections.abc import Callable, Iterable
from pathlib import Path

from data_prep.config import PagesConfig
from data_prep.sources.formats import (
    BEGINNING_BYTES,
    FORMATS,
    GZIP,
    WARC,
    ZSTD,
    beginning,
    decompressed,
    format_of,
    uncompressed,
)
from data_prep.sources.listing import ENDINGS, Listed, listed_files, skipped_files, with_estimated_sizes
from data_prep.sources.manifest import InputFile
from lm.errors import InputError
from lm.storage import Place, Url

RECORD_TYPE = re.compile(rb"^WARC-Type:[ \t]*([a-z]+)", re.IGNORECASE | re.MULTILINE)


def fetch(config: PagesConfig, out: Path, progress: Callable[[str], None]) -> tuple[list[InputFile], list[dict]]:
    """Return (the user's input files, []), as there are no packages. Reports skipped files by `progress`. Raises like
    `own_files`."""
    files = own_files(config.warc, config.tables, config.text_field, config.keep_columns, config.follow_links)
    for option, patterns in (("pages.warc", config.warc), ("pages.tables", config.tables)):
        for line in skipped_files(option, patterns, config.follow_links):
            progress(line)
    return files, []


def inputs(config: PagesConfig) -> list[Listed]:
    """Return the files that pages.warc and pages.tables match. Raises UsageError if a pattern matches nothing."""
    listed = lambda name: listed_files(f"pages.{name}", getattr(config, name), config.follow_links)
    return [*listed("warc"), *listed("tables")]


def own_files(
    warc: Iterable[str],
    tables: Iterable[str],
    text_field: str,
    keep_columns: tuple[str, ...] = (),
    follow_links: bool = False,
) -> list[InputFile]:
    """Return the files that the patterns `warc` (WARC and WET) and `tables` match, as input files; nothing is copied.

    Raises UsageError if a pattern matches nothing, InputError if a file has the wrong format or lacks a kept column.
    """
    file_of = lambda one, kind: InputFile(one.place, one.name, kind, one.bytes, etag=one.etag, estimated=one.estimated)
    files = [
        file_of(one, warc_kind(one.place))
        for one in with_estimated_sizes(listed_files("pages.warc", warc, follow_links))
    ]
    for one in with_estimated_sizes(listed_files("pages.tables", tables, follow_links)):
        rows = None
        if not known_by_name(one.place, "pages.tables"):
            reader = format_of(one.place, by_name=False).reader
            rows = reader.count(one.place)
            if keep_columns:
                reader.check_columns(one.place, keep_columns)
        table = {"pages": rows, "text_field": text_field, "keep_columns": keep_columns}
        files.append(dataclasses.replace(file_of(one, "table"), **table))
    return files


def known_by_name(place: Place, option: str) -> bool:
    """Whether a file is remote and has an extension of the option, so that no request is needed to detect its type."""
    return isinstance(place, Url) and place.name.lower().endswith(ENDINGS[option])


def warc_kind(path: Place) -> str:
    """Return "warc" for a file of pages or "wet" for a file of plain text, by its name or else its first records.

    Raises InputError if it cannot be read, is not a WARC file, or contains only metadata (WAT).
    """
    begin = GZIP if known_by_name(path, "pages.warc") else beginning(path)
    if begin.startswith(ZSTD) and path.name.lower().endswith(".warc.zst"):
        return "warc"
    if not begin.startswith((GZIP, WARC)):
        table = begin.startswith(ZSTD) or any(one.begins and one.begins.match(uncompressed(begin)) for one in FORMATS)
        raise InputError(
            f"{path} is not a WARC file: it begins with {begin[:5]!r}, not with {GZIP!r} (gzip) or {WARC!r}. "
            + ("It looks like a table of texts: give it as pages.tables." if table else "")
            + ("" if table else "Exclude it with a narrower pattern (pages.warc).")
        )
    suffixes = path.name.lower().split(".")[1:]
    if "wet" in suffixes:
        return "wet"
    types = RECORD_TYPE.findall(decompressed(begin, BEGINNING_BYTES))
    kinds = [kind for kind in types if kind not in (b"warcinfo", b"metadata")]  # occur in every kind of file
    if "wat" in suffixes or (b"metadata" in types and not kinds):
        raise InputError(
            f"{path} has metadata of pages (WAT), but no pages. Give the WARC or WET files of the same crawl."
        )
    return "wet" if kinds[:1] == [b"conversion"] else "warc"
