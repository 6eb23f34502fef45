"""Read the dates that tables have: ISO 8601, Unix times, and the forms of HTTP, web archives and databases."""

import re
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

NUMBER = re.compile(r"[+-]?\d+(?:\.\d*)?(?:[eE]\+?\d+)?", re.ASCII)
COMPACT = {4: "%Y", 6: "%Y%m", 8: "%Y%m%d", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}
"""{number of digits: format} of dates without separators: a year, ..., a web archive's timestamp."""
YEARS = range(1900, 2101)
"""Years of COMPACT dates. Other numbers of as many digits are Unix times or no dates."""
FIRST_TIME, LAST_TIME = 10**8, 4 * 10**9
"""Unix times in seconds, from 1973 to 2096. Smaller numbers are counts, scores or markers such as 0 and -1."""
MOST_CHARACTERS = 64
"""Maximum length of a date."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def read_date(text: str) -> datetime | None:
    """Parse a date, UTC by default; None if it is no date. Supported: ISO 8601 (also only a year or month), Unix times
    in seconds, milliseconds, microseconds or nanoseconds, "20240131235959" (also without its seconds), "Wed, 31 Jan
    2024 23:59:59 GMT", and "2024-01-31 23:59:59 UTC"."""
    if len(text) > MOST_CHARACTERS:
        return None
    if NUMBER.fullmatch(text):
        return date_of_number(text)
    text = text.removesuffix(" UTC")
    if re.fullmatch(r"\d{4}-\d\d", text):
        text += "-01"
    for parse in (datetime.fromisoformat, parsedate_to_datetime):
        try:
            found = parse(text)
            return found.replace(tzinfo=found.tzinfo or UTC)
        except (ValueError, TypeError, IndexError, OverflowError):
            continue
    return None


def date_of_number(text: str) -> datetime | None:
    if (form := COMPACT.get(len(text))) and text.isdecimal() and int(text[:4]) in YEARS:
        try:
            return datetime.strptime(text, form).replace(tzinfo=UTC)
        except ValueError:
            pass
    value = int(text) if text.isdecimal() else float(text)
    for per_second in (1, 10**3, 10**6, 10**9):
        if FIRST_TIME * per_second <= value < LAST_TIME * per_second:
            whole, part = divmod(value, per_second)
            return EPOCH + timedelta(seconds=int(whole), microseconds=round(part * 10**6 / per_second))
    return None


def iso_of(moment: datetime) -> str:
    """Format a moment as ISO 8601 in UTC, which is also the time zone of one without: "2024-01-31T23:59:59Z"."""
    return moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC).isoformat().replace("+00:00", "Z")
