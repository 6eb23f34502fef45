"""Read records selected from archives. Neighboring records are read together, and the next range is read ahead."""

import io
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from data_prep.documents import Damage, OnDamage, WebPage
from data_prep.sources.manifest import InputFile
from lm.errors import InputError
from lm.storage import Place, Url
from lm.storage.ranges import ahead

GAP = 64 << 10
"""Maximum bytes between two records that are read in the same request."""
SPAN = 8 << 20
"""Maximum bytes per read, unless a single record is longer."""


class Span(NamedTuple):
    """Neighboring records of one archive, which are read together: the bytes from `start` to `end`."""

    archive: str
    start: int
    end: int
    records: tuple[tuple[int, int], ...]
    """(offset in the archive, length) of each record."""


def spans(file: InputFile) -> Iterator[Span]:
    """Yield the records in `file.ranges` in spans of at most SPAN bytes, with at most GAP bytes between two records."""
    for archive, records in file.ranges:
        held: list[tuple[int, int]] = []
        for start, length in records:
            end = held[-1][0] + held[-1][1] if held else start
            if held and (start - end > GAP or start + length - held[0][0] > SPAN):
                yield Span(archive, held[0][0], end, tuple(held))
                held = []
            held.append((start, length))
        if held:
            yield Span(archive, held[0][0], sum(held[-1]), tuple(held))


def bytes_of(base: Place, span: Span) -> bytes:
    """Return the bytes of a span; `base` is the folder or URL of its archive. Raises InputError if unreadable."""
    place = base / span.archive
    try:
        if isinstance(place, Url):
            return place.read_range(span.start, span.end)
        with place.open("rb") as file:
            file.seek(span.start)
            return file.read(span.end - span.start)
    except OSError as error:
        raise InputError(
            f"The WARC file {place} cannot be read: {error.strerror or error}. Check its address."
        ) from error


def read(file: InputFile, on_damage: OnDamage, counts: Counter[str]) -> Iterator[WebPage]:
    """Yield the pages of the selected records, as if the complete archives were read. Records that are not pages are
    counted by reason in `counts`, damaged ones passed to `on_damage`."""
    from data_prep.warc.pages import page_of_response, pages_in

    for span, content in ahead(lambda span: bytes_of(file.path, span), spans(file)):
        for offset, length in span.records:
            begin = offset - span.start

            def report(damage: Damage, offset: int = offset, archive: str = span.archive) -> None:
                on_damage(Damage(offset + damage.offset, damage.reason, damage.detail, archive))

            record = io.BytesIO(content[begin : begin + length])
            yield from pages_in(record, span.archive, page_of_response, report, counts, offset)


def size(file: InputFile) -> int:
    return sum(length for _, records in file.ranges for _, length in records)
