"""The same work on many files, each on its own: in this process, or on the workers of a Beam runner."""

import shlex
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from data_prep.config import DocumentsConfig, ShardsConfig
from data_prep.engine.beam_runner import run_pipeline

if TYPE_CHECKING:
    import apache_beam as beam


class WorkFile(Protocol):
    """A unit of work."""

    @property
    def bytes(self) -> int:
        """About how much work it is."""
        ...


def run_over_files[File: WorkFile](
    work: Callable[[File], None], files: Sequence[File], config: DocumentsConfig | ShardsConfig
) -> None:
    """Calls `work` on each file, in any order. It writes files alone, so that nothing has to come back.

    The largest come first: runners deal the files out beforehand, and so the workers end together. Raises
    what `work` raises, and as `run_pipeline` does.
    """
    if config.workers == 1 and config.runner == "local":
        for file in files:
            work(file)
        return
    largest_first = sorted(files, key=lambda file: file.bytes, reverse=True)

    def build(pipeline: "beam.Pipeline") -> None:
        import apache_beam as beam

        pipeline | "files" >> beam.Create(largest_first, reshuffle=True) | "work" >> beam.Map(work)

    run_with(build, config)


def run_with(build: Callable[["beam.Pipeline"], None], config: DocumentsConfig | ShardsConfig) -> None:
    """Runs a pipeline on the runner of `config`."""
    run_pipeline(build, config.workers, config.runner, shlex.split(config.beam_options))
