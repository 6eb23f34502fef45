"""Several processes that train one model together, one per host or per GPU: their index and count, and how they
connect.

Slurm, Open MPI and Cloud TPUs set them. Elsewhere, set them in each process:

    JAX_COORDINATOR_ADDRESS=host-0:8476 NUM_PROCESSES=2 PROCESS_ID=0 python -m launch.train CONFIG.py
    JAX_COORDINATOR_ADDRESS=host-0:8476 NUM_PROCESSES=2 PROCESS_ID=1 python -m launch.train CONFIG.py

NUM_PROCESSES=1 runs a command in one process on a machine whose scheduler says otherwise. The run folder must be the
same for all processes, on a shared file system or in a bucket.
"""

import contextlib
import functools
import json
import os
import re
import sys
import threading
import time
import traceback
import urllib.error
import urllib.request
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launch.stages.meeting import meet
from lm.compilation_cache import keep_compiled_programs, use_bucket_cache
from lm.errors import PeerError, UsageError, for_terminal, shown
from lm.resilience.goodput import Goodput
from lm.resilience.preemption import PreemptionHandler

ADDRESS = ("JAX_COORDINATOR_ADDRESS", "COORDINATOR_ADDRESS")
COUNT = ("NUM_PROCESSES", "JAX_NUM_PROCESSES")
INDEX = ("PROCESS_ID", "JAX_PROCESS_ID")
"""Set by hand, or by Kubeflow, under either name. COORDINATOR_PORT is used if the address has no port."""
SCHEDULERS = (
    ("Slurm", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_STEP_TASKS_PER_NODE"),
    ("Open MPI", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE"),
)
"""(name, variable of the process index, of the process count, of the processes per host)."""
PCI_DEVICES = Path("/sys/bus/pci/devices")
GOOGLE = "0x1ae0"
"""The PCI vendor of TPUs, and of the network cards of Google's virtual machines."""
HEARTBEAT_SECONDS = 35
"""JAX ends the other processes after this time without a heartbeat of one."""
LEAVE_SECONDS = 5
"""A process that fails waits this long for the others to fail with the same error."""
SHUTDOWN_SECONDS = 30
JOIN_SECONDS = 300.0
START_SECONDS = 30
"""Time for JAX to connect processes that have all met; then it ends them."""
FAILED = "gristmill/failed"
"""Key of JAX's key-value store: the first process that failed, and its error."""
POLL_SECONDS = 2.0
LEAVING = threading.Event()
"""Set when this process fails or ends."""


@dataclass(frozen=True)
class Found:
    """The `index` of this process, from 0, and the `count` of processes, as found in the environment."""

    index: int
    count: int
    by: str
    """Variables or scheduler that define them, for messages."""
    address: str | None = None
    """host:port of process 0 if set by hand; None: JAX asks the scheduler."""
    whole_host: bool = False
    """Whether this process uses all devices of its host, not only one, as JAX assumes under a scheduler."""


def process_index() -> int:
    """Return the index of this process by the environment, from 0; 0 if it defines none. Raises UsageError if the
    variables are incomplete or contradict each other."""
    return find().index


def process_count() -> int:
    """Return the number of processes by the environment; 1 if it defines none. Raises UsageError if the variables are
    incomplete or contradict each other."""
    return find().count


def require_one_process(subject: str, remedy: str) -> None:
    """Raise UsageError if there are several processes, because `subject` needs one."""
    if process_count() > 1:
        raise UsageError(f"{subject} needs one process, but there are {process_count()}. {remedy}")


def find() -> Found:
    """Return the process index and count from variables that the user sets, else from Slurm or Open MPI, else from
    Cloud TPU; index 0 of 1 process if none defines them."""
    return by_hand() or by_scheduler() or by_tpu_variables() or by_tpu_metadata() or Found(0, 1, "nothing")


def by_hand() -> Found | None:
    given = {names[0]: variable(names) for names in (ADDRESS, COUNT, INDEX)}
    (address_name, address), (count_name, count), (index_name, index) = given.values()
    if count is None and index is None:
        if address is None or by_scheduler() or by_tpu_variables() or by_tpu_metadata():  # JAX takes it as theirs
            return None
    elif count == "1" and index in (None, "0"):
        return Found(0, 1, count_name)
    missing = [name for name, (_, value) in given.items() if value is None]
    if missing:
        there = ", ".join(f"{name}={value}" for name, value in given.values() if value is not None)
        raise UsageError(
            f"{there} is set, but {' and '.join(missing)} {'are' if len(missing) > 1 else 'is'} not. Each of several "
            f"processes needs all three: {ADDRESS[0]}=HOST:PORT of process 0, the same for all, {COUNT[0]}, and "
            f"{INDEX[0]} from 0. For one process, unset all three."
        )
    assert address is not None and index is not None and count is not None
    port = os.environ.get("COORDINATOR_PORT", "")
    if not address.rpartition(":")[2].isdecimal():
        if not port.isdecimal():
            raise UsageError(
                f"{address_name}={address!r} has no port. Give HOST:PORT of process 0, such as host-0:8476."
            )
        address = f"{address}:{port}"
    return Found(*numbers(index_name, index, count_name, count), f"{count_name} and {index_name}", address)


def by_scheduler() -> Found | None:
    for name, index, count, of_a_host in SCHEDULERS:
        if os.environ.get(count, "1") != "1":
            numbered = numbers(index, os.environ.get(index), count, os.environ[count])
            alone = re.fullmatch(r"1(\(x\d+\))?", os.environ.get(of_a_host, ""))  # as Slurm writes it: 1(x4)
            return Found(*numbered, f"{name} ({index}, {count})", whole_host=bool(alone))
    return None


def by_tpu_variables() -> Found | None:
    """Return the process index and count on TPU slices, from the environment variables of GKE; None if they are not
    set, or if there is only one host."""
    hosts = os.environ.get("TPU_PROCESS_ADDRESSES") or os.environ.get("TPU_WORKER_HOSTNAMES")
    if hosts is None:
        return None
    return of_slices(os.environ, os.environ.get("TPU_WORKER_ID"), hosts.split(","), "Cloud TPU (TPU_WORKER_ID)")


@functools.cache
def by_tpu_metadata() -> Found | None:
    """Return the process index and count on TPU VMs, from Google's metadata server; None elsewhere, or for one host."""
    vendors = PCI_DEVICES.glob("*/vendor")
    if "TPU_SKIP_MDS_QUERY" in os.environ or not any(path.read_text().strip() == GOOGLE for path in vendors):
        return None
    index, hosts = metadata("agent-worker-number"), metadata("worker-network-endpoints")
    if index is None or hosts is None:
        return None
    pairs = [line.partition(":") for line in (metadata("tpu-env") or "").splitlines()]
    slices = {name.strip(): value.strip().strip("'") for name, _, value in pairs}
    return of_slices(slices, index, hosts.split(","), "Cloud TPU (the metadata server)")


def of_slices(variables: Mapping[str, str], index: str | None, hosts: list[str], by: str) -> Found | None:
    """Return the process index and count over all TPU slices; None for one slice with one host. `variables` has the
    MEGASCALE_ variables: number of slices, index of this slice. `hosts` are the hosts of this slice, and `index` is the
    position of this host in `hosts`. `by` names the source of the values."""
    slices, number = variables.get("MEGASCALE_NUM_SLICES") or "1", variables.get("MEGASCALE_SLICE_ID") or "0"
    if len(hosts) == 1 and slices == "1":
        return None
    mine, of = numbers("TPU_WORKER_ID", index, "the number of TPU_WORKER_HOSTNAMES", str(len(hosts)))
    mine_of_slices, all_slices = numbers("MEGASCALE_SLICE_ID", number, "MEGASCALE_NUM_SLICES", slices)
    return Found(mine_of_slices * of + mine, all_slices * of, by)


def metadata(name: str) -> str | None:
    """Attribute of this Google virtual machine; None if there is no such attribute, or no metadata server."""
    host = os.environ.get("GCE_METADATA_IP", "metadata.google.internal")
    request = urllib.request.Request(
        f"http://{host}/computeMetadata/v1/instance/attributes/{name}", headers={"Metadata-Flavor": "Google"}
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.read().decode()
    except (urllib.error.URLError, TimeoutError):
        return None


def variable(names: tuple[str, ...]) -> tuple[str, str | None]:
    """Return (name, value) of the first of these environment variables that is set; (first name, None) if none is."""
    return next(((name, os.environ[name]) for name in names if os.environ.get(name)), (names[0], None))


def numbers(index: str, mine: str | None, count: str, total: str) -> tuple[int, int]:
    """Return the process index and count as integers. `index` and `count` are the names of their variables, `mine` and
    `total` the values. Raises UsageError unless 0 <= index < count."""
    if not (mine is not None and mine.isdecimal() and total.isdecimal() and int(mine) < int(total)):
        raise UsageError(
            f"{count} is {total!r}; it must be the number of processes. {index} is {mine or 'not set'!r}; it must be "
            f"the index of this process, at least 0 and below that number. For a single process, set {COUNT[0]}=1."
        )
    return int(mine), int(total)


def initialize_distributed(timeout: float = JOIN_SECONDS) -> None:
    """Wait up to `timeout` seconds for all processes of the run, then call jax.distributed.initialize. Call this before
    any other use of JAX. Does nothing for one process.

    Raises PeerError if processes are missing after `timeout`; UsageError if indices or counts contradict each other, or
    if the address of process 0 is unknown; InputError if its host name cannot be resolved.
    """
    found = find()
    if found.count == 1:
        return
    import jax

    address, devices = coordinator(found, timeout)
    meet(found.index, found.count, address, timeout)
    jax.distributed.initialize(
        address, found.count, found.index, None if "JAX_LOCAL_DEVICE_IDS" in os.environ else devices,
        cluster_detection_method="deactivate", initialization_timeout=START_SECONDS,
        heartbeat_timeout_seconds=HEARTBEAT_SECONDS, shutdown_timeout_seconds=SHUTDOWN_SECONDS,
    )  # fmt: skip
    threading.Thread(target=end_with_failed_peer, args=(found,), name="failed peers", daemon=True).start()
    if found.index == 0:
        print(f"processes: {found.count} have met, by {found.by}", flush=True)


def coordinator(found: Found, timeout: float = JOIN_SECONDS) -> tuple[str, Any]:
    """Return (HOST:PORT of process 0, device ids of this process for jax.distributed.initialize). Raises UsageError if
    the address is not set and the scheduler does not tell it."""
    address, devices = found.address, [] if found.whole_host else None
    try:
        if address is None:  # as jax.distributed.initialize finds it
            from jax._src.clusters import ClusterEnv  # not exported

            address, _, _, devices = ClusterEnv.auto_detect_unset_distributed_params(
                os.environ.get(ADDRESS[0]), found.count, found.index, devices, None, int(timeout)
            )
        if address is None:
            raise ValueError("coordinator_address should be defined.")
    except (KeyError, ValueError, RuntimeError) as error:
        raise UsageError(
            f"This is process {found.index} of {found.count} ({found.by}), but JAX cannot determine the coordinator: "
            f"{error} Set {ADDRESS[0]}=HOST:PORT of process 0, {COUNT[0]} and {INDEX[0]}."
        ) from error
    return address, devices


@contextlib.contextmanager
def ending_together() -> Generator[None]:
    """If the block raises in this process, tell the other processes, and wait LEAVE_SECONDS for them to raise too. If
    they do not, end this process without JAX's exit barrier; they end by `end_with_failed_peer`. After a device error,
    first wait longer: a lost process may be its cause, and JAX then ends this process."""
    try:
        yield
    except BaseException as error:
        code = error.code if isinstance(error, SystemExit) else 1
        if code in (0, 130) or "jax" not in sys.modules:  # at 0 and 130 all have saved the same step, and end
            raise
        import jax

        from lm.resilience.multihost import coordination

        store, index, _ = coordination()
        if store is None:
            raise
        if not isinstance(error, SystemExit):
            if isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" not in str(error):
                time.sleep(HEARTBEAT_SECONDS + LEAVE_SECONDS)
            traceback.print_exc()
        LEAVING.set()
        cause = error.__context__ if isinstance(error, SystemExit) else error
        with contextlib.suppress(jax.errors.JaxRuntimeError):  # another one failed before
            store.key_value_set(FAILED, json.dumps([index, shown(f"{type(cause).__name__}: {cause}", quotes=False)]))
        try:
            store.wait_at_barrier("gristmill/leave", 1000 * LEAVE_SECONDS)
        except jax.errors.JaxRuntimeError:
            sys.stdout.flush()
            os._exit(int(code or 1))
        raise SystemExit(code) from None
    finally:
        LEAVING.set()


def end_with_failed_peer(found: Found) -> None:
    """In a thread: when another process reports that it failed (`ending_together`), print which one, and end this
    process, unless it fails too within LEAVE_SECONDS. JAX would notice the lost process only after HEARTBEAT_SECONDS,
    and would not know its error."""
    import jax

    from lm.resilience.multihost import coordination

    store, _, _ = coordination()
    while not LEAVING.wait(POLL_SECONDS):
        try:
            failed, text = json.loads(store.key_value_try_get(FAILED))
        except jax.errors.JaxRuntimeError:  # no process has failed; if process 0 was lost, JAX ends this process
            continue
        if LEAVING.wait(LEAVE_SECONDS):
            return
        print(
            f"processes: process {found.index} of {found.count} ends, because process {failed} failed: "
            f"{for_terminal(text)}. See its output; the same command in all processes continues from the last "
            "checkpoint.",
            file=sys.stderr, flush=True,
        )  # fmt: skip
        sys.stdout.flush()
        os._exit(PeerError.exit_code)


def load_training(run: Path, began: float, join_timeout: float, start_seconds: float) -> Callable[..., None]:
    """Import JAX, connect the processes (`initialize_distributed`), and return lm.training.loop.train. `began` is the
    start of the command, in Unix seconds. `join_timeout` and `start_seconds` are those of TrainConfig: the run has a
    heartbeat from now on, and a start that hangs prints its stacks.

    Until then, a stop signal ends the process at once, since the import takes seconds and swallows a Ctrl-C. The stop
    is recorded in the run folder: a supervisor must not think that the work is done.
    """
    goodput = Goodput(run, began, process_index())
    goodput.watch_start(start_seconds)
    keep_compiled_programs()
    with PreemptionHandler(before_exit=goodput.stop_before_training):
        import jax  # noqa: F401

        use_bucket_cache()
    # With several processes it leaves SIGTERM to JAX, which forwards it once they have connected.
    with PreemptionHandler(process_count(), goodput.stop_before_training):
        initialize_distributed(join_timeout)
        goodput.beat_start()
        from lm.training.loop import train
    return functools.partial(train, goodput=goodput)
