"""Format of an index, and random access to ranges of keys and to single IDs."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from data_prep.config import DocumentsConfig
from data_prep.dedup.keys import KINDS_OF
from lm.errors import MALFORMED, InputError, UsageError, shown
from lm.storage import Place, place_of, relative_name
from lm.storage.parquet import BoundedFile

FOLDER = "dedup_index"
"""Folder of the index in a run folder."""
HEADER = "index.json"
FORMAT = "gristmill deduplication index, version 1"
ID_SCHEMA = pa.schema([("row", pa.int64()), ("id", pa.string())])


class KeyFile(NamedTuple):
    """A file of the keys whose first 8 bytes, as a number, are from `low` to `last`."""

    name: str
    low: int
    last: int


class Keys(NamedTuple):
    first: np.ndarray
    """(keys,) uint64: first 8 bytes of the keys, big-endian."""
    second: np.ndarray | None
    """(keys,) uint64: next 8 bytes; None if the index has 8-byte keys."""
    place: np.ndarray
    """(keys,) uint64: the kept document, as the index of its file in `Index.texts` and its row (32 bits each)."""


@dataclass(frozen=True)
class Index:
    """An opened index: the deduplication keys of an earlier run's documents, in the folder `where`."""

    where: Place
    name: str
    """Name of the crawl (the dump), and the first digits of a hash of the contents."""
    key_bytes: int
    """Bytes per key: 8 or 16."""
    settings: dict[str, Any]
    """Settings that determine the keys. Keys can be compared only with keys of the same settings."""
    keys: dict[str, tuple[KeyFile, ...]]
    texts: tuple[str, ...]
    """Names of the files of the run's texts/, by index."""

    def read_keys(self, kind: str, low: int, last: int) -> Iterator[Keys]:
        """Yield the sorted keys whose first 8 bytes are from `low` to `last`, one row group at a time. `kind` is "url",
        "exact" or "near". Raises InputError if a file is missing or damaged."""
        columns = ["key_0", "file", "row"] + ["key_1"] * (self.key_bytes > 8)
        for file in self.keys[kind]:
            if file.low > last or file.last < low:
                continue
            for rows in groups_between(self.where / "keys" / kind / file.name, "key_0", low, last, columns):
                first, files, row, *second = (rows[name].to_numpy() for name in columns)
                begin = int(np.searchsorted(first, np.uint64(low), side="left"))
                end = int(np.searchsorted(first, np.uint64(last), side="right"))
                place = files.astype(np.uint64) << np.uint64(32) | row.astype(np.uint64)
                yield Keys(first[begin:end], second[0][begin:end] if second else None, place[begin:end])

    def ids_of(self, file: int, rows: Sequence[int]) -> dict[int, str]:
        """Return {row: ID} of the given rows of the file self.texts[file]. Raises InputError if an ID is missing."""
        found, path = {}, self.where / "ids" / self.texts[file]
        wanted = np.array(sorted(rows), np.int64)
        for group in groups_between(path, "row", int(wanted[0]), int(wanted[-1]), ID_SCHEMA.names, wanted):
            here = np.isin(group["row"].to_numpy(), wanted)
            found |= dict(zip(group["row"].filter(here).to_pylist(), group["id"].filter(here).to_pylist(), strict=True))
        if len(found) < len(rows):
            raise InputError(f"{path} is of another index: no id of row {min({*rows} - {*found})}. Restore the file.")
        return found


def groups_between(
    path: Place, column: str, low: int, last: int, columns: Sequence[str], wanted: np.ndarray | None = None
) -> Iterator[pa.Table]:
    """Yield the `columns` of some row groups of a Parquet file: those that, by their statistics, may have a value of
    `column` from `low` to `last` (if `wanted` is given, one of these sorted values). Raises InputError if the file is
    missing or damaged."""
    try:
        with BoundedFile(path) as file:
            index = file.schema_arrow.get_field_index(column)
            for group in range(file.num_row_groups):
                if not file.metadata.row_group(group).num_rows:
                    continue
                statistics = file.metadata.row_group(group).column(index).statistics
                least, most = statistics.min, statistics.max
                if least > last or most < low:
                    continue
                if wanted is None or np.searchsorted(wanted, least) < np.searchsorted(wanted, most, side="right"):
                    yield file.read_row_group(group, columns=list(columns)).combine_chunks()
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(
            f"{path} cannot be read: {error}. Restore it, or write the index of its run again "
            "(--documents.dedup-index.write True)."
        ) from error


