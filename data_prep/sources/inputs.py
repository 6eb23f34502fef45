"""What is in an input file, whatever its kind; and the readers of archives: pages of WARC files, texts of WET files."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from data_prep.documents import Damage, Document, WebPage
from data_prep.sources.manifest import InputFile, module_of
from lm.errors import InputError
from lm.storage import Place, size_of

RECORDS = "records.json"
"""In texts/: what was seen in all input files, and what has no row there."""


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
    """Everything in the file in its order, damaged places among it. `skipped` gets how many records of an archive are
    neither page nor text nor damaged, by why (data_prep.warc.SKIPPED). Raises InputError when the file cannot be read
    at all, or is not of its kind."""
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
    """The pages or texts of an archive, streamed from where it is; what was seen besides is counted in `counts`."""
    from data_prep.warc import read_pages, read_texts

    reader = read_pages if file.kind == "warc" else read_texts
    return reader(file.path, on_damage, counts, name=file.name, version=file.version)


def size(file: InputFile) -> int | None:
    """Bytes of the file, None if it is gone."""
    return size_of(file.path)
