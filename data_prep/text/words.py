"""Words and sentences for the quality filters: equal to those of spaCy's blank English tokenizer and sentencizer, which
FineWeb uses, in fewer steps (spaCy: 61 documents/s on one core).

Text is split at white space, and the words of each chunk are cached. Marks are split off both ends of a chunk, each as
one word ("..." is one), until an exception is left (word_exceptions.py: "don't" is "do" "n't") or no outer mark; the
rest is split at hyphens, slashes and similar signs between letters. URLs stay whole. Marks that together are an
exception, such as "):", are joined at the end. In scripts without spaces, text between spaces is one word. Time is
linear in the text. tests/data_prep/quality/test_datatrove.py compares the words with spaCy's.
"""

import itertools
import re
from collections.abc import Callable, Mapping, Sequence

from data_prep.text.marks import (
    ASTRAL_ICONS,
    BASIC_ICONS,
    CURRENCY,
    END,
    ICONS,
    LETTER,
    NUMBER,
    OPENING,
    OUTER,
    PUNCTUATION,
    QUOTES,
    SIGN,
    SPACE,
    SYMBOL,
    WITH_LETTERS,
    character_class,
    kind_of,
)
from data_prep.text.word_exceptions import EXCEPTIONS, LONGEST_EXCEPTION

MEMO_CHARACTERS, ENTRY_CHARACTERS = 4_000_000, 32
"""Maximum characters of the keys of a memo, and the overhead added for each key: about 100,000 keys, 30 MB."""

UNITS = """
km km² km³ m m² m³ dm dm² dm³ cm cm² cm³ mm mm² mm³ ha µm nm yd in ft kg g mg µg t lb oz m/s km/h kmh mph hPa Pa mbar mb
MB kb KB gb GB tb TB T G M K %
""".split()  # noqa: SIM905 - a list is read more easily as text
MEASURE = re.compile(rf"(?<=[0-9])(?:\+|(?:US|C|A)?\$|[{''.join(sorted(CURRENCY - {'$'}))}]|{'|'.join(UNITS)})$")
"""Units and currency signs that are split off after a digit."""
LONGEST_MEASURE = 5
"""Characters of the longest of these with the digit."""
MEASURE_ENDS = CURRENCY | {"+"} | {unit[-1] for unit in UNITS}
"""Possible last characters of a match of MEASURE."""
SINGLE_MARKS = OUTER - {"…"}
COMMON_ENDS = frozenset(",;:!?)")
"""Marks that are split off any word of only letters: no exception ends with one after a letter."""
DOLLARS = "US$", "C$", "A$"
BEFORE_STOP = OUTER - ICONS - frozenset("–—") | frozenset("%²-+|")
"""Signs after which a period is a separate word."""
DIGITS = frozenset("0123456789")
ASTRAL = r"\U00010000-\U0010ffff"
INSIDE = re.compile(
    rf"([-–—~:<>=/.,…+*^{character_class(BASIC_ICONS)}{ASTRAL}]"  # a quick test that rejects most characters
    rf"(?:(?<=[{ASTRAL}])(?<=[{character_class(ASTRAL_ICONS)}])|(?<=[^+*^.—{ASTRAL}-])"
    r"|(?<=[0-9][+*^-])(?=[0-9-])|(?<=\.)\.*|(?<=-)-{0,2}|(?<=—)—?))"
)
"""Signs that may split words: an icon, a single sign, a sign between digits, or a run of dashes or periods."""
JOINTS = frozenset(("-", "--", "---", "–", "—", "——", *"~:<>=/"))
SOMETIMES_CUT = JOINTS | {".", ","}
"""Matches of INSIDE that `is_cut` decides on. All others (ellipses, icons, and +*^ between digits) split words."""
MAYBE_CUT = re.compile(r"[-–—~:<>=/.,]")
"""A chunk without these characters contains nothing of SOMETIMES_CUT."""
HOST = (
    r"(?:[A-Za-z0-9\u00a1-\uffff][A-Za-z0-9\u00a1-\uffff_-]{0,63}+(?<![_-])\.)+[^\W\d_A-ZÀ-ÖØ-Þ²³¹]{2,63}"  # names
    r"|(?!(?:10|127|169\.254|192\.168|172\.(?:1[6-9]|2\d|3[01]))\.)(?:[1-9]\d?|1\d\d|2[01]\d|22[0-3])"  # public IPs
    r"(?:\.(?:1?\d{1,2}|2[0-4]\d|25[0-5])){2}\.(?:[1-9]\d?|1\d\d|2[0-4]\d|25[0-4])"
)
ADDRESS = re.compile(
    rf"(?:[\w+.-]{{2,}}+://)?(?:.+@)?(?:{HOST})(?::\d{{2,5}})?(?:[/?#].*)?",  # scheme, user, host, port, path
    re.DOTALL,
)
TOP_DOMAIN = re.compile(r"\.(?:[^\W\d_A-ZÀ-ÖØ-Þ²³¹]{2}|[0-9])")
"""A part of every URL; searching for it first is faster than matching the whole pattern."""


