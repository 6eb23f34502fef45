"""Preemption: the process is asked to end, by SIGTERM as schedulers and clouds do, by Ctrl-C, or by a notice to one of
several processes."""

import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType, TracebackType

from lm.errors import Stopped

EXIT_CODES = {signal.SIGTERM: 0, signal.SIGINT: 130}


class PreemptionHandler:
    """Listens while it is entered. The training loop asks `requested` after every step, saves, and raises Stopped.

    Until `training` is set there is nothing that could be lost: SIGTERM and Ctrl-C then end the process at once, be it
    in the midst of a compilation, which Python's own handlers would wait for. Later, a second Ctrl-C does not wait for
    the save.
    """

    def __init__(self, processes: int = 1, before_exit: Callable[[], None] = lambda: None):
        """`before_exit` is called where the process ends at once."""
        self.processes, self.before_exit = processes, before_exit
        self.training = False
        self.signal: int | None = None
        self.before: dict[int, object] = {}

    def __enter__(self) -> "PreemptionHandler":
        if threading.current_thread() is not threading.main_thread():
            return self  # only there may handlers be set
        # Of several processes all must save the same step: JAX tells each of them which, and holds SIGTERM for that.
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
            # It has saved, and is to say so: a second SIGTERM changes nothing.
            done = number == signal.SIGTERM and kind is Stopped
            signal.signal(number, signal.SIG_IGN if done else handler)  # ty: ignore[invalid-argument-type]
        signal.set_wakeup_fd(self.wakeup)
        os.close(self.pipe[1])  # the listener reads the end of the pipe, and ends
        if self.signal is not None and kind is None:  # it came too late for the loop: now it may act
            os.kill(os.getpid(), self.signal)

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """In the main thread, when it comes to it."""
        if number == signal.SIGINT and not self.training:
            return  # the listener ends the process; an exception here may come in the midst of any library
        self.signal = self.signal or number
        if number == signal.SIGINT and self.processes > 1:
            os.kill(os.getpid(), signal.SIGTERM)  # for which JAX listens: it tells the others

    def listen(self, pipe: int) -> None:
        """In a thread of its own, at once."""
        interrupts = 0
        while byte := os.read(pipe, 1):
            number = byte[0]
            interrupts += number == signal.SIGINT
            if not self.training and (self.processes == 1 or number == signal.SIGINT):
                name = signal.Signals(number).name
                self.exit_now(number, f"asked to end ({name}) before the first step; nothing is lost")
            if number == signal.SIGINT and interrupts > 1:
                self.exit_now(number, "interrupted twice; not waiting for the save; what was saved before is whole")
        os.close(pipe)

    def exit_now(self, number: int, why: str) -> None:
        """Ends the process, whatever it is at."""
        self.before_exit()
        print(f"train: {why}", flush=True)
        sys.stderr.flush()
        os._exit(EXIT_CODES[signal.Signals(number)])

    def requested(self, step: int) -> bool:
        """Whether to save now and end; of several processes, True in all of them at one step."""
        if self.processes > 1:
            from jax.experimental import multihost_utils

            return multihost_utils.reached_preemption_sync_point(step)
        return self.signal is not None

    def requested_here(self) -> bool:
        """Whether to leave something out in the middle of a step; never among several processes, which must all do the
        same."""
        return self.processes == 1 and self.signal is not None

    def stopped(self, step: int) -> Stopped:
        """What to raise after the save."""
        name = signal.Signals(self.signal).name if self.signal else "a notice"
        return Stopped(
            f"asked to end ({name}); saved at step {step:,}, and the same command goes on from there",
            EXIT_CODES.get(self.signal or signal.SIGTERM, 0),
        )
