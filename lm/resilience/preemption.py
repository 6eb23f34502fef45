"""Preemption: requests to stop by SIGTERM (schedulers, clouds), Ctrl-C, or a notice to one of several processes."""

import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType, TracebackType

from lm.errors import Stopped

EXIT_CODES = {signal.SIGTERM: 0, signal.SIGINT: 130}


class PreemptionHandler:
    """Context manager that handles SIGTERM and Ctrl-C during training. The training loop asks `requested` after every
    step; if it is true, the loop saves a checkpoint and raises Stopped.

    Until `training` is set there is nothing to lose: SIGTERM and Ctrl-C end the process immediately, even during a
    compilation, for which Python's own handlers would wait. Later, a second Ctrl-C ends it without waiting for the
    save.
    """

    def __init__(self, processes: int = 1, before_exit: Callable[[], None] = lambda: None):
        """`before_exit` is called before the process is ended immediately."""
        self.processes, self.before_exit = processes, before_exit
        self.training = False
        self.signal: int | None = None
        self.before: dict[int, object] = {}

    def __enter__(self) -> "PreemptionHandler":
        if threading.current_thread() is not threading.main_thread():
            return self  # Python allows signal handlers only there
        # Several processes must all save the same step: JAX handles SIGTERM and coordinates it.
        ours = [signal.SIGINT] if self.processes > 1 else [signal.SIGTERM, signal.SIGINT]
        self.pipe = os.pipe()
        for end in self.pipe:
            os.set_blocking(end, end == self.pipe[0])
        self.wakeup = signal.set_wakeup_fd(self.pipe[1], warn_on_full_buffer=False)
        self.before = {number: signal.signal(number, self.on_signal) for number in ours}
        threading.Thread(target=self.listen, args=(self.pipe[0],), name="preemption", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.before:
            return
        for number, handler in self.before.items():
            # The state is saved: ignore a second SIGTERM, so that the exit is reported as planned.
            done = number == signal.SIGTERM and kind is Stopped
            signal.signal(number, signal.SIG_IGN if done else handler)  # ty: ignore[invalid-argument-type]
        signal.set_wakeup_fd(self.wakeup)
        os.close(self.pipe[1])  # ends the listener, which reads end of file
        if self.signal is not None and kind is None:  # arrived after the loop: deliver it now
            os.kill(os.getpid(), self.signal)

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """Python's signal handler: note the request. Runs in the main thread once the interpreter regains control."""
        if number == signal.SIGINT and not self.training:
            return  # the listener ends the process; an exception here could hit any library code
        self.signal = self.signal or number
        if number == signal.SIGINT and self.processes > 1:
            os.kill(os.getpid(), signal.SIGTERM)  # JAX handles it and notifies the other processes

    def listen(self, pipe: int) -> None:
        """Read signal numbers from `pipe` in a separate thread. End the process immediately before training, and at a
        second Ctrl-C."""
        interrupts = 0
        while byte := os.read(pipe, 1):
            number = byte[0]
            interrupts += number == signal.SIGINT
            if not self.training and (self.processes == 1 or number == signal.SIGINT):
                name = signal.Signals(number).name
                self.exit_now(number, f"stopped by {name} before the first step; nothing is lost")
            if number == signal.SIGINT and interrupts > 1:
                self.exit_now(number, "interrupted twice; not waiting for the save; earlier saves are complete")
        os.close(pipe)

    def exit_now(self, number: int, why: str) -> None:
        """Print `why`, and end the process immediately with the exit code for signal `number`."""
        self.before_exit()
        print(f"train: {why}", flush=True)
        sys.stderr.flush()
        os._exit(EXIT_CODES[signal.Signals(number)])

    def requested(self, step: int) -> bool:
        """Return whether to save and stop after `step`: the same answer in all processes."""
        if self.processes > 1:
            from jax.experimental import multihost_utils

            return multihost_utils.reached_preemption_sync_point(step)
        return self.signal is not None

    def requested_here(self) -> bool:
        """Return whether to break off work within a step, such as an evaluation. Always False with several processes,
        since all must do the same."""
        return self.processes == 1 and self.signal is not None

    def stopped(self, step: int) -> Stopped:
        """Return the exception to raise after the checkpoint of `step` was saved."""
        name = signal.Signals(self.signal).name if self.signal else "a notice"
        return Stopped(
            f"stopped by {name}; saved at step {step:,}; run the same command to continue",
            EXIT_CODES.get(self.signal or signal.SIGTERM, 0),
        )
