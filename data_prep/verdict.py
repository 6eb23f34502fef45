"""What the rules say of rows of texts/, by their stored values alone: many rows at once, and no text is read."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa

from data_prep.config import DocumentsConfig
from data_prep.config.by_language import LIMITED
from data_prep.config.filters import Filter, Rule, Side, breaks
from data_prep.parquet import floats_of, nulls_of, read_batches
from lm.storage import Place

LANGUAGE_SCORE = "language_score"
COLUMNS = ("stage", "reason", "language")
"""What is needed beside the columns of values."""
ROWS_AT_ONCE = 50_000

Verdict = tuple[str, str] | None
"""(stage, reason) of what is dropped, None of what passes."""


@dataclass(frozen=True, slots=True)
class Threshold:
    """A line drawn through one stored value: what lies on the wrong side of it is dropped."""

    stage: str
    reason: str
    signal: str
    """The column of texts/ that holds the value."""
    drops: Side
    """What is dropped: what is there."""
    value: float
    option: str
    """Its place in the config, for example "documents.fineweb.max_short_lines"."""
    by_language: dict[str, float] = field(default_factory=dict)
    """{"deu_Latn": the line for its texts}, where languages have lines of their own; `value` is that of any other."""

    def of_language(self, label: str) -> "Threshold":
        """This one with the line of the language `label` alone."""
        return replace(self, value=self.by_language.get(label, self.value), by_language={})

    def lines(self, languages: np.ndarray | None) -> float | np.ndarray:
        """The line of each row, (rows,) float64, or the one of all; `languages`, (rows,) str, as of `languages_of`."""
        return lines_of(self.value, self.by_language, languages)


def lines_of(value: float, by_language: dict[str, float], languages: np.ndarray | None) -> float | np.ndarray:
    """The line of each row, (rows,) float64, by its language, or the one of all."""
    if not by_language or languages is None:
        return value
    names, places = np.unique(languages, return_inverse=True)
    return np.array([by_language.get(name, value) for name in names.tolist()], np.float64)[places]


def limits_of(
    one: Filter, config: DocumentsConfig, min_quality: float | None
) -> Iterator[tuple[Rule, float, dict[str, float]]]:
    """Each rule of a filter with its limit, and {"deu_Latn": limit} of languages that have their own; not that of the
    quality classifier while `min_quality` is None."""
    for rule in one.rules:
        limit = min_quality if one is config.quality_classifier else rule.limit(one)
        if limit is not None:
            key, place = (one.name, rule.option), rule.place or 0
            own = config.thresholds_by_language if key in LIMITED else {}
            yield rule, limit, {label: found.limits()[key][place] for label, found in own.items()}


def languages_of(rows: pa.RecordBatch | pa.Table, config: DocumentsConfig) -> np.ndarray | None:
    """(rows,) each row's language, where languages have lines of their own; else None."""
    return np.array(config.language.named(rows), dtype=np.str_) if config.thresholds_by_language else None


def thresholds_of(config: DocumentsConfig, min_quality: float | None) -> tuple[Threshold, ...]:
    """All lines that `config` draws, in the order in which they are applied; `min_quality` is the quality classifier's,
    None while it is not known (score_threshold.py)."""
    found = []
    for one in config.used_filters:
        for rule, limit, own in limits_of(one, config, min_quality):
            if rule.option:
                option = f"{one.path()}.{rule.option}" + ("" if rule.place is None else f"[{rule.place}]")
                found.append(Threshold(one.name, rule.reason, rule.signal, rule.side(one), limit, option, own))
    return tuple(found)


def columns_needed(config: DocumentsConfig) -> list[str]:
    """The columns of texts/ that `verdicts` and `values_of` read."""
    signals = dict.fromkeys(rule.signal for one in config.used_filters for rule in one.rules)
    return [*COLUMNS, *(["language_script"] if config.language.labelled else []), *signals]


def values_of(rows: pa.RecordBatch | pa.Table, thresholds: tuple[Threshold, ...]) -> dict[str, np.ndarray]:
    """{signal: (rows,) float64} of the values that a line is drawn through; NaN for rows without a text."""
    values = {signal: column(rows, signal) for signal in dict.fromkeys(one.signal for one in thresholds)}
    has_text = nulls_of(rows["stage"])
    values[LANGUAGE_SCORE] = np.where(has_text, values[LANGUAGE_SCORE], np.nan)
    return values


def verdicts(rows: pa.RecordBatch | pa.Table, config: DocumentsConfig, min_quality: float | None) -> list[Verdict]:
    """The verdict on each row, by the first rule that it breaks: language, then the filters in use, in their order,
    then the quality classifier's score, which must be at least `min_quality` where that is given."""
    names: list[Verdict] = [None]
    first = np.zeros(rows.num_rows, np.intp)  # index in `names` of each row's verdict
    for verdict, broken in checks(rows, config, min_quality):
        first[broken & (first == 0)] = len(names)
        names.append(verdict)
    found = [names[index] for index in first.tolist()]
    for row in np.flatnonzero(~nulls_of(rows["stage"])).tolist():  # what never had a text
        found[row] = rows["stage"][row].as_py(), rows["reason"][row].as_py()
    return found


def checks(
    rows: pa.RecordBatch | pa.Table, config: DocumentsConfig, min_quality: float | None
) -> Iterator[tuple[tuple[str, str], np.ndarray]]:
    """Everything that may drop a row, in its order: (verdict, (rows,) bool)."""
    languages = languages_of(rows, config)
    for one in config.used_filters:
        for rule, limit, own in limits_of(one, config, min_quality):
            lines = lines_of(limit, own, languages)
            yield (one.name, rule.reason), breaks(column(rows, rule.signal), rule.side(one), lines)
        for reason, broken in one.other_checks(rows):
            yield (one.name, reason), broken


def column(rows: pa.RecordBatch | pa.Table, name: str) -> np.ndarray:
    """(rows,) float64; NaN, with which every comparison fails, for null."""
    return floats_of(rows[name])


def read_measured(texts: Place, columns: list[str]) -> Iterator[pa.Table]:
    """Columns of one file of texts/, ROWS_AT_ONCE rows at a time: they hold no text, and so many take little memory.

    Raises InputError as `read_batches`.
    """
    waiting: list[pa.RecordBatch] = []
    for batch in read_batches(texts, columns):
        waiting.append(batch)
        if sum(one.num_rows for one in waiting) >= ROWS_AT_ONCE:
            yield pa.Table.from_batches(waiting).combine_chunks()
            waiting = []
    if waiting:
        yield pa.Table.from_batches(waiting).combine_chunks()
