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
        self._left: Iterator[tuple[int, WebPage | Document | Damage]] = iter(())
        """The rest of the archive, numbered from 1."""
        self._found: dict[str, Any] = {}
        """Answer for the page, once it is found."""

    def look(self, file_path: str, id: str, seconds: float) -> dict[str, Any]:
        """Search an archive for the page with this id, for at most `seconds` seconds. Returns {"state": "found",
        "text", "bytes", "content_type"}; {"state": "missing", "why"}; to call again, {"state": "looking", "read":
        pages}."""
        until = time.monotonic() + seconds
        try:
            if self._wanted != (file_path, id):
                left = enumerate(read_input(self._archive(file_path)), 1)
                self._wanted, self._left, self._found = (file_path, id), left, {}
            for read, page in self._left:
                if isinstance(page, WebPage) and page.id == id:
                    self._found = {
                        "state": "found", "text": decode(page.body, page.content_type), "bytes": len(page.body),
                        "content_type": page.content_type,
                    }  # fmt: skip
                    self._left = iter(())  # closes the archive
                    break
                if time.monotonic() > until:
                    return {"state": "looking", "read": read}
            if not self._found:
                raise InputError("The archive no longer has this page: it was replaced by another file.")
            return self._found
        except InputError as error:
            self._wanted, self._left = None, iter(())
            return {"state": "missing", "why": str(error)}

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
