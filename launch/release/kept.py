"""Data of the source that an imported run keeps, so that an export gives the same bytes again."""

import json
from dataclasses import dataclass, field

from configs.experiment.run_folder import OpenedRun
from lm.errors import InputError
from lm.formats.hugging_face.reading import KEPT
from lm.storage import file_inside

RECORD = "imported.json"
"""File in RunPaths.imported."""


@dataclass(frozen=True)
class Kept:
    """What an imported run keeps of the original model; empty for a run that was trained from scratch."""

    origin: str = ""
    """Name of the source, for people."""
    dtypes: dict[str, str] = field(default_factory=dict)
    """{name of a tensor in the source: its dtype there}."""
    files: dict[str, bytes] = field(default_factory=dict)
    """The tokenizer's original files, if the run still has that tokenizer."""


def kept_of(run: OpenedRun) -> Kept:
    """Read what an imported run keeps of the original model. Raises InputError if it is damaged."""
    folder = run.folder.imported
    if not (folder / RECORD).is_file():
        return Kept()
    try:
        record = json.loads((folder / RECORD).read_bytes())
        same = record["tokenizer"] == run.tokenizer.fingerprint
        names = [name for name in KEPT if same and (folder / name).is_file()]
        files = {name: file_inside(folder, name).read_bytes() for name in names}
        return Kept(record["origin"], dict(record["dtypes"]), files)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{folder / RECORD} is damaged: {type(error).__name__}: {error}. Import it again.") from error
