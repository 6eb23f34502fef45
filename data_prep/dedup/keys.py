"""Keys by which duplicates meet (clusters.py), 16 bytes of BLAKE2b: of texts and addresses. The scope is part of
each."""

import hashlib
from collections.abc import Mapping

from data_prep.config import DocumentsConfig, UrlDedupConfig
from data_prep.dedup.clusters import UNKNOWN_DATE, Node, make_node
from data_prep.urls import same_page_key


def scope_of(row: Mapping[str, str], config: DocumentsConfig) -> str:
    """The dump of a document, "" if duplicates are looked for across dumps; and its language, if by language."""
    dump = dump_of(row, config)
    script = f"_{row['language_script']}" if config.language.labelled else ""
    return f"{dump}\0{row['language']}{script}" if config.minhash.by_language else dump


def dump_of(row: Mapping[str, str], config: DocumentsConfig) -> str:
    """The scope of addresses: a page has one, whatever its language."""
    return "" if config.across_dumps else row["dump"]


def index_scope_of(row: Mapping[str, str], config: DocumentsConfig) -> str:
    """The scope of keys of an index (data_prep/dedup_index), where dumps meet."""
    return f"\0{row['language']}" if config.minhash.by_language else ""


def salt_of(scope: str) -> bytes:
    return hashlib.blake2b(scope.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def key_of(text: str, scope: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16, key=salt_of(scope)).digest()


def text_key(text: str, scope: str) -> bytes:
    """The key of the words of `text` with one space between them: copies differ in nothing but white space."""
    return key_of(" ".join(text.split()), scope)


def url_key(url: str, scope: str, config: UrlDedupConfig) -> bytes | None:
    """The key of the page's address, in the one spelling of `same_page_key`; None of what is no address."""
    spelled = same_page_key(url, config.ignored_parameters)
    return None if spelled is None else key_of(spelled, scope)


def url_node(date: str, document_id: str, file: int, row: int, config: UrlDedupConfig) -> Node:
    """The node of a document, the smallest of a page's the one that is to stay. A date that cannot be read comes
    last."""
    order, place = make_node(date, document_id, file, row)
    seconds = order >> 32
    if config.keep == "latest" and seconds != UNKNOWN_DATE:
        order = UNKNOWN_DATE - 1 - seconds << 32 | order & UNKNOWN_DATE
    return order, place
