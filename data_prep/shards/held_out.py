"""Choose the documents held out for validation, so that no article is in both splits: not as a re-crawl, under another
URL, as a near-duplicate, or from another dump.

A document is *drawn* for validation by the hash of its URL. The held-out index is a small table of the keys (URL, text,
MinHash bands) of all drawn documents. A document that is not drawn but shares a key with a drawn one is *withheld*: it
is in neither split. This takes one pass. A run that is given the indices of earlier runs also withholds what matches
those.
"""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_prep.config import MinHashConfig
from data_prep.config.deduplicate import TRACKING
from data_prep.dedup.keys import text_key
from data_prep.dedup.minhash import band_keys
from data_prep.urls import same_page_key
from lm.errors import InputError
from lm.storage import Place, appearing, writing
from lm.storage.parquet import BoundedFile

SplitName = Literal["train", "val", "withheld"]
NEAR = MinHashConfig(shingle_words=5, bands=14, rows=8, seed=1)
"""Definition of a near-duplicate, as in FineWeb. It is fixed, because indices of different runs are compared."""
RULE = "url, text, minhash 14x8 of 5 words, seed 1; version 2"
"""Version of the rule that computes keys. Change it if they change, here or in data_prep.dedup: indices of different
rules cannot be compared."""
KEYS_AT_ONCE = 1 << 20
INDEX_SCHEMA = pa.schema([("key", pa.uint64())], metadata={"rule": RULE})


def canonical_url(url: str) -> str:
    """Return `url` in the form that identifies a page: like `same_page_key`, but in lower case and with %-escapes
    decoded; "" if it has no host. Withholding a page unnecessarily is better than training on a held-out one. The
    ignored query parameters are fixed, because indices of different runs are compared."""
    return unquote(same_page_key(url.lower(), TRACKING) or "").lower()


def as_number(key: bytes) -> int:
    return int.from_bytes(key[:8], "little")


def draw_key(url: str | None, text: str | None) -> int | None:
    """Return the 64-bit hash that decides whether a document is held out for validation: of its URL, or of its text if
    it has no URL. Returns None if it has no URL and `text` is None."""
    if name := canonical_url(url or ""):
        return as_number(hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8, person=b"url").digest())
    return None if text is None else as_number(text_key(text, ""))


def is_drawn(url: str | None, text: str, fraction: float) -> bool:
    """Return whether a document is drawn, i.e. held out for validation: whether its `draw_key` is below `fraction` of
    the range of keys. The result does not depend on other documents and is the same for re-crawls of the URL. A
    document that is drawn is also drawn at every larger fraction."""
    key = draw_key(url, text)
    return key is not None and key < fraction * 2**64


def may_be_drawn(url: str | None, fraction: float) -> bool:
    """Return whether a document with this URL is held out for validation, or may be, depending on its text."""
    key = draw_key(url, None)
    return key is None or key < fraction * 2**64


def article_keys(url: str | None, text: str) -> np.ndarray:
    """Return the keys that a document shares with its duplicates, uint64 (1 to 16,): of text, URL and MinHash bands."""
    keys = {as_number(text_key(text, "")), draw_key(url, text), *map(as_number, band_keys(text, "", NEAR) or ())}
    return np.array(sorted(key for key in keys if key is not None), np.uint64)


def union(tables: Iterable[np.ndarray]) -> np.ndarray:
    return np.unique(np.concatenate([np.empty(0, np.uint64), *tables]))


def splits_of(documents: Sequence[tuple[str | None, str]], fraction: float, index: np.ndarray) -> list[SplitName]:
    """Return the split of each document, given as (URL, text): "val" if it is drawn at `fraction`, "withheld" (not
    used) if it shares a key with `index`, the sorted keys of all held-out documents, otherwise "train"."""
    drawn = [is_drawn(url, text, fraction) for url, text in documents]
    keys = [
        np.empty(0, np.uint64) if aside else article_keys(*one) for one, aside in zip(documents, drawn, strict=True)
    ]
    flat = np.concatenate([np.empty(0, np.uint64), *keys])
    place = np.searchsorted(index, flat)
    met = np.zeros(len(flat), bool)
    inside = place < len(index)
    met[inside] = index[place[inside]] == flat[inside]
    owner = np.repeat(np.arange(len(documents)), [len(some) for some in keys])
    withheld = set(owner[met].tolist())
    return ["val" if aside else "withheld" if i in withheld else "train" for i, aside in enumerate(drawn)]


def write_index(path: Path, keys: np.ndarray, scratch: Path) -> None:
    with writing(path), appearing(path, scratch) as partial:
        pq.write_table(pa.table([pa.array(keys, pa.uint64())], INDEX_SCHEMA), partial, compression="zstd")


def read_index(place: Place) -> np.ndarray:
    """Return the sorted keys of a held-out index, uint64 (keys,). Raises InputError if the file is missing or damaged,
    or was written by another version of the rule for keys (RULE)."""
    remedy = "Give the held_out_keys.parquet in the tokens/ of a run (shards.held_out_index), or write it again."
    try:
        with BoundedFile(place) as table:
            rule = (table.schema_arrow.metadata or {}).get(b"rule", b"none").decode()
            if rule != RULE:
                raise InputError(f'{place} has keys of the rule "{rule}"; this version uses "{RULE}". {remedy}')
            keys = [batch["key"].to_numpy() for batch in table.iter_batches(KEYS_AT_ONCE, columns=["key"])]
            return np.concatenate([np.zeros(0, np.uint64), *keys])
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{place} is not a held-out index: {error}. {remedy}") from error
