"""Files on a disk and objects of a bucket (s3://, gs://): whole or absent, read and written by one set of functions.

May import: lm.errors alone.
"""

from lm.storage.cache import Wanted, as_files, cache_folder
from lm.storage.files import (
    HASHING_THREADS,
    Appended,
    digest,
    file_sha256,
    sync,
    unused,
    writing,
)
from lm.storage.places import (
    Place,
    appearing,
    place_of,
    size_of,
    sizes_of,
    write_atomically,
    write_json,
)
from lm.storage.url import StorageError, Url, is_url

__all__ = [
    "HASHING_THREADS",
    "Appended",
    "Place",
    "StorageError",
    "Url",
    "Wanted",
    "appearing",
    "as_files",
    "cache_folder",
    "digest",
    "file_sha256",
    "is_url",
    "place_of",
    "size_of",
    "sizes_of",
    "sync",
    "unused",
    "write_atomically",
    "write_json",
    "writing",
]
