"""The files of texts/ as units see them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from data_prep.dedup.clusters import file_ids
from data_prep.engine.tasks import no_note
from data_prep.parquet import identities_of, parquet_files
from lm.storage import Place


@dataclass(frozen=True)
class TextsFile:
    """One file of texts/."""

    id: int
    """Number of the file in the joins, by its name (`file_ids`)."""
    texts: Place
    bytes: int
    end: str
    """SHA-256 of its end, which tells what is in it (data_prep.parquet)."""

    @property
    def name(self) -> str:
        """Without its suffix; of no other file of the folder."""
        return self.texts.name.removesuffix(".parquet")

    @property
    def identity(self) -> list:
        """What tells it from another file; its number is in what is made of it."""
        return [self.texts.name, self.id, self.bytes, self.end]


@dataclass(frozen=True)
class CountedFile(TextsFile):
    """A file of texts/ of which something is counted."""

    part: Place
    """What was counted."""
    hosts: Place
    """Counts of its hosts, where they are asked for (funnel/domains.py)."""
    note: Callable[[int], None] = no_note
    """Takes the number of rows that were read, now and then."""


def texts_files(folder: Place) -> list[TextsFile]:
    """The files of a folder texts/, sorted by name."""
    places = parquet_files(folder)
    ids = file_ids(place.name for place in places)
    return [
        TextsFile(ids[place.name], place, size, end)
        for place, (size, end) in zip(places, identities_of(places), strict=True)
    ]


def counted_files(files: Sequence[TextsFile], parts: Place, suffix: str) -> list[CountedFile]:
    """The files, with what is counted of each in the folder `parts`."""
    return [
        CountedFile(one.id, one.texts, one.bytes, one.end, parts / f"{one.name}{suffix}", parts / f"{one.name}.hosts")
        for one in files
    ]
