"""Apply the rules to rows of texts/, from stored values only: many rows at once, without reading texts."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa

from data_prep.config import DocumentsConfig
from data_prep.config.by_language import LIMITED
from data_prep.config.filters import Filter, Rule, Side, breaks
from data_prep.grouping import grouped
from data_prep.parquet import floats_of, nulls_of, read_batches
from lm.storage import Place

LANGUAGE_SCORE = "language_score"
COLUMNS = ("stage", "reason", "language")
"""Columns of texts/ that verdicts need in addition to the columns of values."""
ROWS_AT_ONCE = 50_000

Verdict = tuple[str, str] | None
"""(stage, reason) of a dropped row, such as ("fineweb", "short_lines"); None for a row that passes."""


@dataclass(frozen=True, slots=True)
class Threshold:
    """A limit on one measured value of a text: texts with values on the wrong side are dropped."""

    stage: str
    reason: str
    signal: str
    """Column of texts/ (the table of measured texts) that has the value."""
    drops: Side
    """Side of the limit on which texts are dropped."""
    value: float
    option: str
    """Path of the limit in the config, e.g. "documents.fineweb.max_short_lines"."""
    by_language: dict[str, float] = field(default_factory=dict)
    """{"deu_Latn": limit} of languages with their own limits; `value` is the limit of all others."""

    def of_language(self, label: str) -> "Threshold":
        """Return the threshold for texts of one language (`label`, such as "deu_Latn"): `value` is the limit of that
        language."""
        return replace(self, value=self.by_language.get(label, self.value), by_language={})


def row_limits(value: float, by_language: dict[str, float], languages: np.ndarray | None) -> float | np.ndarray:
    """Return the limit of each row, (rows,) float64: by its language if that is in `by_language`, otherwise `value`.
    Returns one float if all rows have the same limit."""
    if not by_language or languages is None:
        return value
    names, places = np.unique(languages, return_inverse=True)
    return np.array([by_language.get(name, value) for name in names.tolist()], np.float64)[places]


def limits_of(one: Filter, config: DocumentsConfig) -> Iterator[tuple[Rule, float, dict[str, float]]]:
    """Yield (rule, limit, {"deu_Latn": limit} of languages with their own limits) for each rule of a filter."""
    for rule in one.rules:
        key, place = (one.name, rule.option), rule.place or 0
        own = config.thresholds_by_language if key in LIMITED else {}
        yield rule, rule.limit(one), {label: found.limits()[key][place] for label, found in own.items()}


def languages_of(rows: pa.RecordBatch | pa.Table, config: DocumentsConfig) -> np.ndarray | None:
    """Return (rows,) str, the language of each row, such as "deu_Latn"; None if no language has its own limits."""
    return np.array(config.language.named(rows), dtype=np.str_) if config.thresholds_by_language else None


def thresholds_of(config: DocumentsConfig) -> tuple[Threshold, ...]:
    """Return all thresholds of `config` in order of application."""
    found = []
    for one in config.used_filters:
        for rule, limit, own in limits_of(one, config):
            if rule.option:
                option = f"{one.path()}.{rule.option}" + ("" if rule.place is None else f"[{rule.place}]")
                found.append(Threshold(one.name, rule.reason, rule.signal, rule.side(one), limit, option, own))
    return tuple(found)


def columns_needed(config: DocumentsConfig) -> list[str]:
    """Return the columns of texts/ that `verdicts` and `values_of` read."""
    signals = dict.fromkeys(rule.signal for one in config.used_filters for rule in one.rules)
    return [*COLUMNS, *(["language_script"] if config.language.labelled else []), *signals]


def values_of(rows: pa.RecordBatch | pa.Table, thresholds: tuple[Threshold, ...]) -> dict[str, np.ndarray]:
    """Return {column: (rows,) float64} of all measured values with a threshold; NaN for rows without text."""
    values = {signal: floats_of(rows[signal]) for signal in dict.fromkeys(one.signal for one in thresholds)}
    has_text = nulls_of(rows["stage"])
    values[LANGUAGE_SCORE] = np.where(has_text, values[LANGUAGE_SCORE], np.nan)
    return values


def verdicts(rows: pa.RecordBatch | pa.Table, config: DocumentsConfig) -> list[Verdict]:
    """Return (stage, reason) of the first rule that each row of texts/ breaks, None if it passes. The order is:
    language, then the used filters."""
    names: list[Verdict] = [None]
    first = np.zeros(rows.num_rows, np.intp)  # index in `names` of each row's verdict
    languages = languages_of(rows, config)
    for one in config.used_filters:
        checks: list[tuple[str, np.ndarray]] = []
        for rule, limit, own in limits_of(one, config):
            limits = row_limits(limit, own, languages)
            checks.append((rule.reason, breaks(floats_of(rows[rule.signal]), rule.side(one), limits)))
        for reason, broken in [*checks, *one.other_checks(rows)]:
            first[broken & (first == 0)] = len(names)
            names.append((one.name, reason))
    found = [names[index] for index in first.tolist()]
    for row in np.flatnonzero(~nulls_of(rows["stage"])).tolist():  # rows that never had a text
        found[row] = rows["stage"][row].as_py(), rows["reason"][row].as_py()
    return found


def read_measured(texts: Place, columns: list[str]) -> Iterator[pa.Table]:
    """Yield columns of one file of texts/, as tables of at most ROWS_AT_ONCE rows. They need little memory if the text
    is not among the columns. Raises InputError like `read_batches`."""
    for some in grouped(read_batches(texts, columns), lambda batch: batch.num_rows, ROWS_AT_ONCE):
        yield pa.Table.from_batches(some).combine_chunks()
