"""Phone numbers: runs of 7 to 15 digits, classified by their format and the surrounding text.

    next to a word such as "phone"    any number that is not a date or similar
    +41 44 668 18 00, 0041 …          numbers that libphonenumber's tables allow for that calling code
    (212) 736-5000                    numbers that they allow in a region of the config, if written in its groups

Other digits (without separators, or of another country without calling code) are as often a price, an order or a year.

The tables are in the package phonenumbers. Its parser is not used: it takes 16 µs per number and region, so a page of
numbers would take longer than all other steps. A test compares the plans here with the library.
"""

import functools
import itertools
import re
from collections.abc import Iterator, Sequence

from data_prep.config import PersonalDataConfig
from data_prep.pii.places import COVERED, COVERS, Span

ISBN_DIGITS = 13
MIN_DIGITS, MAX_DIGITS = 7, 15  # ITU-T E.164
GAP = r"[)]?(?:[ .\-/\u00a0\u2009\u2010\u2011\u2013](?:(?<= )/ )?)?[(]?"
LONGEST_GAP = 5
GAP_CHARACTERS = r"[() .\-/\u00a0\u2009\u2010\u2011\u2013]"
RUN = re.compile(rf"[+(\d](?<!\d\d)(?:(?<=\d)|[+(]?\d)(?:{GAP}\d){{{MIN_DIGITS - 1},}}+")
"""All consecutive digits, with at most one separator and brackets between two. A run does not begin after a digit: it
would be part of a run that was checked already."""
EXTENSION = re.compile(r"[ ,]{0,2}(?:x|ext\.?|extension|#)[ ]?\d{1,6}(?!\w)", re.IGNORECASE)
BEFORE = re.compile(
    rf"(?<=[\w{COVERED}#$€£¥=@&%~*^\\/])|(?<=[\d{COVERED}][.,:–-])|(?<=[^\W\d_]-)"
    + "".join(f"|(?<={COVERS['phone']}{GAP_CHARACTERS}{{{length}}})" for length in range(1, LONGEST_GAP + 1))
)
"""Text before which a number is not a phone number: it is part of something else, or next to a phone number."""
OTHER_NAME = re.compile(r"(?:ISBN|ISSN|DOI|EAN)(?:-1[03])?:? ?\Z")
"""Names of numbers that are not phone numbers."""
OTHER_NAME_LENGTH = 9
AFTER = re.compile(rf"[\w{COVERED}%€£¥°²³=@]|[.,:/-][\d{COVERED}]|[ \u00a0]?[€%]|{GAP}{COVERS['phone']}")
WORD_DISTANCE = 32
"""Maximum characters between a phone word and a number, without digits between them."""
YEAR, MONTH, DAY = r"(?:1[5-9]|20)\d\d", r"(?:0?[1-9]|1[0-2])", r"(?:0?[1-9]|[12]\d|3[01])"
LIST_DISTANCE = 5
"""A number at most this many characters after a phone number, in the same line, needs no phone word."""
TOKEN = re.compile(rf"\w+|[{COVERED}]")
REST_OF_WORD = re.compile(r"\w*")
NO_WORD = re.compile(rf"[\d{COVERED}]")
NEXT_WORDS = re.compile(r"[ ,(–-]{1,3}(\w+)(?:[ -](\w+))?")
DIGITS = re.compile(r"\d+")
NOT_DIGITS = re.compile(r"\D+")
NOT_PHONES = re.compile(
    rf"(?:{YEAR}[-./ ]{MONTH}[-./ ]{DAY}|(?:{DAY}[-./ ]{MONTH}|{MONTH}[-./ ]{DAY})[-./ ]{YEAR})(?:[ -]\d{{1,2}})?"
    rf"|{YEAR} ?[-/–] ?{YEAR}"  # from a year to a year
    r"|(?:19|20)\d\d(?:0[1-9]|1[0-2])(?:[012]\d|3[01])(?:\d{6})?"  # a date without separators, with or without the time
    rf"|\(?{YEAR}\)?[ -]\d{{1,4}}[-–]\d{{1,4}}"  # a year and a range of pages
    r"|\d+\.\d+"  # a decimal number
)
BRACKETS = re.compile(r"[^()]*+(?:\([^()]*\)[^()]*+)++")
"""All brackets are closed and not nested."""
TABLE = re.compile(r"\.\d+[ \u00a0]|[ \u00a0]\d+\.|^[^0]\d*/|[\u2011-\u2013].*\(")
"""Several decimal numbers, a fraction, or a range: combinations of separators that no country uses in numbers."""
THOUSANDS = re.compile(r"\d{1,3}(?:[ .\u00a0\u2009]\d{3})+")


