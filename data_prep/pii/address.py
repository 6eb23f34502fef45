"""Find postal addresses: a street and a house number, with the unit, town and postcode that follow.

No library suits web text: of the 77 finds of pyap2 0.2.20 in 585 pages one was an address, at up to 36 ms per kB;
libpostal parses text that is known to be an address, with 2 GB of data. So a street is recognized

    by its street word                      12 Main Street; 12 rue de la Paix; Via Garibaldi 12; Hauptstraße 12
    by the unit or town after it            6750 Koskikatu 25 Apt. 864; Unter den Linden 77, 10117 Berlin
    by the words before it                  Address: 12 Willows; she lives at Puruntie 82

and its name must begin with a capital. Some are missed: "Le Bourg" or "12 Willows" without context.
"""

import re
from collections.abc import Iterator

from data_prep.pii.places import COVERED, COVERS, Span

FREE = rf"(?![\w{COVERED}])"
NUMBER = r"[0-9]{0,4}+(?:[-/][0-9]{1,4}){0,2}+[A-Za-z]?+"
"""A house number without its first digit: "12", "12a", "12-14", "4/12", "5-7-30"."""
CAPITAL = r"[^\W\da-z_ß-öø-ÿα-ωά-ώа-џ]"
"""Any letter except lower-case ones of ASCII, Latin-1, Greek and Cyrillic."""
NAME = CAPITAL + r"[\w.'’-]{0,24}+"
"""One word of a name of several words."""
LAST = CAPITAL + r"[\w-]{0,24}+(?:['’][\w-]{1,24}+)?+"
"""Last word of a name, without a period."""
PARTICLE = (
    r"(?:(?:de la|de los|de las|dell[ao]|dei|degli|del|d[aeiou]s?|la|le|les|los|las|al|von|van|der|den|dem|und|y|e|i|"
    r"im|am|an der|upon|on|sur)(?= )|d’|d'|l’|l')"
)
ORDINAL = r"[0-9]{1,3}(?:st|nd|rd|th)"

STREET = (
    r"(?:Street|Avenue|Boulevard|Road|Lane|Drive|Terrace|Crescent|Parkway|Turnpike|Mews|Esplanade|"
    r"(?:Ave|Blvd|Rd|Ln|Pkwy|Tce|Cres|Str)\b\.?|(?:St|Dr|Ct)\b\.?(?=[^\w .]|\Z| [a-zß-ÿ]))"
)
PERHAPS_STREET = (
    r"(?:Court|Place|Square|Way|Circle|Close|Trail|Highway|Row|Walk|Gardens|Grove|Hill|Loop|Run|Path|Pike|Ridge|"
    r"Crossing|Cove|Point|Park|Bend|Pass|Alley|Mall|Rise|View|Wharf|Quay|Green|Parade|Plaza|Broadway|Nagar|Marg|Salai|"
    r"Cross|Layout|Colony|Sector|Chowk|Vihar|Bagh|(?:St|Dr|Ct|Pl|Sq|Cir|Hwy|Trl|Pde)\b\.?"
    r"|(?:Highway|Hwy|Route|Rte|Road) [0-9]{1,4})"
)
"""Street words that often end other names ("2 Supreme Court"), so a unit, town or postcode must follow."""
RUE = (
    "rue|avenue|av\\.|boulevard|bd|place|chemin|allée|impasse|quai|cours|route|square|Rue|Avenue|Boulevard|Place|Chemin|"
    "Allée|Impasse|Quai|Route"
)
VIA = (
    "Via|Viale|Vicolo|Piazza|Piazzale|Piazzetta|Corso|Strada|Largo|Calle|C/|Avenida|Avda|Av|Paseo|Plaza|Rambla|Carrer|"
    "Camino|Rua|Rúa|Travessa|Praça|Estrada|Alameda|Rue|Ulica|Ulitsa|ul|Улица|улица|ул|проспект"
)
ENDINGS = ("straße", "strasse", "Straße", "Strasse", "str.", "allee", "Allee", "gasse", "platz", "Platz", "ufer", "weg",
           "damm", "chaussee", "straat", "laan", "gracht", "plein", "singel", "steeg", "gatan", "vägen", "gränd",
           "stigen", "veien", "vej", "stræde", "gata", "stræti", "vegur", "katu", "kuja", "utca", "tänav")  # fmt: skip

