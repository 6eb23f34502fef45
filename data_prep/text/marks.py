"""Sets of characters (punctuation, separators of words, ends of sentences), and the kinds of words.

TERMINAL is Unicode's Sentence_Terminal (PropList.txt, Unicode 17). UNCOUNTED are the characters that FineWeb's filters
do not count as words by themselves: ASCII punctuation, some of its full-width forms, control characters, quotation
marks and dashes. The marks "•", "·" and "‘" count as words, as in DataTrove, so counts can be compared. Compared with
DataTrove's lists, TERMINAL has 16 additional characters and lacks three of Khmer; UNCOUNTED lacks "１".
"""

import string
import unicodedata


def ends(ranges: str) -> list[tuple[int, int]]:
    """Return the (first, last) code point of each range in `ranges`, hexadecimal text such as "21 61D-61F"."""
    parts = (part.split("-") for part in ranges.split())
    return [(int(part[0], 16), int(part[-1], 16)) for part in parts]


def characters(ranges: str) -> frozenset[str]:
    """Return the characters in `ranges`: hexadecimal code points and ranges such as "21 61D-61F"."""
    return frozenset(chr(code) for first, last in ends(ranges) for code in range(first, last + 1))


def character_class(ranges: str) -> str:
    """Return `ranges`, such as "21 61D-61F", as the inside of a regex character class: faster to match than a list."""
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
"""Characters that do not count as words by themselves, in addition to control characters."""

SIGNS_2024 = UNCOUNTED - (TERMINAL - FULL_WIDTH - frozenset(string.punctuation + "。")) | frozenset(
    map(chr, [ord("１"), *range(9), *range(11, 32), *range(127, 160)])
)
"""datatrove's list of April 2024, including control characters: UNCOUNTED without the sentence ends of other
scripts."""

QUOTES = frozenset("'\"”“`‘´’‚,„»«「」『』（）〔〕【】《》〈〉⟦⟧")
"""spaCy's quotation marks, which include the comma."""
BASIC_ICONS = """
A6 A9 AE B0 482 58D-58E 60E-60F 6DE 6E9 6FD-6FE 7F6 9FA B70 BF3-BF8 BFA C7F D4F D79 F01-F03 F13 F15-F17 F1A-F1F F34 F36
F38 FBE-FC5 FC7-FCC FCE-FCF FD5-FD8 109E-109F 1390-1399 1940 19DE-19FF 1B61-1B6A 1B74-1B7C 2100-2101 2103-2106
2108-2109 2114 2116-2117 211E-2123 2125 2127 2129 212E 213A-213B 214A 214C-214D 214F 218A-218B 2195-2199 219C-219F
21A1-21A2 21A4-21A5 21A7-21AD 21AF-21CD 21D0-21D1 21D3 21D5-21F3 2300-2307 230C-231F 2322-2328 232B-237B 237D-239A
23B4-23DB 23E2-2426 2440-244A 249C-24E9 2500-25B6 25B8-25C0 25C2-25F7 2600-266E 2670-2767 2794-27BF 2800-28FF 2B00-2B2F
2B45-2B46 2B4D-2B73 2B76-2B95 2B98-2BC8 2BCA-2BFE 2CE5-2CEA 2E80-2E99 2E9B-2EF3 2F00-2FD5 2FF0-2FFB 3004 3012-3013 3020
3036-3037 303E-303F 3190-3191 3196-319F 31C0-31E3 3200-321E 322A-3247 3250 3260-327F 328A-32B0 32C0-32FE 3300-33FF
4DC0-4DFF A490-A4C6 A828-A82B A836-A837 A839 AA77-AA79 FDFD FFE4 FFE8 FFED-FFEE FFFC-FFFD
"""
ASTRAL_ICONS = """
10137-1013F 10179-10189
1018C-1018E 10190-1019B 101A0 101D0-101FC 10877-10878 10AC8 1173F 16B3C-16B3F 16B45 1BC9C 1D000-1D0F5 1D100-1D126
1D129-1D164 1D16A-1D16C 1D183-1D184 1D18C-1D1A9 1D1AE-1D1E8 1D200-1D241 1D245 1D300-1D356 1D800-1D9FF 1DA37-1DA3A
1DA6D-1DA74 1DA76-1DA83 1DA85-1DA86 1ECAC 1F000-1F02B 1F030-1F093 1F0A0-1F0AE 1F0B1-1F0BF 1F0C1-1F0CF 1F0D1-1F0F5
1F110-1F16B 1F170-1F1AC 1F1E6-1F202 1F210-1F23B 1F240-1F248 1F250-1F251 1F260-1F265 1F300-1F3FA 1F400-1F6D4 1F6E0-1F6EC
1F6F0-1F6F9 1F700-1F773 1F780-1F7D8 1F800-1F80B 1F810-1F847 1F850-1F859 1F860-1F887 1F890-1F8AD 1F900-1F90B 1F910-1F93E
1F940-1F970 1F973-1F976 1F97A 1F97C-1F9A2 1F9B0-1F9B9 1F9C0-1F9C2 1F9D0-1F9FF 1FA60-1FA6D
"""
"""Category "other symbol" of Unicode 11, as in spaCy, without newer emoji. The second part, beyond U+FFFF, is searched
only for characters there, because regexes try ranges one by one."""
ICONS = characters(BASIC_ICONS + ASTRAL_ICONS)
CURRENCY = frozenset("$£¥฿﷼") | characters("20A0-20BF")
OUTER = frozenset(",:;!?¿؟¡()[]{}<>_#*&。？！，、；：～·।،۔؛٪…—–") | QUOTES | ICONS
"""Characters that are split off both ends of a chunk, each as a separate word."""
OPENING = OUTER | CURRENCY | frozenset("§%=")
"""Characters that are split off the start of a chunk."""

WITH_LETTERS = characters("591-5F4 900-9FF B80-CFF D80-DFF 1200-137F 2E80-33FF FE30-FE4F")
"""Blocks that spaCy treats as letters, including their marks, digits and punctuation, e.g. "。"."""

LETTER, NUMBER, SIGN, SYMBOL, PUNCTUATION, END, SPACE = "a1*$,. "
"""Kinds of words. Words that count: with a letter; without, such as a number; punctuation that is not UNCOUNTED. Words
of only UNCOUNTED characters: not all punctuation; all punctuation; one character of TERMINAL. The last is white
space."""


def kind_of(word: str) -> str:
    """Return the kind of a non-empty word without white space: LETTER, NUMBER, SIGN, SYMBOL, PUNCTUATION or END."""
    if word.isalpha() or any(map(str.isalpha, word)):
        return LETTER
    if word in TERMINAL:
        return END
    punctuation = all(unicodedata.category(character)[0] == "P" for character in word)
    if all(character in UNCOUNTED or unicodedata.category(character) == "Cc" for character in word):
        return PUNCTUATION if punctuation else SYMBOL
    return SIGN if punctuation else NUMBER
