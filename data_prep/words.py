"""The one way in which quality rules split text into words and sentences.

FineWeb splits with spaCy's blank English tokenizer and its rule-based sentencizer, 61 documents/s on one core. Here the
same words come from fewer rules. Text is cut at white space, and each chunk between is split once and remembered: marks
come off both its ends, one word each ("..." is one); then the end of a contraction ("do" "n't"); then what is left is
cut inside, at hyphens, slashes and the like between letters. Web addresses and common abbreviations stay whole. Scripts
written without spaces come as one word a run. Time grows with the length of the text, whatever it holds.

Not taken over from spaCy: most contractions without an apostrophe (for it "wed" is "we" "d"), most emoticons, rarer
units and abbreviations. docs/benchmarks.md says how often that matters.
"""

import itertools
import re
from collections.abc import Callable, Sequence

from data_prep.marks import (
    CURRENCY,
    END,
    ICON_RANGES,
    LETTER,
    NUMBER,
    OPENING,
    OUTER,
    PUNCTUATION,
    QUOTES,
    SIGN,
    SPACE,
    SYMBOL,
    character_class,
    kind_of,
)

MEMO_CHARACTERS, ENTRY_CHARACTERS = 4_000_000, 32
"""Characters of the keys that a memo holds, each key counted as so many more than it has: some 100,000 keys, 30 MB."""

UNIT = r"%|[kcmµn]?m|k?g|mg|lb|oz|ft|in|yd|ha|t|km/h|kmh|m/s|mph|[kmgtKMGT][bB]|[KMGT]"
MEASURE = re.compile(rf"(?<=\d)(?:\+|[{re.escape(''.join(sorted(CURRENCY)))}]|{UNIT})$")
LONGEST_MEASURE = 4
MEASURE_ENDS = CURRENCY | frozenset("+%mgbBzntdahskKMGT")
"""The last characters of what MEASURE finds."""
PRONOUNS = (
    "I|you|he|she|it|we|they|who|what|when|where|why|how|there|that|this|these|those|could|might|must|should|would"
)
STEM = re.compile(
    rf"(?i:{PRONOUNS})(?=['’](?:m|re|ve|ll|d)$)"  # they 're, but burn'd
    r"|[A-Za-z]+?(?=n['’]t$)"
    r"|\d\d?(?=[ap]m$)"
)
"""What stands before the end of a contraction, and before "am" and "pm"."""
STEM_ENDS = frozenset("meldt")
"""The last characters of a chunk that STEM matches."""
FACE = ")", ":"
"""Two marks that stay together: spaCy knows emoticons, and so meets this one in "(see below):"."""
INSIDE = re.compile(rf"\.\.+|---?|——|[-–—~:<>=/+*^.,…{character_class(ICON_RANGES)}]")
JOINTS = frozenset(("-", "--", "---", "–", "—", "——", *"~:<>=/"))
ARITHMETIC = frozenset("+*^-")
SOMETIMES_CUT = JOINTS | ARITHMETIC | {".", ","}
"""What INSIDE finds and `is_cut` decides on; the rest, ellipses and icons, always part words."""
ADDRESS = re.compile(
    r"(?:[\w+.-]{2,}+://)?(?:[^@]++@)?"  # scheme, user
    r"(?:[A-Za-z0-9\u00a1-\uffff][A-Za-z0-9\u00a1-\uffff_-]{0,63}+\.)+[a-zß-öø-ÿ]{2,63}"  # host
    r"(?::\d{2,5})?(?:[/?#].*)?",  # port, path
    re.DOTALL,
)
TOP_DOMAIN = re.compile(r"\.[a-zß-öø-ÿ]{2}")
"""What stands in every address: found sooner than that the whole is none."""
ABBREVIATIONS = frozenset(
    """
    a.m. p.m. e.g. E.g. i.e. I.e. vs. v.s. and/or w/o o'clock ma'am 's ’s 'S 're 'd 'll
    Mr. Mrs. Ms. Messrs. Dr. Prof. Ph.D. Jr. St. Mt. Gen. Gov. Rep. Rev. Sen. Adm. Bros. Co. co. Corp. Inc. Ltd. D.C.
    Jan. Feb. Mar. Apr. Jun. Jul. Aug. Sep. Sept. Oct. Nov. Dec.
    Ala. Ariz. Ark. Calif. Colo. Conn. Del. Fla. Ga. Ia. Id. Ill. Ind. Kan. Kans. Ky. La. Mass. Md. Mich. Minn. Miss.
    Mo. Mont. Neb. Nebr. Nev. Okla. Ore. Pa. Tenn. Va. Wash. Wis.
    """.split()  # noqa: SIM905 - a list is read more easily as text
) | frozenset(f"{letter}." for letter in "abcdefghijklmnopqrstuvwxyzäöü")
LONGEST_ABBREVIATION = max(map(len, ABBREVIATIONS))
JOINED = {
    head + tail: (head, tail)
    for heads, tail in (
        (("do", "does", "did", "is", "are", "was", "were", "has", "have", "had", "could", "should", "would"), "nt"),
        (("can",), "not"),
        (("gon",), "na"),
        (("got",), "ta"),
        (("i",), "m"),
        (("i",), "d"),
    )
    for word in heads
    for head in (word, word.title())
}
"""Two words written as one, without an apostrophe."""


