"""What is in an input file, whatever its kind: pages of a WARC file, texts of a WET file, documents of a table."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from data_prep.documents import Damage, Document, WebPage
from data_prep.sources.manifest import InputFile, module_of
from lm.errors import InputError
from lm.storage import Place

RECORDS = "records.json"
"""In texts/: what was seen in all input files, and what has no row there (extraction.py)."""


@dataclass(frozen=True)
class Records:
    """What was seen in the input files."""

    seen: int
    """Records of archives, rows of tables, and damaged places: rows of texts/ and what was skipped."""
    skipped: dict[str, int]
    """{why: how many}, by names of data_prep.warc.SKIPPED."""


def read_records(texts: Place) -> Records:
    """The records of a folder texts/. Raises InputError when they cannot be read."""
    path = texts / RECORDS
    try:
        return Records(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise InputError(
            f"{path} cannot be read: {error}. Delete {texts} and make it again: python -m launch.extract_texts"
        ) from error


def read_input(file: InputFile, skipped: Counter[str] | None = None) -> Iterator[WebPage | Document | Damage]:
    """Everything in the file in its order, damaged places among it where they were met.

    `skipped` has at the end how many records of an archive are neither page nor text nor damaged, by why
    (data_prep.warc.SKIPPED); of a table or dataset nothing is skipped. Raises InputError when the file cannot be read
    at all, or is not of its kind.
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
