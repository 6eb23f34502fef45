"""The texts behind the places that a funnel names: of millions, only the row groups that hold one are read."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from data_prep.config import PersonalDataConfig
from data_prep.parquet import column_of, opened, remedy
from data_prep.pii import replace_personal_data
from lm.errors import InputError
from lm.storage import Place

EXCERPT_CHARACTERS = 900

Spot = tuple[int, int]
"""(number of the file in the joins, row)."""


@dataclass(frozen=True)
class Example:
    """One document, as it was extracted, shortened to its beginning."""

    url: str
    excerpt: str
    """At most EXCERPT_CHARACTERS characters, personal data replaced; empty when there never was any text."""
    text_bytes: int
    """UTF-8 bytes of the whole text."""
    language: str
    language_score: float
    values: dict[str, float | None]
    """{signal: value} of the rules in use."""


class Excerpts:
    """Reads the wanted rows of texts/, each file once."""

    def __init__(self, texts: Path, files: Mapping[int, str], signals: list[str], personal_data: PersonalDataConfig):
        self.texts, self.files, self.personal_data = texts, files, personal_data
        self.signals = list(dict.fromkeys(signals))
        self.wanted: dict[int, set[int]] = defaultdict(set)
        self.found: dict[Spot, Example] = {}

    def want(self, places: Iterable[Spot]) -> None:
        for file, row in places:
            self.wanted[file].add(row)

    def read(self) -> None:
        """Finds all that is wanted. Raises InputError when a file is missing, damaged, or shorter than was counted."""
        columns = ["url", "text", "text_bytes", "language", "language_score", *self.signals]
        for file, rows in sorted(self.wanted.items()):
            path = self.texts / self.files[file]
            for number, row in rows_at(path, sorted(rows), list(dict.fromkeys(columns))):
                self.found[file, number] = self.example(row)
            if missing := [row for row in sorted(rows) if (file, row) not in self.found]:
                raise InputError(
                    f"{path} has no row {missing[0]}: it is not the file that was counted. {remedy(path)}, then "
                    "launch.prepare_documents"
                )

    def example(self, row: dict[str, Any]) -> Example:
        # Replaced in more than is shown: an address at the cut would not be recognised by its first half.
        text, _ = replace_personal_data((row["text"] or "")[: 2 * EXCERPT_CHARACTERS], self.personal_data)
        return Example(
            url=row["url"] or "",
            excerpt=text[:EXCERPT_CHARACTERS],
            text_bytes=row["text_bytes"],
            language=row["language"] or "",
            language_score=row["language_score"] or 0.0,
            values={signal: row[signal] for signal in self.signals},
        )

    def at(self, places: Iterable[tuple[float, int, int]]) -> tuple[Example, ...]:
        """The examples at places as counts name them."""
        return tuple(self.found[file, row] for _, file, row in places)


def rows_at(place: Place, rows: list[int], columns: list[str]) -> Iterator[tuple[int, dict]]:
    """(number, row) of those of `rows`, ascending, that the Parquet file has. Raises InputError as `opened`."""
    with opened(place) as file:
        first = 0
        for group in range(file.num_row_groups):
            size = file.metadata.row_group(group).num_rows
            here = [row for row in rows if first <= row < first + size]
            if here:
                places = column_of([row - first for row in here], pa.int64())
                yield from zip(here, file.read_row_group(group, columns).take(places).to_pylist(), strict=True)
            first += size
