"""Units on the workers of a Beam runner. The graph has a few ranges of numbers, however many units there are: the
workers read the list, which is frozen in the step's folder, and write markers there as all engines do."""

import functools
import math
import pickle
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_prep.config.engine import EngineConfig
from data_prep.engine.attempts import HOPELESS, Attempts
from data_prep.engine.beam_runner import run_pipeline
from data_prep.engine.units import UNITS, Failure, Marker, is_done, marker_of, read_marker, set_aside, try_unit
from lm.errors import InputError
from lm.storage import Place, write_atomically
from lm.trusted_code import inherit

if TYPE_CHECKING:
    import apache_beam as beam

MOST_RANGES = 10_000
"""Elements of the graph."""
TRIED = {"done": 0, "failed": 0}
"""By this worker process, of the step that it works on."""


def run_on_beam(attempts: Attempts) -> None:
    """Runs all units that are left. Raises what ends the run, and the first error where all units failed."""
    engine, step, units = attempts.engine, attempts.step, list(attempts.queue)
    place = attempts.folder / UNITS / f"{step.name}.pickle"
    write_atomically(place, pickle.dumps((step, units, attempts.folder, engine)))
    size = math.ceil(len(units) / MOST_RANGES)
    ranges = [(first, min(first + size, len(units))) for first in range(0, len(units), size)]

    def build(pipeline: "beam.Pipeline") -> None:
        import apache_beam as beam

        numbers = pipeline | "ranges" >> beam.Create(ranges, reshuffle=True)
        numbers | step.name >> beam.Map(run_range, place=place, version=attempts.version())

    assert engine.runner in ("fn_api", "dask", "beam")
    run_pipeline(build, engine.workers, engine.runner, shlex.split(engine.beam_options))
    place.unlink(missing_ok=True)
    attempts.find_what_is_there(retry=False)
    if not attempts.done and attempts.failed:
        raise InputError(next(iter(attempts.failed.values())))


@functools.lru_cache(1)
def listed(place: Place, version: str) -> tuple[Any, list, Place, EngineConfig]:
    """The list, once in each worker process. `version` tells the lists of two runs apart."""
    TRIED.update(done=0, failed=0)
    inherit()  # what the step names is imported by pickle
    return pickle.loads(place.read_bytes())


def run_range(bounds: tuple[int, int], place: Place, version: str) -> None:
    """Runs the units of these numbers; those that are done, as where a runner repeats what it lost, are passed over."""
    from apache_beam.metrics import Metrics

    step, units, folder, engine = listed(place, version)
    for unit in units[slice(*bounds)]:
        if is_done(unit, read_marker(marker_of(step.name, unit.name, folder)), folder):
            continue
        result, tries = None, 0
        while not isinstance(result, Marker) and tries < engine.attempts:
            tries += 1
            result = try_unit(step, unit, folder, engine)
            if isinstance(result, Failure) and (result.ends_run or result.for_good):
                break
        if isinstance(result, Marker):
            TRIED["done"] += 1
            Metrics.counter(step.name, "units").inc()
            Metrics.counter(step.name, step.rows).inc(result.counts.get("rows", 0))
            continue
        assert result is not None
        TRIED["failed"] += 1
        if result.ends_run or (not TRIED["done"] and TRIED["failed"] >= HOPELESS):
            raise result.to_travel().raised()
        Metrics.counter(step.name, "failed").inc()
        if isinstance(folder, Path):
            (folder / "quarantine" / step.name).mkdir(parents=True, exist_ok=True)
        set_aside(step, unit, result, tries, folder)
