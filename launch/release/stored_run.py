"""Source of a release: a run folder and one of its checkpoints, with the parameters on disk."""

from dataclasses import dataclass
from typing import Any

from configs.experiment import Experiment
from configs.experiment.run_folder import RunFolder, check_model_code
from launch.run_folder.bucket import fetch
from lm.checkpoints.manifest import folders_of, read_manifest
from lm.checkpoints.reading import whole_parameters
from lm.config import ModelConfig
from lm.errors import InputError
from lm.formats.parameters import StoredParameters
from lm.formats.tensors import parameter_shapes
from lm.run_paths import RunPaths
from lm.storage import file_inside
from lm.tokenizer import Tokenizer, load

PUBLISHED = (
    RunPaths.config_json, RunPaths.tokenizer, RunPaths.imported, RunPaths.funnel, RunPaths.metrics, RunPaths.evaluation
)  # fmt: skip
"""Files and folders of the run whose contents are published in a release, besides its parameters."""


@dataclass(frozen=True)
class StoredRun:
    """A run at the step of one checkpoint, to export it. The parameters are read from the disk when they are used."""

    folder: RunFolder
    experiment: Experiment
    tokenizer: Tokenizer
    parameters: StoredParameters
    step: int
    """Step of the checkpoint."""
    about: dict[str, Any]
    """Metadata in the checkpoint's manifest: losses, fingerprint of the tokenizer, library versions."""

    @property
    def config(self) -> ModelConfig:
        return self.experiment.model

    @property
    def name(self) -> str:
        """Name of the run folder."""
        return self.folder.root.resolve().name


def open_run(folder: RunFolder, step: int | None = None, trust_code: bool = False) -> StoredRun:
    """Open the run at `step` (default: its newest checkpoint) and verify the checkpoint's files. With `trust_code`, the
    user's code that config.json names may run. Raises InputError for files that are missing, damaged, or of another
    model or tokenizer, and for links out of the run folder; UsageError if there is no checkpoint of that step."""
    fetch(folder.root, (), PUBLISHED)
    for part in PUBLISHED:
        for path in (folder.root / part, *(folder.root / part).rglob("*")):
            file_inside(folder.root, str(path.relative_to(folder.root)))
    experiment = folder.experiment("trust" if trust_code else "leave out")
    found = whole_parameters(folders_of(folder), step)
    about, tokenizer = read_manifest(found)["about"], load(folder.tokenizer)
    check_model_code(experiment.model, about, found)
    if about.get("tokenizer") not in (None, tokenizer.fingerprint):
        raise InputError(
            f"{found} was trained with tokenizer {about['tokenizer']}, but {folder.tokenizer} is "
            f"{tokenizer.fingerprint}. Restore the tokenizer that the run was trained with."
        )
    parameters = StoredParameters(found)
    parameters.check(parameter_shapes(experiment.model))
    return StoredRun(folder, experiment, tokenizer, parameters, int(found.name), about)
