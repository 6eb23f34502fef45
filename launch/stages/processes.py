"""Several processes that train one model together, a process a host or a GPU: who is who, and how they meet.

Slurm, Open MPI and Cloud TPU say it in the environment of each process. Elsewhere, set it by hand:

    JAX_COORDINATOR_ADDRESS=host-0:8476 GRISTMILL_PROCESSES=2 GRISTMILL_PROCESS=0 python -m launch.train CONFIG.py
    JAX_COORDINATOR_ADDRESS=host-0:8476 GRISTMILL_PROCESSES=2 GRISTMILL_PROCESS=1 python -m launch.train CONFIG.py

The run folder must be the same for all, on a file system that they share.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lm.compilation_cache import keep_compiled_programs
from lm.errors import UsageError
from lm.resilience.goodput import Goodput
from lm.resilience.preemption import PreemptionHandler

ENVIRONMENTS = (
    ("GRISTMILL_PROCESS", "GRISTMILL_PROCESSES"),
    ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
)
HEARTBEAT_SECONDS = 60
"""After so long without a sign of one process the others end; a supervisor starts them all again."""
SHUTDOWN_SECONDS = 30


def place() -> tuple[int, int]:
    """(which process this is, of how many), by the environment; (0, 1) where it says nothing.

    Raises UsageError when it makes no sense.
    """
    for index, count in ENVIRONMENTS:
        if os.environ.get(count, "1") != "1":
            mine, all_of_them = os.environ.get(index, ""), os.environ[count]
            if not (mine.isdecimal() and all_of_them.isdecimal() and int(mine) < int(all_of_them)):
                raise UsageError(
                    f"{count} = {all_of_them!r} and {index} = {mine!r}: give the number of processes, and which "
                    f"this is, from 0 to {count} - 1."
                )
            return int(mine), int(all_of_them)
    hosts = os.environ.get("TPU_WORKER_HOSTNAMES", "").split(",")
    return (int(os.environ.get("TPU_WORKER_ID", "0")), len(hosts)) if len(hosts) > 1 else (0, 1)


def join() -> None:
    """Waits until all processes of this run are there. To be called before JAX is used; nothing where it is one.

    Raises UsageError when they cannot know where to meet.
    """
    index, count = place()
    if count == 1:
        return
    import jax

    by_hand: dict[str, Any] = {}
    if "GRISTMILL_PROCESSES" in os.environ:
        if "JAX_COORDINATOR_ADDRESS" not in os.environ:
            raise UsageError(
                f"GRISTMILL_PROCESSES = {count}, but JAX_COORDINATOR_ADDRESS is not set. Give host:port of process 0, "
                "the same to every process."
            )
        by_hand = {"num_processes": count, "process_id": index, "cluster_detection_method": "deactivate"}
    jax.distributed.initialize(
        **by_hand, heartbeat_timeout_seconds=HEARTBEAT_SECONDS, shutdown_timeout_seconds=SHUTDOWN_SECONDS
    )


def load_training(run: Path, began: float) -> Callable[..., None]:
    """Imports JAX, meets the other processes of the run (`join`), and returns lm.training.loop.train.

    JAX takes seconds to import, and swallows the exception of a Ctrl-C meanwhile. So a process that is asked to end
    does so at once, and writes it into the run folder: a supervisor must not think that the work is done.
    """
    index, processes = place()
    before_exit = lambda: Goodput(run, began, index).stop_before_training()
    keep_compiled_programs()
    with PreemptionHandler(before_exit=before_exit):
        import jax  # noqa: F401
    # Of several processes it leaves SIGTERM to JAX, which passes it on once they have met.
    with PreemptionHandler(processes, before_exit):
        join()
        from lm.training.loop import train
    return train
