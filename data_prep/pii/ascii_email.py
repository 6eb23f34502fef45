"""E-mail addresses as datatrove finds them: ASCII alone, any mark of RFC 5322 in the name before the "@".

From each "@" the domain is matched to the right and the name to the left, so time is linear; datatrove's own pattern,
which begins at the name, takes quadratic time.
"""

import functools
import re
from collections.abc import Iterator
from typing import NamedTuple

from data_prep.config import PersonalDataConfig
from data_prep.pii.places import Span

MARKS = "!#$%&'*+/=?^_`{|}~-"


class Patterns(NamedTuple):
    domain: re.Pattern[str]
    """The "@" and what follows."""
    backwards: re.Pattern[str]
    """The name, read from the "@" to the left: no two points in a row."""
    begin: re.Pattern[str]
    """Where a name may begin: at the border of a word."""


@functools.cache
def patterns(emails: str) -> Patterns:
    letters = "a-z0-9" if emails == "lower_case" else "A-Za-z0-9"
    label = rf"[{letters}](?:[{letters}-]*[{letters}])?"
    octet = "(?:25[0-5]|2[0-4][0-9]|[01]?[0-9][0-9]?)"
    atom = rf"[{letters}{re.escape(MARKS)}]"
    return Patterns(
        re.compile(rf"@(?:(?:{label}\.)+{label}|\[(?:{octet}\.){{3}}{octet}\])"),
        re.compile(rf"{atom}+(?:\.{atom}+)*"),
        re.compile(rf"\b{atom}"),
    )


def find(text: str, config: PersonalDataConfig) -> Iterator[Span]:
    """The places of the e-mail addresses in `text`."""
    domain_of, backwards, begin_of = patterns(config.emails)
    end = 0
    for domain in domain_of.finditer(text):
        at = domain.start()
        before = text.rfind("@", 0, at) + 1
        name = backwards.match(text[max(end, before) : at][::-1])
        begin = begin_of.search(text, at - name.end(), at) if name else None
        if begin:
            end = domain.end()
            yield begin.start(), end
