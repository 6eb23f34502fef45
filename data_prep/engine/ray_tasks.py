"""Units as tasks of a Ray cluster: a local one that the command starts, or a running one (engine.address).

Ray places the tasks and replaces workers and nodes. This process counts the attempts, since Ray's own retries do not
report how a worker was lost. All machines must have the run folder and the inputs under the same paths.
"""

import contextlib
import logging
import math
import os
import pickle
import re
import socket
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from data_prep.config.engine import EngineConfig
from data_prep.engine.attempts import SECONDS_BETWEEN_REPORTS, Attempts
from data_prep.engine.units import ATTEMPT, Failure, Marker, Unit
from data_prep.engine.worker import attempt
from lm.errors import InputError, UsageError, shown
from lm.storage import environment_of_storage, set_environment
from lm.trusted_code import VARIABLE

TASKS_PER_CPU = 2
"""Tasks submitted per CPU, so that an idle worker has a next unit and an autoscaler sees waiting work."""
LOST_NODES = 10
"""Number of times that a unit's node may be lost without counting as an attempt, since spot nodes vanish. Later losses
count, since a unit may crash its node."""
CONNECT_SECONDS = 30
NODE = re.compile(r"node (\w{1,100}),")
"""Matches the ID of a Ray node in a line of a running record (`running_of`)."""
CONNECTED: list[object] = []
"""Address of the cluster that this process uses; for a local cluster, its number of workers."""


def run_units(attempts: Attempts) -> None:
    """Run all queued units of a step as Ray tasks. Raises the errors of `Attempts.ended`, and InputError if Ray cannot
    run a task. An exception or interrupt cancels the running tasks."""
    ray = connect(attempts.engine)
    step = pickle.dumps((replace(attempts.step, units=()), attempts.folder, attempts.engine))
    trusted = {VARIABLE: os.environ.get(VARIABLE)}
    given = ray.put((environment_of_storage() | trusted, list(sys.path), str(Path.cwd()), step))
    remote = ray.remote(run_task)
    options: dict[str, Any] = {"num_cpus": 1, "max_retries": 0, "name": attempts.step.name}
    anywhere = remote.options(**options)

    def submit(unit: Unit) -> Any:
        fresh = {"env_vars": {"GRISTMILL_UNIT": unit.name}}  # unique, so Ray starts a new worker process
        one = remote.options(**options, runtime_env=fresh) if unit.name in attempts.suspects else anywhere
        return one.remote(given, pickle.dumps((unit, attempts.deaths.get(unit.name, 0))))

    running: dict[Any, Unit] = {}
    lost_nodes: dict[str, int] = {}
    most, updated = 1, -math.inf
    with attempts.forgetting_running():
        try:
            while attempts.queue or running:
                if time.monotonic() - updated >= SECONDS_BETWEEN_REPORTS:  # the number of nodes may change
                    most = TASKS_PER_CPU * max(1, int(ray.cluster_resources().get("CPU", 0)))
                    updated = time.monotonic()
                while len(running) < most and (unit := attempts.next()):
                    running[submit(unit)] = unit
                ready, _ = ray.wait([*running], timeout=SECONDS_BETWEEN_REPORTS, fetch_local=False)
                if ready:  # collect all ready tasks; with num_returns, the first call would wait for all
                    ready, _ = ray.wait([*running], num_returns=len(running), timeout=0, fetch_local=False)
                for task in ready:
                    unit = running.pop(task)
                    result = result_of(task, attempts, unit, lost_nodes)
                    attempts.ended(unit, result) if result else attempts.requeue(unit)
                attempts.report_now_and_then()
        except BaseException:
            for task in running:
                with contextlib.suppress(Exception):
                    ray.cancel(task, force=True)
            ray.shutdown()
            raise