STATE = (
    "(?:A[AEKLPRZ]|C[AOT]|D[CE]|FL|GA|HI|I[ADLN]|K[SY]|LA|M[ADEGINOST]|N[CDEHJMVY]|O[HKR]|PA|RI|S[CD]|T[NX]|UT|V[AT]|"
    "W[AIVY]|SP|R[JS]|PR|BA|AB|BC|MB|N[BLS]|ON|PE|QC|SK|ACT|NSW|NT|QLD|SA|TAS|VIC)"
)
REGION = (
    "(?:Alabama|Alaska|Arizona|Arkansas|California|Colorado|Connecticut|Delaware|Florida|Georgia|Hawaii|Idaho|Illinois|"
    "Indiana|Iowa|Kansas|Kentucky|Louisiana|Maine|Maryland|Massachusetts|Michigan|Minnesota|Mississippi|Missouri|"
    "Montana|Nebraska|Nevada|New (?:Hampshire|Jersey|Mexico|York)|(?:North|South) (?:Carolina|Dakota)|Ohio|Oklahoma|"
    "Oregon|Pennsylvania|Rhode Island|Tennessee|Texas|Utah|Vermont|(?:West )?Virginia|Washington|Wisconsin|Wyoming|"
    "Alberta|British Columbia|Manitoba|New Brunswick|Nova Scotia|Ontario|Québec|Quebec|Saskatchewan)"
)
COUNTRY = (
    "(?:Australia|Austria|Belgium|Brazil|Canada|Cyprus|Denmark|Deutschland|England|Estonia|Finland|France|Germany|"
    "Greece|Hungary|Iceland|India|Ireland|Italy|Netherlands|New Zealand|Norway|Poland|Portugal|Scotland|Slovenia|"
    "South Africa|Spain|Sweden|Switzerland|United Kingdom|United States|Uruguay|Wales|U\\.?K|U\\.?S(?:\\.?A)?)"
)
"""Countries that can end an address, with or without a postcode."""
POSTCODE = (
    r"(?:[0-9]{5}(?:-[0-9]{3,4})?+|[1-9][0-9]{2} ?[0-9]{3}(?! ?[0-9-])|[A-Z]{1,2}[0-9][0-9A-Z]? ?[0-9][A-Z]{2}"
    r"|[A-Z][0-9][A-Z][ -]?[0-9][A-Z][0-9]|[A-Z][0-9][0-9W] ?[A-Z0-9]{4})" + FREE
)
"""Postcodes of the USA and Brazil, India, Great Britain, Canada, Ireland."""
SHORT_POSTCODE = r"(?!1[5-9][0-9]{2}|20[0-3][0-9])[0-9]{4}" + FREE
"""Postcode of Australia or New Zealand, except possible years."""
BREAK = r"(?:[ ]?[,;/–-]|[ ]?\n>?)?+[ ,\n]{0,6}+(?<=[ ,;/–\n>-])"
"""Separator of the parts of an address: a comma, a line end (in quoted mail too), or only a space."""
QUARTER = rf"(?: (?:[NS][EW]?|[EW]|North|South|East|West){FREE}\.?)?+"
UNIT_NUMBER = rf"(?:[A-Z]?-?[0-9]{{1,5}}+[A-Z]?|[A-Z]){FREE}"
UNIT = (
    rf"{BREAK}(?:(?:(?:Apt|Apto|Apartment|Suite|Ste|Unit|Flat|Floor|Room|Box)\b\.?|#) ?{UNIT_NUMBER}"
    rf"|[0-9]{{1,3}}(?:st|nd|rd|th) [Ff]loor|[0-9]{{1,2}}[º°ª]\.?(?: [A-Z]{FREE})?|[0-9]{{1,2}}\. (?:tv|th|mf){FREE})"
)
SUITE = rf"{BREAK}(?:Apt|Apto|Apartment|Suite|Ste)\b\.? {UNIT_NUMBER}"
CONTINENTAL = (
    rf"[ ]?[,\n][ ]{{0,6}}(?:[A-Z]{{1,2}}-)?"
    rf"(?:[0-9]{{3}} [0-9]{{2}}|[0-9]{{5}}|(?!1[5-9][0-9]{{2}}|20[0-3][0-9])[0-9]{{4}}"
    rf"|[1-9][0-9]{{3}} ?[A-Z]{{2}}|DK-[0-9]{{4}})"
    rf"[ ]{{1,2}}{LAST}(?:(?: {PARTICLE})? {LAST}){{0,2}}+"
)
"""A postcode and a town: "10115 Berlin", "1015 CJ Amsterdam", "111 22 Stockholm"."""
NAMES_OF_TOWN = rf"(?: in)?(?:{BREAK}{NAME}(?: {PARTICLE}(?= ))?){{0,4}}?{BREAK}"
ANY_STATE = rf"(?<=[,\n] )[A-Z]{{2}}(?={BREAK}[0-9]{{5}}|{BREAK}{COUNTRY})"
"""Any two capitals between a comma and a postcode or country."""
AND_POSTCODE = rf"(?:{BREAK}(?:{POSTCODE}|{SHORT_POSTCODE}))?+"
TOWN = (
    rf"(?:{CONTINENTAL}|{NAMES_OF_TOWN}(?:(?:{STATE}|{ANY_STATE}){FREE}\.?{AND_POSTCODE}|{POSTCODE}"
    rf"|(?<=[^\W\d_] ){SHORT_POSTCODE}|Dublin [0-9]{{1,2}}{FREE}"
    rf"|(?:{REGION}|{COUNTRY}){FREE}(?!{BREAK}{STATE}{FREE}){AND_POSTCODE})(?:{BREAK}{COUNTRY}{FREE}{AND_POSTCODE})?+)"
)
SURE_TOWN = (
    rf"(?=[ ]?[,\n])(?:{BREAK}{NAME}){{1,4}}?{BREAK}"
    rf"(?:(?:{STATE}|{REGION}){FREE}\.?{BREAK}(?:{POSTCODE}|{SHORT_POSTCODE})|(?![0-9]){POSTCODE})"
)
"""A town with state and postcode, or a postcode with letters, after a mark or a line end. A name between a number and
this is a street, even without a street word ("4978 Chapman Bypass, Salem, OR 97301")."""
SECOND_STREET = rf"(?: {NAME}){{1,2}}{SUITE}"
"""The second street in "14 Crown Street Market Square, Suite 3"."""
PLACE = rf"(?:(?:{SECOND_STREET})?+(?:{UNIT}){{0,2}}+{TOWN}|(?:{SECOND_STREET})?+(?:{UNIT}){{1,2}}+|{SECOND_STREET})"
ANNOUNCED = (
    r"(?:\b[Aa]ddress(?:es)?(?: is| are|:| to)?(?: it is| the corner of)?|\b[Ll]iv(?:e|es|ed|ing) (?:at|in|on)|"
    r"\b[Ll]ocated (?:at|in|on)|\b[Rr]esid(?:e|es|ed|ing) at|\b[Mm]eet (?:me|us|you) (?:at|in)|\b[Ll]ocation:|"
    r"\b[Oo]ffices? (?:is|are|was|were)? ?(?:at|in)|\b[Oo]ffice:|"
    r"\b(?:restaurant|house|shop|store) (?:is|was) (?:at|in)|"
    r"\b(?:sent|[Ss]hip(?:ped)?|[Dd]eliver(?:ed)?|moved) to:?|\bcorner of|\baddress with)\s{1,6}\Z"
)
"""Words before an address, which is then a number and a name, or a name and a number."""


