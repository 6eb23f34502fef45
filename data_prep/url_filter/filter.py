"""Reject pages by URL (banned domains, pages and words) before they are parsed.

The rules are those of FineWeb (arXiv:2406.17557, section 3.3; huggingface/datatrove, URLFilter), but URLs are read as
browsers read them: any case, %-escapes and international names in all spellings. A listed domain bans all its
subdomains, as the lists intend. `matching` = "datatrove" reads URLs as datatrove does.
"""

import functools
import re
import unicodedata
from collections.abc import Callable, Iterable
from urllib.parse import unquote

from data_prep.config import UrlFilterConfig
from data_prep.url_filter.lists import BannedWords, Blocklist, load_lists, sources_of
from data_prep.urls import canonical_host, page_key, parents, split_address
from lm.errors import InputError

LATIN = "0-9a-zß-öø-ɏḀ-ỿ"  # digits and lower-case Latin letters, including accented ones
TOKEN = re.compile(rf"[{LATIN}]+|[^\W_{LATIN}]+")
NOT_ASCII_WORD = re.compile("[^a-zA-Z0-9]+")
HOST_END = re.compile(r"[/?#]")
IP_ADDRESS = re.compile(r"(?:\d{1,3}\.){3}\d{1,3}")
NEITHER_LETTER_NOR_DIGIT = re.compile(r"[\W_]+")
MAX_SUBSTRINGS = 10_000
PATTERN_BYTES = 1 << 28  # maximum memory of the automaton of the substrings


class UrlFilter:
    """The rules of a config and its compiled lists, prepared to check many URLs."""

    def __init__(self, config: UrlFilterConfig, lists: Blocklist | None):
        listed = lists.words if lists is not None else BannedWords()
        self.domains = frozenset(canonical_host(domain.removeprefix("*")) for domain in config.banned_domains)
        self.lists, self.matching = lists, config.matching
        self.words = squeezed((*config.banned_words, *listed.words))
        self.soft_words = squeezed((*config.soft_banned_words, *listed.soft_words))
        self.soft_word_threshold = config.soft_word_threshold
        self.find_substring = any_of(squeezed((*config.banned_substrings, *listed.substrings)))

    def reject_reason(self, url: str) -> str | None:
        """Return why the page at `url` is rejected, or None: see the function `reject_reason`."""
        if self.matching == "datatrove":
            host, page = written_host(url), None
            domains = [domain for domain in (host, registered_domain(host)) if domain]
            tokens, letters = set(NOT_ASCII_WORD.split(url)), NOT_ASCII_WORD.sub("", url).lower()
        else:
            if not url.isascii():
                url = url.encode(errors="replace").decode()  # a lone surrogate cannot be encoded
            host, rest = split_address(url)
            domains, page = (parents(host), page_key(host, rest)) if host else ([], None)
            text = plain(url)
            tokens, letters = set(TOKEN.findall(text)), squeeze(text)
        if not self.domains.isdisjoint(domains):
            return "banned_domain"
        if self.lists is not None:
            if any(domain in self.lists for domain in domains):
                return "banned_domain"
            if page is not None and page in self.lists:
                return "banned_url"
        if not tokens.isdisjoint(self.words):
            return "banned_word"
        if self.soft_word_threshold is not None and len(tokens & self.soft_words) >= self.soft_word_threshold:
            return "soft_banned_words"
        if self.find_substring is not None and self.find_substring(letters):
            return "banned_substring"
        return None


def written_host(url: str) -> str:
    """Return the host of `url` as written, as datatrove's library tld does; "" for an IP address."""
    after = url.partition("//")[2] if "//" in url else url
    host = HOST_END.split(after, maxsplit=1)[0].rpartition("@")[2]
    host = host.partition(":")[0].strip().rstrip(".\u3002\uff0e\uff61")
    return "" if IP_ADDRESS.fullmatch(host) or host.startswith("[") else host


def registered_domain(host: str) -> str:
    """Return the registered domain of `host`, such as bbc.co.uk of news.bbc.co.uk: one label and the public suffix
    (publicsuffix.org, without private suffixes); "" if there is none."""
    from tld import get_tld

    found = get_tld(host, fail_silently=True, as_object=True, fix_protocol=True, search_private=False) if host else None
    return host[-len(found.fld) :] if found and not isinstance(found, str) else ""


def plain(url: str) -> str:
    """Return `url` with %-escapes decoded, lower-cased, and with full-width and similar letters replaced (NFKC)."""
    decoded = unquote(url)
    return (decoded if decoded.isascii() else unicodedata.normalize("NFKC", decoded)).lower()


def squeeze(text: str) -> str:
    """Return the letters and digits of `text`, without all other characters."""
    return NEITHER_LETTER_NOR_DIGIT.sub("", text)


def squeezed(words: Iterable[str]) -> frozenset[str]:
    """Return listed words in the form in which they are compared with URLs: only letters and digits, in lower case."""
    return frozenset(squeeze(plain(word)) for word in words) - {""}


def any_of(substrings: frozenset[str]):
    """Return a function that searches a text for any of `substrings`, in time linear in the text; None if there are
    none. Raises InputError if there are more than MAX_SUBSTRINGS."""
    if not substrings:
        return None
    if len(substrings) > MAX_SUBSTRINGS:
        raise InputError(
            f"documents.url_filter: there are {len(substrings):,} banned substrings; the limit is {MAX_SUBSTRINGS:,}. "
            "Move whole words to the banned words."
        )
    import re2

    options = re2.Options()
    options.max_mem = PATTERN_BYTES
    return re2.compile("|".join(sorted(substrings)), options).search


def prepare_lists(config: UrlFilterConfig, progress: Callable[[str], None] = print) -> list[str]:
    """Download and compile the lists of `config`, unless they are in the cache. Call this before workers need them.

    Returns a line "SHA-256 NAME" for each source file; with the config, these determine which pages are rejected.
    Raises like `load_lists`.
    """
    load_lists(config, progress)
    return sources_of(config)


@functools.lru_cache(maxsize=8)
def filter_of(config: UrlFilterConfig) -> UrlFilter:
    """Return the UrlFilter of `config`, which is created once per process."""
    return UrlFilter(config, load_lists(config))


def reject_reason(url: str, config: UrlFilterConfig) -> str | None:
    """Return why the page at `url` is rejected, the first of these reasons that applies, or None.

        banned_domain: the host or a domain above it is banned
        banned_url: the page is banned, by its host, path and query
        banned_word: a token of the URL is banned. Tokens are runs of Latin letters and digits, or of other letters,
            so "sex" does not ban sussex.ac.uk, and "anal" does not ban the Czech analýza
        soft_banned_words: at least soft_word_threshold different tokens are soft words
        banned_substring: a banned substring is in the URL reduced to letters and digits

    The lists are read once per process. Raises like `prepare_lists`.
    """
    return filter_of(config).reject_reason(url)
