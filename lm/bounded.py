"""Read untrusted files within bounds: sizes and counts are compared with a limit before memory is allocated."""

import json
from pathlib import Path
from typing import Any

from lm.errors import InputError

MOST_CONFIG_BYTES = 2**22
"""Maximum size of a config.json, an index or a tokenizer's settings: 4 MiB. Published ones have some hundred kB."""
MOST_TOKENIZER_BYTES = 2**26
"""Maximum size of a tokenizer's file: 64 MiB. The largest published ones have 34 MB."""
MOST_JSON_VALUES = 3_000_000
"""Maximum number of values in a JSON file. A vocabulary of 262,144 tokens with its merges has 2 million."""


def read_bounded(path: Path, most: int) -> bytes:
    """Return the contents of a file. Raises InputError if it has over `most` bytes or is a pipe or device; OSError as
    `open`."""
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise InputError(f"{path} is a pipe, socket or device instead of a file. Delete it, or give a file.")
    with path.open("rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise InputError(
            f"{path} is {path.stat().st_size:,} bytes, but the limit for such a file is {most:,}. Download it again, "
            "or give another file."
        )
    return data


def parse_json(data: bytes) -> Any:
    """Parse JSON. Raises ValueError if it is malformed or has too many values, RecursionError if it is too deep."""
    values = sum(map(data.count, (b",", b"[", b"{")))
    if values > MOST_JSON_VALUES:
        raise ValueError(f"it has up to {values:,} values, but the limit for a JSON file is {MOST_JSON_VALUES:,}")
    return json.loads(data)
