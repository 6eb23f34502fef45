"""The counts of many files added up, group by group."""

import json
from collections.abc import Sequence
from pathlib import Path

from data_prep.engine.tasks import File, FileRunner
from data_prep.funnel.counts import Counts, merge
from lm.storage import write_atomically


def merge_counts(files: Sequence[File], run: FileRunner) -> Counts:
    """The sum of the counts in some files. Raises as `run_step`."""
    return merge(json.loads(place.read_bytes()) for place in run.merge("counts", files, merge_files))


def merge_files(paths: Sequence[Path], path: Path, scratch: Path) -> int:
    """Write the sum of the counts in some files."""
    counts = merge(json.loads(one.read_bytes()) for one in paths)
    write_atomically(path, json.dumps(counts))
    return counts["rows"]
