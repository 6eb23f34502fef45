"""Documents of a run: list and search them; show one with its values, its page and the document that it duplicates."""

import functools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_prep.documents import Damage, Document, WebPage
from data_prep.extract.charset import decode
from data_prep.funnel.report import rows_at
from data_prep.sources.inputs import read_input
from data_prep.sources.manifest import InputFile, manifest_files
from data_prep.verdict import Threshold
from lm.errors import InputError
from lm.run_paths import RunPaths
from lm.serving.fields import Fields, wrong
from lm.serving.inspections import Inspection
from viewer.explanations import reason_sentence, stage_words
from viewer.funnel import RECORDED, funnel_answer, measured
from viewer.training_data import finite
from viewer.window.corpus.parquet_folder import MOST_ADDRESS, DocumentFilter, find_id, list_documents
from viewer.window.corpus.run_data import FOLDERS, RunData, or_missing
from viewer.window.window_run import WindowRun


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


MOST, USUAL = 100, 50
"""Maximum and default number of documents of an answer."""
MOST_CHARACTERS = 20_000
"""Maximum characters of a text or page in an answer."""
MOST_QUERY, MOST_WORDS = 200, 8
SECONDS = 0.5
"""A search returns its results so far after this time; the client continues from there."""
ID_SECONDS = 5.0
RECORDED_CHARACTERS = 1500
"""Characters of a document in an exported page."""


def inspections(run: WindowRun) -> list[Inspection]:
    data, of_lane = run.data, functools.partial(RunData, run.paths, run.experiment)
    funnel_of, document_of, page_of = (functools.cache(of_lane) for _ in range(3))
    base, pages = lambda fields: fields.boolean("base", False), functools.cache(RawPages)
    asked = [
        Inspection(
            "funnel", ("base",), lambda fields: funnel_answer((of := funnel_of(base(fields))).funnel(), of.config),
            "pages read, kept and dropped, by stage and reason, with thresholds and the distributions of signals",
        ),
        Inspection(
            "documents", ("reason", "offset", "limit", "query", "within"), lambda fields: documents(data, fields),
            "a page of the documents that were kept, or dropped for a reason; or those with the words of a query",
            "documents",
        ),
        Inspection(
            "beside", ("reason",), lambda fields: beside(data, fields), "kept documents nearest to a threshold",
            "documents",
        ),
        Inspection(
            "document", ("file", "row", "id", "number", "base", "offset", "characters"),
            lambda fields: document(document_of(base(fields)), fields),
            "one document: its text, measured values, and why it was kept or dropped",
        ),
        Inspection(
            "raw", ("file", "row", "base", "offset", "characters"),
            lambda fields: raw(of := page_of(base(fields)), pages(of.paths.root), fields),
            "the web page of a document, as text; searched for half a second at a time",
        ),
    ]  # fmt: skip
    return or_missing(asked)


def to_record(run: WindowRun) -> Iterator[tuple[str, dict]]:
    yield "funnel", {}
    data = run.data
    written = data.known()
    for name in (None, *(written.counts["reasons"] if written else ())):
        fields = {"reason": name, "limit": RECORDED}
        try:
            found = list_of(data, name or "", DocumentFilter(name or ""), 0, RECORDED)
            yield "documents", fields
            if name:
                yield "beside", {"reason": name}
        except InputError:
            continue
        for one in found["documents"]:
            yield "document", {"file": one["file"], "row": one["row"], "characters": RECORDED_CHARACTERS}


def documents(data: RunData, fields: Fields) -> dict[str, Any]:
    """Answer /v1/inspect/documents: a part of the list of documents that were kept, were dropped for a reason, or
    contain the words of a query. Raises ApiError for wrong fields."""
    reason = bounded(fields, "reason", 200)
    if reason and "/" not in reason:
        raise wrong("reason", reason, 'the name of a stage and a reason, as "extract/no_text", or left out')
    offset, limit = fields.integer("offset", 0, 0, 2**53), fields.integer("limit", USUAL, 1, MOST)
    words = tuple(dict.fromkeys(bounded(fields, "query", MOST_QUERY).split()))
    if len(words) > MOST_WORDS:
        raise wrong("query", " ".join(words), f"{MOST_WORDS} words at most")
    within = fields.string("within", "all")
    if within not in ("all", "address"):
        raise wrong("within", within, 'all or "address"')
    return list_of(data, reason, DocumentFilter(reason, words, within == "address"), offset, limit)


def list_of(data: RunData, reason: str, wanted: DocumentFilter, offset: int, limit: int) -> dict[str, Any]:
    folder = data.folder("dropped" if reason else "documents")
    found = list_documents(folder, wanted, offset, limit, threshold_of(data, reason), SECONDS)
    return found | {"total": total(data, reason)}


def threshold_of(data: RunData, reason: str) -> Threshold | None:
    """Threshold that drops documents for `reason`, "stage/reason"; None if there is none."""
    return next((one for one in data.thresholds() if f"{one.stage}/{one.reason}" == reason), None)


def total(data: RunData, reason: str) -> int | None:
    """Number of documents dropped for `reason`, or kept if it is "", by funnel.json; None if there is no such file."""
    if (written := data.known()) is None:
        return None
    return written.counts["reasons"].get(reason, [0])[0] if reason else written.counts["kept"][0]


def bounded(fields: Fields, name: str, most: int) -> str:
    """Return the text in the field `name`, or "". Raises ApiError 400 if it has more than `most` characters, or is
    invalid."""
    value = fields.string(name, "", most)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise wrong(name, value, "valid Unicode, without lone surrogates") from None
    return value