class Memo[Value](dict[str, Value]):
    """Remembers what a function makes of each key, and begins anew when it is full. No value depends on it."""

    def __init__(self, function: Callable[[str], Value]):
        self.function = function
        self.room = MEMO_CHARACTERS

    def make_room(self, size: int) -> None:
        """Begins anew if keys of that size together, all of them new, might fill it; then they have room."""
        if self.room < size:
            self.clear()
            self.room = max(MEMO_CHARACTERS, size)

    def __missing__(self, key: str) -> Value:
        if self.room < 0:
            self.clear()
            self.room = MEMO_CHARACTERS
        self.room -= len(key) + ENTRY_CHARACTERS
        value = self[key] = self.function(key)
        return value


def split(text: str) -> tuple[list[str], str]:
    """Words and punctuation marks of `text`, in order, and the kind of each, one letter a word (data_prep/marks.py)."""
    pieces = text.split()
    if not pieces:
        return [], ""
    CHUNKS.make_room(len(text) + ENTRY_CHARACTERS * len(pieces))  # `line_kinds` of this text is to find them all
    words, kinds = zip(*map(CHUNKS.__getitem__, pieces), strict=True)
    return list(itertools.chain.from_iterable(words)), "".join(kinds)


def split_words(text: str) -> list[str]:
    """Words and punctuation marks of `text`, in order."""
    return split(text)[0]


def split_piece(piece: str) -> tuple[tuple[str, ...], str]:
    """The words and their kinds of a chunk, or of what else may stand between two blanks (see `line_kinds`)."""
    if piece.isalpha():
        words = JOINED.get(piece) or (piece,)
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
    """The words of a text without white space."""
    start, end = 0, len(chunk)
    while end - start > LONGEST_ABBREVIATION and chunk[start] in OPENING:
        start += 1
    while end - start > LONGEST_ABBREVIATION and chunk[end - 1] in OUTER:
        end -= 1
    before, after = list(chunk[:start]), list(chunk[: end - 1 : -1])
    start = take_opening(chunk, start, end, before)
    end = take_closing(chunk, start, end, after)
    words = (*before, *split_inside(chunk[start:end]), *reversed(after))
    return join_faces(words) if "".join(FACE) in chunk else words


def join_faces(words: tuple[str, ...]) -> tuple[str, ...]:
    joined: list[str] = []
    for word in words:
        if joined and (joined[-1], word) == FACE:
            joined[-1] += word
        else:
            joined.append(word)
    return tuple(joined)


def take_opening(chunk: str, start: int, end: int, marks: list[str]) -> int:
    """Adds the marks that open chunk[start:end] to `marks`; where what is left begins."""
    while start < end:
        if end - start <= LONGEST_ABBREVIATION and chunk[start:end] in ABBREVIATIONS:
            break
        first, stop = chunk[start], start + 1
        if first == ".":
            while stop < end and chunk[stop] == ".":
                stop += 1
            if stop - start == 1:
                break
        elif first not in OPENING and (first != "+" or chunk[stop : stop + 1].isdigit()):
            break
        marks.append(chunk[start:stop])
        start = stop
    return start


