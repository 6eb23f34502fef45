"""Postal addresses: a street and a house number, and what follows of unit, town and postcode.

No library holds up on web text: of the 77 addresses that pyap2 0.2.20 saw in 585 pages one was an address ("1912 and
1913. The evolution of his science is contained in" was not), and it needs up to 36 ms for a kB. So a street is told by
its word for street, in the ways of Western European languages, and its name must begin with a capital. That is sure
but not complete: a house without such a word ("Puruntie 82", "Le Bourg") stays.
"""

import re
from collections.abc import Iterator

from data_prep.pii.places import COVERED, COVERS, Span


def beginning(words: str) -> str:
    """A pattern for any of the words, parted by "|", that lets the search skip to their first letters."""
    letters = "".join(sorted({word[0] for word in words.split("|")}))
    rests = "|".join(f"(?<={word[0]}){word[1:]}" for word in words.split("|"))
    return rf"[{letters}](?<![\w{COVERED}][{letters}])(?:{rests})"


NUMBER = r"[0-9]{0,4}+(?:[-/][0-9]{1,4})?+[A-Za-z]?+"
# A word of a name; no small letter of ASCII or Latin-1 begins it. With what may stand in a name of several words.
NAME = r"[^\W\da-z_ß-öø-ÿ][\w.'’-]{0,24}+"
LAST = r"[^\W\da-z_ß-öø-ÿ][\w-]{0,24}+(?:['’][\w-]{1,24}+)?+"  # of a name's words: it takes no full stop along
PARTICLE = r"(?:d[aeiou]s?|de la|de los|de las|del|della|dei|d’|d'|l’|l'|la|le|les|los|las|al|von|van|der|den|und|y|e)"
ORDINAL = r"[0-9]{1,3}(?:st|nd|rd|th)"
FREE = rf"(?![\w{COVERED}])"

STREET = r"(?:Street|Avenue|Boulevard|Road|Lane|Drive|Terrace|Crescent|Parkway|Turnpike|(?:Ave|Blvd|Rd|Ln|Pkwy)\b\.?)"
PERHAPS_STREET = (
    r"(?:Court|Place|Square|Way|Circle|Close|Trail|Highway|Row|Walk|Gardens|Grove|Hill|(?:St|Dr|Ct|Pl|Sq|Cir|Hwy)\b\.?)"
)
"""As often the end of another name ("2 Supreme Court"): a unit, a town or a postcode must follow."""
RUE = "rue|avenue|boulevard|place|chemin|allée|impasse|quai|cours|Rue|Avenue|Boulevard|Place|Chemin|Allée|Impasse|Quai"
VIA = "Via|Viale|Piazza|Calle|Avenida|Avda|Paseo|Plaza|Rua|Travessa|Rue|Ulica|Ulitsa|ul|Улица|улица|ул|проспект"
ENDINGS = ("straße", "strasse", "Straße", "Strasse", "str.", "allee", "Allee", "gasse", "platz", "Platz", "ufer", "weg",
           "straat", "laan", "gracht", "plein", "gatan", "vägen", "veien", "vej", "gata", "katu", "utca")  # fmt: skip

STATE = (
    "(?:A[AEKLPRZ]|C[AOT]|D[CE]|FL|GA|HI|I[ADLN]|K[SY]|LA|M[ADEINOST]|N[CDEHJMVY]|O[HKR]|PA|RI|S[CD]|T[NX]|UT|V[AT]|"
    "W[AIVY]|AB|BC|MB|N[BLS]|ON|PE|QC|SK)"
)
POSTCODE = (
    r"(?:[0-9]{5}(?:-[0-9]{4})?+|[A-Z]{1,2}[0-9][0-9A-Z]? ?[0-9][A-Z]{2}|[A-Z][0-9][A-Z][ -]?[0-9][A-Z][0-9])" + FREE
)
YEAR = re.compile(r"(?:1[5-9]|20)[0-9]{2} ")
"""In "the 1987 Wall Street crash" the number is not the house's."""
BREAK = r"(?:[ ]?,[ ]?\n?[ ]?,?[ ]?|[ ]?\n[ ]?,?[ ]?|[ ])"
QUARTER = rf"(?: (?:[NS][EW]?|[EW]){FREE}\.?)?+"
UNIT_NUMBER = rf"(?:[A-Z]?-?[0-9]{{1,5}}+[A-Z]?|[A-Z]){FREE}"
UNIT = rf"{BREAK}(?:(?:Apt|Apartment|Suite|Ste|Unit|Flat|Floor|Room|Box)\b\.?|#) ?{UNIT_NUMBER}"
TOWN = (
    rf"(?:[ ]?[,\n][ ]?(?:[A-Z]{{1,2}}-)?[0-9]{{4,5}} {LAST}(?: {LAST})?+"
    rf"|(?:{BREAK}{NAME}){{0,4}}?{BREAK}(?:{STATE}{FREE}(?:{BREAK}{POSTCODE})?+|{POSTCODE}))"
)
PLACE = rf"(?:(?:{UNIT}){{0,2}}+{TOWN}|(?:{UNIT}){{1,2}}+)"

