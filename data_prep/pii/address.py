"""Postal addresses: a street and a house number, and what follows of unit, town and postcode.

No library fits web text: of the 77 addresses that pyap2 0.2.20 found in 585 pages one was an address, at up to 36 ms a
kB; libpostal parses what is known to be an address, with 2 GB of data. So a street is recognised

    by its word for street                  12 Main Street; 12 rue de la Paix; Via Garibaldi 12; Hauptstraße 12
    by the unit or the town that follows    6750 Koskikatu 25 Apt. 864; Unter den Linden 77, 10117 Berlin
    by the words before it                  Address: 12 Willows; she lives at Puruntie 82

and its name must begin with a capital. This misses some: "Le Bourg" or "12 Willows" by themselves stay.
"""

import re
from collections.abc import Iterator

from data_prep.pii.address_words import (
    ANNOUNCED,
    BREAK,
    CAPITAL,
    CONTINENTAL,
    ENDINGS,
    FREE,
    LAST,
    NAME,
    NUMBER,
    ORDINAL,
    PARTICLE,
    PERHAPS_STREET,
    PLACE,
    QUARTER,
    RUE,
    STREET,
    SUITE,
    SURE_TOWN,
    TOWN,
    UNIT,
    VIA,
)
from data_prep.pii.places import COVERED, COVERS, Span

