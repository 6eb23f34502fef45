"""Files that are written whole or not at all."""

import json
import os
from pathlib import Path


def write_atomically(path: Path, data: str | bytes) -> None:
    """Writes `data`, text as UTF-8, to `path`, or leaves what was there: never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        file.write(data.encode() if isinstance(data, str) else data)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def write_json(path: Path, value: object) -> None:
    """Writes `value` as JSON, whole or not at all."""
    write_atomically(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")
