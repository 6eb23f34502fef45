"""Keeps a command alive: starts it again after a crash, tells what it did, and gives up where that is of no use."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from lm.errors import UsageError
from lm.metrics import duration
from lm.timeline import read_heartbeat


@dataclass
class Supervisor:
    """One command, which does training in a run folder, under supervision."""

    command: list[str]
    heart: Path
    """The heartbeat of what it trains (lm/timeline.py); where there is none, it has not come to train."""
    log: Path
    """Gets a line of JSON for every start and end."""
    same_step: int = 3
    """Crashes in a row at one step, or before any, after which it gives up."""
    hang_seconds: float = 1800.0
    """Seconds of training without a step after which the command is killed and started again; 0 for never."""
    first_wait: float = 1.0
    """Seconds before the second start at one step; each further one waits twice as long, up to `longest_wait`."""
    longest_wait: float = 300.0
    process: subprocess.Popen | None = field(default=None, init=False)
    asked: int | None = field(default=None, init=False)
    """The signal that asked the supervisor itself to end."""
    starts: int = field(default=0, init=False)

    def run(self) -> int:
        """The exit code: 0 when the command has done its work, its own where it gave up or was asked to end."""
        before = {number: signal.signal(number, self.end) for number in (signal.SIGTERM, signal.SIGINT)}
        began, crashes, repeated, last_step = time.time(), 0, 0, None
        try:
            while self.asked is None:
                code, step, stopped, how = self.attempt()
                took = f"{self.starts} starts, {crashes} crashes so far, {duration(time.time() - began)}"
                if self.asked is not None:
                    return self.say("asked to end", f"{how}; {took}", code, step)
                if code == 0 and not stopped:
                    return self.say("done", took, code, step)
                if code == 0:
                    self.say("stopped", f"asked to end behind step {step}, but not by me; starting again", code, step)
                    continue
                if code == UsageError.exit_code:
                    return self.say("gave up", f"{how}: the command cannot be run as it is", code, step)
                crashes += 1
                repeated = repeated + 1 if crashes > 1 and step == last_step else 1
                last_step = step
                place = "outside of training" if step is None else f"behind step {step:,}"
                if repeated >= self.same_step:
                    return self.say("gave up", f"{how} {place}, {repeated} times in a row; {took}", code, step)
                wait = 0.0 if repeated == 1 else min(self.first_wait * 2 ** (repeated - 2), self.longest_wait)
                self.say("crash", f"{how} {place}; starting again{f' in {wait:.0f} s' if wait else ''}", code, step)
                self.sleep(wait)
            return self.say("asked to end", f"{self.starts} starts", 0, None)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def attempt(self) -> tuple[int, int | None, bool, str]:
        """Runs the command once: (exit code, the last step that it made, whether it stopped when asked, how it ended).

        Killed by a signal, the exit code is 128 and the signal's number, as in a shell.
        """
        self.starts += 1
        began = time.time()
        self.process, passed_on = subprocess.Popen(self.command), False
        self.record("start", 0, None, f"process {self.process.pid}")
        hung = False
        while True:
            try:
                code = self.process.wait(1.0)
                break
            except subprocess.TimeoutExpired:
                if self.asked == signal.SIGTERM and not passed_on:  # had it come while the process was started
                    passed_on = True
                    self.process.send_signal(signal.SIGTERM)
                heart = self.beat(began)
                waited = time.time() - heart["time"] if heart and heart["state"] == "training" else 0.0
                if self.hang_seconds and waited > self.hang_seconds and not hung:
                    hung = True
                    self.process.kill()
        heart = self.beat(began)
        step, state = (int(heart["step"]), heart["state"]) if heart else (None, "")
        how = f"exit code {code}" if code >= 0 else f"ended by {signal.Signals(-code).name}"
        if hung:
            how = f"killed, without a sign of life for {self.hang_seconds:.0f} s,"
        return (code if code >= 0 else 128 - code), step, state == "stopped", how

    def beat(self, began: float) -> dict | None:
        """The last sign of life of the present process, which began then, while and since it trains."""
        heart = read_heartbeat(self.heart)
        assert self.process is not None
        # A container may give the same number to process after process.
        its = heart is not None and heart["process"] == self.process.pid and heart["time"] >= began - 1.0
        return heart if its else None

    def end(self, number: int, frame: FrameType | None) -> None:
        """Asked to end: so is the command, which then saves. (Ctrl-C reaches it by itself.)"""
        self.asked = number
        if number == signal.SIGTERM and self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)

    def sleep(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while self.asked is None and (left := end - time.monotonic()) > 0:
            time.sleep(min(left, 0.2))

    def say(self, event: str, text: str, code: int, step: int | None) -> int:
        print(f"supervise: {time.strftime('%H:%M:%S')} {event}: {text}", file=sys.stderr, flush=True)
        self.record(event, code, step, text)
        return code

    def record(self, event: str, code: int, step: int | None, text: str) -> None:
        row = {"time": round(time.time(), 3), "event": event, "code": code, "step": step, "text": text}
        try:
            self.log.parent.mkdir(parents=True, exist_ok=True)
            with self.log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        except OSError as error:  # a full disk ends no supervision
            print(f"supervise: {self.log} cannot be written: {error}", file=sys.stderr, flush=True)
