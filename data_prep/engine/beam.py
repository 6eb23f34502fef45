"""Units on a Beam runner: one Map for each step, over ranges of its list of units.

The default runner, FnApiRunner, runs one unit at a time in this process; engine.beam_options can name any other.
Workers read the list from the step's folder and write markers and quarantine records there, so nothing depends on how a
runner handles results, errors or metrics. DaskRunner computes only what the last transform of a graph needs, so each
graph has one Map.
"""

import atexit
import contextlib
import functools
import io
import math
import os
import pickle
import secrets
import shlex
from typing import TYPE_CHECKING, Any

from data_prep.config.engine import EngineConfig
from data_prep.engine.attempts import HOPELESS, Attempts
from data_prep.engine.units import (
    UNITS,
    Failure,
    Marker,
    marker_of,
    quarantine,
    quarantine_of,
    read_marker,
    try_unit,
)
from lm.errors import InputError, UsageError, shown
from lm.storage import Place, size_of, write_atomically
from lm.trusted_code import inherit

if TYPE_CHECKING:
    from apache_beam.options.pipeline_options import PipelineOptions

MOST_RANGES = 10_000
"""Maximum number of ranges of units. A range is what Beam sends to a worker."""
DASK = "apache_beam.runners.dask.dask_runner.DaskRunner"
TRIED = {"done": 0, "failed": 0}
"""Number of units of the current step that were done, or failed, in this worker process."""


def run_units(attempts: Attempts) -> None:
    """Run all queued units of a step on an Apache Beam runner. Raises UsageError if Beam does not accept
    engine.beam_options; InputError if the runner or every unit failed; an error that every unit would have."""
    engine, step, folder, units = attempts.engine, attempts.step, attempts.folder, list(attempts.queue)
    places = folder / UNITS / f"{step.name}.pickle", folder / UNITS / f"{step.name}.stopped"
    listed, stopped = places
    size = math.ceil(len(units) / MOST_RANGES)
    ranges = [(first, min(first + size, len(units))) for first in range(0, len(units), size)]
    import apache_beam as beam

    options = beam_options(engine)
    try:
        pipeline = beam.Pipeline(options=options)
    except (ValueError, ImportError) as error:  # no such runner, or one that lacks its packages
        raise UsageError(f"Beam rejects engine.beam_options {engine.beam_options}: {error}. Correct them.") from error
    stopped.unlink(missing_ok=True)  # it is unpickled below, so only this run may write it
    write_atomically(listed, pickle.dumps((step, units, folder, engine)))
    run = functools.partial(run_range, places=places, version=secrets.token_hex(8))
    pipeline | "ranges" >> beam.Create(ranges, reshuffle=True) | step.name >> beam.Map(run)
    try:
        result = pipeline.run()
        result.wait_until_finish()
        if client := getattr(result, "client", None):  # of DaskRunner
            client.close()
    except Exception as error:  # run_range raises nothing
        last = (str(error).strip() or repr(error)).splitlines()[-1]
        if last.startswith("KeyboardInterrupt"):  # Beam's wrapping of Ctrl-C during a unit
            raise KeyboardInterrupt from None
        raise InputError(
            f"The Beam runner ended ({engine.beam_options or 'FnApiRunner'}): {type(error).__name__}: "
            f"{shown(last, quotes=False)}. Finished units are kept; the same command runs the rest."
        ) from error
    finally:
        listed.unlink(missing_ok=True)
    attempts.load_state(retry=False)
    if not attempts.done:  # then the units may not be the cause
        for name in attempts.failed:
            quarantine_of(step.name, name, folder).unlink(missing_ok=True)
    if stopped.is_file():
        failure = pickle.loads(stopped.read_bytes())
        stopped.unlink(missing_ok=True)
        raise failure.raised()
    if attempts.failed and not attempts.done:
        name, error = next(iter(attempts.failed.items()))
        raise InputError(f"{step.name}: {name}: {error}")
    if attempts.queue:
        raise InputError(
            f"Beam's runner ended, but {len(attempts.queue):,} of {len(step.units):,} units of {step.name} are "
            "neither done nor failed. See the runner's logs; the same command runs the remaining units."
        )


