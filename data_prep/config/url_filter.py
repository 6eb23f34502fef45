"""Knobs of the URL filter."""

import functools
from dataclasses import dataclass

from lm.fields import Config


@dataclass(frozen=True)
class UrlFilterConfig(Config):
    """Addresses that are not read at all."""

    banned_domains: tuple[str, ...]
    """Registered domains or hosts; their subdomains are banned too."""
    banned_words: tuple[str, ...]
    """Words that must not stand as a token of the lower-cased address."""

    @functools.cached_property
    def domain_set(self) -> frozenset[str]:
        """The banned domains, lower-cased, to look up in."""
        return frozenset(domain.lower() for domain in self.banned_domains)

    @functools.cached_property
    def word_set(self) -> frozenset[str]:
        """The banned words, lower-cased, to look up in."""
        return frozenset(word.lower() for word in self.banned_words)
