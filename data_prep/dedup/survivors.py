"""Documents that the rules and the deduplication of whole documents left, and what later steps take out of them.

Steps that look at parts of texts (lines, substrings, n-grams of evaluations) come one after another: each reads the
survivors of a file as the steps before it left them, and writes edits, a small file, so that no text is written again.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from data_prep.parquet import read_rows, write_rows

SURVIVOR_SCHEMA = pa.schema(
    [("row", pa.int64()), ("when", pa.uint64()), ("id", pa.string()), ("dump", pa.string()), ("text", pa.string())]
)
EDIT_SCHEMA = pa.schema(
    [
        ("row", pa.int64()),
        ("starts", pa.list_(pa.int64())),
        ("ends", pa.list_(pa.int64())),
        ("reason", pa.string()),
    ]
)


@dataclass(frozen=True, slots=True)
class Survivor:
    """A document that is left so far."""

    row: int
    """Of its file of texts/."""
    when: int
    """The first word of its node (clusters.py): when it was fetched, then a hash of its id."""
    id: str
    dump: str
    text: str


@dataclass(frozen=True, slots=True)
class Edit:
    """What a step does to one document."""

    spans: tuple[tuple[int, int], ...] = ()
    """(start, end) of what it takes out, in characters of the text that came to the step; in order, none overlaps."""
    reason: str = ""
    """Why the whole document goes; "" where it stays."""

    def applied(self, text: str) -> str:
        """The text without the spans."""
        ends = [0, *(end for _, end in self.spans)]
        starts = [*(start for start, _ in self.spans), len(text)]
        return "".join(text[end:start] for end, start in zip(ends, starts, strict=True))

    def row(self, number: int) -> dict:
        """As EDIT_SCHEMA has it."""
        starts, ends = ([span[place] for span in self.spans] for place in (0, 1))
        return {"row": number, "starts": starts, "ends": ends, "reason": self.reason}


@dataclass(frozen=True)
class SurvivorFile:
    """The survivors of one file of texts/ (its stem is the file's name), and the edits that were made of them."""

    index: int
    """Of the file of texts/ among all, sorted by name."""
    path: Path
    edits: tuple[Path, ...] = ()
    """Of the steps before, in their order."""

    @property
    def bytes(self) -> int:
        return self.path.stat().st_size


def write_survivors(path: Path, survivors: Iterable[Survivor]) -> None:
    """Raises InputError when the disk does not take it."""
    rows = ({name: getattr(one, name) for name in SURVIVOR_SCHEMA.names} for one in survivors)
    write_rows(((path, row) for row in rows), {path: SURVIVOR_SCHEMA}, scratch=path.parent)


def read_survivors(file: SurvivorFile) -> Iterator[Survivor]:
    """What is left after the edits, in the order of the rows. Raises InputError when a file is damaged."""
    edits = [read_edits(path) for path in file.edits]
    for row in read_rows(file.path):
        text = row["text"]
        for made in edits:
            if edit := made.get(row["row"]):
                if edit.reason:
                    break
                text = edit.applied(text)
        else:
            yield Survivor(row["row"], row["when"], row["id"], row["dump"], text)


def write_edits(path: Path, edits: Iterable[tuple[int, Edit]]) -> None:
    """Writes (row, edit) in the order of the rows. Raises InputError when the disk does not take it."""
    rows = ((path, edit.row(number)) for number, edit in edits)
    write_rows(rows, {path: EDIT_SCHEMA}, scratch=path.parent)


def read_edits(path: Path) -> dict[int, Edit]:
    """{row: edit}. Raises InputError when the file is damaged."""
    return {
        row["row"]: Edit(tuple(zip(row["starts"], row["ends"], strict=True)), row["reason"]) for row in read_rows(path)
    }


def share_of(spans: Sequence[tuple[int, int]], text: str) -> float:
    """How much of the text the spans are, in characters."""
    return sum(end - start for start, end in spans) / max(1, len(text))
