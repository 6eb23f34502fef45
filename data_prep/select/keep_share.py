"""Turn FastTextFilter.keep_share into a minimum score: find the lowest score of the wanted share of documents.

Scores have six decimals. Each file's are counted in a histogram, so the result is exact, needs no more than a few MB,
and does not depend on the order or number of workers.
"""

import dataclasses
import functools
import math
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np

from data_prep.config import DocumentsConfig
from data_prep.engine import Workspace
from data_prep.engine.tasks import FileRunner, StoredFile, files_of
from data_prep.npz import read_array, write_array
from data_prep.parquet import floats_of
from data_prep.quality.fasttext import DIGITS, FastTextFilter
from data_prep.verdict import columns_needed, read_measured, verdicts

MILLION = 10**DIGITS


def share_filters(config: DocumentsConfig) -> list[FastTextFilter]:
    """Return the filters in use with keep_share below 1."""
    return [one for one in config.used_filters if isinstance(one, FastTextFilter) and one.keep_share < 1]


def step_of(share_filter: FastTextFilter) -> str:
    """Return the name of the step that counts the scores of that filter."""
    return f"scores-{share_filter.name}"


def with_min_scores(
    files: list[StoredFile], config: DocumentsConfig, run: FileRunner
) -> tuple[list[StoredFile], DocumentsConfig]:
    """Return (files without failed ones, `config` with the minimum scores that keep_share gives): of the documents that
    pass all rules of `config`, the wanted share has at least this score. Without keep_share, returns the arguments."""
    for share_filter in share_filters(config):
        step, score = step_of(share_filter), share_filter.signals[0].name
        files, made = run(step, files, functools.partial(count_scores, config=config, step=step, score=score), config)
        scores = merge(map(read_array, run.merge(step, files_of(made.values()), merge_files)))
        min_score = max(share_filter.min_score, threshold(scores, share_filter.keep_share))
        config = dataclasses.replace(
            config, **{share_filter.name: dataclasses.replace(share_filter, min_score=min_score)}
        )
    return files, config


def count_scores(file: StoredFile, space: Workspace, config: DocumentsConfig, step: str, score: str) -> None:
    """Write the histogram of the column `score` of a file's documents that pass all rules and have a score."""
    scores = [np.empty(0)]
    for rows in read_measured(file.path, columns_needed(config)):
        values = floats_of(rows[score])
        passed = np.array([verdict is None for verdict in verdicts(rows, config)], bool)
        scores.append(values[passed & ~np.isnan(values)])
        space.count(rows.num_rows)
    write_array(space.output(f"parts/{step}/{file.name}.npy"), histogram(np.concatenate(scores)), space.scratch)


def merge_files(paths: Sequence[Path], path: Path, scratch: Path) -> int:
    scores = merge(map(read_array, paths))
    write_array(path, scores, scratch)
    return len(scores)


def histogram(scores: np.ndarray) -> np.ndarray:
    """int64 [distinct scores, 2]: each score from 0 to 1 that occurs, in millionths and ascending, and how often."""
    millionths, counts = np.unique(np.rint(scores * MILLION).astype(np.int64), return_counts=True)
    return np.stack([millionths, counts], axis=1)


def merge(histograms: Iterable[np.ndarray]) -> np.ndarray:
    """int64 [distinct scores, 2]: the sum of the histograms."""
    counts = np.zeros(MILLION + 1, np.int64)
    for one in histograms:
        counts[one[:, 0]] += one[:, 1]
    (scores,) = np.nonzero(counts)
    return np.stack([scores, counts[scores]], axis=1)


def threshold(scores: np.ndarray, keep_share: float) -> float:
    """Return the highest score that at least `keep_share` of the documents reach, by the histogram `scores`; 0.0 if
    there are no documents. Equal scores are kept or dropped together, so the kept share may be larger."""
    millionths, counts = scores[::-1].T
    if not len(counts):
        return 0.0
    wanted = math.ceil(Fraction(str(keep_share)) * int(counts.sum()))  # 0.07 of 100 is 7; with floats it would be 8
    return int(millionths[np.searchsorted(np.cumsum(counts), wanted)]) / MILLION
