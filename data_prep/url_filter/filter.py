"""URLs that are not read at all: banned domains, pages and words, decided before the page is parsed.

The rules are those of FineWeb (arXiv:2406.17557, section 3.3; huggingface/datatrove, URLFilter), with URLs read
as a browser reads them: any case, %-escapes and international names in all their spellings. A listed domain bans all
below it, as its makers mean it. `matching` = "datatrove" reads them as datatrove does.
"""

import functools
import re
import unicodedata
from collections.abc import Callable, Iterable
from urllib.parse import unquote

from data_prep.config import UrlFilterConfig
from data_prep.url_filter.blocklist import BannedWords, Blocklist
from data_prep.url_filter.lists import load_lists, sources_of
from data_prep.urls import canonical_host, page_key, parents, split_address
from lm.errors import InputError

LATIN = "0-9a-zß-öø-ɏḀ-ỿ"  # digits and lower-case Latin letters with their marks
TOKEN = re.compile(rf"[{LATIN}]+|[^\W_{LATIN}]+")
NOT_ASCII_WORD = re.compile("[^a-zA-Z0-9]+")
HOST_END = re.compile(r"[/?#]")
IP_ADDRESS = re.compile(r"(?:\d{1,3}\.){3}\d{1,3}")
NEITHER_LETTER_NOR_DIGIT = re.compile(r"[\W_]+")
MAX_SUBSTRINGS = 10_000
PATTERN_BYTES = 1 << 28  # what the automaton of the substrings may take up


class UrlFilter:
    """A config and its lists, made ready to be asked about many URLs."""

    def __init__(self, config: UrlFilterConfig, lists: Blocklist | None):
        listed = lists.words if lists is not None else BannedWords()
        self.domains = frozenset(canonical_host(domain.removeprefix("*")) for domain in config.banned_domains)
        self.lists, self.matching = lists, config.matching
        self.words = squeezed((*config.banned_words, *listed.words))
        self.soft_words = squeezed((*config.soft_banned_words, *listed.soft_words))
        self.soft_word_threshold = config.soft_word_threshold
        self.find_substring = any_of(squeezed((*config.banned_substrings, *listed.substrings)))

    def reject_reason(self, url: str) -> str | None:
        """As `reject_reason` below."""
        return self.as_datatrove(url) if self.matching == "datatrove" else self.as_browser(url)

    def as_datatrove(self, url: str) -> str | None:
        host = written_host(url)
        domains = {host, registered_domain(host)} - {""}
        if not self.domains.isdisjoint(domains) or (self.lists and any(one in self.lists for one in domains)):
            return "banned_domain"
        tokens = set(NOT_ASCII_WORD.split(url))
        if not tokens.isdisjoint(self.words):
            return "banned_word"
        if self.soft_word_threshold is not None and len(tokens & self.soft_words) >= self.soft_word_threshold:
            return "soft_banned_words"
        if self.find_substring is not None and self.find_substring(NOT_ASCII_WORD.sub("", url).lower()):
            return "banned_substring"
        return None

    def as_browser(self, url: str) -> str | None:
        if not url.isascii():
            url = url.encode(errors="replace").decode()  # half a surrogate pair is no text
        host, rest = split_address(url)
        domains = parents(host) if host else []
        if not self.domains.isdisjoint(domains):
            return "banned_domain"
        if self.lists is not None and host:
            if any(domain in self.lists for domain in domains):
                return "banned_domain"
            if page_key(host, rest) in self.lists:
                return "banned_url"
        text = plain(url)
        tokens = set(TOKEN.findall(text))
        if not tokens.isdisjoint(self.words):
            return "banned_word"
        if self.soft_word_threshold is not None and len(tokens & self.soft_words) >= self.soft_word_threshold:
            return "soft_banned_words"
        if self.find_substring is not None and self.find_substring(squeeze(text)):
            return "banned_substring"
        return None


def written_host(url: str) -> str:
    """The host of `url` in its own letters, as datatrove's library reads it; "" for an IP address."""
    after = url.partition("//")[2] if "//" in url else url
    host = HOST_END.split(after, maxsplit=1)[0].rpartition("@")[2]
    host = host.partition(":")[0].strip().rstrip(".\u3002\uff0e\uff61")
    return "" if IP_ADDRESS.fullmatch(host) or host.startswith("[") else host


def registered_domain(host: str) -> str:
    """The part of `host` that someone registered: the public suffix (publicsuffix.org, without the suffixes that
    companies give) and one name more; "" where there is none."""
    from tld import get_tld

    found = get_tld(host, fail_silently=True, as_object=True, fix_protocol=True, search_private=False) if host else None
    return host[-len(found.fld) :] if found and not isinstance(found, str) else ""


def plain(url: str) -> str:
    """`url` with %-escapes decoded, in lower case, letters of other widths and the like in their usual form (NFKC)."""
    decoded = unquote(url)
    return (decoded if decoded.isascii() else unicodedata.normalize("NFKC", decoded)).lower()


def squeeze(text: str) -> str:
    """The letters and digits alone."""
    return NEITHER_LETTER_NOR_DIGIT.sub("", text)


def squeezed(words: Iterable[str]) -> frozenset[str]:
    """Listed words in the form in which they are looked for."""
    return frozenset(squeeze(plain(word)) for word in words) - {""}


def any_of(substrings: frozenset[str]):
    """A function that finds one of `substrings` in a text, in time linear in the text; None where there are none.

    Raises InputError for more than its automaton can hold.
    """
    if not substrings:
        return None
    if len(substrings) > MAX_SUBSTRINGS:
        raise InputError(
            f"documents.url_filter: there are {len(substrings):,} banned substrings, of which at most "
            f"{MAX_SUBSTRINGS:,} can be looked for. Move whole words to the banned words."
        )
    import re2

    options = re2.Options()
    options.max_mem = PATTERN_BYTES
    return re2.compile("|".join(sorted(substrings)), options).search


def prepare_lists(config: UrlFilterConfig, progress: Callable[[str], None] = print) -> list[str]:
    """Fetch and compile the lists of `config` unless that was done; call it once, before workers need them.

    Returns the files that they come from, each as sha256sum writes it: with the config, all that decides a verdict.
    Raises as `load_lists`.
    """
    load_lists(config, progress)
    return sources_of(config)


@functools.lru_cache(maxsize=8)
def filter_of(config: UrlFilterConfig) -> UrlFilter:
    """The filter of `config`, made once a process."""
    return UrlFilter(config, load_lists(config))


def reject_reason(url: str, config: UrlFilterConfig) -> str | None:
    """Why the page at `url` is not read, or None: the first of these that holds.

    - banned_domain: the host or a domain above it is banned;
    - banned_url: the page is, by its host, path and query;
    - banned_word: a token of the URL is: a run of Latin letters and digits, or of other letters (so that "sex"
      bans neither sussex.ac.uk nor, split at a letter with a mark, "anal" the Czech analýza);
    - soft_banned_words: as many different tokens as the threshold says are soft words;
    - banned_substring: one is in the URL without all but letters and digits.

    The lists are read once a process. Raises as `prepare_lists`.
    """
    return filter_of(config).reject_reason(url)