YEAR = re.compile(r"(?:1[5-9]|20)[0-9]{2},? ")
"""A year, which is not a house number in "the 1987 Wall Street crash"."""
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
"""A number after a word. It precedes a name (`first`), or may follow one, with an optional letter or flat number; but
not after the COMMON words, which most numbers in prose follow."""
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
"""Names, matched backwards from the house number."""
NUMBER_SIGNS = ("n", "n.", "nº", "n°")
"""Signs before a house number: Calle Mayor, nº 5"""
NO_STREETS = frozenset((
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December", "Jan", "Feb", "Mar", "Apr", "Jun", "Jul", "Aug", "Sept", "Sep", "Oct", "Nov", "Dec", "Spring",
    "Summer", "Autumn", "Winter", "Chapter", "Section", "Part", "Page", "Article", "Act", "Volume", "Vol", "Table",
    "Figure", "Room", "Gate", "Exit", "Route", "Highway", "Level", "Floor", "Terminal", "Platform", "Building",
    "Block", "Booth", "Stage", "Pier", "Channel", "Mile", "Class", "Number", "No", "Box", "Box.", "World", "The",
    "In", "At", "On", "By", "Of", "And", "For", "From", "Since", "Until",
))  # fmt: skip
"""Words before a number that are not streets."""
TOWN_AFTER = re.compile(TOWN)
"""A separate pattern, not repeated at the end of three others: compiling takes 1.6 ms per kB."""
AFTER_HOUSE = re.compile(rf"(?=[ ,]?[,\n#AFSU–-])(?:(?:{UNIT}){{0,2}}+{CONTINENTAL}|(?P<town>)(?:{SUITE}){{1,2}}+)")
"""Text that turns any name and number into an address. After a suite, a town may follow (`town`)."""
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
"""Endings of matches of ANNOUNCED, and a part of each of its words, for a check that is cheaper than the pattern."""
BOXES = tuple(
    re.compile(rf"{word} [0-9]{{1,6}}+(?: [0-9]{{2}}){{0,2}}+{FREE}")
    for word in ("Box", "Bag", "BP", "Post(?:bus|fach|box)")
)
"""One pattern per word: searches for a literal prefix are ten times faster."""
OFFICE = re.compile(r"(?<!\w)(?:(?:G\.?)?P\.? ?O\.?|(?:PSC|CMR|Unit) [0-9]{1,5},?|Locked|Private) \Z")
"""Text before a box number, including the post offices of the American forces."""
WINDOW = 52
"""Maximum characters between the start of an address and its house number."""
PLACE_AFTER = re.compile(
    rf"{BREAK}[ADF]PO,? A[AEP] [0-9]{{5}}{FREE}|(?P<town>)(?:(?: {NAME}){{1,2}}{SUITE})?+(?:{UNIT}){{0,2}}+"
)
"""Rest of an address after a house or box. Matched separately, so it does not hide the next find. A town may follow
(`town`)."""
PLACE_OF_HOUSE = re.compile(
    rf"(?=[ ]?[^\w ]| [0-9])(?:{PLACE_AFTER.pattern})|(?P<or_town>)(?:(?: {NAME}){{0,2}}{SUITE}){{1,2}}+"
)
"""Rest of an address if the house number follows the street: a mark, a line end or a postcode precedes the town."""
FORCES = re.compile(rf"PO,? A[AEP] [0-9]{{5}}{FREE}")
SHIP = re.compile(rf"(?<!\w)(?:USS|USNS|USNV|USCGC|HMS) {NAME}(?: {NAME})?{BREAK}[ADF]\Z")
BEFORE_HOUSE = re.compile(
    r"(?<!\w)(?:(?:Flat|Apartment|Apt|Unit|Suite|Shop|Plot|House|Door|H)\b\.?(?: ?No\.?)? ?(?:[0-9]{1,4}[A-Z]?,? )?"
    r"|No\.? |(?<![0-9)(/.,:+-] )(?!(?:1[5-9]|20)[0-9]{2} )[0-9]{2,6} )\Z"
)
"""Parts of the address before the street: "Flat 3, 12 High Street", "Plot No. 45, Link Road"."""
LONGEST_UNIT = 24
UNIT_ENDS = frozenset("o.ABCDEFGH")
"""Possible last characters of BEFORE_HOUSE, for a cheap check, in addition to two digits and a comma."""


