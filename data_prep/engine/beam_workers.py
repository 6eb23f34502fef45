"""Worker processes that start at once: a server imports Beam, and each worker is a fork of it.

To import Beam takes two seconds of a core, in every worker of every pipeline. The server does it once, while this
process imports Beam too, and outlives a pipeline; it ends with the process that started it. On other systems than Linux
forks are not safe: there `worker_command` starts workers of their own.

Beam starts a worker by a shell command and takes the end of the command for the worker's. So the command runs this file
as a program: it hands its environment to the server and stays until the worker's connection ends.
"""

import atexit
import functools
import json
import os
import select
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

ENDED = "ended"  # a file beside the noted process ids
KILLED = 137
"""Exit status of the command when its worker did not say one: what a shell tells of a process that was killed."""


def worker_command(pids: Path) -> str:
    """The shell command that becomes a worker process, after it noted its process id as a file name in `pids`.

    It does not start once a file ENDED is there. What a worker has to say comes back in the exception; on the
    terminal it would be noise.
    """
    folder = shlex.quote(str(pids))
    if sys.platform == "linux":
        return f"exec {shlex.join([sys.executable, '-ISE', __file__, str(address()), str(pids)])}"
    python = f"{shlex.quote(sys.executable)} -m apache_beam.runners.worker.sdk_worker_main"
    return f": >{folder}/$$; test -e {folder}/{ENDED} || exec {python} 2>{os.devnull}"


def address() -> Path:
    """The socket of a server that runs; starts one if need be, without waiting for it."""
    server, path = started_server()
    if server.poll() is not None:  # somebody killed it
        started_server.cache_clear()
        server, path = started_server()
    return path


@functools.cache
def started_server() -> tuple[subprocess.Popen, Path]:
    """The server's process and its socket, in a folder of its own."""
    path = Path(tempfile.mkdtemp(prefix="beam-workers-")) / "socket"
    with socket.socket(socket.AF_UNIX) as listener:  # bound here, so that a command may connect before it serves
        listener.bind(str(path))
        listener.listen(128)
        code = f"from data_prep.engine.beam_workers import serve; serve({listener.fileno()}, {str(path.parent)!r})"
        server = subprocess.Popen(
            [sys.executable, "-P", "-W", "ignore", "-c", code],
            stdin=subprocess.PIPE,  # its end is how the server learns of ours
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[listener.fileno()],
        )
    atexit.register(end_server, server, path.parent)
    return server, path


def end_server(server: subprocess.Popen, folder: Path) -> None:
    """At the end of this process; should it not come to that, the server sees its standard input end."""
    server.kill()
    server.communicate()
    shutil.rmtree(folder, ignore_errors=True)


def serve(listening: int, folder: str) -> None:
    """Forks a worker for each connection, until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal interrupts all of a group; who started us ends workers
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks for the workers' status
    listener = socket.socket(fileno=listening)
    import_beam()
    try:
        while True:
            ready, _, _ = select.select([listener, sys.stdin], [], [])
            if sys.stdin in ready:
                return
            connection, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                status = 1
                try:
                    status = work(connection)
                finally:
                    connection.send(bytes([status]))
                    os._exit(status)
            connection.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def import_beam() -> None:
    """What every worker needs."""
    from apache_beam.options.pipeline_options import PipelineOptions, SetupOptions
    from apache_beam.runners.worker import sdk_worker_main

    sdk_worker_main._import_beam_plugins(PipelineOptions([]).view_as(SetupOptions).beam_plugins or [])


def work(connection: socket.socket) -> int:
    """Is a worker, with the environment that comes over the connection; the exit status."""
    from apache_beam.runners.worker import sdk_worker_main

    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    with connection.makefile("r", encoding="utf-8") as lines:
        told = json.loads(lines.readline())
    pids = Path(told["pids"])
    (pids / str(os.getpid())).touch()
    if not (pids / ENDED).exists():
        os.environ.clear()
        os.environ.update(told["environment"])
        sdk_worker_main.main(["worker"])
    return 0


def main() -> int:
    """The command: asks for a worker, and ends with its status when it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(sys.argv[1])
        told = {"pids": sys.argv[2], "environment": dict(os.environ)}
        connection.sendall(json.dumps(told).encode() + b"\n")
        status = connection.recv(1)
    return status[0] if status else KILLED


if __name__ == "__main__":
    sys.exit(main())
