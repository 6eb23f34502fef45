"""Apply the rules to rows of texts/, from stored values only: many rows at once, without reading texts."""

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
"""Columns that are needed in addition to those of values."""
ROWS_AT_ONCE = 50_000

Verdict = tuple[str, str] | None
"""(stage, reason) of a dropped row; None for a row that passes."""


@dataclass(frozen=True, slots=True)
class Threshold:
    """A limit on one stored value: rows on its wrong side are dropped."""

    stage: str
    reason: str
    signal: str
    """Column of texts/ with the value."""
    drops: Side
    """Side of the limit that is dropped."""
    value: float
    option: str
    """Its path in the config, e.g. "documents.fineweb.max_short_lines"."""
    by_language: dict[str, float] = field(default_factory=dict)
    """{"deu_Latn": limit of its texts} for languages with their own limits; `value` applies to all others."""

    def of_language(self, label: str) -> "Threshold":
        """Return the threshold with only the limit of the language `label`."""
        return replace(self, value=self.by_language.get(label, self.value), by_language={})

    def lines(self, languages: np.ndarray | None) -> float | np.ndarray:
        """Return the limit of each row, (rows,) float64, or one for all; `languages`, (rows,) str, is from
        `languages_of`."""
        return lines_of(self.value, self.by_language, languages)


def lines_of(value: float, by_language: dict[str, float], languages: np.ndarray | None) -> float | np.ndarray:
    """Return the limit of each row by its language, (rows,) float64, or one for all."""
    if not by_language or languages is None:
        return value
    names, places = np.unique(languages, return_inverse=True)
    return np.array([by_language.get(name, value) for name in names.tolist()], np.float64)[places]


def limits_of(
    one: Filter, config: DocumentsConfig, min_quality: float | None
) -> Iterator[tuple[Rule, float, dict[str, float]]]:
    """Yield each rule of a filter with its limit and {"deu_Latn": limit} of languages with their own limits. The
    quality classifier has no limit while `min_quality` is None."""
    for rule in one.rules:
        limit = min_quality if one is config.quality_classifier else rule.limit(one)
        if limit is not None:
            key, place = (one.name, rule.option), rule.place or 0
            own = config.thresholds_by_language if key in LIMITED else {}
            yield rule, limit, {label: found.limits()[key][place] for label, found in own.items()}


def languages_of(rows: pa.RecordBatch | pa.Table, config: DocumentsConfig) -> np.ndarray | None:
    """Return the language of each row, (rows,), if languages have their own limits; else None."""
    return np.array(config.language.named(rows), dtype=np.str_) if config.thresholds_by_language else None


def thresholds_of(config: DocumentsConfig, min_quality: float | None) -> tuple[Threshold, ...]:
    """Return all thresholds of `config` in order of application. `min_quality` is the limit of the quality classifier,
    None while it is unknown (select/run.py)."""
    found = []
    for one in config.used_filters:
        for rule, limit, own in limits_of(one, config, min_quality):
            if rule.option:
                option = f"{one.path()}.{rule.option}" + ("" if rule.place is None else f"[{rule.place}]")
                found.append(Threshold(one.name, rule.reason, rule.signal, rule.side(one), limit, option, own))
    return tuple(found)


def columns_needed(config: DocumentsConfig) -> list[str]:
    """Return the columns of texts/ that `verdicts` and `values_of` read."""
    signals = dict.fromkeys(rule.signal for one in config.used_filters for rule in one.rules)
    return [*COLUMNS, *(["language_script"] if config.language.labelled else []), *signals]


def values_of(rows: pa.RecordBatch | pa.Table, thresholds: tuple[Threshold, ...]) -> dict[str, np.ndarray]:
    """Return {signal: (rows,) float64} of all values with a threshold; NaN for rows without text."""
    values = {signal: column(rows, signal) for signal in dict.fromkeys(one.signal for one in thresholds)}
    has_text = nulls_of(rows["stage"])
    values[LANGUAGE_SCORE] = np.where(has_text, values[LANGUAGE_SCORE], np.nan)
    return values


def verdicts(rows: pa.RecordBatch | pa.Table, config: DocumentsConfig, min_quality: float | None) -> list[Verdict]:
    """Return the verdict on each row by the first rule that it breaks: language, then the used filters in order, then
    the score of the quality classifier, which must be at least `min_quality` if that is set."""
    names: list[Verdict] = [None]
    first = np.zeros(rows.num_rows, np.intp)  # index in `names` of each row's verdict
    for verdict, broken in checks(rows, config, min_quality):
        first[broken & (first == 0)] = len(names)
        names.append(verdict)
    found = [names[index] for index in first.tolist()]
    for row in np.flatnonzero(~nulls_of(rows["stage"])).tolist():  # rows that never had a text
        found[row] = rows["stage"][row].as_py(), rows["reason"][row].as_py()
    return found


def checks(
    rows: pa.RecordBatch | pa.Table, config: DocumentsConfig, min_quality: float | None
) -> Iterator[tuple[tuple[str, str], np.ndarray]]:
    """Yield (verdict, (rows,) bool) for everything that may drop a row, in order."""
    languages = languages_of(rows, config)
    for one in config.used_filters:
        for rule, limit, own in limits_of(one, config, min_quality):
            lines = lines_of(limit, own, languages)
            yield (one.name, rule.reason), breaks(column(rows, rule.signal), rule.side(one), lines)
        for reason, broken in one.other_checks(rows):
            yield (one.name, reason), broken


def column(rows: pa.RecordBatch | pa.Table, name: str) -> np.ndarray:
    """Return (rows,) float64; null becomes NaN, for which every comparison is false."""
    return floats_of(rows[name])


def read_measured(texts: Place, columns: list[str]) -> Iterator[pa.Table]:
    """Yield columns of one file of texts/, ROWS_AT_ONCE rows at a time, which need little memory because they have no
    text.

    Raises InputError like `read_batches`.
    """
    waiting: list[pa.RecordBatch] = []
    for batch in read_batches(texts, columns):
        waiting.append(batch)
        if sum(one.num_rows for one in waiting) >= ROWS_AT_ONCE:
            yield pa.Table.from_batches(waiting).combine_chunks()
            waiting = []
    if waiting:
        yield pa.Table.from_batches(waiting).combine_chunks()
