"""Source and result of a dataset export."""

import shlex
from dataclasses import dataclass

import pyarrow as pa

from configs.experiment import Experiment
from configs.experiment.run_folder import RunFolder
from launch import prepare_documents, train_tokenizer
from launch.run_folder.checks import refuse_link
from launch.stages.stage import read_marker
from lm.errors import InputError
from lm.run_paths import RunPaths
from lm.storage import Place, inside
from lm.tokenizer import Tokenizer

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
        return self.folder.place

    @property
    def name(self) -> str:
        return self.folder.name


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
    root, place = folder.root, folder.place
    experiment = folder.experiment()
    refuse_link(root / RunPaths.documents)
    folder.fetch(RunPaths.config_json, RunPaths.funnel, RunPaths.tokenizer, published=True)
    marker = read_marker(prepare_documents.STAGE, root)
    if marker is None:
        raise InputError(
            f"{place} has no finished documents. First run, or wait for: python -m {prepare_documents.STAGE.script} "
            f"{shlex.quote(str(place))}"
        )
    names = sorted(name for name in marker["files"] if name.startswith(f"{RunPaths.documents}/"))
    files = tuple(inside(place, name, folder.marker("documents")) for name in names if name.endswith(".parquet"))
    tokenizer = folder.load_tokenizer() if read_marker(train_tokenizer.STAGE, root) else None
    return DocumentsRun(folder, experiment, files, marker["key"], tokenizer)