def find(text: str) -> Iterator[Span]:
    """Yield the spans of the postal addresses in `text`."""
    # A number before a street without a place may be a year, or the end of a clause.
    unclear = lambda m: m["bare"] is not None and (m["comma"] is not None or YEAR.match(m[0]))
    found = [m.span() for m in FROM_NUMBER.finditer(text) if not unclear(m)]
    found += houses(text)
    found += boxes(text)
    for start, stop in joined(text, found):
        if COVERS["address"] not in text[max(0, start - 2) : start]:
            yield start, stop


def joined(text: str, found: list[Span]) -> list[Span]:
    """Return the spans sorted, extended by a unit or number before them ("Flat 3, "), and merged if they touch."""
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


def houses(text: str) -> Iterator[Span]:
    """Yield addresses whose house number follows the street ("Hauptstraße 12"): recognized by the street word, the text
    after the number, or words before the street ("lives at"). After such words, "12 Willows" is an address too."""
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
            continue  # most numbers in prose follow a lower-case word
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
    """Return (start of the capitalized names before the house number at `end`, whether they begin with a street word
    such as "Via"), or None. The start is at least `low`."""
    names = NAMES_BACKWARDS.match(text[low:end][::-1])
    if names is None:
        return None
    start = end - names.end()
    words = text[start:end].split(" ")
    for place in range(len(words) - 3, -1, -1):  # without the last word and the empty text after it
        if words[place].rstrip(".") in STREET_WORDS:
            return start + sum(map(len, words[:place])) + place, True
    if text.endswith(("ul ", "ul. ", "ул ", "ул. ", "ца "), low, start) and (
        word := SMALL_STREET_WORDS.search(text, low, start)
    ):
        return word.start(), True
    return start, False


def is_announced(text: str, start: int) -> bool:
    """Whether the words before `start`, such as "Address:" or "lives at", announce an address."""
    low = max(0, start - WINDOW)
    if not text.endswith(LAST_OF_ANNOUNCED, low, start) or not any(map(text[low:start].__contains__, LEADS)):
        return False
    return BEFORE_ANNOUNCED.search(text, low, start) is not None


def boxes(text: str) -> Iterator[Span]:
    """Yield post office boxes, and ships with a military post office ("USS Nimitz, FPO AP 96620")."""
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
    """Return the end of the unit, town and postcode that follow a house or box at `start`; `start` if none do."""
    place = pattern.match(text, start)
    return end_with_town(text, place) if place else start


def end_with_town(text: str, match: re.Match[str]) -> int:
    """Return the end of the match or, if its pattern allows a town, of the town after it."""
    town = TOWN_AFTER.match(text, match.end()) if match.lastgroup else None
    return town.end() if town else match.end()