def connect(engine: EngineConfig) -> Any:
    """Connect to the Ray cluster at engine.address and return the module `ray`. Without an address, starts a local
    cluster, which ends with this process. Raises UsageError if Ray is not installed, InputError if connecting fails."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if not engine.address:
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # Ray's servers then listen on the loopback interface
    try:
        import ray  # ty: ignore[import-not-found]
    except ImportError as error:
        raise UsageError(f"engine.runner is ray, but Ray is not installed ({error}). Install it: make ray") from error
    wanted = [engine.address or engine.workers]
    if ray.is_initialized() and wanted != CONNECTED:
        ray.shutdown()
    if not ray.is_initialized():
        local = {"num_cpus": engine.workers, "include_dashboard": False, "object_store_memory": 2**27}
        options: dict[str, Any] = {} if engine.address else local
        for attempts_left in (2, 1, 0):
            try:
                if address := re.fullmatch(r"([^/]+):(\d+)", engine.address):  # Ray itself waits for minutes
                    socket.create_connection((address[1].strip("[]"), int(address[2])), timeout=CONNECT_SECONDS).close()
                ray.init(engine.address or "local", log_to_driver=False, logging_level=logging.ERROR, **options)
                break
            except Exception as error:  # Ray raises many types
                ray.shutdown()
                if not engine.address and attempts_left:
                    continue  # Ray gives its servers 30 s to start, which a busy machine may exceed
                raise InputError(
                    f"No Ray cluster can be used at engine.address {engine.address or '(this machine)'}: "
                    f"{shown(' '.join(str(error).split()), quotes=False)}. Check whether it is running (ray status) "
                    "with the same versions of Ray and Python."
                ) from error
        CONNECTED[:] = wanted
    return ray


def run_task(given: tuple[dict[str, str | None], list[str], str, bytes], unit: bytes) -> Marker | Failure:
    """Run one attempt in a Ray worker. `unit` is the pickled (unit, number of its attempts that died). `given` is from
    the submitting process: environment variables, import path, working folder, pickled (step, folder, engine)."""
    import ray  # ty: ignore[import-not-found]

    environment, path, folder, step = given
    set_environment(environment)
    sys.path.extend(one for one in path if one not in sys.path)
    with contextlib.suppress(OSError):
        os.chdir(folder)
    return attempt(step, unit, node=ray.get_runtime_context().get_node_id())


def result_of(task: Any, attempts: Attempts, unit: Unit, lost_nodes: dict[str, int]) -> Marker | Failure | None:
    """Return the result of a Ray task; None if its node was lost and the unit must be tried again, up to LOST_NODES
    times. Raises InputError if Ray could not run the task."""
    import ray  # ty: ignore[import-not-found]
    from ray import exceptions  # ty: ignore[import-not-found]

    try:
        return ray.get(task)
    except (exceptions.NodeDiedError, exceptions.ObjectLostError):  # a large marker is stored on the node that made it
        how, log, record, lost = "the node was lost", "", "", True
    except (exceptions.OutOfMemoryError, exceptions.WorkerCrashedError) as error:
        how, log = "the worker process was killed", ""
        if isinstance(error, exceptions.OutOfMemoryError):
            how, log = f"{how} because memory ran out", str(error)
        record = attempts.record_of(unit)
        lost = is_lost(record)
    except exceptions.RayError as error:
        last = (str(error).strip() or repr(error)).splitlines()[-1]
        raise InputError(
            f"Ray could not run {unit.name}: {type(error).__name__}: {shown(last, quotes=False)}. Its nodes need the "
            "environment of make setup and this repository; finished work is kept."
        ) from error
    if lost:
        lost_nodes[unit.name] = lost_nodes.get(unit.name, 0) + 1
        if lost_nodes[unit.name] <= LOST_NODES:
            return None
    return attempts.death(unit, how, log, record)


def is_lost(record: str) -> bool:
    """Return whether Ray reports the node of a unit's last attempt as dead or draining. `record` is the text of the
    unit's running record (`running_of`), which names the nodes."""
    from ray import nodes  # ty: ignore[import-not-found]
    from ray._private.state import state  # ty: ignore[import-not-found]

    node = NODE.search(record.rpartition(ATTEMPT)[2])
    alive = {one["NodeID"] for one in nodes() if one["Alive"]} - state.get_draining_nodes().keys()
    return node is not None and node[1] not in alive
