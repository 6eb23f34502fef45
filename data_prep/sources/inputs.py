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
    """Counts of the records in the input files."""

    seen: int
    """Number of archive records, table rows and damaged places: the rows of texts/ plus the skipped ones."""
    skipped: dict[str, int]
    """{reason: count}, with the reasons of data_prep.warc.SKIPPED and NOT_SAMPLED (data_prep/measure/row.py)."""


def read_records(texts: Place) -> Records:
    """Read the record counts of a folder texts/. Raises InputError if they cannot be read."""
    path = texts / RECORDS
    try:
        return Records(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise InputError(
            f"{path} cannot be read: {error}. Delete {texts}, and run: python -m launch.extract_texts"
        ) from error


def read_input(file: InputFile, skipped: Counter[str] | None = None) -> Iterator[WebPage | Document | Damage]:
    """Yield everything in the file in order, including damaged places.

    Adds to `skipped` the number of archive records, by reason (data_prep.warc.SKIPPED), that are neither pages nor
    texts nor damaged. Raises InputError if the file cannot be read or is not of its kind.
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
    """Stream the pages or texts of an archive, without copying it to disk. Other records are counted in `counts`."""
    from data_prep.warc import read_pages, read_texts

    reader = read_pages if file.kind == "warc" else read_texts
    return reader(file.path, on_damage, counts, name=file.name, version=file.version)


def size(file: InputFile) -> int | None:
    """Return the size of the file in bytes, or None if it does not exist."""
    return size_of(file.path)
