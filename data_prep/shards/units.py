"""Steps of units: what is done is marked, file by file, and not done again. A marker holds what a unit came to."""

import functools
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from data_prep.config import ShardsConfig
from data_prep.engine.over_files import run_over_files
from lm.storage import digest, write_atomically, writing


class Unit(Protocol):
    """What one call works on."""

    @property
    def name(self) -> str:
        """Unlike that of any other unit of its step."""
        ...

    @property
    def identity(self) -> str:
        """SHA-256 of all that decides its outputs."""
        ...

    @property
    def bytes(self) -> int: ...


@dataclass(frozen=True)
class Made:
    """What a unit came to."""

    counts: dict[str, Any]
    outputs: dict[str, list]
    """{name, relative to the folder of the step: [bytes, SHA-256]}"""


def identity_of(*parts: object) -> str:
    """SHA-256 of what has a form in JSON."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def marker_of(folder: Path, step: str, name: str) -> Path:
    return folder / "units" / step / f"{name}.json"


def run_step[U: Unit](
    step: str,
    units: Sequence[U],
    work: Callable[[U, Path], tuple[dict[str, Any], Sequence[str]]],
    folder: Path,
    config: ShardsConfig,
) -> list[Made]:
    """Calls work(unit, folder), which gives counts and names of the files that it wrote, for each unit that is not
    done; what each came to, in their order. Raises what `work` raises, InputError when the disk does not take a file.
    """
    with writing(folder):
        marker_of(folder, step, "").parent.mkdir(parents=True, exist_ok=True)
    left = [unit for unit in units if found(unit, step, folder) is None]
    if left:
        run_over_files(functools.partial(run_unit, step=step, work=work, folder=folder), left, config)
    made = [found(unit, step, folder) for unit in units]
    return [one for one in made if one is not None]


def found(unit: Unit, step: str, folder: Path) -> Made | None:
    """What the unit came to, where it is done and its files are as they were."""
    try:
        marker = json.loads(marker_of(folder, step, unit.name).read_text())
        whole = all((folder / name).stat().st_size == size for name, (size, _) in marker["outputs"].items())
        return Made(marker["counts"], marker["outputs"]) if whole and marker["identity"] == unit.identity else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def run_unit[U: Unit](
    unit: U, step: str, work: Callable[[U, Path], tuple[dict[str, Any], Sequence[str]]], folder: Path
) -> None:
    counts, names = work(unit, folder)
    outputs = {}
    for name in names:
        size, sha256 = digest(folder / name)
        outputs[name] = [size, sha256]
    marker = marker_of(folder, step, unit.name)
    with writing(marker):
        content = {"identity": unit.identity, "counts": counts, "outputs": outputs}
        write_atomically(marker, json.dumps(content), scratch=marker.parent)
