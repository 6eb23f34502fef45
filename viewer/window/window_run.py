"""A run for the window: its folder, its tokenizer, and its models at any step with a checkpoint."""

import dataclasses
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jax
from jax.sharding import Mesh

from configs.experiment import Experiment
from configs.experiment.run_folder import Loaded, RunFolder
from lm.checkpoints.manifest import find_parameters, folders_of, saved_steps
from lm.checkpoints.reading import bytes_on_each, check_layers
from lm.config import ModelConfig
from lm.errors import UsageError
from lm.inference.devices import inference_mesh
from lm.inspect.inspector import Inspector
from lm.model.cost import free_bytes
from lm.serving.fields import ApiError, Fields, wrong
from lm.tokenizer import Tokenizer
from viewer.window.corpus.run_data import RunData

LEAST_MODELS, MOST_BYTES = 2, 2**29
"""Models of other steps to keep next to the served one, if memory allows: LEAST_MODELS of any size, more if they are
smaller than MOST_BYTES together."""
TO_READ = 1.5
"""Peak memory while a model is loaded, as a multiple of its parameters: 1.8 GB for 1.2 GB, measured on a CPU."""
OUT_OF_MEMORY = "out_of_memory"
NONE: Mapping[str, Tokenizer] = {}


class WindowRun:
    """A served run: its folder, its tokenizer, its loaded model, and other runs to compare with."""

    def __init__(
        self, experiment: Experiment, workdir: Path, loaded: Loaded, name: str, beside: Mapping[str, Tokenizer] = NONE,
        free: Callable[[Sequence[jax.Device]], int | None] = free_bytes,
    ):  # fmt: skip
        """`beside` are tokenizers to compare with, by name; `free` returns the free bytes per device, if known."""
        self.beside = {one: tokenizer for one, tokenizer in beside.items() if one != name}
        self.experiment, self.tokenizer, self.step, self.name = experiment, loaded.tokenizer, loaded.step, name
        self.paths = RunFolder(workdir)
        self.data = RunData(self.paths, experiment)
        self.served = Inspector(loaded.model, experiment.model, loaded.tokenizer, loaded.mesh)
        self._mesh, self._free = loaded.mesh, free
        self._others: dict[int, Inspector] = {}
        self._lock = threading.Lock()
        self.runs: list[WindowRun] = []
        """Other runs to compare with."""

    def steps(self) -> list[int]:
        """Steps of the existing checkpoints and snapshots, ascending."""
        return sorted({self.step, *saved_steps(self.paths)})

    def load_others(self, given: Sequence[str]) -> None:
        """Load the models of those paths in `given` that are folders of trained runs, to compare with. A name that is
        taken gets a number. Raises UsageError if a model does not fit into memory, and the errors of RunFolder.load."""
        folders = [Path(one).expanduser() for one in given]
        for folder in folders:
            paths = RunFolder(folder)
            steps = saved_steps(paths)
            if not (paths.config_json.is_file() and steps):
                continue  # a tokenizer, or an untrained run
            experiment = paths.experiment()
            check_layers(experiment.model, find_parameters(folders_of(paths), steps[-1])[0])
            mesh, _ = inference_mesh(experiment.train.mesh, experiment.model)
            if lacking := self.lacks_room(experiment.model, mesh):
                raise UsageError(f"--beside {folder}: its model {lacking} Omit this folder, or serve it separately.")
            loaded = paths.load(mesh, experiment=experiment)
            run = WindowRun(experiment, folder, loaded, folder.resolve().name, free=self._free)
            taken = [one.name for one in self.all_runs()]
            name = run.name
            run.name = next(one for one in (name, *(f"{name} ({n})" for n in range(2, 99))) if one not in taken)
            self.runs.append(run)

    def all_runs(self) -> list["WindowRun"]:
        return [self, *self.runs]

    def of(self, fields: Fields) -> "WindowRun":
        """Return the run named in the field "run"; default: this one. Raises ApiError 400 for an unknown name."""
        asked = fields.get("run", self.name)
        for run in self.all_runs():
            if run.name == asked:
                return run
        raise wrong("run", asked, f"a run that is served here: {', '.join(run.name for run in self.all_runs())}")

    def about(self) -> dict[str, object]:
        """Return as JSON what distinguishes runs: name, steps, size, tokenizer and model config."""
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
        """Return the model of the run and step in the fields "run" and "step"; default: the served one. Raises ApiError
        400 if there is none, 503 if memory does not suffice, and InputError for a checkpoint that cannot be read."""
        return self.of(fields).at_step(fields)

    def at_step(self, fields: Fields) -> Inspector:
        step = fields.get("step", self.step)
        known = self.steps()
        if type(step) is not int or step not in known:
            raise wrong("step", step, f"a step with a checkpoint or snapshot: {', '.join(map(str, known))}")
        if step == self.step:
            return self.served
        # One at a time: a model in use keeps its memory.
        fields.change_lane("step", "" if step in self._others else f"loading the model of step {step:,}")
        with self._lock:
            found = self._others.pop(step, None)
            if found is None:
                self._make_room(step)
                loaded = self.paths.load(self._mesh, step, self.experiment)
                found = Inspector(loaded.model, self.experiment.model, self.tokenizer, self._mesh)
            self._others[step] = found  # in order of use
            return found

    def _make_room(self, step: int) -> None:
        """Unload the least recently used models until one more fits. Raises ApiError 503 if that is not enough."""
        held = max(LEAST_MODELS, MOST_BYTES // bytes_on_each(self.experiment.model, self._mesh))
        while (lacking := self.lacks_room(self.experiment.model, self._mesh)) or len(self._others) >= held:
            if not self._others:
                break
            self._others.pop(next(iter(self._others)))
        if lacking:
            raise ApiError(
                503, f"The model of step {step:,} {lacking} Serve only that step, with --step {step}; or make the "
                    "served model smaller, with --weights bfloat16.",
                param="step", code=OUT_OF_MEMORY,
            )  # fmt: skip

    def lacks_room(self, model: ModelConfig, mesh: Mesh) -> str:
        """Return why the parameters of a model do not fit into free memory, as the end of a sentence; "" if they do."""
        devices = [*mesh.devices.flat]
        size, free = bytes_on_each(model, mesh), self._free(devices)
        if free is None or TO_READ * size <= free:
            return ""
        return (
            f"takes {size / 1e6:,.1f} MB, and {TO_READ * size / 1e6:,.1f} MB while it is loaded, but "
            f"{devices[0].device_kind} has {free / 1e6:,.1f} MB free."
        )
