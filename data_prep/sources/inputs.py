"""Read input files of any kind. Also the reader of archives: pages of WARC files and texts of WET files."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from data_prep.documents import Damage, Document, OnDamage, WebPage
from data_prep.sources.manifest import InputFile, module_of
from lm.errors import InputError, shown
from lm.storage import Place, size_of

RECORDS = "records.json"
"""File in texts/ that counts the records seen in all input files, and those without a row."""

WITHOUT_TEXT = {"no_text", "empty_text"}
"""Reasons of rows that were read but have no text. A file with only such rows is not damaged."""
REMEDIES = {
    "warc": ("record", "Download the file again, or leave it out."),
    "table": ("row", "Write one JSON object per line, or one array of objects; or leave the file out."),
    "tfds": ("row", "Set pages.text_field to a feature with text in UTF-8."),
}
"""{kind of input file: (noun for its units, what to do if none of them can be read)}. Other kinds are archives."""


@dataclass(frozen=True)
class Records:
    """Counts of the records in all input files of a run."""

    seen: int
    """Number of archive records, table rows and damaged places: the rows of texts/ plus `skipped`."""
    skipped: dict[str, int]
    """{reason: count}, with the reasons of data_prep.warc.SKIPPED and NOT_SAMPLED (data_prep/measure/row.py)."""


def read_records(texts: Place) -> Records:
    """Return the record counts stored in `texts`, the folder texts/ of a run. Raises InputError if unreadable."""
    path = texts / RECORDS
    try:
        return Records(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise InputError(
            f"{path} cannot be read: {error}. Delete {texts}, and run: python -m launch.extract_texts"
        ) from error


def read_input(file: InputFile, skipped: Counter[str] | None = None) -> Iterator[WebPage | Document | Damage]:
    """Yield the pages or documents of the file in order, and a Damage for each damaged place.

    Other archive records, such as requests, are counted in `skipped` by reason (data_prep.warc.SKIPPED). Raises
    InputError if the file cannot be read, is not of its kind, or no record or row of it can be read.
    """
    from data_prep.warc import SKIPPED

    damage: list[Damage] = []
    counts: Counter[str] = Counter()
    first, readable = None, False
    for found in module_of(file.kind).read(file, damage.append, counts):
        readable = True
        yield from damage
        damage.clear()
        yield found
    for one in damage:
        first, readable = first or one, readable or one.reason in WITHOUT_TEXT
    others = {reason: counts[reason] for reason in SKIPPED if counts[reason]}
    if first and not readable and not others:
        place = first.place or f"offset {first.offset}"
        unit, remedy = REMEDIES.get(file.kind, REMEDIES["warc"])
        raise InputError(
            f"{file.path}: no {unit} can be read. The first one, {place}: {first.reason}"
            f"{f' ({shown(first.detail, quotes=False)})' if first.detail else ''}. {remedy}"
        )
    yield from damage
    if skipped is not None:
        skipped.update(others)


def read(file: InputFile, on_damage: OnDamage, counts: Counter[str]) -> Iterable[WebPage]:
    """Yield the pages or texts of a WARC or WET file, streamed. Other records are counted in `counts` by reason."""
    from data_prep.warc import read_pages, read_texts

    reader = read_pages if file.kind == "warc" else read_texts
    return reader(file.path, on_damage, counts, name=file.name, version=file.version)


def size(file: InputFile) -> int | None:
    return size_of(file.path)