def settings_of(config: DocumentsConfig) -> dict[str, Any]:
    """Return {field under documents: value} of the settings that determine the keys of an index."""
    minhash = {
        f"minhash.{name}": getattr(config.minhash, name)
        for name in ("shingle_words", "bands", "rows", "seed", "normalisation", "before_filters", "by_language")
    }
    return minhash | {"url_dedup.ignored_parameters": list(config.url_dedup.ignored_parameters)}


def header_of(
    config: DocumentsConfig, keys: dict[str, list[KeyFile]], texts: Iterable[str], identity: str
) -> dict[str, Any]:
    """Return the contents of index.json. `identity`, a hash of the keys and IDs, determines the name of the index."""
    header = {
        "format": FORMAT,
        "key_bytes": config.dedup_index.key_bytes,
        "settings": settings_of(config),
        "keys": {kind: [list(file) for file in files] for kind, files in keys.items()},
        "key_file": KeyFile._fields,
        "texts": list(texts),
    }
    digest = hashlib.sha256(json.dumps([header, identity], sort_keys=True).encode()).hexdigest()
    return {"name": f"{config.dump}-{digest[:8]}", **header}


def open_index(where: str) -> Index:
    """Open the index at `where`, a path or URL: the folder of the index, or the run folder that has it. Raises
    InputError if it is missing or damaged."""
    place = place_of(where)
    place = place.resolve()  # workers may have another working folder
    for folder in (place, place / FOLDER):
        try:
            header = json.loads((folder / HEADER).read_text())
            if header["format"] != FORMAT:
                raise InputError(
                    f"{folder} has the format {shown(header['format'])}; this version reads {FORMAT!r}. Write "
                    "the index again from its run."
                )
            keys = {kind: tuple(KeyFile(*file) for file in files) for kind, files in header["keys"].items()}
            for name in (*header["texts"], *(file.name for files in keys.values() for file in files)):
                relative_name(name, folder / HEADER)
            return Index(folder, header["name"], header["key_bytes"], header["settings"], keys, tuple(header["texts"]))
        except FileNotFoundError:
            continue
        except (OSError, *MALFORMED) as error:
            raise InputError(
                f"{folder / HEADER} cannot be read ({type(error).__name__}: {error}). Restore it, or write it again."
            ) from error
    raise InputError(
        f"{place} has no index: neither {HEADER} nor {FOLDER}/{HEADER}. A run writes one with "
        "--documents.dedup-index.write True."
    )


def open_indices(config: DocumentsConfig) -> tuple[Index, ...]:
    """Open the indices of documents.dedup_index.against. Raises InputError like `open_index`. Raises UsageError if an
    index was written with other settings, or lacks keys that a step needs."""
    indices = tuple(map(open_index, config.dedup_index.against))
    wanted = settings_of(config)
    for index in indices:
        for step, kinds in KINDS_OF.items():
            if step in config.steps and (lacking := [kind for kind in kinds if kind not in index.keys]):
                raise UsageError(
                    f"documents.steps has {step}, but the index {index.where} has no {', '.join(lacking)} keys, only "
                    f"{', '.join(index.keys)}, because its run did not have that step. Write the index with the step, "
                    "or remove the step or the index."
                )
        for name, value in wanted.items():
            asked_for = "url_dedup" if name.startswith("url_dedup") else "minhash_dedup"
            if index.settings.get(name) != value and (asked_for in config.steps or name.endswith("before_filters")):
                raise UsageError(
                    f"The index {index.where} was written with documents.{name} = {shown(index.settings.get(name))}; "
                    f"this run has {shown(value)}, so their keys cannot match. Give the same value, or another index."
                )
    return indices


def identities(config: DocumentsConfig) -> list[str]:
    """Return the names of the indices of documents.dedup_index.against, which identify their contents."""
    return [index.name for index in open_indices(config)]