AT_NUMBER = rf"[0-9](?<![\w{COVERED}$€£#][0-9])(?<![\w{COVERED}][.,:/-][0-9])"
NAMES = rf"{NAME}(?:(?: {PARTICLE}){{0,2}}+ {NAME}){{0,3}}"
FROM_NUMBER = re.compile(
    rf"{AT_NUMBER}{NUMBER}(?:"
    rf"(?: {NAME}| {ORDINAL}){{1,4}}? (?:{STREET}{FREE}{QUARTER}(?:{PLACE}|(?P<bare>))"
    rf"|{PERHAPS_STREET}{FREE}{QUARTER}{PLACE})"
    rf"|(?: {NAME}| {ORDINAL}){{1,4}}?{BREAK}(?:Apt|Apartment|Suite|Ste)\b\.? {UNIT_NUMBER}(?:{TOWN})?+"
    rf"|,?(?: bis| ter)? (?:{RUE})(?: {PARTICLE}){{0,2}}+ ?{NAMES.replace(NAME, LAST)}{PLACE}?+{FREE})"
)
"""12 Main Street; 12 rue de la Paix"""
FROM_WORD = re.compile(
    rf"{beginning(VIA)}\.?(?: {PARTICLE}){{0,2}}+ {NAMES},?(?: n[.º°]?)? [0-9]{NUMBER}{FREE}{PLACE}?+"
)
"""Via Garibaldi 12"""
HOUSE = re.compile(rf"[0-9](?<=[a-zß.] [0-9]){NUMBER}{FREE}")
LAST_WORDS = re.compile(r"[\w'’-]{0,30}[^\W\da-z_ß-öø-ÿ](?!\w)(?: [^\W\d_]{0,24}[^\W\da-z_ß-öø-ÿ](?![\w-]))?+")
"""Read to the left from the house's number: "Hauptstraße 12", "Lange Straße 12"."""
BOX = re.compile(rf"Box [0-9]{{1,6}}+{FREE}")
OFFICE = re.compile(r"(?<!\w)(?:P\.? ?O\.?|(?:PSC|CMR|Unit) [0-9]{1,5},?) \Z")
"""What stands before a box, the American forces' post offices among it."""
LONGEST_NAME = 52
PLACE_BEHIND = re.compile(rf"{BREAK}[ADF]PO,? A[AEP] [0-9]{{5}}{FREE}|{PLACE}")
"""Looked for only where a house or a box was found, lest it hide the next."""


def find(text: str) -> Iterator[Span]:
    """The places of the postal addresses in `text`."""
    found = [m.span() for m in FROM_NUMBER.finditer(text) if m["bare"] is None or not YEAR.match(m[0])]
    found += [m.span() for m in FROM_WORD.finditer(text)]
    for m in HOUSE.finditer(text):
        end = m.start() - 1
        if text.endswith(ENDINGS, 0, end) and (
            street := LAST_WORDS.match(text[max(0, end - LONGEST_NAME) : end][::-1])
        ):
            found.append((end - street.end(), end_of_place(text, m.end())))
    for m in BOX.finditer(text):
        if office := OFFICE.search(text, max(0, m.start() - LONGEST_NAME), m.start()):
            found.append((office.start(), end_of_place(text, m.end())))
    found.sort()
    end = -2
    for start, stop in found:  # of two that overlap or touch the first stays
        if start > end + 1 and COVERS["address"] not in text[max(0, start - 2) : start]:
            yield start, stop
            end = stop


def end_of_place(text: str, start: int) -> int:
    """Where the unit, town and postcode end that follow a house or a box; `start` if none do."""
    place = PLACE_BEHIND.match(text, start)
    return place.end() if place else start