class Memo[Key: (str, bytes), Value](dict[Key, Value]):
    """Cache of `function`, {argument: result}, emptied when its keys exceed MEMO_CHARACTERS. Keys may be texts of
    pages, so their lengths are limited, not only their number."""

    def __init__(self, function: Callable[[Key], Value]):
        self.function = function
        self.room = MEMO_CHARACTERS

    def make_room(self, size: int) -> None:
        """Empty the cache if it lacks room for new keys of `size` characters, so that all of these stay in it."""
        if self.room < size:
            self.clear()
            self.room = max(MEMO_CHARACTERS, size)

    def __missing__(self, key: Key) -> Value:
        if self.room < 0:
            self.clear()
            self.room = MEMO_CHARACTERS
        self.room -= len(key) + ENTRY_CHARACTERS
        value = self[key] = self.function(key)
        return value


def split(text: str) -> tuple[list[str], str]:
    """Return (words and punctuation marks of `text` in order; kind of each as one character: see marks.py)."""
    pieces = text.split()
    if not pieces:
        return [], ""
    CHUNKS.make_room(len(text) + ENTRY_CHARACTERS * len(pieces))  # so that `line_kinds` of this text finds them all
    words, kinds = zip(*map(CHUNKS.__getitem__, pieces), strict=True)
    return list(itertools.chain.from_iterable(words)), "".join(kinds)


def split_piece(piece: str) -> tuple[tuple[str, ...], str]:
    """Return (words, kind of each word) of a chunk, a text without white space. For any other text from `line_kinds`,
    such as a line break or words with a tab, return ((), kinds)."""
    if piece.isalpha():
        words = EXCEPTIONS.get(piece) or (piece,)
        return words, LETTER * len(words)
    if piece.isdecimal():
        return (piece,), NUMBER
    if piece.split() == [piece]:
        words = split_chunk(piece)
        return words, "".join(map(KINDS.__getitem__, words))
    if piece == "\n":
        return (), piece
    parts = [part for part in WHITE_SPACE.split(piece) if part] or [SPACE]
    return (), "".join(SPACE if part.isspace() else CHUNKS[part][1] for part in parts)


def split_chunk(chunk: str) -> tuple[str, ...]:
    """Return the words and punctuation marks of a chunk, a text without white space."""
    word, last = chunk[:-1], chunk[-1:]
    if last in COMMON_ENDS and word.isalpha():  # fast path for the most frequent case
        return *(EXCEPTIONS.get(word) or (word,)), last
    return join_exceptions(split_marks(chunk, EXCEPTIONS))


