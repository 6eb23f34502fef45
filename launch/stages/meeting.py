"""Connect all processes of a run before JAX starts, so that a message can name a missing or duplicate one.

Process 0 listens at the address that JAX's coordination service uses afterwards. Every other process connects, sends
its index, and waits for the answer, which all get at once. (JAX itself ends a process that waits in vain with a C++
stack trace that names no process, and lets two processes 0 listen at one port.)
"""

import contextlib
import json
import os
import socket
import time
from collections.abc import Callable, Iterable

from lm.errors import AbsentPeerError, InputError, PeerError, UsageError
from lm.terminal import listed

NOTICE_SECONDS = 15.0
"""Time after which a process prints the reason of its wait, and an unresolvable host name is an error."""
READ_SECONDS = 2.0
"""Time limit for reading the one line that a process sends after it has connected."""
RETRY_SECONDS = 0.5
ANNOUNCE_SECONDS = 20.0
"""A process that fails before all are connected tries for this long to tell the others, which may start later."""
JOINED = "GRISTMILL_JOINED"
"""Environment variable: the file descriptor to which a child writes after the join (launch/stages/parent.py)."""
CONFLICT = "PROCESS_ID must be different, and NUM_PROCESSES the same, in all processes"
REMEDY = "See its output, start it, or raise --train.join-timeout."
LATE_NAMES = "KUBERNETES_SERVICE_HOST"
"""A variable of Kubernetes, where a host name resolves only after its pod was scheduled."""


def meet(index: int, count: int, address: str, timeout: float) -> None:
    """Wait until all `count` processes are connected to process 0, which listens at `address` (HOST:PORT). `index` is
    the number of this process. Failed connections are retried, since hosts may start at different times.

    Raises AbsentPeerError, which names the missing processes, after `timeout` seconds; PeerError if a process reports
    that it failed before it joined (`announce_failure`); UsageError if two processes have the same index or different
    counts; InputError if the host name cannot be resolved for NOTICE_SECONDS (except on Kubernetes, where names resolve
    late).
    """
    host, _, port = address.rpartition(":")
    try:
        if index == 0:
            gather(count, int(port), timeout)
        else:
            connect(index, count, host.strip("[]"), int(port), timeout)
    finally:
        if JOINED in os.environ:  # also after an error: process 0 has sent it to all
            os.write(int(os.environ[JOINED]), b"1")


def gather(count: int, port: int, timeout: float) -> None:
    """In process 0: wait until all other processes have connected, then send each of them success or an error."""
    began, noticed, index = time.monotonic(), False, -1
    there: dict[int, tuple[socket.socket, str]] = {}
    error = None
    with contextlib.closing(listen(port, count)) as listener:
        while error is None and len(there) < count - 1:
            waited = time.monotonic() - began
            listener.settimeout(max(0.01, (timeout if noticed else min(NOTICE_SECONDS, timeout)) - waited))
            try:
                newcomer = listener.accept()[0]
            except TimeoutError:
                newcomer = None
            for other in [one for one, (connection, _) in there.items() if has_left(connection)]:
                there.pop(other)[0].close()
            if newcomer is not None:
                index, error = admit(newcomer, there, count)
                continue
            missing = named(set(range(1, count)) - {*there})
            come = f"s {len(there) + 1} of {count} processes are connected; missing: {missing}."
            if time.monotonic() - began >= timeout:
                error = AbsentPeerError(f"After {timeout:g} {come} {REMEDY}")
            else:
                noticed = True
                print(f"processes: after {NOTICE_SECONDS:g} {come} Waiting {timeout:g} s in total.", flush=True)
        for connection, _ in there.values():
            send_answer(connection, error)
        if error is not None and not isinstance(error, AbsentPeerError):
            answer_late(listener, {*range(1, count)} - {*there, index}, error)
    if error is not None:
        raise error


def answer_late(
    listener: socket.socket, processes: set[int], error: InputError, stop: Callable[[], bool] = lambda: False
) -> None:
    """In process 0: send `error` to `processes` that have not connected yet, for ANNOUNCE_SECONDS or until `stop`
    returns True. Otherwise they would wait for the join until its timeout."""
    deadline, left = time.monotonic() + ANNOUNCE_SECONDS, set(processes)
    listener.settimeout(RETRY_SECONDS)
    while left and time.monotonic() < deadline and not stop():
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            connection = listener.accept()[0]
            connection.settimeout(READ_SECONDS)
            with connection, connection.makefile() as file:
                left.discard(int(json.loads(file.readline(1000))["index"]))
                send_answer(connection, error)


def listen(port: int, count: int) -> socket.socket:
    """Open the socket of process 0 at `port`, on all interfaces. Raises UsageError if it is in use."""
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    try:
        return socket.create_server(("", port), family=family, backlog=count, dualstack_ipv6=both)
    except OSError as error:
        raise UsageError(
            f"Process 0 cannot listen at port {port}: {os.strerror(error.errno or 0)}. If PROCESS_ID is 0 in two "
            "processes, correct it; else choose another port in JAX_COORDINATOR_ADDRESS."
        ) from error