def beam_options(engine: EngineConfig) -> "PipelineOptions":
    """Return Beam's pipeline options from engine.beam_options. DaskRunner without an address gets a local cluster of
    engine.workers processes. Raises UsageError if a value is invalid; Beam itself would print 200 lines and exit."""
    words = shlex.split(engine.beam_options)
    if not any(word.startswith("--runner=") for word in words):
        words.append("--runner=FnApiRunner")
    if f"--runner={DASK}" in words:
        # For the workers too. LocalCluster silences only this process, and only until it is closed.
        os.environ.setdefault("DASK_LOGGING__DISTRIBUTED", "critical")
        from apache_beam.runners.dask import dask_runner  # noqa: F401 - registers its options

        if not any(word.startswith("--dask_npartitions") for word in words):
            words.append(f"--dask_npartitions={MOST_RANGES}")  # one per range; Dask's default is 128 in total
        if not any(word.startswith(("--dask_client_address", "--dask_scheduler_file")) for word in words):
            words.append(f"--dask_client_address={dask_cluster(engine.workers).scheduler_address}")
    elif engine.workers > 1:
        raise UsageError(
            f"engine.workers is {engine.workers}, but of Beam's runners only {DASK} starts workers on this machine. "
            "Remove engine.workers, or give --engine.runner processes."
        )
    from apache_beam.options.pipeline_options import PipelineOptions

    options, printed = PipelineOptions(words), io.StringIO()
    try:
        with contextlib.redirect_stderr(printed):
            options.get_all_options()
    except SystemExit as error:
        reason = printed.getvalue().rpartition("error: ")[2].strip()
        raise UsageError(f"Beam rejects engine.beam_options {engine.beam_options}: {reason}. Correct them.") from error
    return options


@functools.cache
def dask_cluster(workers: int) -> Any:
    from dask.distributed import LocalCluster

    cluster = LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None, silence_logs=False)
    atexit.register(cluster.close)  # before Dask's own, which ends the scheduler while workers are connected
    return cluster


@functools.lru_cache(1)
def load_list(place: Place, version: str) -> tuple[Any, list, Place, EngineConfig]:
    """Return the pickled (step, units, folder, engine) at `place`, read once per worker process. `version` is unique to
    a run of the step, so that no later run gets the cached list of an earlier one."""
    TRIED.update(done=0, failed=0)
    inherit()  # unpickling imports modules that the step names
    return pickle.loads(place.read_bytes())


def run_range(bounds: tuple[int, int], places: tuple[Place, Place], version: str) -> None:
    """Run the units with the numbers first to last - 1, where `bounds` is (first, last). Skips finished units, since a
    runner may repeat a range. `places` are the paths of the list of units (`load_list`) and of a file for an error that
    ends the run. After a worker has written that file, no worker starts a unit."""
    from apache_beam.metrics import Metrics

    listed, stopped = places
    step, units, folder, engine = load_list(listed, version)
    for unit in units[slice(*bounds)]:
        if stopped.is_file():
            return
        marker = read_marker(marker_of(step.name, unit.name, folder))
        outputs = marker.outputs if marker and marker.identity == unit.identity else None
        if outputs is not None and all(size_of(folder / name) == size for name, (size, _) in outputs.items()):
            continue
        tries, result = 1, try_unit(step, unit, folder, engine)
        while isinstance(result, Failure) and tries < engine.attempts and not (result.ends_run or result.permanent):
            tries, result = tries + 1, try_unit(step, unit, folder, engine)
        outcome = "done" if isinstance(result, Marker) else "failed"
        TRIED[outcome] += 1
        Metrics.counter("gristmill", f"units {outcome}").inc()
        if isinstance(result, Failure):
            if result.ends_run or (not TRIED["done"] and TRIED["failed"] >= HOPELESS):
                write_atomically(stopped, pickle.dumps(result.picklable()))
                return
            quarantine(step, unit, result, tries, folder)
