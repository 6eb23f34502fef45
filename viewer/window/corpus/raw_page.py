"""The web page that a document was extracted from, found by reading its archive in steps."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_prep.documents import Damage, Document, WebPage
from data_prep.extract.charset import decode
from data_prep.sources.inputs import read_input
from data_prep.sources.manifest import InputFile, manifest_files
from lm.errors import InputError
from lm.run_paths import RunPaths


class RawPages:
    """Finds the web pages of documents in their archives. Keeps the last page, and its place in the open archive."""

    def __init__(self, workdir: Path):
        self.workdir = workdir
        self._wanted: tuple[str, str] | None = None
        self._left: Iterator[WebPage | Document | Damage] = iter(())
        self._read = 0
        self._found: tuple[str, int, str] | None = None
        """(text, bytes, content type)"""

    def look(self, file_path: str, id: str, seconds: float) -> dict[str, Any]:
        """Search an archive for the page with this id, for at most `seconds` seconds. Returns {"state": "found",
        "text", "bytes", "content_type"}; {"state": "missing", "why"}; to call again, {"state": "looking", "read":
        pages}."""
        try:
            if self._wanted != (file_path, id):
                file = self._archive(file_path)
                self._wanted, self._left, self._read, self._found = (file_path, id), read_input(file), 0, None
            return self._go_on(id, time.monotonic() + seconds)
        except InputError as error:
            self._wanted, self._left = None, iter(())
            return {"state": "missing", "why": str(error)}

    def _go_on(self, id: str, until: float) -> dict[str, Any]:
        if self._found is None:
            for found in self._left:
                self._read += 1
                if isinstance(found, WebPage) and found.id == id:
                    self._found = decode(found.body, found.content_type), len(found.body), found.content_type
                    self._left = iter(())  # closes the archive
                    break
                if time.monotonic() > until:
                    return {"state": "looking", "read": self._read}
        if self._found is None:
            raise InputError("The archive no longer has this page: it was replaced by another file.")
        text, size, content_type = self._found
        return {"state": "found", "text": text, "bytes": size, "content_type": content_type}

    def _archive(self, name: str) -> InputFile:
        """Find the archive. Raises InputError if there is no page to show."""
        if not RunPaths(self.workdir).pages_manifest.is_file():
            raise InputError("The run folder has no list of the archives that the pages came from (pages/).")
        file = next((one for one in manifest_files(self.workdir) if one.name == name), None)
        if file is None or file.kind in ("table", "tfds"):
            raise InputError("This document came from a table of texts: it has no page.")
        if file.kind == "wet":
            raise InputError("This document came from a WET file: it has no page.")
        if not isinstance(file.path, Path):
            raise InputError(f"The page is in {file.path}, which is not on this machine.")
        if not file.path.exists():
            raise InputError(f"The archive {name} is no longer on this machine, so the page cannot be shown.")
        return file
