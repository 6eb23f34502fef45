"""Payment card numbers (ISO/IEC 7812): with an issuer's prefix, its length, and a valid check digit."""

import re
from collections.abc import Iterator

from data_prep.pii.places import COVERED, Span

# Without separators, or in the groups that are printed on cards, with equal separators.
CANDIDATE = re.compile(
    rf"[0-9](?<![\w{COVERED}+][0-9])(?<![\w{COVERED}][.,/=_-][0-9])[0-9]{{3}}"
    r"(?:[0-9]{8,15}+"
    r"|(?P<four>[ -])[0-9]{4}(?P=four)[0-9]{4}(?P=four)[0-9]{1,4}+(?P<last>(?P=four)[0-9]{3}(?![0-9.]))?+"
    r"|(?P<six>[ -])[0-9]{6}(?P=six)[0-9]{4,5}+)"
    rf"(?![\w{COVERED}]|[.,/-][\w{COVERED}])"
)
ISSUERS = tuple(
    (re.compile(prefix), frozenset(lengths))
    for prefix, lengths in (
        ("4", (13, 16, 19)),  # Visa
        ("5[1-5]|222[1-9]|22[3-9]|2[3-6]|27[01]|2720", (16,)),  # Mastercard
        ("3[47]", (15,)),  # American Express
        ("30[0-59]|3[689]", (14, 16, 19)),  # Diners Club
        ("6011|64[4-9]|65", (16, 17, 18, 19)),  # Discover
        ("35", (16, 17, 18, 19)),  # JCB
        ("2131|1800", (15,)),  # JCB
        ("62|81", (16, 17, 18, 19)),  # UnionPay
        ("0604|50|5[6-8]|6[0-9]", (12, 13, 14, 15, 16, 17, 18, 19)),  # Maestro
        ("220[0-4]", (16, 17, 18, 19)),  # Mir
    )
)
SHORT = 13
"""Numbers with at most this many digits are as often product or order numbers: a card word must precede them."""
CARD_WORD = re.compile(
    rf"\b(?:cards?|cc|visa|master ?card|maestro|amex|american express|credit|debit|carte|karte|tarjeta|carta)\b"
    rf"[^0-9{COVERED}]*\Z",
    re.IGNORECASE,
)
WORD_DISTANCE = 40


def find(text: str) -> Iterator[Span]:
    """Yield the spans of the payment card numbers in `text`."""
    for match in CANDIDATE.finditer(text):
        start, stop = match.span()
        if match["last"] and not is_card(match[0]):
            stop = match.start("last")  # three more digits after a number of sixteen
        number = text[start:stop]
        if is_card(number) and (len(number) > SHORT or CARD_WORD.search(text[max(0, start - WORD_DISTANCE) : start])):
            yield start, stop


def is_card(number: str) -> bool:
    """Whether `number`, perhaps with blanks or hyphens, has an issuer's prefix and length, and a valid check digit."""
    from stdnum import luhn

    number = number.replace(" ", "").replace("-", "")
    return any(len(number) in lengths and prefix.match(number) for prefix, lengths in ISSUERS) and luhn.is_valid(number)