YEAR = re.compile(r"(?:1[5-9]|20)[0-9]{2},? ")
"""In "the 1987 Wall Street crash" the number is not the house's."""
AT_NUMBER = rf"[0-9](?<![\w{COVERED}$€£#][0-9])(?<![\w{COVERED}][.,:/-][0-9])"
NAMES = rf"{NAME}(?:(?: {PARTICLE}){{0,2}}+ {NAME}){{0,3}}"
WORDS = rf"(?: {NAME}| {ORDINAL}){{1,4}}?"
FROM_NUMBER = re.compile(
    rf"{AT_NUMBER}{NUMBER}(?:(?P<comma>,)?{WORDS}(?:"
    rf" (?:(?P<sure>{STREET})|{PERHAPS_STREET}){FREE}{QUARTER}(?:{PLACE}|(?(sure)(?P<bare>)|(?!)))"
    rf"|{SUITE}(?:{TOWN})?+"
    rf"|{SURE_TOWN})"
    rf"|,?(?: bis| ter)? (?:{RUE})(?: {PARTICLE}){{0,2}}+ ?{NAMES.replace(NAME, LAST)}{PLACE}?+{FREE})"
)
"""12 Main Street; 1600 Broadway Apt. 4; 4978 Chapman Bypass, Salem, OR 97301; 12 rue de la Paix"""
COMMON = "".join(rf"(?<! {word} [0-9])" for word in ("in", "of", "to", "at", "by", "on", "is", "and", "the", "from"))
HOUSE = re.compile(
    rf"[0-9](?<=\w[^\s\d_;!?()\"'/-]\s[0-9]|\s\s\s[0-9]|[.,:;]\s\s[0-9])"
    rf"(?=(?P<first>{NUMBER}{FREE} {CAPITAL})?)(?(first)|{COMMON})"
    rf"{NUMBER}{FREE}(?![:.][0-9])(?: [A-Z]{FREE}(?: [0-9]{{1,3}}{FREE})?)?+"
)
"""A number after a word. It stands before a name (`first`), or it may stand after one, and then has a letter or the
number of a flat with it; not so after the COMMON words, which most numbers in prose follow."""
STREET_WORDS = frozenset(VIA.split("|"))
SMALL_STREET_WORDS = re.compile(r"(?<!\w)(?:ul\.?|улица|ул\.?) \Z")
PARTICLES_BACKWARDS = "|".join(
    word[::-1]
    for word in ("de", "da", "do", "du", "das", "dos", "di", "la", "le", "les", "los", "las", "al", "del", "della",
                 "dello", "dei", "degli", "von", "van", "der", "den", "y", "e", "i", "im", "am", "an")
)  # fmt: skip
NAME_BACKWARDS = rf"[\w.'’/-]{{0,24}}{CAPITAL}(?![\w-])(?:['’][dDlL](?!\w))?"
NAMES_BACKWARDS = re.compile(
    rf" (?:[.º°]?n )?,?{NAME_BACKWARDS}(?: (?:(?:{PARTICLES_BACKWARDS}) ){{0,2}}{NAME_BACKWARDS}){{0,3}}"
)
"""Read to the left from the house's number."""
NUMBER_SIGNS = ("n", "n.", "nº", "n°")
"""Calle Mayor, nº 5"""
NO_STREETS = frozenset((
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December", "Jan", "Feb", "Mar", "Apr", "Jun", "Jul", "Aug", "Sept", "Sep", "Oct", "Nov", "Dec", "Spring",
    "Summer", "Autumn", "Winter", "Chapter", "Section", "Part", "Page", "Article", "Act", "Volume", "Vol", "Table",
    "Figure", "Room", "Gate", "Exit", "Route", "Highway", "Level", "Floor", "Terminal", "Platform", "Building",
    "Block", "Booth", "Stage", "Pier", "Channel", "Mile", "Class", "Number", "No", "Box", "Box.", "World", "The",
    "In", "At", "On", "By", "Of", "And", "For", "From", "Since", "Until",
))  # fmt: skip
"""What stands before a number in other names."""
TOWN_AFTER = re.compile(TOWN)
"""By itself and not at the ends of three others: to compile a pattern takes 1.6 ms a kB."""
AFTER_HOUSE = re.compile(rf"(?=[ ,]?[,\n#AFSU–-])(?:(?:{UNIT}){{0,2}}+{CONTINENTAL}|(?P<town>)(?:{SUITE}){{1,2}}+)")
"""What makes any name and number an address. Behind a suite a town may follow (`town`)."""
HOUSE_AND_NAME = re.compile(
    rf"[0-9]{NUMBER}(?: {PARTICLE})?(?:{WORDS} [0-9]{NUMBER}{FREE}(?:{PLACE})?+|{WORDS}{PLACE}"
    rf"|(?P<bare>(?: {LAST}(?: {PARTICLE})?){{0,3}} {CAPITAL}[\w-]{{1,24}}+{FREE}))"
)
BEFORE_ANNOUNCED = re.compile(ANNOUNCED)
LAST_OF_ANNOUNCED = (
    " at ", " in ", " on ", " is ", " are ", " to ", " of ", " with ", "ess ", ":\n", "s\n", ": ", "  ",
)  # fmt: skip
LEADS = (
    "ddress", "iv", "ocat", "esid", "eet ", "ffice", "rant", "house", "shop", "store", "sent", "hip", "moved", "orner",
)  # fmt: skip
"""How these words end, and a part of each, for a first look that is cheaper than the pattern."""
BOXES = tuple(
    re.compile(rf"{word} [0-9]{{1,6}}+(?: [0-9]{{2}}){{0,2}}+{FREE}")
    for word in ("Box", "Bag", "BP", "Post(?:bus|fach|box)")
)
"""One pattern a word: a search for a word that is given letter by letter is ten times as fast."""
OFFICE = re.compile(r"(?<!\w)(?:(?:G\.?)?P\.? ?O\.?|(?:PSC|CMR|Unit) [0-9]{1,5},?|Locked|Private) \Z")
"""What stands before a box, the American forces' post offices among it."""
WINDOW = 52
"""So far before a house the beginning of its address is looked for, in characters."""
PLACE_AFTER = re.compile(
    rf"{BREAK}[ADF]PO,? A[AEP] [0-9]{{5}}{FREE}|(?P<town>)(?:(?: {NAME}){{1,2}}{SUITE})?+(?:{UNIT}){{0,2}}+"
)
"""Looked for only where a house or a box was found, so that it does not hide the next. A town may follow (`town`)."""
PLACE_OF_HOUSE = re.compile(
    rf"(?=[ ]?[^\w ]| [0-9])(?:{PLACE_AFTER.pattern})|(?P<or_town>)(?:(?: {NAME}){{0,2}}{SUITE}){{1,2}}+"
)
"""The same for a house that stands after its street: a mark, a line end or a postcode comes before the town."""
FORCES = re.compile(rf"PO,? A[AEP] [0-9]{{5}}{FREE}")
SHIP = re.compile(rf"(?<!\w)(?:USS|USNS|USNV|USCGC|HMS) {NAME}(?: {NAME})?{BREAK}[ADF]\Z")
BEFORE_HOUSE = re.compile(
    r"(?<!\w)(?:(?:Flat|Apartment|Apt|Unit|Suite|Shop|Plot|House|Door|H)\b\.?(?: ?No\.?)? ?(?:[0-9]{1,4}[A-Z]?,? )?"
    r"|No\.? |(?<![0-9)(/.,:+-] )(?!(?:1[5-9]|20)[0-9]{2} )[0-9]{2,6} )\Z"
)
"""What belongs to the address that follows: "Flat 3, 12 High Street", "Plot No. 45, Link Road"."""
LONGEST_UNIT = 24
UNIT_ENDS = frozenset("o.ABCDEFGH")
"""The last sign of these, for a first look, besides two digits and a comma."""


def find(text: str) -> Iterator[Span]:
    """The places of the postal addresses in `text`."""
    found = [m.span() for m in FROM_NUMBER.finditer(text) if m["bare"] is None or not is_bare_number(m)]
    found += houses(text)
    found += boxes(text)
    for start, stop in joined(text, found):
        if COVERS["address"] not in text[max(0, start - 2) : start]:
            yield start, stop


