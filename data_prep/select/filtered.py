"""Read files of texts/: rows with the verdict on each, and the text that the filters leave."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import pyarrow as pa

from data_prep.config import DocumentsConfig
from data_prep.config.documents import AFTER_DEDUP, AFTER_FILTERS, DEDUP
from data_prep.dedup.clusters import file_ids
from data_prep.engine.tasks import StoredFile, stored_files
from data_prep.funnel.counts import Counts, count_rows
from data_prep.kept_columns import rows_of
from data_prep.measure.row import text_schema
from data_prep.measure.run import TEXTS
from data_prep.parquet import read_batches
from data_prep.text.passage import Passage
from data_prep.verdict import Verdict, languages_of, thresholds_of, values_of, verdicts
from lm.storage import Place


def texts_files(folder: Place) -> list[StoredFile]:
    files = stored_files(folder, TEXTS)
    ids = file_ids(one.path.name for one in files)
    return [dataclasses.replace(one, id=ids[one.path.name]) for one in files]


@dataclass(slots=True)
class FilteredRows:
    """A batch of rows of one file of texts/, with the verdict on each: (stage, reason) if it is dropped, otherwise
    None."""

    first: int
    """Row number, in the file, of the first row of the batch."""
    rows: list[dict]
    """Rows of texts/, but with the text that the filters in use left (`text_left`)."""
    verdicts: list[Verdict]
    values: Mapping[str, np.ndarray]
    """{signal: (rows,) float64} of the signals that have a threshold."""
    languages: np.ndarray | None
    """(rows,) str, the language of each row; None if all have the same limits (`languages_of`)."""
    from_table: tuple[pa.Field, ...] = ()
    """Columns of the input table that were kept (pages.keep_columns)."""

    def counts(self, file: int, config: DocumentsConfig) -> Counts:
        """Return counts of these rows, kept and dropped (funnel/counts.py). `file` is the number of their file."""
        columns = {name: [row[name] for row in self.rows] for name in ("id", "url", "language", "text_bytes")}
        thresholds = thresholds_of(config)
        return count_rows(columns, self.values, self.verdicts, (file, self.first), thresholds, self.languages)


def filtered_rows(
    texts: Place,
    config: DocumentsConfig,
    count: Callable[[int], None],
    duplicates: Mapping[int, tuple] = MappingProxyType({}),
) -> Iterator[FilteredRows]:
    """Yield all rows of one file of texts/ in order, in batches with the verdict on each row. `duplicates` is {row:
    (stage, reason, ...)}, the verdicts on some rows; the filters decide on the others. Calls `count` with the number of
    rows of each batch. Raises InputError like `read_batches`."""
    first, thresholds, own = 0, thresholds_of(config), {*text_schema(config).names}
    for batch in read_batches(texts):
        found, values = verdicts(batch, config), values_of(batch, thresholds)
        found = [duplicates[row][:2] if row in duplicates else verdict for row, verdict in enumerate(found, first)]
        languages = languages_of(batch, config)
        from_table = tuple(field for field in batch.schema if field.name not in own)
        filtered = FilteredRows(first, rows_of(batch), found, values, languages, from_table)
        for row, verdict in zip(filtered.rows, filtered.verdicts, strict=True):
            row["text"] = text_left(row["text"], verdict, config)
        yield filtered
        first += batch.num_rows
        count(batch.num_rows)


def passed_language(verdict: Verdict, config: DocumentsConfig) -> bool:
    """Return whether a document with this verdict, (stage, reason) or None, reached the filters: no earlier stage
    dropped it."""
    return verdict is None or verdict[0] in (*config.sections, *AFTER_FILTERS)


def is_dedup_candidate(verdict: Verdict, config: DocumentsConfig) -> bool:
    """Return whether deduplication compares documents with this verdict, (stage, reason) or None."""
    return passed_language(verdict, config) if config.minhash.before_filters else verdict is None


def candidates(texts: Place, config: DocumentsConfig, count: Callable[[int], None]) -> Iterator[tuple[int, dict]]:
    """Yield (row number, row) of the documents of one file that deduplication compares: those that passed all rules,
    with the text that the filters left. With minhash.before_filters: those that passed the language stage, with all of
    their text."""
    if not config.minhash.before_filters:
        for filtered in filtered_rows(texts, config, count):
            for number, (row, verdict) in enumerate(zip(filtered.rows, filtered.verdicts, strict=True)):
                if verdict is None:
                    yield filtered.first + number, row
        return
    first = 0
    for batch in read_batches(texts):
        for number, (row, verdict) in enumerate(zip(rows_of(batch), verdicts(batch, config), strict=True)):
            if is_dedup_candidate(verdict, config):
                yield first + number, row
        first += batch.num_rows
        count(batch.num_rows)


def edit_steps(config: DocumentsConfig) -> list[str]:
    """Return the names of the steps in use that edit texts, such as "line_dedup", in the order in which they run."""
    return [step for step in AFTER_DEDUP if step in config.steps]


def text_left(text: str, verdict: Verdict, config: DocumentsConfig) -> str:
    """Return `text` without the parts that the filters in use remove. If `verdict` names a filter, only the filters
    before that one are applied. A document that was dropped before the filters keeps its whole text."""
    if verdict and not passed_language(verdict, config):
        return text
    if verdict and config.minhash.before_filters and verdict[0] in DEDUP:
        return text
    passage = Passage(text)
    for one in config.filters:
        if verdict and verdict[0] == one.name:
            break
        if one.rewrites and one.name in config.steps:
            passage = one.left_of(passage)
    return passage.text
