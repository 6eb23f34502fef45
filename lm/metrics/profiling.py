"""Profiles of training steps for XProf or Perfetto, of given steps or on demand through a server."""

import contextlib
import os
import socket
from pathlib import Path

import jax

from lm.errors import UsageError

PORT = "GRISTMILL_PROFILER_PORT"
"""Environment variable: port of the profiler server of process 0; process N uses this port + N. Unset: no server.

It is not a config field, because the server has no password and writes files to any folder that a client names, so a
config.json from someone else must not be able to open it.
"""


class Profiler:
    """Traces training steps `begin` to `begin` + `steps` - 1 (none if `begin` is 0) and writes the trace to
    `folder`."""

    def __init__(self, folder: Path, begin: int, steps: int):
        self.folder, self.wanted = folder, range(begin, begin + steps) if begin else range(0)
        self.tracing = self.serving = False

    def serve(self) -> str:
        """Start the profiler server if GRISTMILL_PROFILER_PORT is set, and return a message; else return "". A port in
        use is only reported in the message. Raises UsageError if the variable is not a valid port."""
        if not (given := os.environ.get(PORT)):
            return ""
        index, last = jax.process_index(), 2**16 - jax.process_count()
        if not given.isdecimal() or len(given) > 5 or not 1024 <= int(given) <= last:
            raise UsageError(f"{PORT} is {given!r}; it must be a port from 1024 to {last:,}, or unset for no server.")
        port = int(given) + index
        try:
            with socket.socket() as probe:  # JAX does not report a port in use
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(("", port))
        except OSError as error:
            return f"process {index} has no profiler server at port {port}: {error.strerror}"
        jax.profiler.start_server(port)
        self.serving = True
        return (
            f"process {index} has a profiler server at {socket.gethostname()}:{port}, without a password. Capture 3 s "
            f"there: python -m jax.collect_profile {port} 3000 --no_perfetto_link --log_dir {self.folder.absolute()}"
        )

    def step(self, step: int) -> contextlib.AbstractContextManager:
        """Return a context manager to run a step in. Starts the trace at the first step to trace."""
        if step in self.wanted and not self.tracing:
            jax.profiler.start_trace(self.folder)
            self.tracing = True
        return jax.profiler.StepTraceAnnotation("train", step_num=step)

    def after(self, step: int, result: object) -> str:
        """End the trace if `step` is the last step to trace, after waiting for the step's `result`. Return a message
        with the path of the trace, or the reason why there is no trace; "" after other steps."""
        if not self.tracing or step + 1 in self.wanted:
            return ""
        jax.block_until_ready(result)
        try:
            self.stop_trace()
        except jax.errors.JaxRuntimeError as error:  # the server is tracing too: JAX allows one trace at a time
            return f"no profile up to step {step:,}: {str(error).splitlines()[0]}"
        (trace,) = sorted(self.folder.glob("plugins/profile/*/*.trace.json.gz"))[-1:]
        return (
            f"a profile up to step {step:,} is in {self.folder}. Open it with `xprof {self.folder}` "
            f"(make add PACKAGE=xprof), or open {trace} at https://ui.perfetto.dev"
        )

    def stop_trace(self) -> None:
        if self.tracing:
            self.tracing = False
            jax.profiler.stop_trace()

    def close(self) -> None:
        """Stop the server, and a trace that an error left open."""
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            self.stop_trace()
        if self.serving:
            self.serving = False
            jax.profiler.stop_server()