def find(text: str, config: PersonalDataConfig) -> Iterator[Span]:
    """Yield the spans of the phone numbers in `text`."""
    words = phone_words(config.phone_words)
    digit = phone = -WORD_DISTANCE  # ends of the last run of digits and of the last phone number
    for run in RUN.finditer(text):
        for start, stop in (run.span(),) if run.end() - run.start() <= MAX_DIGITS else pieces(run):
            while text[start] == "(" and text.count("(", start, stop) > text.count(")", start, stop):
                start += 1  # the whole number is in brackets
            number, near = text[start:stop], max(0, digit, start - WORD_DISTANCE)
            digit = stop
            if ("(" in number and BRACKETS.fullmatch(number) is None) or BEFORE.match(text, start):
                continue
            extension = EXTENSION.match(text, stop)
            end = extension.end() if extension else stop
            if AFTER.match(text, end):
                continue
            named = (
                words.are_before(text, near, start)
                or words.are_after(text, end)
                or (start - phone <= LIST_DISTANCE and "\n" not in text[phone:start])
            )
            is_phone = not is_something_else(number) if named else is_phone_by_itself(number, config)
            if is_phone and OTHER_NAME.search(text, max(0, start - OTHER_NAME_LENGTH), start) is None:
                yield start, end
                phone = end


def pieces(run: re.Match[str]) -> Iterator[Span]:
    """Yield the span of a run of digits, or, if they are too many for one number, the spans of parts between blanks."""
    text, start, stop = run[0], run.start(), run.end()
    if sum(map(str.isdecimal, text)) <= MAX_DIGITS:
        yield start, stop
        return
    for part in re.finditer(r"[^ \u00a0]+", text):
        if MIN_DIGITS <= sum(map(str.isdecimal, part[0])) <= MAX_DIGITS:
            yield start + part.start(), start + part.end()


def is_phone_by_itself(number: str, config: PersonalDataConfig) -> bool:
    """Whether a number is a phone number even without a word such as "phone" next to it, by its format."""
    if number.startswith(("+", "(+")):
        # "+41 (0)44 …": the trunk prefix is written but not dialled from abroad
        return is_international(ascii_digits(number.replace("(0)", "")))
    if number.startswith("00"):
        return is_international(ascii_digits(number.replace("(0)", ""))[2:])
    if number.isdecimal() or TABLE.search(number) or is_something_else(number) or THOUSANDS.fullmatch(number):
        return False
    groups = [ascii_digits(group) for group in DIGITS.findall(number)]
    return is_national(groups, config.phone_regions)


def is_something_else(number: str) -> bool:
    """Whether a number is a date, a range of years or pages, a decimal number or an ISBN."""
    if NOT_PHONES.fullmatch(number):
        return True
    if len(number) < ISBN_DIGITS:
        return False
    from stdnum import ean

    digits = ascii_digits(number)
    # only with 13 digits: 978 and 979 are also area codes of Massachusetts and Texas
    return len(digits) == ISBN_DIGITS and digits.startswith(("978", "979")) and ean.is_valid(digits)


def ascii_digits(number: str) -> str:
    """Return only the digits of `number`; digits of other scripts become ASCII."""
    digits = NOT_DIGITS.sub("", number)
    return digits if digits.isascii() else "".join(str(int(digit)) for digit in digits)


class PhoneWords:
    """Words such as "phone" or "my number" that mark a number next to them as a phone number; case is ignored."""

    def __init__(self, words: tuple[str, ...]):
        self.words = frozenset(" ".join(TOKEN.findall(word.lower())) for word in words)

    def are_before(self, text: str, low: int, number: int) -> bool:
        """Whether one of the words is in text[low:number], with no digit between it and the number at `number`."""
        if text[low:number].isspace():  # e.g. in a row of numbers
            return False
        if low and text[low - 1].isalnum() and (rest := REST_OF_WORD.match(text, low, number)):
            low = rest.end()
        tokens = TOKEN.findall(text[low:number].lower())
        for place in range(len(tokens) - 1, -1, -1):
            if tokens[place] in self.words or " ".join(tokens[max(0, place - 1) : place + 1]) in self.words:
                return True
            if NO_WORD.search(tokens[place]):
                break
        return False

    def are_after(self, text: str, end: int) -> bool:
        """Whether one of the words directly follows the number that ends at `end`."""
        match = NEXT_WORDS.match(text, end)
        if match is None:
            return False
        first, second = match.groups()
        return first.lower() in self.words or (second is not None and f"{first} {second}".lower() in self.words)


phone_words = functools.cache(PhoneWords)
LONGEST_CALLING_CODE = 3
NUMBER_KINDS = (
    "fixed_line", "mobile", "toll_free", "premium_rate", "shared_cost", "personal_number", "voip", "pager", "uan",
    "voicemail",
)  # fmt: skip


