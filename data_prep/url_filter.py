"""Addresses that are not read at all: banned domains and banned words, decided before the page is parsed.

FineWeb (arXiv:2406.17557, section 3.1) filters by lists of the same two kinds.
"""

import re
from urllib.parse import urlsplit

from data_prep.config import UrlFilterConfig

BETWEEN_TOKENS = re.compile(r"[\W_]+")


def host_of(url: str) -> str:
    """The lower-cased host of `url` without user, port or final dot; "" where there is none."""
    try:
        return (urlsplit(url).hostname or "").rstrip(".")
    except ValueError:  # for example an IPv6 address that is never closed
        return ""


def reject_reason(url: str, config: UrlFilterConfig) -> str | None:
    """ "banned_domain" where the host or a parent of it is banned, "banned_word" where a token of the address is.

    A token is a run of letters and digits, so that "sex" does not ban sussex.ac.uk.
    """
    url = url.lower()
    labels = host_of(url).split(".")
    if any(".".join(labels[start:]) in config.domain_set for start in range(len(labels))):
        return "banned_domain"
    if not config.word_set.isdisjoint(BETWEEN_TOKENS.split(url)):
        return "banned_word"
    return None
