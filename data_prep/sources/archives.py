"""Input files that are archives: pages of WARC files, texts of WET files."""

from collections import Counter
from collections.abc import Callable, Iterable

from data_prep.documents import Damage, WebPage
from data_prep.sources.manifest import InputFile
from lm.storage import size_of


def read(file: InputFile, on_damage: Callable[[Damage], None], counts: Counter[str]) -> Iterable[WebPage]:
    """Its pages or texts, streamed where it lies elsewhere; what was seen besides is counted in `counts`."""
    from data_prep.warc import read_pages, read_texts

    reader = read_pages if file.kind == "warc" else read_texts
    return reader(file.path, on_damage, counts, name=file.name, version=file.version)


def size(file: InputFile) -> int | None:
    """Bytes of the file, None where it is gone."""
    return size_of(file.path)
