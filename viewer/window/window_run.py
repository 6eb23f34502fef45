"""A run that is looked at: its folder, its tokenizer, and its models at any step that has a checkpoint."""

import threading
from collections.abc import Mapping
from pathlib import Path

from configs.experiment import Experiment
from configs.experiment.run_folder import Loaded, RunFolder
from lm.inspect.inspector import Inspector
from lm.serving.errors import wrong
from lm.serving.fields import Fields
from lm.tokenizer import Tokenizer

MOST_MODELS = 3
"""That are held at once, beside the served one."""
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

    def steps(self) -> list[int]:
        """Of the checkpoints that are there now."""
        folders = self.paths.checkpoints.iterdir() if self.paths.checkpoints.is_dir() else ()
        return sorted({self.step, *(int(one.name) for one in folders if one.name.isascii() and one.name.isdecimal())})

    def at(self, fields: Fields) -> Inspector:
        """The model of the field "step", by default the served one's. Raises ApiError 400 where there is none, and
        InputError for a checkpoint that cannot be read."""
        step = fields.get("step", self.step)
        if type(step) is not int or step not in (known := self.steps()):
            raise wrong("step", step, f"a step with a checkpoint: {', '.join(map(str, known))}")
        if step == self.step:
            return self.served
        with self._lock:
            found = self._others.pop(step, None)
            if found is None:
                loaded = self.paths.load(self._mesh, step, self.experiment)
                found = Inspector(loaded.model, self.experiment.model, self.tokenizer, self._mesh)
            self._others[step] = found  # the last is the one that was asked last
            while len(self._others) > MOST_MODELS:
                self._others.pop(next(iter(self._others)))
            return found
