"""Which characters are punctuation, which of them part words, which end a sentence; and so, of what kind a word is.

TERMINAL are the characters that Unicode calls Sentence_Terminal (PropList.txt, Unicode 17). UNCOUNTED are those that
FineWeb's filters do not count as words where they stand alone: ASCII's punctuation, some of its twins of full width,
control characters, quotation marks and dashes. Unicode's own notion of punctuation is wider: "•", "·" and "‘" are not
among them, so such a sign alone counts as a word, as in DataTrove, and the counts stay comparable.

Against DataTrove TERMINAL has 16 characters more (Balinese, Coptic, vertical forms and others) and lacks three of Khmer
that Unicode does not list; UNCOUNTED lacks "１", a digit.
"""

import string
import unicodedata


def ends(ranges: str) -> list[tuple[int, int]]:
    """The first and last code point of each range, which are written in hexadecimal: "21 61D-61F"."""
    parts = (part.split("-") for part in ranges.split())
    return [(int(part[0], 16), int(part[-1], 16)) for part in parts]


def characters(ranges: str) -> frozenset[str]:
    """The characters in `ranges`."""
    return frozenset(chr(code) for first, last in ends(ranges) for code in range(first, last + 1))


def character_class(ranges: str) -> str:
    """The same as the inside of a regular expression's brackets: quick to look up, where a list of emoji is not."""
    return "".join(f"\\U{first:08x}-\\U{last:08x}" for first, last in ends(ranges))


TERMINAL = characters("""
21 2E 3F 589 61D-61F 6D4 700-702 7F9 837 839 83D-83E 964-965 104A-104B 1362 1367-1368 166E 1735-1736 17D4-17D5 1803 1809
1944-1945 1AA8-1AAB 1B4E-1B4F 1B5A-1B5B 1B5E-1B5F 1B7D-1B7F 1C3B-1C3C 1C7E-1C7F 2024 203C-203D 2047-2049 2CF9-2CFB 2E2E
2E3C 2E53-2E54 2E60-2E61 3002 A4FF A60E-A60F A6F3 A6F7 A876-A877 A8CE-A8CF A92F A9C8-A9C9 AA5D-AA5F AAF0-AAF1 ABEB FE12
FE15-FE16 FE52 FE56-FE57 FF01 FF0E FF1F FF61 10A56-10A57 10F55-10F59 10F86-10F89 11047-11048 110BE-110C1 11141-11143
111C5-111C6 111CD 111DE-111DF 11238-11239 1123B-1123C 112A9 113D4-113D5 1144B-1144C 115C2-115C3 115C9-115D7 11641-11642
1173C-1173E 11944 11946 11A42-11A43 11A9B-11A9C 11C41-11C42 11EF7-11EF8 11F43-11F44 16A6E-16A6F 16AF5 16B37-16B38 16B44
16D6E-16D6F 16E98 1BC9F 1DA88
""")
"""Characters that end a sentence."""

FULL_WIDTH = frozenset(chr(ord(mark) - 0x21 + 0xFF01) for mark in "!%(),.:;?~")
UNCOUNTED = frozenset(string.punctuation + "´«»–—’“”„…∶━►、。〈〉《》「」【】") | FULL_WIDTH | TERMINAL
"""Characters that do not make a word; control characters are others."""

QUOTES = frozenset("'\"”“`‘´’‚„»«「」『』（）〔〕【】《》〈〉⟦⟧")
ICON_RANGES = "A6 A9 AE B0 2122 2195-21FF 2300-2307 230C-23FF 2500-2767 2794-27BF 2B00-2BFF FFFD 1F000-1FAFF"
ICONS = characters(ICON_RANGES)
CURRENCY = frozenset("$£¥฿") | characters("20A0-20C0")
OUTER = frozenset(",:;!?¿؟¡()[]{}<>_#*&。？！，、；：～·।،۔؛٪…—–") | QUOTES | ICONS
"""Characters that come off both ends of a chunk of text, each a word of its own."""
OPENING = OUTER | CURRENCY | frozenset("§%=")
"""Characters that come off the front."""

LETTER, NUMBER, SIGN, SYMBOL, PUNCTUATION, END, SPACE = "a1*$,. "
"""The kinds of word. Words that count: with a letter; without, such as a number; punctuation that is not UNCOUNTED. Of
UNCOUNTED characters alone: not all of it punctuation; all of it; one character of TERMINAL. The last is white space."""


def kind_of(word: str) -> str:
    """The kind of `word`, which is not empty and holds no white space: one of the first six kinds."""
    if word.isalpha() or any(map(str.isalpha, word)):
        return LETTER
    if word in TERMINAL:
        return END
    punctuation = all(unicodedata.category(character)[0] == "P" for character in word)
    if all(character in UNCOUNTED or unicodedata.category(character) == "Cc" for character in word):
        return PUNCTUATION if punctuation else SYMBOL
    return SIGN if punctuation else NUMBER
