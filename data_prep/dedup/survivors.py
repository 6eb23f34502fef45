"""Documents that the rules and the deduplication of whole documents left, and what later steps take out of them. Each
step reads the survivors of a file as the steps before left them, and writes edits: no text is written again."""

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
    [
        ("row", pa.int64()),
        ("starts", pa.list_(pa.int64())),
        ("ends", pa.list_(pa.int64())),
        ("reason", pa.string()),
    ]
)

TOTALS = ("documents_changed", "documents_dropped", "spans_removed", "characters_removed")


@dataclass(frozen=True, slots=True)
class Survivor:
    """A document that is left so far."""

    row: int
    when: int
    """The first word of its node (clusters.py): when it was fetched, then a hash of its id."""
    id: str
    scope: str
    """Lines meet only inside one (keys.py): the dump, and the language where that parts duplicates too."""
    text: str


@dataclass(frozen=True, slots=True)
class Edit:
    """What a step does to one document."""

    spans: tuple[tuple[int, int], ...] = ()
    """(start, end) of what it takes out, in characters of the text that came to the step; in order, none overlaps."""
    reason: str = ""
    """Why the whole document goes; "" where it stays."""

    def applied(self, text: str) -> str:
        ends = [0, *(end for _, end in self.spans)]
        starts = [*(start for start, _ in self.spans), len(text)]
        return "".join(text[end:start] for end, start in zip(ends, starts, strict=True))

    def row(self, number: int) -> dict:
        starts, ends = ([span[place] for span in self.spans] for place in (0, 1))
        return {"row": number, "starts": starts, "ends": ends, "reason": self.reason}


@dataclass(frozen=True)
class SurvivorFile(StoredFile):
    """The survivors of one file of texts/, whose name it has; its SHA-256 is of them and the edits that were made."""

    edits: tuple[Place, ...] = ()
    groups: tuple[Place, ...] = ()
    """What substrings.py found in the groups that have documents of the file."""

    @property
    def identity(self) -> list:
        return [self.name, self.id, self.sha256]

    def edited(self, step: str, folder: Place, marker: Marker) -> "SurvivorFile":
        name = edits_name(step, self.name)
        both = identity_of(self.sha256, marker.outputs[name][1])
        return dataclasses.replace(self, sha256=both, edits=(*self.edits, folder / name))


def edits_name(step: str, file: str) -> str:
    """Where a step writes the edits of a file, in the run folder."""
    return f"parts/{step}/edits/{file}.parquet"


def write_survivors(path: Path, survivors: Iterable[Survivor]) -> Counts:
    """Gives the text_bytes of each row group. Raises InputError when the disk does not take it."""
    rows = ({name: getattr(one, name) for name in SURVIVOR_SCHEMA.names} for one in survivors)
    write_rows(((path, row) for row in rows), {path: SURVIVOR_SCHEMA}, scratch=path.parent)
    return {"text_bytes": text_bytes_of(read_footer(path))}


def read_survivors(file: SurvivorFile, row_groups: Sequence[int] | None = None) -> Iterator[Survivor]:
    """What is left after the edits, in order; of some row groups, or all. Raises InputError when a file is damaged."""
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
    """Write (row, edit) in the order of the rows; count what they do. Raises InputError when the disk does not take
    it."""
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
    """(row, edit) of rows as EDIT_SCHEMA has them."""
    for row in rows:
        yield row["row"], Edit(tuple(zip(row["starts"], row["ends"], strict=True)), row["reason"])


def edit_of(
    text: str, spans: Sequence[tuple[int, int]], max_removed: float, min_words_left: int, reasons: tuple[str, str]
) -> Edit:
    """The edit that takes the spans out; or drops the document, for the first reason if they are more than the share
    `max_removed`, for the second if fewer than `min_words_left` words are left."""
    edit = Edit(tuple(spans))
    if sum(end - start for start, end in spans) > max_removed * len(text):
        return Edit(reason=reasons[0])
    return Edit(reason=reasons[1]) if len(hashed_words(edit.applied(text))) < min_words_left else edit


def with_gaps(text: str, spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The spans with as much of the white space around them as leaves the rest in its lines, and no line empty."""
    return [with_gap(text, start, end) for start, end in spans]


def with_gap(text: str, start: int, end: int) -> tuple[int, int]:
    stop = end
    while stop < len(text) and text[stop].isspace():
        stop += 1
    if stop == len(text):  # nothing comes after
        while start and text[start - 1].isspace():
            start -= 1
        return start, stop
    if not start or text[start - 1] == "\n":
        return start, stop
    if (line_end := text.find("\n", end, stop)) < 0:
        return start, stop
    while start and text[start - 1].isspace():  # something stands before in its line
        start -= 1
    return start, line_end


def write_totals(place: Place, markers: Iterable[Marker]) -> None:
    """Write what a step did to all files: the sums of what `write_edits` returned."""
    counts = [one.counts for one in markers]
    write_json(place, {name: sum(one[name] for one in counts) for name in TOTALS})
