"""Source and result of a dataset export."""

import shlex
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from configs.experiment import Experiment
from configs.experiment.run_folder import RunFolder
from launch import prepare_documents, train_tokenizer
from launch.run_folder import bucket
from launch.run_folder.checks import refuse_link
from launch.stages.stage import read_marker
from lm.errors import InputError
from lm.run_paths import RunPaths
from lm.storage import Place, file_inside, inside, shown_place
from lm.tokenizer import Tokenizer, load

TOKEN_COUNT, DATA = "token_count", "data"


@dataclass(frozen=True)
class DocumentsRun:
    """A run with finished documents, opened for an export."""

    folder: RunFolder
    experiment: Experiment
    files: tuple[Place, ...]
    """Files in documents/, sorted by name; in a bucket, its objects."""
    key: str
    """Key of the stage "documents": the hash of everything that determined its outputs."""
    tokenizer: Tokenizer | None
    """The run's tokenizer; None if it has none yet."""

    @property
    def place(self) -> Place:
        """Run folder, or its URL if it is in a bucket."""
        return shown_place(self.folder.root)

    @property
    def name(self) -> str:
        return self.place.resolve().name if isinstance(self.place, Path) else self.place.name


@dataclass(frozen=True)
class Exported:
    """Schema and counts of an exported dataset."""

    schema: pa.Schema
    rows: int
    """Number of documents."""
    text_bytes: int
    """UTF-8 bytes of the texts."""
    files: int
    """Number of data files."""
    format: str


def open_documents(folder: RunFolder) -> DocumentsRun:
    """Open a run to export its documents, checking the files by name and size. Raises InputError if the stage
    "documents" is not finished, if the tokenizer is damaged, or if a link leads out of the run folder."""
    root, place = folder.root, shown_place(folder.root)
    experiment = folder.experiment()
    bucket.fetch(root, [RunPaths.funnel], [RunPaths.tokenizer])
    refuse_link(root / RunPaths.documents)
    for part in (RunPaths.config_json, RunPaths.funnel, RunPaths.tokenizer):
        file_inside(root, part)
    marker = read_marker(prepare_documents.STAGE, root)
    if marker is None:
        raise InputError(
            f"{place} has no finished documents. First run, or wait for: python -m {prepare_documents.STAGE.script} "
            f"{shlex.quote(str(place))}"
        )
    names = sorted(name for name in marker["files"] if name.startswith(f"{RunPaths.documents}/"))
    files = tuple(inside(place, name, folder.marker("documents")) for name in names if name.endswith(".parquet"))
    tokenizer = load(folder.tokenizer) if read_marker(train_tokenizer.STAGE, root) else None
    return DocumentsRun(folder, experiment, files, marker["key"], tokenizer)
