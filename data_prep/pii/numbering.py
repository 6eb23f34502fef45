"""The world's telephone numbering plans, from libphonenumber's tables, as patterns over digits.

The tables are in the package phonenumbers. Its parser is not used: it takes 16 µs per number and region, so a page of
numbers would take longer than all other steps. A test compares these plans with the library.
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
    """Whether `digits`, which begin with a calling code, are a number of some country."""
    for length in range(1, LONGEST_CALLING_CODE + 1) if digits[0] != "0" else ():
        plan = international_plan(int(digits[:length]), leniency)
        if plan is not None:  # no calling code is a prefix of another
            return plan.fullmatch(digits, length) is not None
    return False


@functools.cache
def national_plan(region: str, leniency: str) -> re.Pattern[str]:
    """Return a pattern of the numbers as dialled within the region.

    The trunk prefix "0" is required, as people write such numbers with it, although the library does not need it. The
    prefix "1" is optional.
    """
    from phonenumbers import PhoneMetadata

    metadata = PhoneMetadata.metadata_for_region(region, None)
    assert metadata is not None  # PersonalDataConfig rejects unknown regions
    trunk = metadata.national_prefix or ""
    trunk = trunk if trunk in ("", "0") else f"(?:{trunk})?"
    # the plan of all regions with the calling code, which dial each other like this: Canada's includes the USA's
    plan = pattern_of(metadata.country_code or 0, leniency)
    return re.compile(rf"{trunk}(?:{plan})" if plan else r"(?!)", re.ASCII)


def is_national(groups: Sequence[str], regions: tuple[str, ...], leniency: str) -> bool:
    """Whether the groups of digits are a number as dialled in one of the regions, written in groups of a known format.

    Numbers are written in the groups of libphonenumber's formats, including alternative ones. Two groups may be joined
    ("212-7365000"), but not split ("2127 36 5000"). This is the library's strict grouping.
    """
    digits = "".join(groups)
    return any(
        leniency == "possible" or is_grouped(groups, digits, region)
        for region in regions
        if national_plan(region, leniency).fullmatch(digits) is not None
    )


def is_grouped(groups: Sequence[str], digits: str, region: str) -> bool:
    """Whether every group begins where a group of one of the region's formats begins; the trunk prefix may be
    separate."""
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
    """Return (trunk prefix, [(leading digits, groups)]) of the formats of the region."""
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
def international_plan(code: int, leniency: str) -> re.Pattern[str] | None:
    """Return a pattern of the numbers after a calling code; None for an unassigned code."""
    pattern = pattern_of(code, leniency)
    return None if pattern is None else re.compile(pattern, re.ASCII)


def pattern_of(code: int, leniency: str) -> str | None:
    """Return the pattern of `international_plan` as text. Compiled only on demand, because that takes up to 15 ms."""
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
    # The twenty-five countries of +1 share most patterns, and compiling one takes as long as a page.
    return "|".join(dict.fromkeys(one for table in tables if table for one in subscribers(table, leniency)))


def subscribers(metadata, leniency: str) -> list[str]:
    """Return patterns of the national numbers of one region, without calling code and trunk prefix."""
    if leniency == "possible":
        return [rf"\d{{{length}}}" for length in metadata.general_desc.possible_length]
    descriptions = [getattr(metadata, kind) for kind in KINDS]
    return [f"(?:{d.national_number_pattern})" for d in descriptions if d and d.national_number_pattern]
