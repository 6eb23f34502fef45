"""The same work on many files, each on its own: in this process, or on the workers of a Beam runner."""

import shlex
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from data_prep.config.engine import EngineConfig
from data_prep.engine.beam_runner import run_pipeline
from lm.errors import UsageError

if TYPE_CHECKING:
    import apache_beam as beam


class WorkFile(Protocol):
    """A unit of work."""

    @property
    def bytes(self) -> int:
        """About how much work it is."""
        ...


def run_over_files[File: WorkFile](work: Callable[[File], None], files: Sequence[File], engine: EngineConfig) -> None:
    """Calls `work` on each file, in any order. It writes files alone, so that nothing has to come back.

    The largest come first: runners deal the files out beforehand, and so the workers end together. Raises
    what `work` raises, and as `run_pipeline` does.
    """
    if engine.workers == 1 and engine.runner in ("processes", "fn_api"):
        for file in files:
            work(file)
        return
    largest_first = sorted(files, key=lambda file: file.bytes, reverse=True)

    def build(pipeline: "beam.Pipeline") -> None:
        import apache_beam as beam

        pipeline | "files" >> beam.Create(largest_first, reshuffle=True) | "work" >> beam.Map(work)

    run_with(build, engine)


def run_with(build: Callable[["beam.Pipeline"], None], engine: EngineConfig) -> None:
    """Runs a pipeline on the runner of `engine`; Beam's own on this machine stands in for our processes."""
    if engine.runner == "array":
        raise UsageError(
            "engine.runner is array, but this stage runs in one process with its workers. Give --engine.runner "
            "processes for it."
        )
    runner = "fn_api" if engine.runner == "processes" else engine.runner
    run_pipeline(build, engine.workers, runner, shlex.split(engine.beam_options))
