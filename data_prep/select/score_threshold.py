"""Where the quality classifier's line is drawn: the score above which the wanted share of documents lies.

The scores of each file are counted in a histogram, and histograms add up, so that no step holds all scores.
"""

import functools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from data_prep.config import DocumentsConfig, EngineConfig
from data_prep.engine.over_files import run_over_files
from data_prep.engine.progress import Progress, ProgressReporter, UnfinishedShard, texts_progress, unfinished_shards
from data_prep.measure.row import QUALITY_SCORE
from data_prep.quality_classifier import histogram, merge, threshold
from data_prep.verdict import column, columns_needed, read_measured, verdicts
from lm.storage import write_atomically


def lowest_score(
    texts: list[Path],
    config: DocumentsConfig,
    scratch: Path,
    on_progress: Callable[[Progress], None],
    engine: EngineConfig,
) -> float | None:
    """The lowest score that is kept, of the documents that pass the rules; None where the step is not used."""
    if "quality_classifier" not in config.steps:
        return None
    scratch.mkdir(parents=True, exist_ok=True)
    files = unfinished_shards(texts, scratch)
    with ProgressReporter(texts_progress(files, "scores"), on_progress):
        run_over_files(functools.partial(count_scores, config=config), files, engine)
    counted = [np.array(json.loads(file.part.read_text(encoding="utf-8")), np.int64) for file in files]
    return threshold(merge(counted), config.quality_classifier.keep_share)


def count_scores(file: UnfinishedShard, config: DocumentsConfig) -> None:
    """Writes the histogram of the file's scores, unless it is there."""
    if file.part.is_file():
        return
    scores = [np.empty(0)]
    for rows in read_measured(file.texts, columns_needed(config)):
        passed = [verdict is None for verdict in verdicts(rows, config, min_quality=None)]
        scores.append(column(rows, QUALITY_SCORE)[np.array(passed, bool)])
    write_atomically(file.part, json.dumps(histogram(np.concatenate(scores)).tolist()).encode(), file.part.parent)
