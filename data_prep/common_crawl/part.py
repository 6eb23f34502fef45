"""A file in the making: beside its place as NAME.part, while NAME.part.json tells which version of it that is."""

import contextlib
import dataclasses
import json
import os
from pathlib import Path

from lm.storage.http import Version


class Part:
    """A file in the making: the bytes that have come, and the version that they are of."""

    def __init__(self, path: Path):
        self.path = path
        self.bytes = path.with_name(path.name + ".part")
        self.note = path.with_name(path.name + ".part.json")

    @property
    def size(self) -> int:
        """Bytes that have come; 0 as well once another thread has moved the finished file away."""
        try:
            return self.bytes.stat().st_size
        except FileNotFoundError:
            return 0

    def version(self) -> Version | None:
        """That of the bytes here; None when there are none that a download can go on from."""
        with contextlib.suppress(OSError, ValueError, TypeError):
            version = Version(**json.loads(self.note.read_text(encoding="utf-8")))
            if self.size and (version.length is None or self.size <= version.length):
                return version
        return None

    def begin(self, version: Version) -> None:
        """Empties the part for another version. The bytes go first: a note never stands beside those of another."""
        self.discard()
        self.bytes.write_bytes(b"")
        self.note.write_text(json.dumps(dataclasses.asdict(version)), encoding="utf-8")

    def discard(self) -> None:
        self.bytes.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)

    def appear(self) -> None:
        with self.bytes.open("rb") as file:
            os.fsync(file.fileno())
        self.bytes.replace(self.path)
        self.note.unlink(missing_ok=True)
