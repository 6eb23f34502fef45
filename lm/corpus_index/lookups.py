"""Look up texts in the corpus: their occurrences, and those of their n-grams, which show benchmark questions that the
model may have been trained on."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from lm.config import TrainConfig
from lm.corpus_index.index import CorpusIndex, Matches
from lm.errors import MALFORMED, InputError, for_terminal, shown
from lm.run_paths import RunPaths
from lm.tokenizer import Tokenizer, load

TOKENS = 13
"""Default length of an n-gram in tokens; GPT-3 (arXiv:2005.14165, appendix C) used 13 words."""
CHARACTERS = 64
"""Default length if tokens are characters: about as much text as 13 words."""
CONTEXT = 30
"""Tokens that are printed before and after an occurrence."""


class Overlap(NamedTuple):
    """How many n-grams of a text occur in the corpus, and where."""

    ngrams: int
    """Number of n-grams of the text; a text shorter than n is one n-gram."""
    found: int
    """Number of these n-grams that occur in the corpus."""
    spans: tuple[tuple[int, int, Matches], ...]
    """(start, end, matches) of each stretch of the text, in tokens, that is covered by n-grams found in the corpus;
    `matches` are the occurrences of the stretch's first n-gram."""

    @property
    def share(self) -> float:
        return self.found / max(1, self.ngrams)


def overlap(
    index: CorpusIndex,
    tokens: Sequence[int],
    n: int = TOKENS,
    split: str | None = "train",
    check_cancelled: Callable[[], None] = lambda: None,
) -> Overlap:
    """Look up each n-gram of the tokens in the split (None: in all splits). `check_cancelled` is called for each, and
    may raise to stop."""
    n = min(n, len(tokens))
    spans: list[tuple[int, int, Matches]] = []
    starts = range(len(tokens) - n + 1) if n else range(0)
    found = 0
    for start in starts:
        check_cancelled()
        matches = index.find(tokens[start : start + n], split)
        if not matches.count:
            continue
        found += 1
        if spans and start <= spans[-1][1]:
            spans[-1] = (spans[-1][0], start + n, spans[-1][2])
        else:
            spans.append((start, start + n, matches))
    return Overlap(len(starts), found, tuple(spans))


def ways_to_write(tokenizer: Tokenizer, text: str) -> list[list[int]]:
    """Return the tokens of a text at the beginning of a document and, if they differ, after a space: a word inside a
    text is another token than the same word at its beginning. No place in the corpus matches both."""
    given = tokenizer.encode(text)
    if not text or text[0].isspace() or tokenizer.kind == "characters":
        return [given] if given else []
    spaced = tokenizer.encode(" " + text)
    return [given] if spaced[-len(given) :] == given else [given, spaced]


def usual_ngram(tokenizer: Tokenizer) -> int:
    """Return the default length of an n-gram in tokens."""
    return CHARACTERS if tokenizer.kind == "characters" else TOKENS


def overlap_of(
    index: CorpusIndex,
    tokenizer: Tokenizer,
    text: str,
    n: int,
    split: str | None = "train",
    check_cancelled: Callable[[], None] = lambda: None,
) -> tuple[list[int], Overlap]:
    """Tokenize a text in each of its `ways_to_write`; return (tokens, Overlap) of the way with most n-grams found."""
    first, *others = ways_to_write(tokenizer, text) or [[]]
    best = first, overlap(index, first, n, split, check_cancelled)
    if others and best[1].found < best[1].ngrams:
        other = others[0], overlap(index, others[0], n, split, check_cancelled)
        return max(best, other, key=lambda one: one[1].found)
    return best


def texts_of(path: Path, field: str) -> Iterator[tuple[str, str]]:
    """Yield (place, text) pairs: for each line of a JSONL file ("a.jsonl, line 1", the value of `field`), for any other
    file (its path, its contents). Raises InputError if the file cannot be read."""
    try:
        lines = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}. Give a text or JSONL file in UTF-8.") from error
    if path.suffix != ".jsonl":
        yield str(path), lines
        return
    for number, line in enumerate(lines.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            text = json.loads(line)[field]
        except MALFORMED as error:
            raise InputError(
                f"{path}, line {number:,}, is not an object with a field {field!r}: {shown(line)}. "
                "Name the field with --field."
            ) from error
        if not isinstance(text, str):
            raise InputError(
                f"{path}, line {number:,}: {field} is {shown(text)}, which is not a text. Name another with --field."
            )
        yield f"{path}, line {number:,}", text


def search_report(run: Path, text: str, documents: int, train: TrainConfig | None = None) -> str:
    """Return a text for the terminal: how often `text` occurs in each split of a run, and at most `documents`
    occurrences with the text around them. Raises the errors of CorpusIndex."""
    index, tokenizer = CorpusIndex(run, train), load(RunPaths(run).tokenizer)
    found = [(len(ids), index.find(ids)) for ids in ways_to_write(tokenizer, text)]
    counts = dict.fromkeys(index.splits(), 0)
    lines: list[str] = []
    for length, matches in found:
        for part, low, high in matches.ranges:
            counts[part.split] += high - low
        for spot in matches.spots(max(0, documents - len(lines))):
            document = index.document_at(spot)
            low, high = spot.position - CONTEXT, spot.position + length + CONTEXT
            around = spot.part.tokens[max(document.begin, low) : min(document.end, high)].tolist()
            where = f"{document.split} of {document.source}" if document.source else document.split
            text_around = " ".join(tokenizer.decode(around).split())
            lines.append(for_terminal(f"  {document.url or document.id} ({where}): {text_around}"))
    total = ", ".join(f"{count:,} times in {split}" for split, count in counts.items())
    return "\n".join([f"{for_terminal(repr(text))} occurs {total}", *lines])


def overlaps(run: Path, path: Path, field: str, ngram: int | None, train: TrainConfig | None = None) -> Iterator[str]:
    """Yield lines for the terminal: one for each text of the file `path` (see `texts_of`) that shares an n-gram with
    the training split, then a summary. Raises the errors of CorpusIndex and `texts_of`."""
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
