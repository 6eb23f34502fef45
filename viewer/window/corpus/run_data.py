"""Data in a run folder, and messages about missing parts."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path

from configs.experiment import Experiment
from configs.experiment.run_folder import RunFolder
from data_prep.funnel.report import Written, read_counts
from data_prep.verdict import Threshold
from lm.errors import InputError, UsageError
from lm.serving.fields import Fields
from lm.serving.inspections import Inspection
from lm.storage import Place, local_copy_of
from viewer.training_data import changed_at
from viewer.window.corpus.parquet_folder import ParquetFolder

FOLDERS = ("documents", "dropped")


class RunData:
    """Documents and funnel.json of a run, read when they are first used."""

    def __init__(self, paths: RunFolder, experiment: Experiment, base: bool = False):
        """`base`: of a finetuned run, read the data of the run that it was finetuned from, whose pages it searches."""
        self.paths = paths
        if base and experiment.chat.base:
            self.paths = RunFolder(Path(experiment.chat.base))
            experiment = self.paths.experiment()
        self.config, self.has_ends = experiment.documents, experiment.shards.held_out == "ends"
        self._counts = functools.lru_cache(1)(lambda path, changed: read_counts(path))

    @functools.cached_property
    def folders(self) -> dict[str, ParquetFolder]:
        return {name: ParquetFolder(self.place(name)) for name in FOLDERS}

    def place(self, name: str) -> Place:
        """Location of a folder of the run: on this disk, or its URL in a bucket if the local copy is incomplete."""
        root, copy = self.paths.root, local_copy_of(self.paths.root)
        if copy is None or all((root / one).is_file() for one in copy.matching([name])):
            return root / name
        return copy.url / name

    def download(self, name: str) -> None:
        """Download a file of a run in a bucket if this disk lacks it. Raises StorageError if the bucket fails."""
        if (copy := local_copy_of(self.paths.root)) and not (self.paths.root / name).is_file():
            copy.fetch([name])

    def funnel(self) -> Written:
        """Read funnel.json, the counts of kept and dropped documents. Raises InputError if it is missing or damaged."""
        path = self.paths.funnel
        self.download(path.name)
        if not path.is_file():
            raise InputError(self.missing(path, "launch.prepare_documents"))
        return self._counts(path, changed_at(path))

    def known(self) -> Written | None:
        """Read funnel.json like `funnel`; None if it is missing or damaged."""
        with contextlib.suppress(InputError):
            return self.funnel()

    def thresholds(self) -> list[Threshold]:
        """Thresholds of the run's filters; [] if there is no funnel.json."""
        return written.thresholds if (written := self.known()) else []

    def folder(self, name: str) -> ParquetFolder:
        """Return documents/ or dropped/. Raises InputError if it has no files."""
        found = self.folders[name]
        if not found.refresh():
            if name == "dropped" and not self.config.write_dropped:
                raise InputError("This run did not keep dropped documents: documents.write_dropped is off.")
            raise InputError(self.missing(found.path, "launch.prepare_documents"))
        return found

    def missing(self, path: Place, script: str) -> str:
        """Message that `path` is missing: the model was imported, or `script`, which writes `path`, has not run."""
        if self.paths.imported.exists():
            return "This model was imported: the run folder has no documents."
        copy = local_copy_of(self.paths.root)
        where = f"{copy.url}, where this run is" if copy else "this run folder"
        return f"{path.name} is not in {where}. Run: python -m {script}"


def or_missing(asked: list[Inspection]) -> list[Inspection]:
    """Return inspections that answer {"missing": message} on InputError and UsageError, since data may be absent."""

    def or_why(ask: Callable[[Fields], Mapping[str, object]], fields: Fields) -> Mapping[str, object]:
        try:
            return ask(fields)
        except (InputError, UsageError) as error:
            return {"missing": str(error)}

    return [dataclasses.replace(one, answer=functools.partial(or_why, one.answer)) for one in asked]
