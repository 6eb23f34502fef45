"""What an imported run keeps of its source, so that an export gives the same bytes again."""

import json
from dataclasses import dataclass, field

from launch.release.stored_run import StoredRun
from lm.errors import InputError

RECORD = "imported.json"
"""In RunPaths.imported."""


@dataclass(frozen=True)
class Kept:
    """Nothing, of a run that was trained here from the start."""

    origin: str = ""
    """The source, for people."""
    dtypes: dict[str, str] = field(default_factory=dict)
    """{the source's name of a tensor: its type there}."""
    files: dict[str, bytes] = field(default_factory=dict)
    """The tokenizer's files as they came, where the run still has that tokenizer."""


def kept_of(run: StoredRun) -> Kept:
    """What the run's folder keeps of its source. Raises InputError where that is damaged."""
    folder = run.folder.imported
    if not (folder / RECORD).is_file():
        return Kept()
    try:
        record = json.loads((folder / RECORD).read_bytes())
        same = record["tokenizer"] == run.tokenizer.fingerprint
        others = sorted(path for path in folder.iterdir() if path.name != RECORD and path.is_file())
        files = {path.name: path.read_bytes() for path in others} if same else {}
        return Kept(record["origin"], dict(record["dtypes"]), files)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder / RECORD} is damaged: {type(error).__name__}: {error}. Import it again.") from error
