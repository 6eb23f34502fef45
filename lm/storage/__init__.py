"""Read and write files on a disk, objects in buckets (s3://, gs://), and files of the hub (hf://) and of web servers
(https://) by the same functions. A file appears complete or not at all.

local_copy.py keeps copies on this disk of the files that a command needs from a run in a bucket. May import: lm.errors.
"""

from lm.storage import stores
from lm.storage.files import (
    HASHING_THREADS,
    Appended,
    break_hard_links,
    cache_folder,
    file_inside,
    sync,
    user_cache,
    writing,
)
from lm.storage.local_copy import (
    LocalCopy,
    as_local_file,
    fetched,
    local_copy_of,
    local_folder,
    refuse_local_folder,
    shown_place,
)
from lm.storage.meter import MeteredFile, count_bytes, metered
from lm.storage.objects import environment_of_storage, set_environment
from lm.storage.places import (
    WILDCARD,
    Place,
    appearing,
    delete_files,
    digest,
    file_sha256,
    inside,
    matching_paths,
    move_folder,
    place_of,
    relative_name,
    remove_empty_folders,
    size_of,
    sizes_below,
    sizes_of,
    split_pattern,
    streamed,
    unused,
    write_atomically,
    write_json,
)
from lm.storage.stores import note_write, noting_writes
from lm.storage.url import StorageError, Url, is_url
