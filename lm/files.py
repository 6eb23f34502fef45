"""Files that are written whole or not at all."""

import json
import os
from pathlib import Path


def write_atomically(path: Path, text: str) -> None:
    """Writes `text` to `path`, or leaves what was there: never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def write_json(path: Path, value: object) -> None:
    """Writes `value` as JSON, whole or not at all."""
    write_atomically(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")
