"""URL duplicates: documents of one scope (scope.py) from the same page, fetched more than once. Pure.

The join is in clusters.py.
"""

import hashlib

from data_prep.config import UrlDedupConfig
from data_prep.dedup.clusters import UNKNOWN_DATE, Node, make_node
from data_prep.urls import same_page_key


def url_key(url: str, scope: str, config: UrlDedupConfig) -> bytes | None:
    """16 bytes of BLAKE2b of the page's address, in the one spelling of `same_page_key`, and of the scope; None of what
    is no address."""
    spelled = same_page_key(url, config.ignored_parameters)
    if spelled is None:
        return None
    salt = hashlib.blake2b(scope.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    return hashlib.blake2b(spelled.encode("utf-8", "surrogatepass"), digest_size=16, key=salt).digest()


def url_node(date: str, document_id: str, file: int, row: int, config: UrlDedupConfig) -> Node:
    """The node of a document (clusters.py), the smallest of a page's the one that is to stay. A date that cannot be
    read comes last in any case."""
    order, place = make_node(date, document_id, file, row)
    seconds = order >> 32
    if config.keep == "latest" and seconds != UNKNOWN_DATE:
        order = UNKNOWN_DATE - 1 - seconds << 32 | order & UNKNOWN_DATE
    return order, place
