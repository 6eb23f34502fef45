"""Parent of one of several processes. If JAX ends the child because another process was lost, the parent prints one
line that names the lost process, instead of JAX's C++ stack trace. A run of one process has no parent."""

import contextlib
import ctypes
import os
import re
import signal
import subprocess
import sys
from types import FrameType

from launch.stages.meeting import JOINED, announce_failure, named
from launch.stages.processes import coordinator, find, process_count, process_index
from lm.errors import InputError, PeerError
from lm.resilience.goodput import PARENT

JAX_LOG = re.compile(rb"[WEF]\d{4} [\d:.]+ +\d+ (coordination_service|preemption_sync_manager|client\.h)")
"""A line that JAX's coordination service logs when the run is about to end."""
LOST = re.compile(r"(?:stopped sending heartbeats\):|Some timed out task names:)\n((?:.*\d\n)+)")
"""Log lines that end in the index of a lost process."""
NO_LEADER = "Failed to send RPC to coordination service"
"""JAX's error if it cannot reach process 0, which runs that service."""
AT_THE_END = "Shutdown barrier has failed"
"""JAX's error in the remaining processes, which does not name the lost one."""
NOT_CONNECTED = "absl::Status: DEADLINE_EXCEEDED: Deadline Exceeded"
"""JAX's error if not all processes start its client in time, which does not name those."""
STATUS = re.compile(r"absl::Status: (.*)")
PR_SET_PDEATHSIG = 1


def run_in_child(program: str) -> None:
    """With several processes, run this command in a child and exit with its code; in the child, or with one process,
    return at once. SIGTERM and SIGINT are passed on. The child has its own session: Ctrl-C at a terminal reaches it
    once. If the child fails before it has joined the others, the parent tells them. The exit code is raised as
    SystemExit."""
    index, count = process_index(), process_count()
    if PARENT in os.environ:
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # as if the parent were this process
        if os.getppid() != int(os.environ[PARENT]):
            raise SystemExit(128 + signal.SIGKILL)
        return
    if count == 1:
        return
    child = None
    asked = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        asked.append(number)
        if child is not None:
            child.send_signal(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, pass_on)
    joined, joins = os.pipe()
    child = subprocess.Popen(
        [sys.executable, *sys.orig_argv[1:]], env=os.environ | {PARENT: str(os.getpid()), JOINED: str(joins)},
        stderr=subprocess.PIPE, start_new_session=True, pass_fds=(joins,),
    )  # fmt: skip
    os.close(joins)
    for number in asked:
        child.send_signal(number)
    held = b""
    assert child.stderr is not None
    for line in child.stderr:
        if held or JAX_LOG.match(line):
            held += line
        else:
            sys.stderr.buffer.write(line)
            sys.stderr.buffer.flush()
    code = child.wait()
    reason = reason_in(held.decode(errors="replace")) if code == -signal.SIGABRT else ""
    if reason:
        print(
            f"{program}: process {index} of {count} ends, because {reason}. See the output of the others; the same "
            "command in all processes continues from the last checkpoint.",
            file=sys.stderr,
        )
        raise SystemExit(PeerError.exit_code)
    sys.stderr.buffer.write(held)
    how = f"ended with exit code {code}" if code >= 0 else f"was ended by {signal.Signals(-code).name}"
    if code < 0:
        print(f"{program}: process {index} of {count} {how}.", file=sys.stderr)
    os.set_blocking(joined, False)  # a process that outlives the child may hold the other end
    with contextlib.suppress(InputError, BlockingIOError):
        if code and not asked and not os.read(joined, 1):
            announce_failure(index, count, coordinator(find())[0], how, lambda: bool(asked))
    raise SystemExit(code if code >= 0 else 128 - code)


def reason_in(log: str) -> str:
    """Why JAX ended a process, by its log, such as "process 2 ended, hangs or cannot be reached"; "" if unknown."""
    if found := LOST.search(log):
        lost = named(map(int, re.findall(r"(\d+)$", found[1], re.MULTILINE)))
    elif NO_LEADER in log:
        lost = "process 0"
    elif NOT_CONNECTED in log:
        return "another process was lost after the join, while JAX connected them"
    elif AT_THE_END in log:
        return "another process was lost while all of them were ending"
    else:
        return f"JAX reports {status[1]}" if (status := STATUS.search(log)) else ""
    return f"{lost} ended, hangs or cannot be reached"