def admit(
    connection: socket.socket, there: dict[int, tuple[socket.socket, str]], count: int
) -> tuple[int, InputError | None]:
    """Add a process that has connected to `there`, {index: (connection, name)}. Return (its index, -1 if it is another
    program; an error if its index is taken, its count of processes is not `count`, or it reports that it failed)."""
    connection.settimeout(READ_SECONDS)
    try:
        said = json.loads(connection.makefile().readline(1000))
        index, its_count, name = int(said["index"]), int(said["count"]), str(said["name"])
        failed = str(said.get("failed", ""))
        if not 0 <= index < its_count:
            raise ValueError(f"{index} of {its_count}")
    except (OSError, ValueError, TypeError, KeyError):  # a health check, or a port scanner
        connection.close()
        return -1, None
    error, other = None, own_name() if index == 0 else there[index][1] if index in there else ""
    if failed:
        return index, PeerError(failed)
    if its_count != count:
        error = UsageError(
            f"NUM_PROCESSES is {its_count} in process {index} ({name}), but {count} in process 0. {CONFLICT}."
        )
    elif other:
        error = UsageError(f"PROCESS_ID is {index} in two processes: {other}, and {name}. {CONFLICT}.")
    if error is None:
        there[index] = connection, name
    else:
        send_answer(connection, error)
    return index, error


def send_answer(connection: socket.socket, error: InputError | None) -> None:
    """Send a process `error`, or that all processes have connected, and close the connection."""
    with contextlib.suppress(OSError), connection:
        answer = {"error": str(error or ""), "code": error.exit_code if error else 0}
        connection.sendall(json.dumps(answer).encode() + b"\n")


def connect(index: int, count: int, host: str, port: int, timeout: float) -> None:
    """In other processes: connect to process 0, retrying for `timeout` seconds, and wait for its answer. Raises
    AbsentPeerError if there is no connection in that time, InputError if the name `host` is unknown, and UsageError or
    PeerError if process 0 answers with an error."""
    began, noticed, where = time.monotonic(), False, f"{host}:{port}"
    line = json.dumps({"index": index, "count": count, "name": own_name()}) + "\n"
    while True:
        try:
            with socket.create_connection((host, port), timeout=NOTICE_SECONDS) as connection:
                connection.sendall(line.encode())
                connection.settimeout(timeout + NOTICE_SECONDS)  # process 0 is there, and waits for the same time
                answer = json.loads(connection.makefile().readline(100_000))
                error, code = str(answer["error"]), answer["code"]
                break
        except (UnicodeDecodeError, json.JSONDecodeError, TypeError, KeyError):
            reason = f"{where} belongs to another program, a running run, or a process that ended"
        except (socket.gaierror, UnicodeError) as error:
            reason = f"the name {host} cannot be resolved ({error.args[-1]})"
            if time.monotonic() - began >= min(NOTICE_SECONDS, timeout) and LATE_NAMES not in os.environ:
                raise InputError(
                    f"Process {index} of {count} cannot find process 0: after {NOTICE_SECONDS:g} s {reason}. Correct "
                    "JAX_COORDINATOR_ADDRESS."
                ) from error
        except OSError as error:
            reason = f"{where} does not answer ({error.strerror or error})"
        waited = time.monotonic() - began
        if waited >= timeout:
            raise AbsentPeerError(f"After {timeout:g} s process {index} cannot reach process 0: {reason}. {REMEDY}")
        if waited >= NOTICE_SECONDS and not noticed:
            noticed = True
            print(
                f"processes: after {waited:.0f} s process {index} cannot reach process 0: {reason}. Start it, or "
                f"correct JAX_COORDINATOR_ADDRESS. This process waits {timeout:g} s in total.",
                flush=True,
            )
        time.sleep(RETRY_SECONDS)
    if error:
        kinds = (UsageError, AbsentPeerError)
        raise next((kind for kind in kinds if kind.exit_code == code), PeerError)(error)


def announce_failure(index: int, count: int, address: str, how: str, stop: Callable[[], bool]) -> None:
    """Report to the processes that wait in `meet` that process `index` failed before it joined; `how` says how, such as
    "ended with exit code 1". They raise PeerError. Process 0 answers each of them; another process tells process 0. Try
    for ANNOUNCE_SECONDS, or until `stop` returns True."""
    text = f"Process {index} ({own_name()}) {how} before all processes were connected. See its output."
    line = json.dumps({"index": index, "count": count, "name": own_name(), "failed": text}) + "\n"
    host, _, port = address.rpartition(":")
    if index == 0:
        with contextlib.closing(listen(int(port), count)) as listener:
            answer_late(listener, {*range(1, count)}, PeerError(text), stop)
        return
    deadline = time.monotonic() + ANNOUNCE_SECONDS
    while time.monotonic() < deadline and not stop():
        with (
            contextlib.suppress(OSError),
            socket.create_connection((host.strip("[]"), int(port)), timeout=READ_SECONDS) as connection,
        ):
            connection.sendall(line.encode())
            return
        time.sleep(RETRY_SECONDS)


def has_left(connection: socket.socket) -> bool:
    """Whether the process at the other end of the connection has closed it, or was killed."""
    connection.setblocking(False)
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def named(processes: Iterable[int]) -> str:
    """Text for a message, such as "processes 1, 4"; it lists at most ten."""
    indices = [str(one) for one in sorted(processes)]
    return f"process{'es' if len(indices) > 1 else ''} {listed(indices, 10)}"


def own_name() -> str:
    return f"pid {os.getpid()} on {socket.gethostname()}"
