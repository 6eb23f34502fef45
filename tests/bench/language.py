"""Accuracy and speed of language identification: English or one of 74 other languages.

    python -m tests.bench.language [SENTENCES.tar.xz]

The archive has a file per language, such as `en.txt`, with one sentence per line (default: the Leipzig sentences in
../shared). Prints a JSON line: accuracy of English or not at FineWeb's threshold, share of English sentences over 100
characters kept, share of others kept, the same for raw text as FineWeb scores it, and documents of 10,000 characters
per CPU-second.
"""

import dataclasses
import functools
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import tyro

from configs.demo import get_config
from configs.recipes.gristmill import LANGUAGE
from data_prep.documents import Document
from data_prep.language import LABEL_PREFIX, detect_language, model
from data_prep.measure.row import text_schema
from data_prep.verdict import verdicts
from tests.bench.runner import SHARED, require_file, run_benchmark

SENTENCES = SHARED / "langid/sentences-75-languages.tar.xz"
LONG = 100  # characters
DOCUMENT_CHARACTERS, DOCUMENTS = 10_000, 100


@functools.cache
def labelled_sentences(archive: Path) -> list[tuple[str, str]]:
    """Yield (ISO 639 code, sentence) for every non-empty line of the archive, languages in alphabetical order."""
    sentences = []
    with tarfile.open(archive) as opened:
        for member in opened:  # in the order of the archive: seeking back would decompress it again
            file = opened.extractfile(member) if member.name.endswith(".txt") else None
            if file is not None:
                lines = file.read().decode().splitlines()
                sentences += [(Path(member.name).stem, line.strip()) for line in lines if line.strip()]
    return sorted(sentences, key=lambda labelled: labelled[0])


def unscored(text: str) -> Document:
    return Document(text, "id", "dump", "", "2026-01-01T00:00:00Z", "x.warc.gz", "", 0.0)


def kept(texts: list[str]) -> list[bool]:
    """Return whether each text passes the language filter of the pipeline."""
    config = dataclasses.replace(get_config().documents, steps=(), language=LANGUAGE)
    rows = [dataclasses.asdict(detect_language(unscored(text), LANGUAGE)) for text in texts]
    table = pa.Table.from_pylist(rows, text_schema(config))
    return [verdict is None for verdict in verdicts(table, config)]


def kept_as_they_are(texts: list[str]) -> list[bool]:
    """The same without removing digits and punctuation."""
    found = [model().predict(text, k=1) for text in texts]
    return [
        labels[0].removeprefix(LABEL_PREFIX) in LANGUAGE.languages and scores[0] > LANGUAGE.min_score
        for labels, scores in found
    ]


def shares_kept(keeps: Callable[[list[str]], list[bool]], sentences: list[tuple[str, str]]) -> dict[str, float]:
    """Shares from 0 to 1, rounded to 5 digits."""
    found = list(zip(keeps([text for _, text in sentences]), sentences, strict=True))
    english = [(keep, len(text) > LONG) for keep, (label, text) in found if label == "en"]
    others = [keep for keep, (label, _) in found if label != "en"]
    long = [keep for keep, is_long in english if is_long]
    right = sum(keep for keep, _ in english) + others.count(False)
    shares = {
        "accuracy": right / len(sentences),
        "long_english_kept": sum(long) / len(long),
        "english_kept": sum(keep for keep, _ in english) / len(english),
        "others_kept": sum(others) / len(others),
    }
    return {name: round(share, 5) for name, share in shares.items()}


def documents_per_cpu_second(sentences: list[tuple[str, str]]) -> float:
    """Speed on English texts of DOCUMENT_CHARACTERS each."""
    prose = "\n".join(text for label, text in sentences if label == "en")
    text = (prose * (DOCUMENT_CHARACTERS // len(prose) + 1))[:DOCUMENT_CHARACTERS]
    started = time.process_time()
    for _ in range(DOCUMENTS):
        detect_language(unscored(text), LANGUAGE)
    return round(DOCUMENTS / (time.process_time() - started), 1)


def main(archive: tyro.conf.Positional[Path] = SENTENCES) -> Iterator[dict[str, object]]:
    sentences = labelled_sentences(require_file(archive))
    yield {
        "sentences": len(sentences),
        "min_score": LANGUAGE.min_score,
        **shares_kept(kept, sentences),
        "as_it_is": shares_kept(kept_as_they_are, sentences),
        "documents_per_cpu_second": documents_per_cpu_second(sentences),
    }


if __name__ == "__main__":
    run_benchmark(main)
