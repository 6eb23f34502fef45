"""E-mail addresses as datatrove finds them: only ASCII, with all marks of RFC 5322 in the local part.

From each "@", the domain is matched to the right and the local part to the left, so time is linear; datatrove's
pattern, which starts with the local part, takes quadratic time.
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
    """The "@" and the domain."""
    backwards: re.Pattern[str]
    """The local part, matched backwards from the "@", without consecutive periods."""
    begin: re.Pattern[str]
    """Possible start of a local part: at a word boundary."""


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
    """Yield the spans of the e-mail addresses in `text`."""
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
