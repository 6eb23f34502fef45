"""E-mail addresses, international (RFC 5321, RFC 6531) or only ASCII as datatrove finds them.

From each "@", the domain is matched to the right and the local part to the left, so time is linear in the text
(datatrove's pattern, which starts with the local part, takes quadratic time). Not found among international ones:
quoted local parts, the marks !#$*/=?^`{|}~ (in texts they are next to addresses, not in them), and spelled-out
addresses ("name at example dot com").
"""

import functools
import re
from collections.abc import Iterator

from data_prep.config import PersonalDataConfig
from data_prep.pii.places import Span

# Marks that are parts of words but not in \w: combining accents, vowel signs of Arabic, Indic scripts, Thai.
MARKS = "\u0300-\u036f\u064b-\u065f\u0900-\u0963\u0966-\u0dff\u0e31-\u0e4e"
# Zero-width characters and the soft hyphen, which web pages insert into long words.
INVISIBLE = "\u00ad\u200b-\u200d\u2060\ufeff"
UNSPACED = "\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
"""Scripts without a space between a word and an address: Thai, Japanese, Chinese; Korean particles."""

LABEL = rf"[^\W_][\w{MARKS}{INVISIBLE}-]{{0,62}}+(?<!-)"
# In scripts without spaces, text may directly follow ".de"; in others, another letter makes it a different domain.
TOP = (
    rf"(?:xn--[A-Za-z0-9-]{{1,59}}|[A-Za-z]{{2,63}}+(?![\u00c0-\u052f])|(?:[^\W\d_]|[{MARKS}]){{2,63}}+)(?!{{}})"
).replace("(?!{})", "")
DOMAIN = re.compile(rf"@[{INVISIBLE}]?(?:{LABEL}\.){{1,16}}({TOP})")
# Matched backwards from the "@". It has no consecutive periods, so an address after a dotted line is found without it.
LOCAL_LENGTH = 64
ATOM = rf"[\w{MARKS}{INVISIBLE}%+'’&-]{{1,{LOCAL_LENGTH}}}+"
LOCAL_BACKWARDS = re.compile(rf"{ATOM}(?:\.{ATOM}){{0,{LOCAL_LENGTH}}}+")
LOCAL_AFTER_TEXT = re.compile(rf"(?<=[{UNSPACED}])[A-Za-z0-9][!-~]*\Z")
IMAGES = frozenset({"gif", "jpeg", "jpg", "png", "svg", "webp"})
"""Endings that are not top-level domains but common in file names such as "logo@2x.png"."""


def find(text: str) -> Iterator[Span]:
    """Yield the spans of the e-mail addresses in `text`, including international ones."""
    end = 0
    for domain in DOMAIN.finditer(text):
        at = domain.start()
        local = LOCAL_BACKWARDS.match(text[max(end, at - LOCAL_LENGTH) : at][::-1])
        if local is None or domain[1].lower() in IMAGES:
            continue
        name = local[0][::-1].lstrip(f".%+'’&-{INVISIBLE}")
        if not name.isascii() and (alone := LOCAL_AFTER_TEXT.search(name)):
            name = alone[0]
        if name:
            end = domain.end()
            yield at - len(name), end


ASCII_MARKS = "!#$%&'*+/=?^_`{|}~-"


@functools.cache
def ascii_patterns(emails: str) -> tuple[re.Pattern[str], ...]:
    """Return the patterns of (the "@" and the domain, the local part, a possible start of a local part: at a word
    boundary). The local part is matched in the reversed text before the "@"; it has no consecutive periods."""
    letters = "a-z0-9" if emails == "lower_case" else "A-Za-z0-9"
    label = rf"[{letters}](?:[{letters}-]*[{letters}])?"
    octet = "(?:25[0-5]|2[0-4][0-9]|[01]?[0-9][0-9]?)"
    atom = rf"[{letters}{re.escape(ASCII_MARKS)}]"
    whole = re.compile(rf"@(?:(?:{label}\.)+{label}|\[(?:{octet}\.){{3}}{octet}\])")
    return whole, re.compile(rf"{atom}+(?:\.{atom}+)*"), re.compile(rf"\b{atom}")


def find_ascii(text: str, config: PersonalDataConfig) -> Iterator[Span]:
    """Yield the spans of the e-mail addresses that datatrove finds: only ASCII, with the letters of config.emails."""
    domain_of, backwards, begin_of = ascii_patterns(config.emails)
    end = 0
    for domain in domain_of.finditer(text):
        at = domain.start()
        before = text.rfind("@", 0, at) + 1
        name = backwards.match(text[max(end, before) : at][::-1])
        begin = begin_of.search(text, at - name.end(), at) if name else None
        if begin:
            end = domain.end()
            yield begin.start(), end
