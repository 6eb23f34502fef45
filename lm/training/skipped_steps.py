"""Steps that the guard skipped (lm/training/anomaly_guard.py), reported with the documents of their batches."""

import contextlib
import itertools
import math
from pathlib import Path
from typing import Any

import jax
import numpy as np

from lm.config import TrainConfig
from lm.data.batches import BatchSource
from lm.data.records import document_tables
from lm.errors import InputError
from lm.metrics.writers import JsonLines
from lm.run_paths import RunPaths
from lm.storage import Place

SHOWN = 3  # documents named on the terminal


class SkippedSteps:
    """skipped_steps.jsonl of a run folder, a line for every step that was skipped."""

    def __init__(self, run: Path, source: BatchSource, config: TrainConfig, first_step: int):
        self.path, self.source, self.config, self.first_step = RunPaths(run).skipped_steps, source, config, first_step
        self.pending: tuple[int, dict[str, jax.Array]] | None = None
        self.in_row = 0
        """Steps skipped since the last that was applied, as of the last `wait`."""
        self.log: JsonLines | None = None
        if self.path.exists():  # what a resumed run makes again, it reports again
            self.open()

    def open(self) -> JsonLines:
        if self.log is None:
            self.log = JsonLines(self.path, self.first_step)
        return self.log

    def record(self, step: int, metrics: dict[str, jax.Array]) -> None:
        """Looks at the step before this one, so that the device has this one to work at meanwhile. Raises as `wait`."""
        self.wait()
        self.pending = step, metrics

    def running(self) -> bool:
        """Whether the devices are still at the last step that was recorded."""
        return self.pending is not None and not self.pending[1]["loss"].is_ready()  # ty: ignore[missing-attribute]

    def wait(self) -> None:
        """Waits for the last step that was recorded. Raises InputError when too many in a row were skipped."""
        if self.pending is None:
            return
        (step, on_devices), self.pending = self.pending, None
        self.in_row = int(jax.device_get(on_devices["in_row"]))  # 0 where the step was applied
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
            raise diverged(found, self.config, f" Should the data be at fault: {self.path} names the documents.")

    def report(self, step: int, metrics: dict[str, np.ndarray]) -> None:
        figures = {name: float(metrics[name]) for name in ("loss", "gradient_norm", "loss_bound", "norm_bound")}
        sequences = [
            {"folder": str(origin.folder), "documents": name_documents(origin.folder, origin.documents)}
            for origin in self.source.documents(step - 1)
        ]
        finite = {name: value if math.isfinite(value) else str(value) for name, value in figures.items()}
        try:
            self.open().write(step, finite | {"in_row": self.in_row, "sequences": sequences})
        except OSError as error:
            print(f"train: {self.path} cannot be written, and training goes on: {error}", flush=True)
        named = list(dict.fromkeys(itertools.chain.from_iterable(one["documents"] for one in sequences)))
        more = f" and {len(named) - SHOWN} more" if len(named) > SHOWN else ""
        print(
            f"train: step {step:,} is skipped: loss {figures['loss']:.4g} (bound {figures['loss_bound']:.4g}), "
            f"gradient norm {figures['gradient_norm']:.4g} (bound {figures['norm_bound']:.4g}); documents "
            f"{', '.join(named[:SHOWN])}{more} ({self.path})",
            flush=True,
        )

    def close(self) -> None:
        if self.log is not None:
            self.log.close()


def diverged(found: str, config: TrainConfig, more: str = "") -> InputError:
    """What to raise, because of what was found, when a run has diverged."""
    return InputError(
        f"{found}: the run has diverged, with train.optimizer.learning_rate = {config.optimizer.learning_rate} and "
        f"warmup_steps = {config.optimizer.warmup_steps}. Lower the one or raise the other, and start in another "
        f"--workdir.{more}"
    )


def name_documents(folder: Place, rows: set[int]) -> list[str]:
    """The ids of some rows of the tables of documents in `folder`, in order; "row 7" where there is no such table."""
    named: dict[int, str] = {}
    with contextlib.suppress(OSError, ValueError, KeyError, InputError):
        import pyarrow.parquet as pq

        begin = 0
        for place in document_tables(folder):
            with place.open("rb") as table, pq.ParquetFile(table) as file:
                for group in range(file.num_row_groups):
                    end = begin + file.metadata.row_group(group).num_rows
                    inside = [row for row in rows if begin <= row < end]
                    if inside:
                        ids: list[Any] = file.read_row_group(group, columns=["id"])["id"].to_pylist()
                        named |= {row: ids[row - begin] for row in inside}
                    begin = end
    return [named.get(row, f"row {row}") for row in sorted(rows)]
