"""The files of texts/ as units see them."""

from collections.abc import Callable
from dataclasses import dataclass

from data_prep.engine.tasks import no_note
from data_prep.parquet import identities_of, parquet_files
from lm.storage import Place


@dataclass(frozen=True)
class TextsFile:
    """One file of texts/."""

    index: int
    """Place among all files, sorted by name."""
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
        """What tells it from another file; its index is in what is made of it."""
        return [self.texts.name, self.index, self.bytes, self.end]


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
    """The files of a folder texts/, sorted."""
    places = parquet_files(folder)
    return [
        TextsFile(index, place, size, end)
        for index, (place, (size, end)) in enumerate(zip(places, identities_of(places), strict=True))
    ]


def counted_files(files: list[TextsFile], parts: Place, suffix: str) -> list[CountedFile]:
    """The files, with what is counted of each in the folder `parts`."""
    return [
        CountedFile(
            one.index, one.texts, one.bytes, one.end, parts / f"{one.name}{suffix}", parts / f"{one.name}.hosts"
        )
        for one in files
    ]
