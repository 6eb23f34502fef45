"""Keys for deduplication (clusters.py): 16-byte BLAKE2b hashes of texts and URLs, keyed by the scope."""

import hashlib
from collections.abc import Mapping

from data_prep.config import DocumentsConfig, UrlDedupConfig
from data_prep.dedup.clusters import UNKNOWN_DATE, Node, make_node
from data_prep.urls import same_page_key


def scope_of(row: Mapping[str, str], config: DocumentsConfig) -> str:
    """Return the scope in which a document is compared: its dump ("" if dumps are compared with each other) and, with
    minhash.by_language, its language."""
    dump = dump_of(row, config)
    script = f"_{row['language_script']}" if config.language.labelled else ""
    return f"{dump}\0{row['language']}{script}" if config.minhash.by_language else dump


def dump_of(row: Mapping[str, str], config: DocumentsConfig) -> str:
    """Return the scope of URLs: the dump, or "" if dumps are compared with each other. It has no language, since a URL
    is one page."""
    return "" if config.across_dumps else row["dump"]


def index_scope_of(row: Mapping[str, str], config: DocumentsConfig) -> str:
    """Return the scope of keys of an index (data_prep/dedup_index), which is independent of the dump."""
    return f"\0{row['language']}" if config.minhash.by_language else ""


def salt_of(scope: str) -> bytes:
    return hashlib.blake2b(scope.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def key_of(text: str, scope: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16, key=salt_of(scope)).digest()


def text_key(text: str, scope: str) -> bytes:
    """Hash the words of `text`, joined by single spaces. Texts that differ only in white space have the same key."""
    return key_of(" ".join(text.split()), scope)


def url_key(url: str, scope: str, config: UrlDedupConfig) -> bytes | None:
    """Hash the page's URL after normalization by `same_page_key`; None if it has no host."""
    spelled = same_page_key(url, config.ignored_parameters)
    return None if spelled is None else key_of(spelled, scope)


def url_node(date: str, document_id: str, file: int, row: int, config: UrlDedupConfig) -> Node:
    """Return the node of a document for URL deduplication. The smallest node of a URL is kept, which is the first or
    the latest according to config.keep; invalid dates come last."""
    order, place = make_node(date, document_id, file, row)
    seconds = order >> 32
    if config.keep == "latest" and seconds != UNKNOWN_DATE:
        order = UNKNOWN_DATE - 1 - seconds << 32 | order & UNKNOWN_DATE
    return order, place
