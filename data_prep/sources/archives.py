"""Input files that are archives: pages of WARC files, texts of WET files."""

from collections import Counter
from collections.abc import Callable, Iterable

from data_prep.documents import Damage, WebPage
from data_prep.sources.manifest import InputFile


def read(file: InputFile, on_damage: Callable[[Damage], None], counts: Counter[str]) -> Iterable[WebPage]:
    """Its pages or texts; what was seen besides is counted in `counts`."""
    from data_prep.warc import read_pages, read_texts

    return (read_pages if file.kind == "warc" else read_texts)(file.path, on_damage, counts)


def size(file: InputFile) -> int | None:
    """Bytes on disk, None where it is gone."""
    return file.path.stat().st_size if file.path.is_file() else None
