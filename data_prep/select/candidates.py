"""Rows of texts/ with the verdict on each and the text as it is by then: what every pass over a file begins with."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_prep.config import DocumentsConfig
from data_prep.funnel.counts import Counts, count_rows
from data_prep.parquet import read_batches
from data_prep.quality.c4 import clean_lines
from data_prep.verdict import AFTER_C4, Verdict, thresholds_of, values_of, verdicts


@dataclass(slots=True)
class Judged:
    """Some rows of one file of texts/ after the rules."""

    first: int
    """Number of the first of them in the file."""
    rows: list[dict]
    """As they stand in texts/, but for the text, which has lost what C4's rules take out once it came so far."""
    verdicts: list[Verdict]
    values: Mapping[str, np.ndarray]
    """{signal: (rows,) float64} of what a line is drawn through."""
    min_quality: float | None

    def counts(self, file: int, config: DocumentsConfig) -> Counts:
        """The funnel of these rows, of the file with that index."""
        columns = {name: [row[name] for row in self.rows] for name in ("id", "language", "text_bytes")}
        thresholds = thresholds_of(config, self.min_quality)
        return count_rows(columns, self.values, self.verdicts, (file, self.first), thresholds)


def judged_rows(texts: Path, config: DocumentsConfig, min_quality: float | None, note: Path) -> Iterator[Judged]:
    """All rows of one file of texts/, in order. `note` gets the number of those that went before (progress.py); who
    calls deletes it at the end of the work. Raises InputError as `read_batches`."""
    first, thresholds = 0, thresholds_of(config, min_quality)
    for batch in read_batches(texts):
        note.write_text(str(first))
        found, values = verdicts(batch, config, min_quality), values_of(batch, thresholds)
        judged = Judged(first, batch.to_pylist(), found, values, min_quality)
        if "c4" in config.steps:
            for row, verdict in zip(judged.rows, judged.verdicts, strict=True):
                drop_lines(row, verdict, config)
        yield judged
        first += batch.num_rows


def drop_lines(row: dict, verdict: Verdict, config: DocumentsConfig) -> None:
    """Takes the lines that C4's rules drop out of the row's text, if it came so far: then something is left."""
    if verdict is None or verdict[0] in AFTER_C4:
        row["text"] = clean_lines(row["text"], config.c4)
