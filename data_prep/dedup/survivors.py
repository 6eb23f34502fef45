"""Survivors: documents that pass the rules and the deduplication of whole documents, and the edits of later steps. Each
step reads the survivors of a file with the edits of earlier steps applied, and writes its own edits; texts are not
written again."""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from data_prep.dedup.words import hashed_words
from data_prep.engine import Counts, Marker, identity_of
from data_prep.engine.tasks import StoredFile
from data_prep.parquet import read_batches, read_footer, read_rows, text_bytes_of, write_rows
from lm.storage import Place, write_json

SURVIVOR_SCHEMA = pa.schema(
    [("row", pa.int64()), ("when", pa.uint64()), ("id", pa.string()), ("scope", pa.string()), ("text", pa.string())]
)
EDIT_SCHEMA = pa.schema(
    [("row", pa.int64()), ("starts", pa.list_(pa.int64())), ("ends", pa.list_(pa.int64())), ("reason", pa.string())]
)

TOTALS = ("documents_changed", "documents_dropped", "spans_removed", "characters_removed")


@dataclass(frozen=True, slots=True)
class Survivor:
    """A document that no earlier step has dropped, with its text after the edits of these steps."""

    row: int
    """Row number in the file of texts/, from 0."""
    when: int
    """First word of its node (clusters.py): fetch time, then a hash of its ID."""
    id: str
    scope: str
    """Lines are compared only within a scope (`scope_of`): the dump and, with minhash.by_language, the language."""
    text: str


@dataclass(frozen=True, slots=True)
class Edit:
    """What a step changes in one document."""

    spans: tuple[tuple[int, int], ...] = ()
    """(start, end) of the removed parts, in characters of the text before the step; sorted, without overlap."""
    reason: str = ""
    """Why the whole document is dropped; "" if it is kept."""

    def applied(self, text: str) -> str:
        ends = [0, *(end for _, end in self.spans)]
        starts = [*(start for start, _ in self.spans), len(text)]
        return "".join(text[end:start] for end, start in zip(ends, starts, strict=True))

    def row(self, number: int) -> dict:
        starts, ends = ([span[place] for span in self.spans] for place in (0, 1))
        return {"row": number, "starts": starts, "ends": ends, "reason": self.reason}


@dataclass(frozen=True)
class SurvivorFile(StoredFile):
    """File with the survivors (documents kept so far) of the file of texts/ with the same name, and the paths of their
    edits. `sha256` identifies survivors and edits together."""

    edits: tuple[Place, ...] = ()
    groups: tuple[Place, ...] = ()
    """Edit files of the groups (substrings.py) that have documents of this file."""

    @property
    def identity(self) -> list:
        return [self.name, self.id, self.sha256]

    def edited(self, step: str, folder: Place, marker: Marker) -> "SurvivorFile":
        name = edits_name(step, self.name)
        both = identity_of(self.sha256, marker.outputs[name][1])
        return dataclasses.replace(self, sha256=both, edits=(*self.edits, folder / name))


def edits_name(step: str, file: str) -> str:
    """Return the path, in the run folder, of the edits that `step` makes in the documents of `file`."""
    return f"parts/{step}/edits/{file}.parquet"


def write_survivors(path: Path, survivors: Iterable[Survivor]) -> Counts:
    """Write survivors (documents kept so far). Returns {"text_bytes": bytes of text in each row group}. Raises
    InputError if the disk cannot be written."""
    rows = ({name: getattr(one, name) for name in SURVIVOR_SCHEMA.names} for one in survivors)
    write_rows(((path, row) for row in rows), {path: SURVIVOR_SCHEMA}, scratch=path.parent)
    return {"text_bytes": text_bytes_of(read_footer(path))}


def read_survivors(file: SurvivorFile, row_groups: Sequence[int] | None = None) -> Iterator[Survivor]:
    """Yield the survivors (documents kept so far) of a file in order, with the edits of earlier steps applied; only
    those in `row_groups` if given. Raises InputError if a file is damaged."""
    edits = [read_edits(path) for path in file.edits]
    for batch in read_batches(file.path, row_groups=row_groups):
        for row in batch.to_pylist():
            text = row["text"]
            for made in edits:
                if edit := made.get(row["row"]):
                    if edit.reason:
                        break
                    text = edit.applied(text)
            else:
                yield Survivor(row["row"], row["when"], row["id"], row["scope"], text)


def write_edits(path: Path, edits: Iterable[tuple[int, Edit]]) -> Counts:
    """Write (row, edit) pairs, sorted by row, as Parquet. Returns {name in TOTALS: total over all edits}. Raises
    InputError if the disk cannot be written."""
    totals = dict.fromkeys(TOTALS, 0)

    def rows() -> Iterator[tuple[Path, dict]]:
        for number, edit in edits:
            totals["documents_dropped" if edit.reason else "documents_changed"] += 1
            totals["spans_removed"] += len(edit.spans)
            totals["characters_removed"] += sum(end - start for start, end in edit.spans)
            yield path, edit.row(number)

    write_rows(rows(), {path: EDIT_SCHEMA}, scratch=path.parent)
    return totals


def read_edits(path: Place) -> dict[int, Edit]:
    return dict(edits_from(read_rows(path)))


def edits_from(rows: Iterable[dict]) -> Iterator[tuple[int, Edit]]:
    """Yield (row number of the document, edit) from rows of EDIT_SCHEMA."""
    for row in rows:
        yield row["row"], Edit(tuple(zip(row["starts"], row["ends"], strict=True)), row["reason"])


def edit_of(
    text: str, spans: Sequence[tuple[int, int]], max_removed: float, min_words_left: int, reasons: tuple[str, str]
) -> Edit:
    """Return the edit that removes the spans from the text. The edit drops the document if the spans are more than the
    share `max_removed` of the characters (reasons[0]), or fewer than `min_words_left` words are left (reasons[1])."""
    edit = Edit(tuple(spans))
    if sum(end - start for start, end in spans) > max_removed * len(text):
        return Edit(reason=reasons[0])
    return Edit(reason=reasons[1]) if len(hashed_words(edit.applied(text))) < min_words_left else edit


def with_gaps(text: str, spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Extend spans to be removed by white space next to them, so that other lines stay separate and none is empty."""
    return [with_gap(text, start, end) for start, end in spans]


def with_gap(text: str, start: int, end: int) -> tuple[int, int]:
    stop = end
    while stop < len(text) and text[stop].isspace():
        stop += 1
    if stop == len(text):  # end of the text
        while start and text[start - 1].isspace():
            start -= 1
        return start, stop
    if not start or text[start - 1] == "\n":
        return start, stop
    if (line_end := text.find("\n", end, stop)) < 0:
        return start, stop
    while start and text[start - 1].isspace():  # its line has text before it
        start -= 1
    return start, line_end


def write_totals(place: Place, markers: Iterable[Marker]) -> None:
    """Write the sums of the results of `write_edits` over all files, as JSON."""
    counts = [one.counts for one in markers]
    write_json(place, {name: sum(one[name] for one in counts) for name in TOTALS})
