"""Read input files of any kind. Also the reader of archives: pages of WARC files and texts of WET files."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from data_prep.documents import Damage, Document, WebPage
from data_prep.sources.manifest import InputFile, module_of
from lm.errors import InputError
from lm.storage import Place, size_of

RECORDS = "records.json"
"""File in texts/ that counts the records seen in all input files, and those without a row."""


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
    InputError if the file cannot be read or is not of its kind.
    """
    damage: list[Damage] = []
    counts: Counter[str] = Counter()
    for found in module_of(file.kind).read(file, damage.append, counts):
        yield from damage
        damage.clear()
        yield found
    yield from damage
    if skipped is not None and counts:
        from data_prep.warc import SKIPPED

        skipped.update({reason: counts[reason] for reason in SKIPPED if counts[reason]})


def read(file: InputFile, on_damage: Callable[[Damage], None], counts: Counter[str]) -> Iterable[WebPage]:
    """Yield the pages or texts of a WARC or WET file, streamed. Other records are counted in `counts` by reason."""
    from data_prep.warc import read_pages, read_texts

    reader = read_pages if file.kind == "warc" else read_texts
    return reader(file.path, on_damage, counts, name=file.name, version=file.version)


def size(file: InputFile) -> int | None:
    return size_of(file.path)
