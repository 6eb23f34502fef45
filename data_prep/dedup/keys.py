"""Keys for deduplication (clusters.py): 16-byte BLAKE2b hashes of texts and URLs, keyed by the scope."""

import hashlib
from collections.abc import Mapping

from data_prep.config import DocumentsConfig, UrlDedupConfig
from data_prep.dedup.clusters import UNKNOWN_DATE, Node, make_node
from data_prep.urls import same_page_key

KINDS = ("url", "exact", "near")
"""Kinds of keys: of URLs, of whole texts, and of bands of MinHash signatures."""
KINDS_OF = {"url_dedup": ("url",), "exact_dedup": ("exact",), "minhash_dedup": ("exact", "near")}
"""Kinds of keys that each deduplication step uses. minhash_dedup also uses exact keys, for texts too short for it."""


def scope_of(row: Mapping[str, str], config: DocumentsConfig) -> str:
    """Return the scope of a document; only documents of the same scope are compared. It is the dump (crawl), or "" with
    documents.across_dumps; with minhash.by_language, also the language."""
    dump = dump_of(row, config)
    script = f"_{row['language_script']}" if config.language.labelled else ""
    return f"{dump}\0{row['language']}{script}" if config.minhash.by_language else dump


def dump_of(row: Mapping[str, str], config: DocumentsConfig) -> str:
    """Return the scope in which URLs are compared: the dump, or "" with documents.across_dumps. The language is not
    part of it, since a URL is one page."""
    return "" if config.across_dumps else row["dump"]


def salt_of(scope: str) -> bytes:
    return hashlib.blake2b(scope.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def key_of(text: str, scope: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16, key=salt_of(scope)).digest()


def text_key(text: str, scope: str) -> bytes:
    """Return the key of a text: a hash of scope and words. Texts that differ only in white space have the same key."""
    return key_of(" ".join(text.split()), scope)


def url_key(url: str, scope: str, config: UrlDedupConfig) -> bytes | None:
    """Return the key of a page: a hash of its URL as normalized by `same_page_key`; None if the URL has no host."""
    spelled = same_page_key(url, config.ignored_parameters)
    return None if spelled is None else key_of(spelled, scope)


def url_node(date: str, document_id: str, file: int, row: int, config: UrlDedupConfig) -> Node:
    """Return the node of a document for URL deduplication: two integers that order the documents with the same URL. The
    smallest is kept, which is the first or the latest according to config.keep; invalid dates come last."""
    order, place = make_node(date, document_id, file, row)
    seconds = order >> 32
    if config.keep == "latest" and seconds != UNKNOWN_DATE:
        order = UNKNOWN_DATE - 1 - seconds << 32 | order & UNKNOWN_DATE
    return order, place
