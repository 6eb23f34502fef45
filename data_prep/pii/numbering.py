"""The numbering plans of the world, from libphonenumber's tables, as patterns over digits.

The tables are those of the package phonenumbers; its parser is not used, as it takes 16 µs a number and region: a page
of numbers would cost more than everything else. A test compares what a plan and the library call valid.
"""

import functools
import itertools
import re
from collections.abc import Sequence

LONGEST_CALLING_CODE = 3
KINDS = (
    "fixed_line", "mobile", "toll_free", "premium_rate", "shared_cost", "personal_number", "voip", "pager", "uan",
    "voicemail",
)  # fmt: skip


def is_international(digits: str, leniency: str) -> bool:
    """Whether `digits`, calling code first, are a number of some country."""
    for length in range(1, LONGEST_CALLING_CODE + 1) if digits[0] != "0" else ():
        plan = international_plan(int(digits[:length]), leniency)
        if plan is not None:  # no calling code begins another
            return plan.fullmatch(digits, length) is not None
    return False


@functools.cache
def national_plan(region: str, leniency: str) -> re.Pattern[str]:
    """Matches the numbers as they are dialled inside the region.

    A trunk prefix "0" must be there, as it is where people write such numbers; the library does without. "1" may lack.
    """
    from phonenumbers import PhoneMetadata

    metadata = PhoneMetadata.metadata_for_region(region, None)
    assert metadata is not None  # PersonalDataConfig has refused it
    trunk = metadata.national_prefix or ""
    trunk = trunk if trunk in ("", "0") else f"(?:{trunk})?"
    # the plan of all who share the calling code, for they dial one another so: Canada's numbers are the USA's
    plan = pattern_of(metadata.country_code or 0, leniency)
    return re.compile(rf"{trunk}(?:{plan})" if plan else r"(?!)", re.ASCII)


def is_national(groups: Sequence[str], regions: tuple[str, ...], leniency: str) -> bool:
    """Whether the groups of digits are a number as it is dialled in one of the regions, and no group is torn.

    Numbers are written in the groups of libphonenumber's formats, its alternative ones among them; two may be written
    as one ("212-7365000"), but not "2127 36 5000". This is the library's strict grouping.
    """
    digits = "".join(groups)
    return any(
        leniency == "possible" or is_grouped(groups, digits, region)
        for region in regions
        if national_plan(region, leniency).fullmatch(digits) is not None
    )


def is_grouped(groups: Sequence[str], digits: str, region: str) -> bool:
    """Whether the groups begin only where one of a format of the region does; the trunk prefix may stand alone."""
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
    """The trunk prefix, and for each format how a number begins and its groups."""
    from phonenumbers import COUNTRY_CODE_TO_REGION_CODE, PhoneMetadata
    from phonenumbers.data import _ALT_NUMBER_FORMATS

    metadata = PhoneMetadata.metadata_for_region(region, None)
    assert metadata is not None
    code = metadata.country_code or 0
    main = COUNTRY_CODE_TO_REGION_CODE[code][0]  # countries of one calling code share its formats
    shared = PhoneMetadata.metadata_for_region(main, None)
    formats = [*metadata.number_format, *(shared.number_format if shared else ())]
    formats += _ALT_NUMBER_FORMATS.get(code, ())
    return metadata.national_prefix or "", [
        (re.compile((one.leading_digits_pattern or [""])[-1], re.ASCII), re.compile(one.pattern or "", re.ASCII))
        for one in formats
    ]


@functools.cache
def international_plan(code: int, leniency: str) -> re.Pattern[str] | None:
    """Matches what may follow a calling code; None for a code that is nobody's."""
    pattern = pattern_of(code, leniency)
    return None if pattern is None else re.compile(pattern, re.ASCII)


def pattern_of(code: int, leniency: str) -> str | None:
    """Of `international_plan`. It is compiled only where it is asked for by itself: one costs up to 15 ms."""
    from phonenumbers import COUNTRY_CODE_TO_REGION_CODE, PhoneMetadata

    regions = COUNTRY_CODE_TO_REGION_CODE.get(code)
    if regions is None:
        return None
    tables = [
        PhoneMetadata.metadata_for_nongeo_region(code, None)
        if region == "001"  # satellite telephones and the like, which belong to no country
        else PhoneMetadata.metadata_for_region(region, None)
        for region in regions
    ]
    # The twenty-five countries of +1 share most of theirs, and to compile one takes as long as a page.
    return "|".join(dict.fromkeys(one for table in tables if table for one in subscribers(table, leniency)))


def subscribers(metadata, leniency: str) -> list[str]:
    """Patterns for the national numbers of one region, without calling code and trunk prefix."""
    if leniency == "possible":
        return [rf"\d{{{length}}}" for length in metadata.general_desc.possible_length]
    descriptions = [getattr(metadata, kind) for kind in KINDS]
    return [f"(?:{d.national_number_pattern})" for d in descriptions if d and d.national_number_pattern]