def take_closing(chunk: str, start: int, end: int, marks: list[str]) -> int:
    """Adds the marks that close chunk[start:end] to `marks`, the last first; where what is left ends."""
    while start < end:
        if end - start <= LONGEST_ABBREVIATION and chunk[start:end] in ABBREVIATIONS:
            break
        last, stop = chunk[end - 1], end - 1
        if last == ".":
            while stop > start and chunk[stop - 1] == ".":
                stop -= 1
            if end - stop == 1 and not is_full_stop(chunk[max(start, end - 3) : stop]):
                break
        elif last in "sS" and stop > start and chunk[stop - 1] in "'’":
            stop -= 1
        elif last not in OUTER:
            measure = MEASURE.search(chunk, max(start, end - LONGEST_MEASURE), end) if last in MEASURE_ENDS else None
            if not measure:
                break
            stop = measure.start()
        marks.append(chunk[stop:end])
        end = stop
    return end


def is_full_stop(before: str) -> bool:
    """Whether a point is a mark of its own behind these characters, at most two: in "word." and "USA.", not in "B."."""
    last = before[-1:]
    if last.isupper():
        return len(before) == 2 and before.isupper() and before.isalpha()
    return last.isalnum() or last in OUTER or last in frozenset("%²-+")


def split_inside(core: str) -> tuple[str, ...]:
    """The words of a chunk whose outer marks are off."""
    if core.isalpha() or core in ABBREVIATIONS:
        return JOINED.get(core) or (core,)
    if core[-1:] in STEM_ENDS and (stem := STEM.match(core)):
        return stem.group(), core[stem.end() :]
    return split_stem(core)


def split_stem(stem: str) -> tuple[str, ...]:
    """The words of a chunk without a contraction: whole if it is a web address, else cut at signs between letters."""
    if TOP_DOMAIN.search(stem) and ADDRESS.fullmatch(stem):
        return (stem,)
    words: list[str] = []
    start = 0
    for match in INSIDE.finditer(stem):
        first, stop = match.span()
        sign = stem[first:stop]
        if sign not in SOMETIMES_CUT or is_cut(sign, stem[first - 1 : first], stem[stop : stop + 1]):
            words.append(stem[start:first])
            words.append(sign)
            start = stop
    words.append(stem[start:])
    return tuple(filter(None, words))


def is_cut(sign: str, before: str, after: str) -> bool:
    """Whether `sign`, of SOMETIMES_CUT, parts what stands on its two sides: one character each, or none."""
    if sign in ARITHMETIC and before.isdigit() and (after.isdigit() or after == "-"):
        return True
    if sign in JOINTS:
        return before.isalnum() and after.isalpha()
    if sign == ".":
        return (before.islower() or before in QUOTES) and (after.isupper() or after in QUOTES)
    if sign == ",":
        return before.isalpha() and after.isalpha()
    return False


CHUNKS = Memo(split_piece)
KINDS = Memo(kind_of)
WHITE_SPACE = re.compile(r"(\s+)")
STARTS = str.maketrans({NUMBER: LETTER, SYMBOL: LETTER, SPACE: LETTER, SIGN: None, PUNCTUATION: None})


def line_kinds(lines: Sequence[str]) -> str:
    """The kinds of the words in `lines`, a line break between two lines. White space but for one blank behind a chunk
    counts as a word, as in spaCy, and has a kind of its own."""
    text = " \n ".join(line.removesuffix(" ") for line in lines)
    return "".join([CHUNKS[piece][1] for piece in text.split(" ")])


def count_sentences(kinds: str) -> int:
    """Sentences of lines by their `line_kinds`, at least one a line. A new one begins at a word that is no punctuation
    and follows, with nothing but punctuation between, one terminal mark on its own: "." but not "..." or "e.g.".

    As in spaCy, white space of its own begins one too: "A cat. " is one sentence, "A cat.  " two.
    """
    return 1 + kinds.count("\n") + kinds.translate(STARTS).count(END + LETTER)


def count_words(kinds: str) -> int:
    """Words of lines by their `line_kinds`."""
    return len(kinds) - kinds.count(SPACE) - kinds.count("\n")