def joined(text: str, found: list[Span]) -> list[Span]:
    """The finds with the units and numbers before them, in order; those that overlap or touch are one."""
    spans: list[Span] = []
    end = 0
    for start, stop in sorted(found):
        low, marks = max(end, start - LONGEST_UNIT), text[max(end, start - 3) : start]
        is_unit = marks[:2].isdigit() or marks[-2:] == ", " or marks[1:2] in UNIT_ENDS
        if is_unit and (before := BEFORE_HOUSE.search(text, low, start)):
            start = before.start()
        if spans and start <= end + 1:
            end = max(end, stop)
            spans[-1] = spans[-1][0], end
        else:
            end = stop
            spans.append((start, stop))
    return spans


def is_bare_number(match: re.Match[str]) -> bool:
    """Whether the number before a street without a place may be a year or the end of a clause before it."""
    return match["comma"] is not None or YEAR.match(match[0]) is not None


def houses(text: str) -> Iterator[Span]:
    """Streets with the house after the name, known by their ending, by what follows, or as announced; and a number and
    a name that are announced."""
    for m in HOUSE.finditer(text):
        start, end = m.span()
        low = start - WINDOW if start > WINDOW else 0
        if m["first"] is not None and is_announced(text, start):
            house = HOUSE_AND_NAME.match(text, start)
            if house and (house["bare"] is None or not text.startswith("in", start - 3)):  # "located in 15 States"
                yield house.span()
                continue
        _, blank, last = text[low : start - 1].replace("\n", " ").rpartition(" ")
        last, whole = last.rstrip(","), bool(blank) or not low
        if whole and last[:1].islower() and last not in NUMBER_SIGNS and last[1:2] not in ("'", "’"):
            continue  # most numbers in prose follow a word without a capital
        street = start_of_street(text, low, start)
        if street is None:
            continue
        begin, named = street
        alone = last in ENDINGS and begin == start - 1 - len(last)  # "Platz 4"
        if named or (last.endswith(ENDINGS) and not alone):
            yield begin, end_of_place(text, end, PLACE_OF_HOUSE)
        elif last in NO_STREETS:
            continue
        elif after := AFTER_HOUSE.match(text, end):
            yield begin, end_with_town(text, after)
        elif text[start - 2] != "," and not YEAR.match(m[0] + " ") and is_announced(text, begin):
            yield begin, end_of_place(text, end, PLACE_OF_HOUSE)


def start_of_street(text: str, low: int, end: int) -> tuple[int, bool] | None:
    """Where the name before the number at `end` starts, not before `low`, and whether by a word for street; None if no
    name is there."""
    names = NAMES_BACKWARDS.match(text[low:end][::-1])
    if names is None:
        return None
    start = end - names.end()
    words = text[start:end].split(" ")
    for place in range(len(words) - 3, -1, -1):  # not the last, behind which the text is empty
        if words[place].rstrip(".") in STREET_WORDS:
            return start + sum(map(len, words[:place])) + place, True
    if text.endswith(("ul ", "ul. ", "ул ", "ул. ", "ца "), low, start) and (
        word := SMALL_STREET_WORDS.search(text, low, start)
    ):
        return word.start(), True
    return start, False


def is_announced(text: str, start: int) -> bool:
    """Whether the words before say that an address follows."""
    low = max(0, start - WINDOW)
    if not text.endswith(LAST_OF_ANNOUNCED, low, start) or not any(map(text[low:start].__contains__, LEADS)):
        return False
    return BEFORE_ANNOUNCED.search(text, low, start) is not None


def boxes(text: str) -> Iterator[Span]:
    """Post office boxes, and ships with their post office."""
    for pattern in BOXES:
        for m in pattern.finditer(text):
            start = m.start()
            if m[0].startswith(("Box", "Bag")):
                office = OFFICE.search(text, max(0, start - WINDOW), start)
                if office is None:
                    continue
                start = office.start()
            elif text[start - 1 : start].isalnum():
                continue
            yield start, end_of_place(text, m.end())
    for m in FORCES.finditer(text):
        if ship := SHIP.search(text, max(0, m.start() - WINDOW), m.start()):
            yield ship.start(), m.end()


def end_of_place(text: str, start: int, pattern: re.Pattern[str] = PLACE_AFTER) -> int:
    """Where the unit, town and postcode end that follow a house or a box; `start` if none do."""
    place = pattern.match(text, start)
    return end_with_town(text, place) if place else start


def end_with_town(text: str, match: re.Match[str]) -> int:
    """Where the match ends, or the town behind it, where one may follow: a named group, empty, says so."""
    town = TOWN_AFTER.match(text, match.end()) if match.lastgroup else None
    return town.end() if town else match.end()
