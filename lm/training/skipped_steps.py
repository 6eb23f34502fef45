"""Report steps that the guard skipped (lm/training/anomaly_guard.py), with the documents in their batches."""

import contextlib
import itertools
import math
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from lm.config import TrainConfig
from lm.data.batches import Origin
from lm.data.records import document_tables
from lm.errors import InputError
from lm.metrics.writers import JsonLines
from lm.run_paths import RunPaths
from lm.storage import Place
from lm.terminal import listed

SHOWN = 3  # number of documents named on the terminal


class SkippedSteps:
    """Reports skipped steps: on the terminal, and as lines of skipped_steps.jsonl in the run folder."""

    def __init__(self, run: Path, documents: Callable[[int], list[Origin]], config: TrainConfig, first_step: int):
        """`documents` is BatchSource.documents."""
        self.path, self.documents, self.config = RunPaths(run).skipped_steps, documents, config
        self.first_step = first_step
        self.pending: tuple[int, dict[str, jax.Array]] | None = None
        self.in_row = 0
        """Steps skipped since the last applied one, at the time of the last `wait`."""
        self.log: JsonLines | None = None
        if self.path.exists():  # a resumed run reports repeated steps again
            self.open()

    def open(self) -> JsonLines:
        if self.log is None:
            self.log = JsonLines(self.path, self.first_step)
        return self.log

    def record(self, step: int, metrics: dict[str, jax.Array]) -> None:
        """Report the previous step if it was skipped, and remember `step`, which the devices are computing. Raises
        InputError if train.spikes.stop_after steps in a row were skipped."""
        self.wait()
        self.pending = step, metrics

    def running(self) -> bool:
        """Return whether the devices are still computing the last recorded step."""
        return self.pending is not None and not self.pending[1]["loss"].is_ready()  # ty: ignore[missing-attribute]

    def wait(self) -> None:
        """Wait for the last recorded step, and report it if it was skipped. Raises InputError if
        train.spikes.stop_after steps in a row were skipped."""
        if self.pending is None:
            return
        (step, on_devices), self.pending = self.pending, None
        self.in_row = int(jax.device_get(on_devices["in_row"]))  # 0 if the step was applied
        if not self.in_row:
            return
        metrics = jax.device_get(on_devices)
        if jax.process_index() == 0:
            self.report(step, metrics)
        if self.in_row >= self.config.spikes.stop_after:
            found = (
                f"The loss at step {step} is {float(metrics['loss'])}, with a gradient norm of "
                f"{float(metrics['gradient_norm'])}, and the {self.in_row} steps up to it were all skipped "
                "(train.spikes.stop_after)"
            )
            raise diverged(found, self.config, f" The data may be the cause: {self.path} lists the documents.")

    def report(self, step: int, metrics: dict[str, np.ndarray]) -> None:
        figures = {name: float(metrics[name]) for name in ("loss", "gradient_norm", "loss_bound", "norm_bound")}
        sequences = [
            {"folder": str(origin.folder), "documents": name_documents(origin.folder, origin.documents)}
            for origin in self.documents(step - 1)
        ]
        finite = {name: value if math.isfinite(value) else str(value) for name, value in figures.items()}
        try:
            self.open().write(step, finite | {"in_row": self.in_row, "sequences": sequences})
        except OSError as error:
            print(f"train: {self.path} cannot be written; training continues: {error}", flush=True)
        named = list(dict.fromkeys(itertools.chain.from_iterable(one["documents"] for one in sequences)))
        shown = f"documents {listed(named, SHOWN)} " if named else ""
        print(
            f"train: step {step:,} is skipped: loss {figures['loss']:.4g} (bound {figures['loss_bound']:.4g}), "
            f"gradient norm {figures['gradient_norm']:.4g} (bound {figures['norm_bound']:.4g}); "
            f"{shown}({self.path})",
            flush=True,
        )

    def close(self) -> None:
        if self.log is not None:
            self.log.close()


def diverged(found: str, config: TrainConfig, more: str = "") -> InputError:
    """Return the error for a run that has diverged. `found`, the evidence, begins the message; `more` ends it."""
    return InputError(
        f"{found}: the run has diverged, with train.optimizer.learning_rate = {config.optimizer.learning_rate} and "
        f"warmup_steps = {config.optimizer.warmup_steps}. Lower the learning rate or raise warmup_steps, and start in "
        f"another --workdir.{more}"
    )


def name_documents(folder: Place, rows: set[int]) -> list[str]:
    """Return the ids of these rows of the document tables in `folder`, in order; "row 7" if a table cannot be read."""
    from lm.data.document_rows import DocumentRows  # needs pyarrow, which a machine with only JAX lacks

    named: dict[int, str] = {}
    with contextlib.suppress(KeyError, TypeError, InputError):
        documents = DocumentRows(document_tables(folder), ["id"])
        for row in sorted(rows):
            named[row] = documents.at(row)["id"]  # ty: ignore[not-subscriptable]
    return [named.get(row, f"row {row}") for row in sorted(rows)]
