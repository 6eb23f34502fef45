"""Where the quality classifier's line is drawn: the score above which the wanted share of documents lies.

The scores of each file are counted in a histogram, and histograms add up, so that no step holds all scores.
"""

import functools
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data_prep.config import DocumentsConfig
from data_prep.engine.tasks import FileRunner, merge_in_groups
from data_prep.measure.row import QUALITY_SCORE
from data_prep.quality_classifier import histogram, merge, threshold
from data_prep.select.texts_files import CountedFile, TextsFile, counted_files
from data_prep.verdict import column, columns_needed, read_measured, verdicts
from lm.storage import Place, write_atomically


def lowest_score[F: TextsFile](
    files: list[F], config: DocumentsConfig, run: FileRunner, folder: Place
) -> tuple[list[F], float | None]:
    """The files whose scores could be counted, and the lowest score that is kept of their documents that pass the
    rules; all files and None if the step is not used. `folder`, below that of `run`, takes what is counted."""
    if "quality_classifier" not in config.steps:
        return files, None
    counted = counted_files(files, folder, ".npy")
    done, written = run("scores", counted, functools.partial(count_scores, config=config), ["part"], config)
    names = {file.name for file in done}
    parts = [one["part"] for one in written]
    few = merge_in_groups("scores", parts, merge_scores, run.folder, run.engine, run.on_progress)
    scores = merge(read_scores(run.folder / name) for name, _ in few)
    return [file for file in files if file.name in names], threshold(scores, config.quality_classifier.keep_share)


def count_scores(file: CountedFile, config: DocumentsConfig) -> None:
    """Writes the histogram of the file's scores."""
    scores, rows_read = [np.empty(0)], 0
    for rows in read_measured(file.texts, columns_needed(config)):
        passed = [verdict is None for verdict in verdicts(rows, config, min_quality=None)]
        scores.append(column(rows, QUALITY_SCORE)[np.array(passed, bool)])
        rows_read += rows.num_rows
        file.note(rows_read)
    write_scores(histogram(np.concatenate(scores)), file.part)


def merge_scores(paths: Sequence[Path], path: Path, scratch: Path) -> int:
    """Writes the sum of histograms."""
    found = merge(map(read_scores, paths))
    write_scores(found, path)
    return len(found)


def read_scores(place: Place) -> np.ndarray:
    return np.load(io.BytesIO(place.read_bytes()))


def write_scores(scores: np.ndarray, place: Place) -> None:
    data = io.BytesIO()
    np.save(data, scores)
    write_atomically(place, data.getvalue())
