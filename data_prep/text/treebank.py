"""Tokenizer of NLTK 3.8, which determined the word counts of the published FineWeb: Punkt's sentences, Penn Treebank
rules.

The Treebank rules (Robert MacIntyre's script, 1995, with NLTK's additions) are replacements that insert blanks around
marks. They depend only on a chunk of text without white space, its two adjacent characters and the end of the sentence,
so the words of each chunk are cached. "can't" is "ca" "n't"; a period is a separate word only at the end of a sentence.
"""

import functools
import re

from data_prep.text.punkt import sentence_spans
from data_prep.text.words import Memo

START, END = "\ufdd0", "\ufdd1"
"""Noncharacters before the first and after the last chunk of a sentence."""
CHUNK = re.compile(r"\S+")
RULES = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        ("([«“‘„]|`+)", r" \1 "),
        (r'^"', "``"),
        ("(``)", r" \1 "),
        (r"([ (\[{<])(?:\"|'')", r"\1 `` "),
        (r"(?i)'(?!re|ve|ll|m|t|s|d|n)(\w)\b", r"' \1"),
        (r"([^.])\.([\])}>\"'»”’ ]*)\s*$", r"\1 . \2 "),
        (r"([:,])(\D)", r" \1 \2"),
        ("([:,])$", r" \1 "),
        (r"(\.{2,}|[;@#$%&])", r" \1 "),
        (r"([^.])\.([\])}>\"']*)\s*$", r"\1 .\2 "),
        ("([?!])", r" \1 "),
        ("([^'])' ", r"\1 ' "),
        (r"([*\]\[(){}<>]|--)", r" \1 "),
        (r"(?s)\A(.*)\Z", r" \1 "),
        ("([»”’])", r" \1 "),
        ("''|\"", " '' "),
        ("([^' ])('[sS]|'[mM]|'[dD]|') ", r"\1 \2 "),
        ("([^' ])('ll|'LL|'re|'RE|'ve|'VE|n't|N'T) ", r"\1 \2 "),
        (r"(?i)\b(can)(not)\b", r" \1 \2 "),
        (r"(?i)\b(d)('ye)\b", r" \1 \2 "),
        (r"(?i)\b(gim|lem)(me)\b", r" \1 \2 "),
        (r"(?i)\b(gon)(na)\b", r" \1 \2 "),
        (r"(?i)\b(got)(ta)\b", r" \1 \2 "),
        (r"(?i)\b(more)('n)\b", r" \1 \2 "),
        (r"(?i)\b(wan)(na)(?=\s)", r" \1 \2 "),
        (r"(?i) ('t)(is|was)\b", r" \1 \2 "),
    )
]
"""Replacements, in order of application."""
PARTED = frozenset("cannot gimme lemme gonna gotta wanna".split())  # noqa: SIM905 - as in data_prep/text/words.py


def treebank_words(chunk: str) -> tuple[str, ...]:
    """Return the words of a chunk. Its first and last characters are its context: white space, START or END."""
    inside = chunk[1:-1]
    if inside.isalpha() and inside.lower() not in PARTED:
        return (inside,)
    goes_on = not chunk.endswith(END)
    text = chunk.removeprefix(START) + END if goes_on else chunk.removeprefix(START).removesuffix(END)
    for pattern, replacement in RULES:
        text = pattern.sub(replacement, text)
    return tuple(text.split()[:-1] if goes_on else text.split())


CHUNKS: Memo[str, tuple[str, ...]] = Memo(treebank_words)


@functools.lru_cache(maxsize=2)  # several filters ask for the words of one text
def nltk_words(text: str) -> tuple[str, ...]:
    """Return words and punctuation marks of `text`, in order."""
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
    """Return the start of the chunk with the last period of a sentence, if only separate chunks of closing marks
    follow; else `stop`."""
    tail = stop
    while tail > start and (text[tail - 1] in "])}>\"'»”’" or text[tail - 1].isspace()):
        tail -= 1
    if tail == start or text[tail - 1] != "." or not any(map(str.isspace, text[tail:stop])):
        return stop
    chunk = tail - 1
    while chunk > start and not text[chunk - 1].isspace():
        chunk -= 1
    return chunk