def is_international(digits: str) -> bool:
    """Whether `digits`, beginning with a calling code such as 41, are a number of the country with that code."""
    for length in range(1, LONGEST_CALLING_CODE + 1) if digits[0] != "0" else ():
        plan = international_plan(int(digits[:length]))
        if plan is not None:  # no calling code is a prefix of another
            return plan.fullmatch(digits, length) is not None
    return False


@functools.cache
def national_plan(region: str) -> re.Pattern[str]:
    """Return a pattern that matches the digits of all numbers as dialled within a region, such as "CH".

    The trunk prefix "0" is required, as people write such numbers with it, although the library does not need it. Other
    prefixes, such as "1", are optional.
    """
    from phonenumbers import PhoneMetadata

    metadata = PhoneMetadata.metadata_for_region(region, None)
    assert metadata is not None  # PersonalDataConfig rejects unknown regions
    trunk = metadata.national_prefix or ""
    trunk = trunk if trunk in ("", "0") else f"(?:{trunk})?"
    # the plan of all regions with the calling code, which dial each other like this: Canada's includes the USA's
    plan = pattern_of(metadata.country_code or 0)
    return re.compile(rf"{trunk}(?:{plan})" if plan else r"(?!)", re.ASCII)


def is_national(groups: Sequence[str], regions: tuple[str, ...]) -> bool:
    """Whether the groups of digits are a number as dialled in one of the regions, written in the usual groups.

    These are the groups of libphonenumber's formats, including alternative ones. Two groups may be joined
    ("212-7365000"), but not split ("2127 36 5000"). This is the library's strict grouping.
    """
    digits = "".join(groups)
    return any(
        is_grouped(groups, digits, region) for region in regions if national_plan(region).fullmatch(digits) is not None
    )


def is_grouped(groups: Sequence[str], digits: str, region: str) -> bool:
    """Whether the groups are those of one of the region's formats, or several of these joined. `digits` are all groups
    joined; the trunk prefix may be a group."""
    trunk, formats = written_formats(region)
    prefix = len(trunk) if trunk and digits.startswith(trunk) else 0
    begins = set(itertools.accumulate(map(len, groups), initial=-prefix)) - {-prefix}
    for leading, pattern in formats:
        if leading.match(digits, prefix) and (match := pattern.fullmatch(digits, prefix)):
            ends = {match.end(group) - prefix for group in range(match.re.groups + 1)}
            if begins <= ends | {0}:
                return True
    return False


@functools.cache
def written_formats(region: str) -> tuple[str, list[tuple[re.Pattern[str], re.Pattern[str]]]]:
    """Return (trunk prefix such as "0", formats) of a region. A format is (pattern of the first digits of its numbers,
    pattern of a whole number with one regex group per group of digits)."""
    from phonenumbers import COUNTRY_CODE_TO_REGION_CODE, PhoneMetadata
    from phonenumbers.data import _ALT_NUMBER_FORMATS

    metadata = PhoneMetadata.metadata_for_region(region, None)
    assert metadata is not None
    code = metadata.country_code or 0
    main = COUNTRY_CODE_TO_REGION_CODE[code][0]  # regions with one calling code share its formats
    shared = PhoneMetadata.metadata_for_region(main, None)
    formats = [*metadata.number_format, *(shared.number_format if shared else ())]
    formats += _ALT_NUMBER_FORMATS.get(code, ())
    return metadata.national_prefix or "", [
        (re.compile((one.leading_digits_pattern or [""])[-1], re.ASCII), re.compile(one.pattern or "", re.ASCII))
        for one in formats
    ]


@functools.cache
def international_plan(code: int) -> re.Pattern[str] | None:
    """Return a pattern that matches the digits after a calling code; None if the code is unassigned."""
    pattern = pattern_of(code)
    return None if pattern is None else re.compile(pattern, re.ASCII)


def pattern_of(code: int) -> str | None:
    """Return a regular expression, as text, for the digits after a calling code; None if the code is unassigned. It is
    not compiled, because that takes up to 15 ms."""
    from phonenumbers import COUNTRY_CODE_TO_REGION_CODE, PhoneMetadata

    regions = COUNTRY_CODE_TO_REGION_CODE.get(code)
    if regions is None:
        return None
    tables = [
        PhoneMetadata.metadata_for_nongeo_region(code, None)
        if region == "001"  # numbers of no country, e.g. satellite phones
        else PhoneMetadata.metadata_for_region(region, None)
        for region in regions
    ]
    subscribers = [
        f"(?:{numbers.national_number_pattern})"
        for table in tables if table
        for numbers in (getattr(table, kind) for kind in NUMBER_KINDS) if numbers and numbers.national_number_pattern
    ]  # fmt: skip
    # The twenty-five countries of +1 share most patterns, and compiling one takes as long as a page.
    return "|".join(dict.fromkeys(subscribers))
