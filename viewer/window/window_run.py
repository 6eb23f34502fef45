"""A run that is looked at: its folder, its tokenizer, and its models at any step that has a checkpoint."""

import dataclasses
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax

from configs.experiment import Experiment
from configs.experiment.run_folder import Loaded, RunFolder
from lm.checkpoints.in_bucket import fetch_to_ask, steps_to_ask
from lm.inspect.inspector import Inspector
from lm.serving.errors import wrong
from lm.serving.fields import Fields
from lm.tokenizer import Tokenizer

LEAST_MODELS, MOST_BYTES = 2, 2**29
"""Of models of other steps that are held beside the served one: so many whatever their size, more while they are
smaller than this together."""
NONE: Mapping[str, Tokenizer] = {}


class WindowRun:
    """What the inspections ask."""

    def __init__(
        self, experiment: Experiment, workdir: Path, loaded: Loaded, name: str, beside: Mapping[str, Tokenizer] = NONE
    ):
        """`beside`: other tokenizers by name, which the run's own is compared with."""
        self.beside = {one: tokenizer for one, tokenizer in beside.items() if one != name}
        self.experiment, self.tokenizer, self.step, self.name = experiment, loaded.tokenizer, loaded.step, name
        self.paths = RunFolder(workdir)
        self.served = Inspector(loaded.model, experiment.model, loaded.tokenizer, loaded.mesh)
        self._mesh = loaded.mesh
        self._others: dict[int, Inspector] = {}
        self._lock = threading.Lock()
        self.runs: list[WindowRun] = []
        """Other runs, beside this one."""

    def steps(self) -> list[int]:
        """Of the checkpoints and snapshots that are there now."""
        return sorted({self.step, *steps_to_ask(self.paths)})

    def put_beside(self, given: Sequence[str]) -> None:
        """Sets those of `given` that are folders of runs with a model beside this one, by their names; of two of one
        name the later gets a number. Raises as RunFolder.load."""
        folders = [Path(one).expanduser() for one in given]
        for folder in folders:
            paths = RunFolder(folder)
            if not (paths.config_json.is_file() and steps_to_ask(paths)):
                continue  # a tokenizer, or a run that is not trained yet
            loaded = paths.load()
            run = WindowRun(loaded.experiment, folder, loaded, folder.resolve().name)
            taken = [one.name for one in self.all_runs()]
            name = run.name
            run.name = next(one for one in (name, *(f"{name} ({n})" for n in range(2, 99))) if one not in taken)
            self.runs.append(run)

    def all_runs(self) -> list["WindowRun"]:
        return [self, *self.runs]

    def of(self, fields: Fields) -> "WindowRun":
        """The run of the field "run", by default this one. Raises ApiError 400 where there is none of that name."""
        asked = fields.get("run", self.name)
        for run in self.all_runs():
            if run.name == asked:
                return run
        raise wrong("run", asked, f"a run that is served here: {', '.join(run.name for run in self.all_runs())}")

    def about(self) -> dict[str, object]:
        """What tells runs apart."""
        return {
            "name": self.name,
            "step": self.step,
            "steps": self.steps(),
            "parameters": self.served.parameters,
            "tokenizer": self.tokenizer.fingerprint,
            "vocab_size": self.tokenizer.vocab_size,
            "context_length": self.experiment.model.context_length,
            "model": dataclasses.asdict(self.experiment.model),
        }

    def at(self, fields: Fields) -> Inspector:
        """The model of the fields "run" and "step", by default the served one's. Raises ApiError 400 where there is
        none, and InputError for a checkpoint that cannot be read."""
        return self.of(fields).at_step(fields)

    def at_step(self, fields: Fields) -> Inspector:
        step = fields.get("step", self.step)
        known = self.steps()
        if type(step) is not int or step not in known:
            raise wrong("step", step, f"a step with a checkpoint or snapshot: {', '.join(map(str, known))}")
        if step == self.step:
            return self.served
        with self._lock:
            found = self._others.pop(step, None)
            if found is None:
                fetch_to_ask(self.paths.root, step)
                loaded = self.paths.load(self._mesh, step, self.experiment)
                found = Inspector(loaded.model, self.experiment.model, self.tokenizer, self._mesh)
            self._others[step] = found  # the last is the one that was asked last
            size = sum(leaf.nbytes for leaf in jax.tree.leaves(found.model))
            while len(self._others) > max(LEAST_MODELS, MOST_BYTES // size):
                self._others.pop(next(iter(self._others)))
            return found