def beside(data: RunData, fields: Fields) -> dict[str, Any]:
    """Answer /v1/inspect/beside: the kept documents closest to the threshold of the filter rule in the field "reason",
    as "stage/reason"."""
    reason = bounded(fields, "reason", 200)
    threshold = threshold_of(data, reason)
    found = []
    if threshold is not None:
        written, folder, texts = data.funnel(), data.folder("documents"), data.place(RunPaths.texts)
        for _, file, row in written.counts["near"].get(reason, []):
            name = written.files[file]
            try:
                ((_, values),) = rows_at(texts / name, [row], ["id", "url", threshold.signal])
                place = find_id(folder, values["id"], name)
            except (InputError, ValueError):
                continue  # texts/ may have been deleted
            if place is not None:
                url = (values["url"] or "")[:MOST_ADDRESS]
                found.append(
                    {
                        "file": f"documents/{name}",
                        "row": place[1],
                        "url": url,
                        "value": finite(values[threshold.signal]),
                    }
                )
    return {"documents": found}


def document_row(data: RunData, fields: Fields) -> tuple[str, str, int]:
    """Return (folder, file, row) of the document that the fields name: by file and row, by id, or by number in tokens/.
    If shards.held_out is "ends", a document has two numbers, one for its held-out end. Raises ApiError for invalid
    fields, InputError if there is no such document."""
    if fields.get("number") is not None:
        number = fields.integer("number", 0, 0, 2**53)
        folder = data.folder("documents")
        place = folder.locate(number // 2 if data.has_ends else number)
        if place is None:
            raise InputError(f"There is no document {number:,}: documents/ has {folder.counted:,} documents.")
        return "documents", folder.name(place[0]), place[1]
    if id := bounded(fields, "id", MOST_ADDRESS):
        until = time.monotonic() + ID_SECONDS
        for name in FOLDERS:
            if data.folders[name].refresh() and (
                found := find_id(data.folders[name], id, stop=lambda: time.monotonic() > until)
            ):
                return name, *found
        raise InputError(
            f"No document with the id {id[:200]!r} was found. The search ends after {ID_SECONDS:.0f} seconds, even if "
            "files are left. Check the id, or open the document by its file and row."
        )
    file = bounded(fields, "file", 1000)
    folder_name, _, name = file.partition("/")
    if folder_name not in FOLDERS or not name:
        raise wrong("file", file, "documents/NAME.parquet or dropped/NAME.parquet")
    return folder_name, name, fields.integer("row", 0, 0, 2**53)


def document(data: RunData, fields: Fields) -> dict[str, Any]:
    """Answer /v1/inspect/document: one document with its text, its measured values, and why it was kept or dropped."""
    offset = fields.integer("offset", 0, 0, 2**53)
    characters = fields.integer("characters", MOST_CHARACTERS, 1, MOST_CHARACTERS)
    folder_name, name, row = document_row(data, fields)
    folder = data.folder(folder_name)
    values = folder.row(name, row)
    text, dropped = values["text"] or "", folder_name == "dropped"
    stage, reason = values.get("stage") or "", values.get("reason") or ""
    label = f"{values.get('language') or ''}_{values.get('language_script') or ''}"
    short = lambda key: (values.get(key) or "")[:MOST_ADDRESS]
    return {
        "file": f"{folder_name}/{name}", "row": row, "kept": not dropped, "stage": stage, "reason": reason,
        "stage_title": stage_words(stage)[0] if stage else "", "about": reason_sentence(stage, reason) if stage else "",
        **{key: short(key) for key in ("url", "id", "date", "file_path", "dump", "language")},
        "language_score": finite(values.get("language_score")),
        "text": text[offset : offset + characters], "offset": offset, "characters": len(text),
        "bytes": len(text.encode()),
        "values": measured(data.thresholds(), values, label),
        # In tokens/, the number of the training part if the ends of documents are held out.
        "number": None if dropped else (1 + data.has_ends) * (folder.first_of(name) + row),
        "copy_of": copy_of(data, short("duplicate_of")) if dropped else None,
    }  # fmt: skip


def copy_of(data: RunData, duplicate_of: str) -> dict[str, Any] | None:
    """Return {"name", "file", "row"} of the document that was kept instead of a duplicate; file and row are None if not
    found. `duplicate_of` is that column of the duplicate: "FILE:ROW" in texts/, or "" (returns None)."""
    if not duplicate_of:
        return None
    name, _, row = duplicate_of.rpartition(":")
    kept = {"name": duplicate_of, "file": None, "row": None}
    if not row.isdecimal():
        return kept
    for folder_name in FOLDERS:  # a later step may have dropped the document that was kept
        try:
            ((_, found),) = rows_at(data.place(RunPaths.texts) / name, [int(row)], ["id"])
            place = find_id(data.folder(folder_name), found["id"], name)
        except (InputError, ValueError):
            continue
        if place is not None:
            return kept | {"file": f"{folder_name}/{name}", "row": place[1]}
    return kept


def raw(data: RunData, pages: RawPages, fields: Fields) -> dict[str, Any]:
    """Answer /v1/inspect/raw: the web page that a document was extracted from."""
    offset = fields.integer("offset", 0, 0, 2**53)
    characters = fields.integer("characters", MOST_CHARACTERS, 1, MOST_CHARACTERS)
    folder_name, name, row = document_row(data, fields)
    values = data.folder(folder_name).row(name, row, ("id", "file_path"))
    data.download(RunPaths.pages_manifest)
    found = pages.look(values["file_path"] or "", values["id"] or "", SECONDS)
    if found["state"] == "found":
        text = found["text"]
        return found | {"text": text[offset : offset + characters], "offset": offset, "characters": len(text)}
    return found
