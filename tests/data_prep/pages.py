"""Pages and configs shared by the tests of documents."""

import dataclasses
import functools
import tarfile
from collections.abc import Iterable
from pathlib import Path

from configs.demo import get_config
from data_prep.config import DocumentsConfig
from data_prep.documents import Document, WebPage
from data_prep.sources import InputFile
from data_prep.sources.inputs import read_input
from data_prep.sources.listing import listed_files
from lm.storage import Place

SENTENCES = Path(__file__).parents[2] / "../shared/data/langid/sentences-75-languages.tar.xz"
PROSE = (
    "The miller set out before dawn with two sacks of grain on his cart, and the road to the village was white with "
    "frost. He had promised the baker that the flour would be there when the ovens were hot, and he was a man who kept "
    "his word. On the bridge he met a boy who asked him where the river went when it had passed the last house. "
    "The miller thought about that for a long while, because nobody had ever asked him such a thing."
)
GERMAN = (
    "Der Müller brach früh auf, und auf seinem Wagen lagen zwei Säcke mit Korn. Die Straße in das Dorf war weiß vom "
    "Frost. Er hatte dem Bäcker versprochen, dass das Mehl da sein würde, wenn die Öfen heiß sind, und er war ein "
    "Mann, der sein Wort hielt. Auf der Brücke traf er einen Jungen, der ihn fragte, wohin der Fluss fließt."
)


def named_files(option: str, patterns: Iterable[str]) -> dict[Place, str]:
    """Return {place: name} of the files that `listed_files` returns."""
    return {one.place: one.name for one in listed_files(option, patterns)}


@functools.cache
def labelled_sentences() -> list[tuple[str, str]]:
    """(ISO 639 code, sentence) of every non-empty line of SENTENCES, languages in alphabetical order."""
    sentences = []
    with tarfile.open(SENTENCES) as opened:
        for member in opened:  # in the order of the archive: seeking back would decompress it again
            file = opened.extractfile(member) if member.name.endswith(".txt") else None
            lines = file.read().decode().splitlines() if file else []
            sentences += [(Path(member.name).stem, line.strip()) for line in lines if line.strip()]
    return sorted(sentences, key=lambda labelled: labelled[0])


def demo_config(**changes) -> DocumentsConfig:
    """The config of the demo."""
    return dataclasses.replace(get_config().documents, **changes)


def document(text: str, url: str = "", language: str = "en", language_score: float = 1.0) -> Document:
    return Document(text, "id", "dump", url, "2026-01-01T00:00:00Z", "x.warc.gz", language, language_score)


def html(*paragraphs: str, title: str = "A page") -> bytes:
    body = "".join(f"<p>{paragraph}</p>" for paragraph in paragraphs)
    head = f"<!DOCTYPE html><html><head><title>{title}</title></head>"
    return f"{head}<body><article>{body}</article></body></html>".encode()


def page(body: bytes, url: str = "http://a.example/", content_type: str = "text/html; charset=utf-8") -> WebPage:
    return WebPage(
        url=url, id=f"<urn:{url}>", date="2026-01-01T00:00:00Z", content_type=content_type, body=body, file_path="x"
    )


def documents_in(files: list[InputFile]) -> list[Document]:
    """The documents in a folder, which must contain nothing else."""
    found = [one for file in files for one in read_input(file)]
    documents = [one for one in found if isinstance(one, Document)]
    assert len(documents) == len(found)
    return documents
