"""Totals over all files: the quality classifier's threshold, from histograms of scores, and the funnel counts."""

import functools
import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data_prep.config import DocumentsConfig
from data_prep.engine import Workspace
from data_prep.engine.tasks import File, FileRunner, StoredFile, files_of
from data_prep.funnel.counts import Counts
from data_prep.funnel.counts import merge as add_up
from data_prep.measure.row import QUALITY_SCORE
from data_prep.quality_classifier import histogram, merge, threshold
from data_prep.verdict import column, columns_needed, read_measured, verdicts
from lm.storage import Place, write_atomically


def lowest_score(
    files: list[StoredFile], config: DocumentsConfig, run: FileRunner
) -> tuple[list[StoredFile], float | None]:
    """Return the files whose scores could be counted, and the minimum score to keep among documents that pass the
    rules. Returns all files and None if the step is not used."""
    if "quality_classifier" not in config.steps:
        return files, None
    files, counted = run("scores", files, functools.partial(count_scores, config=config), config)
    scores = merge(map(read_scores, run.merge("scores", files_of(counted.values()), merge_scores)))
    return files, threshold(scores, config.quality_classifier.keep_share)


def count_scores(file: StoredFile, space: Workspace, config: DocumentsConfig) -> None:
    scores = [np.empty(0)]
    for rows in read_measured(file.path, columns_needed(config)):
        passed = [verdict is None for verdict in verdicts(rows, config, min_quality=None)]
        scores.append(column(rows, QUALITY_SCORE)[np.array(passed, bool)])
        space.count(rows.num_rows)
    write_scores(histogram(np.concatenate(scores)), space.output(f"parts/score-counts/{file.name}.npy"))


def merge_scores(paths: Sequence[Path], path: Path, scratch: Path) -> int:
    found = merge(map(read_scores, paths))
    write_scores(found, path)
    return len(found)


def read_scores(place: Place) -> np.ndarray:
    return np.load(io.BytesIO(place.read_bytes()))


def write_scores(scores: np.ndarray, place: Place) -> None:
    data = io.BytesIO()
    np.save(data, scores)
    write_atomically(place, data.getvalue())


def merge_counts(files: Sequence[File], run: FileRunner) -> Counts:
    return add_up(json.loads(place.read_bytes()) for place in run.merge("counts", files, merge_files))


def merge_files(paths: Sequence[Path], path: Path, scratch: Path) -> int:
    counts = add_up(json.loads(one.read_bytes()) for one in paths)
    write_atomically(path, json.dumps(counts))
    return counts["rows"]
