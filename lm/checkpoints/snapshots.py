"""Snapshots: the parameters alone of chosen steps, kept for good beside the checkpoints and written as they are.

They are there to be looked at: no run goes on from one. At steps 0, 1, 2, 4, 8, ... they show a model learn (Pythia,
Biderman et al. 2023, arXiv:2304.01373).
"""

import contextlib
from collections.abc import Mapping
from typing import Any, NamedTuple, cast

from lm.checkpoints.manager import NO_HOOKS, Checkpoints, SaveHooks
from lm.checkpoints.manifest import DamageError, verify
from lm.model.transformer import Transformer
from lm.resilience.multihost import settle
from lm.storage import Place


class Parameters(NamedTuple):
    """The one item of a snapshot."""

    model: Transformer

    def checkpoint_items(self) -> dict[str, object]:
        return {"model": self.model}

    def with_items(self, items: dict[str, object]) -> "Parameters":
        return Parameters(cast(Transformer, items["model"]))


class Snapshots(Checkpoints):
    """snapshots/<step>/ of a run folder. One that fails is told, and ends no run."""

    kind = "snapshot"

    def __init__(self, folder: Place, hooks: SaveHooks = NO_HOOKS):
        super().__init__(folder, retention=None, hooks=hooks)

    def of_run(self, first: int, about: Mapping[str, Any]) -> set[int]:
        """The steps of the snapshots that a run which goes on at step `first` need not take again, when it says `about`
        itself what it would say with them.

        Those of later steps, which an attempt before has taken, stay where they are whole and were said to be of the
        same; else they are taken away, for this run will have other parameters there.
        """
        return {*settle("snapshots", None, lambda _: self.look(first, about))}

    def look(self, first: int, about: Mapping[str, Any]) -> list[int]:
        for step in self.tidied():
            folder = self.folder / str(step)
            if step >= first and not is_whole(folder, {**about, "step": step} if step > first or not first else {}):
                self.clear(step)
        return self.steps()


def is_whole(folder: Place, about: Mapping[str, Any]) -> bool:
    """Whether the files are what was written, and were said to be what `about` says. Raises InputError where one may
    not be read."""
    with contextlib.suppress(DamageError):
        found = verify(folder)
        return all(found.get(name) == value for name, value in about.items())
    return False