def split_marks(chunk: str, exceptions: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """Return the words and marks of a chunk: marks are split off both ends, one at a time, until the rest is in
    `exceptions` or has no mark at its ends."""
    start, end = 0, len(chunk)
    while end - start > LONGEST_EXCEPTION + 1 and chunk[start] in OPENING:  # fast path: too long for an exception
        start += 1
    while end - start > LONGEST_EXCEPTION + 1 and chunk[end - 1] in SINGLE_MARKS:
        end -= 1
    before, after = list(chunk[:start]), list(chunk[: end - 1 : -1])
    while start < end and not is_one(chunk, start, end, exceptions):
        opening = opening_length(chunk, start, end)
        inner = start + opening
        if opening and is_one(chunk, inner, end, exceptions):
            before.append(chunk[start:inner])
            start = inner
            break
        stop = end - closing_length(chunk, inner, end)
        if stop < end and is_one(chunk, start, stop, exceptions):
            after.append(chunk[stop:end])
            end = stop
            break
        if opening:
            before.append(chunk[start:inner])
        if stop < end:
            after.append(chunk[stop:end])
        elif not opening:
            break
        start, end = inner, stop
    core = chunk[start:end]
    return *before, *(exceptions.get(core) or split_inside(core)), *reversed(after)


def is_one(chunk: str, start: int, end: int, exceptions: Mapping[str, tuple[str, ...]]) -> bool:
    """Whether chunk[start:end] is in `exceptions`."""
    return end - start <= LONGEST_EXCEPTION and chunk[start:end] in exceptions


def opening_length(chunk: str, start: int, end: int) -> int:
    """Return the length of the mark to split off the start of chunk[start:end]; 0 if there is none."""
    first, stop = chunk[start], start + 1
    if first == ".":
        while stop < end and chunk[stop] == ".":
            stop += 1
        return stop - start if stop - start > 1 else 0
    if first in OPENING or (first == "+" and not (stop < end and chunk[stop].isdecimal())):
        return 1
    return next((len(sign) for sign in DOLLARS if first == sign[0] and chunk.startswith(sign, start, end)), 0)


def closing_length(chunk: str, start: int, end: int) -> int:
    """Return the length of the mark to split off the end of chunk[start:end]; 0 if there is none."""
    if start == end:
        return 0
    last, stop = chunk[end - 1], end - 1
    if last == ".":
        while stop > start and chunk[stop - 1] == ".":
            stop -= 1
        return end - stop if end - stop > 1 or is_full_stop(chunk[max(start, stop - 2) : stop]) else 0
    if last in "sS" and stop > start and chunk[stop - 1] in "'’":
        return 2
    if last in MEASURE_ENDS and (measure := MEASURE.search(chunk, max(start, end - LONGEST_MEASURE), end)):
        return end - measure.start()
    if last not in OUTER:
        return 0
    return 2 if last == "…" and stop > start and chunk[stop - 1] == "…" else 1


def is_full_stop(before: str) -> bool:
    """Whether a final period is a word, given what is `before` it: yes in "word." and "USA.", no in "B."."""
    last = before[-1:]
    if last.isupper():
        return (len(before) == 2 and is_upper(before[0])) or (before[0] == "°" and last in "CFK")
    return last in DIGITS or is_lower(last) or last in BEFORE_STOP


def is_letter(character: str) -> bool:
    return character.isalpha() or character in WITH_LETTERS


def is_lower(character: str) -> bool:
    """Whether the character is a lower-case letter, or a letter of a script without case."""
    return is_letter(character) and not character.isupper()


def is_upper(character: str) -> bool:
    """Whether the character is an upper-case letter, or a letter of a script without case."""
    return is_letter(character) and not character.islower()


def split_inside(core: str) -> tuple[str, ...]:
    """Return the words of a chunk without marks at its ends: a URL stays whole, others are split at inner signs."""
    if core.isalpha() or (TOP_DOMAIN.search(core) and ADDRESS.fullmatch(core)):
        return (core,)
    return tuple(filter(None, split_where_cut(f" {core} ") if MAYBE_CUT.search(core) else INSIDE.split(core)))


def split_where_cut(padded: str) -> list[str]:
    """Return the words of a chunk, split where `is_cut` is true. `padded` is the chunk with a blank on each side."""
    words: list[str] = []
    start = 1
    for match in INSIDE.finditer(padded):
        first, stop = match.span()
        if CUTS[padded[first - 1 : stop + 1]]:
            words += padded[start:first], padded[first:stop]
            start = stop
    words.append(padded[start:-1])
    return words


def is_cut(place: str) -> bool:
    """Whether a sign splits a word. `place` is the character (or blank) before it, the sign, and the one after."""
    before, sign, after = place[0], place[1:-1], place[-1]
    if sign not in SOMETIMES_CUT or (sign == "-" and before in DIGITS and (after in DIGITS or after == "-")):
        return True
    if sign in JOINTS:
        return (is_letter(before) or before in DIGITS) and is_letter(after)
    if sign == ".":
        return (is_lower(before) or before in QUOTES) and (is_upper(after) or after in QUOTES)
    return is_letter(before) and is_letter(after)


CUTS = Memo(is_cut)


def joins() -> dict[tuple[str, ...], tuple[str, ...]]:
    """Return {parts: words} of exceptions that the rules split into other words: {(")", ":"): ("):",), ...}."""
    split_without = {split_marks(exception, {}): words for exception, words in EXCEPTIONS.items()}
    return {parts: words for parts, words in split_without.items() if parts != words and len(parts) > 1}


JOINS = joins()
JOIN_SIZES = {
    pair: sorted({len(parts) for parts in JOINS if parts[:2] == pair}) for pair in {parts[:2] for parts in JOINS}
}
"""{first two words that an exception would be split into: possible numbers of such words}."""


def join_exceptions(words: tuple[str, ...]) -> tuple[str, ...]:
    """Replace adjacent words that form an exception by the exception's words; the longest first, as spaCy does."""
    if JOIN_SIZES.keys().isdisjoint(itertools.pairwise(words)):
        return words
    found = [
        (-size, start)
        for start, pair in enumerate(itertools.pairwise(words))
        for size in JOIN_SIZES.get(pair, ())
        if start + size <= len(words) and words[start : start + size] in JOINS
    ]
    taken: set[int] = set()
    chosen: dict[int, int] = {}
    for size, start in sorted(found):
        if start not in taken and start - size - 1 not in taken:
            chosen[start] = -size
        taken.update(range(start, start - size))
    result: list[str] = []
    place = 0
    while place < len(words):
        size = chosen.get(place, 0)
        result += JOINS[words[place : place + size]] if size else words[place : place + 1]
        place += max(size, 1)
    return tuple(result)


CHUNKS = Memo(split_piece)
KINDS = Memo(kind_of)
WHITE_SPACE = re.compile(r"(\s+)")
STARTS = str.maketrans({NUMBER: LETTER, SYMBOL: LETTER, SPACE: LETTER, SIGN: None, PUNCTUATION: None})


def line_kinds(lines: Sequence[str]) -> str:
    """Return the kind of each word in `lines` (number, symbol, …) as one character, with "\\n" between lines. As in
    spaCy, white space is a word too, of the kind SPACE, except one blank after a chunk."""
    text = " \n ".join(line.removesuffix(" ") for line in lines)
    return "".join([CHUNKS[piece][1] for piece in text.split(" ")])


def count_sentences(kinds: str) -> int:
    """Return the number of sentences, at least one per line, in the lines with these `line_kinds`. A terminal mark that
    is a word of its own ("." but not "..." or "e.g.") ends a sentence if a word other than punctuation follows in the
    line.

    As in spaCy, white space that is a word begins a sentence too: "A cat." followed by two blanks counts as two.
    """
    return 1 + kinds.count("\n") + kinds.translate(STARTS).count(END + LETTER)


def count_words(kinds: str) -> int:
    """Return the number of words and punctuation marks in the lines with these `line_kinds`."""
    return len(kinds) - kinds.count(SPACE) - kinds.count("\n")
