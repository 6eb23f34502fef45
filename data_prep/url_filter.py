"""Addresses that are not read at all: banned domains and banned words, decided before the page is parsed.

FineWeb (arXiv:2406.17557, section 3.1) filters by lists of the same two kinds.
"""

import re
from urllib.parse import unquote, urlsplit

from data_prep.config import UrlFilterConfig

BETWEEN_TOKENS = re.compile(r"[\W_]+")


def host_of(url: str) -> str:
    """The lower-cased host of `url` without user, port or final dot, as a browser reads it; "" where there is none.

    A browser takes backslashes for slashes, and %2e in a host for a dot.
    """
    try:
        return unquote(urlsplit(url.replace("\\", "/")).hostname or "").lower().rstrip(".")
    except ValueError:  # for example an IPv6 address that is never closed
        return ""


def spellings(host: str) -> set[str]:
    """`host`, and the same in letters and in punycode where it is an internationalised one (IDNA 2003, RFC 3490)."""
    try:
        ascii_host = host.encode("idna")
        return {host, ascii_host.decode(), ascii_host.decode("idna")}
    except UnicodeError:  # no valid host name
        return {host}


def reject_reason(url: str, config: UrlFilterConfig) -> str | None:
    """ "banned_domain" where the host or a parent of it is banned, "banned_word" where a token of the address is.

    A token is a run of letters and digits, so that "sex" does not ban sussex.ac.uk.
    """
    for host in spellings(host_of(url)) if config.domain_set else ():
        labels = host.split(".")
        if any(".".join(labels[start:]) in config.domain_set for start in range(len(labels))):
            return "banned_domain"
    if not config.word_set.isdisjoint(BETWEEN_TOKENS.split(unquote(url).lower())):
        return "banned_word"
    return None
