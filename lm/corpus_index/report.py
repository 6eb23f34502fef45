"""Terminal output of lookups: occurrences of a text, and n-gram overlap of the texts in a file."""

from collections.abc import Iterator
from pathlib import Path

from lm.config import TrainConfig
from lm.corpus_index.contamination import overlap_of, texts_of, usual_ngram, ways_to_write
from lm.corpus_index.index import CorpusIndex, Matches
from lm.errors import for_terminal
from lm.run_paths import RunPaths
from lm.tokenizer import Tokenizer, load

CONTEXT = 30
"""Tokens to show on either side of a passage."""


def search_report(run: Path, text: str, documents: int, train: TrainConfig | None = None) -> str:
    """Report how often the text occurs in each split, and show some documents with the surrounding text. Raises
    InputError like CorpusIndex."""
    index, tokenizer = CorpusIndex(run, train), load(RunPaths(run).tokenizer)
    found = [(len(ids), index.find(ids)) for ids in ways_to_write(tokenizer, text)]
    counts = dict.fromkeys(index.splits(), 0)
    lines: list[str] = []
    for length, matches in found:
        for part, low, high in matches.ranges:
            counts[part.split] += high - low
        lines += list(places(index, tokenizer, matches, length, documents - len(lines)))
    total = ", ".join(f"{count:,} times in {split}" for split, count in counts.items())
    return "\n".join([f"{for_terminal(repr(text))} occurs {total}", *lines])


def places(index: CorpusIndex, tokenizer: Tokenizer, matches: Matches, length: int, most: int) -> Iterator[str]:
    for spot in matches.spots(max(0, most)):
        document = index.document_at(spot)
        low, high = max(document.begin, spot.position - CONTEXT), min(document.end, spot.position + length + CONTEXT)
        around = tokenizer.decode(spot.part.tokens[low:high].tolist())
        where = f"{document.split} of {document.source}" if document.source else document.split
        yield for_terminal(f"  {document.url or document.id} ({where}): {' '.join(around.split())}")


def overlaps(run: Path, path: Path, field: str, ngram: int | None, train: TrainConfig | None = None) -> Iterator[str]:
    """Yield a line for each text of the file with an n-gram in the training split, and a summary. Raises InputError
    like CorpusIndex and texts_of."""
    index, tokenizer = CorpusIndex(run, train), load(RunPaths(run).tokenizer)
    ngram = usual_ngram(tokenizer) if ngram is None else ngram
    texts = touched = ngrams = found = 0
    for place, text in texts_of(path, field):
        _, one = overlap_of(index, tokenizer, text, ngram)
        texts, ngrams, found = texts + 1, ngrams + one.ngrams, found + one.found
        if one.found:
            touched += 1
            document = index.document_at(next(one.spans[0][2].spots(1)))
            yield for_terminal(
                f"{place}: {one.found:,} of {one.ngrams:,} n-grams ({one.share:.0%}), the first in "
                f"{document.url or document.id}"
            )
    yield (
        f"{touched:,} of {texts:,} texts have an n-gram of {ngram} tokens in the training split; "
        f"{found:,} of {ngrams:,} n-grams in all"
    )
