"""What is in an input file, whatever its kind: pages of a WARC file, texts of a WET file, documents of a table."""

from collections.abc import Iterable, Iterator

from data_prep.documents import Damage, Document, WebPage
from data_prep.sources import InputFile


def read_input(file: InputFile) -> Iterator[WebPage | Document | Damage]:
    """Everything in the file in its order, damaged places among it where they were met.

    Raises InputError when the file cannot be read at all, or is not of its kind.
    """
    damage: list[Damage] = []
    for found in found_in(file, damage):
        yield from damage
        damage.clear()
        yield found
    yield from damage


def found_in(file: InputFile, damage: list[Damage]) -> Iterable[WebPage | Document]:
    """The readers of each kind; they append to `damage`."""
    if file.kind in ("warc", "wet"):
        from data_prep.warc import read_pages, read_texts

        return (read_pages if file.kind == "warc" else read_texts)(file.path, damage.append)
    from data_prep.sources import read_documents

    return read_documents(file, on_dead_letter=damage.append)
