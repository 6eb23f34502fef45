"""The counts of many files added up, group by group."""

import json
from collections.abc import Sequence
from pathlib import Path

from data_prep.config import EngineConfig
from data_prep.engine.tasks import File, OnProgress, merge_in_groups
from data_prep.funnel.counts import Counts, merge
from lm.storage import Place, write_atomically


def merge_counts(files: Sequence[File], folder: Place, engine: EngineConfig, on_progress: OnProgress) -> Counts:
    """The sum of the counts in some files of `folder`, the folder of the steps. Raises as `run_step`."""
    few = merge_in_groups("counts", files, merge_files, folder, engine, on_progress)
    return merge(json.loads((folder / name).read_bytes()) for name, _ in few)


def merge_files(paths: Sequence[Path], path: Path, scratch: Path) -> int:
    """Writes the sum of the counts in some files."""
    counts = merge(json.loads(one.read_bytes()) for one in paths)
    write_atomically(path, json.dumps(counts).encode())
    return counts["rows"]
