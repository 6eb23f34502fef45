"""What units hand on to each other is deleted when the stage is finished, and no process of the job can read it any
more.

Each process of an array job renews a note, `stages/workers/<rank>-of-<world>.json`, that says which stages it has
passed; it is there before the process looks for the marker of any. So who finds the marker of a stage, and no note of a
process that has not passed it, knows that none reads: one that comes later finds the marker too. The last to pass
deletes. A process that was killed is known by a note that does not change for GRISTMILL_LEASE_SECONDS, which those who
are done with all stages wait for, but for nothing else.
"""

import json
import time
from collections.abc import Sequence
from typing import Any

from data_prep.engine.array import FIRST_PAUSE, LONGEST_PAUSE, Note, list_of, note_of, versions_in
from data_prep.engine.attempts import names_in
from data_prep.engine.units import UNITS, delete_all, marker_of, read_marker
from launch.stages.stage import Stage
from lm.run_paths import RunPaths
from lm.storage import Place, Url
from lm.storage.lease import lease_seconds


class Present(Note):
    """What a process says of itself as long as it makes stages."""

    def __init__(self, place: Place, rank: int, world: int):
        super().__init__(place / RunPaths.stages, rank, world, "")
        self.passed: list[str] = []
        self.ended = False

    def told(self) -> dict[str, Any]:
        return {"passed": self.passed, "ended": self.ended}

    def others_before(self, stage: str) -> dict[str, object]:
        """{name of the note: its version} of the other processes that have not passed the stage and may be at it."""
        folder = self.place.parent
        found = versions_in(folder)
        for name in [*found]:
            try:
                said = json.loads((folder / name).read_text())
                passed = said["ended"] or stage in said["passed"]
            except (OSError, ValueError, KeyError, RecursionError):  # half written on a strange disk, or gone
                passed = False
            if passed or name == note_of(self.rank, self.world) or not name.endswith(".json"):
                del found[name]
        return found


def delete_handed_on(stages: Sequence[Stage], place: Place, present: Present, wait: bool = False) -> None:
    """Deletes what the units of the finished stages have handed on, unless another process may read it; with `wait`,
    also where one that was killed has not passed a stage."""
    for stage in stages:
        left = [place / name for name in stage.handed_on if is_there(place / name)]
        if left and (not present.others_before(stage.name) or (wait and all_are_dead(present, stage.name))):
            for folder in left:
                forget_lists(folder.parent, folder.name)
                delete_all(folder)


def is_there(folder: Place) -> bool:
    return bool(folder.files()) if isinstance(folder, Url) else folder.is_dir()


def all_are_dead(present: Present, stage: str) -> bool:
    """Whether no process that has not passed the stage gives a sign of life. One that does will see to it itself."""
    before, start, pause = present.others_before(stage), time.monotonic(), FIRST_PAUSE
    while time.monotonic() - start < lease_seconds():
        versions = versions_in(present.place.parent)
        if any(versions.get(name) != version for name, version in before.items()):
            return not present.others_before(stage)
        time.sleep(min(pause, lease_seconds() / 3))
        pause = min(1.5 * pause, LONGEST_PAUSE)
    return True


def forget_lists(folder: Place, parts: str) -> None:
    """Deletes the lists of the steps that have outputs in folder/parts: what is frozen anew is looked at unit by unit,
    and made where its outputs are gone."""
    for step in sorted(one.removesuffix(".list") for one in names_in(folder / UNITS) if one.endswith(".list")):
        first = min(names_in(folder / UNITS / step), default=None)
        marker = read_marker(marker_of(step, first, folder)) if first else None
        if marker is None or any(name.startswith(f"{parts}/") for name in marker.outputs):
            list_of(step, folder).unlink(missing_ok=True)
