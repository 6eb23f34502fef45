"""Run a launch script, and restart it after crashes until its work is done.

    python -m launch.supervise launch.pretrain configs/demo.py --workdir runs/demo

Training resumes from its last checkpoint. The supervisor gives up if crashes repeat at one step, or if the command is
invalid. It forwards SIGTERM and Ctrl-C, upon which training saves a checkpoint. supervisor.jsonl in the run folder logs
starts and ends. With several processes (launch/stages/processes.py), start each with its own supervisor.
"""

import argparse
import importlib
import json
import math
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from configs.experiment import asks_trust, parse_run
from launch.run_folder import bucket
from launch.run_folder.checks import refuse_no_run
from launch.stages.command import handle_cli_errors
from launch.stages.processes import process_index
from lm.errors import AbsentPeerError, UsageError
from lm.resilience.goodput import LONG_PHASES, STARTING, read_heartbeat
from lm.run_paths import RunPaths
from lm.storage import break_hard_links
from lm.terminal import duration

PATIENCE = {STARTING: 1.0, "training": 1.0} | dict.fromkeys(LONG_PHASES, 10.0)
"""Multiples of the limit without a change, by the state in the heartbeat; infinite for other states."""
BY_ITSELF = 3.0
"""Seconds to wait, after a Ctrl-C, for the command to end by itself: at a terminal it gets the signal too."""


@dataclass
class Supervisor:
    """Runs a training command again after each crash, until it is done or restarting does not help."""

    command: list[str]
    heart: Path
    """Heartbeat file of the training (lm/resilience/goodput.py); it does not exist before the training process has
    started."""
    log: Path
    """File of JSON lines, one for every start and end."""
    same_step: int = 3
    """Give up after this many crashes in a row at one step, or before the first step."""
    no_progress: int = 10
    """Give up after this many crashes in a row without a step beyond the furthest one."""
    hang_seconds: float = 1800.0
    """Kill and restart the command after this time without a training step; 0: disabled. Validation, samples and saves
    may take ten times as long."""
    start_seconds: float = 1800.0
    """Kill and restart the command if its start makes no progress for twice this time (train.start_seconds, after which
    it prints its stacks); 0: disabled."""
    give_up_after: float = 7200.0
    """Give up if another process of the run has not joined for this many seconds. Failed joins do not count as crashes:
    the other host may be restarting, or being replaced."""
    first_wait: float = 10.0
    """Seconds before a restart after a crash without progress; doubled for each further one, up to `longest_wait`."""
    longest_wait: float = 300.0
    """Longest wait before a restart, in seconds."""
    look_seconds: float = 1.0
    """Seconds between two reads of the heartbeat."""
    stopped_code: int = 0
    """Exit code if the supervisor was asked to end; 0: the command's own. Kubernetes counts an evicted pod that exits
    with 0 as a success: another code tells it that the work is not done."""
    process: subprocess.Popen | None = None
    asked: int | None = None
    """The signal that asked the supervisor to end."""
    asked_at: float = 0.0
    """Time of that signal (time.monotonic)."""
    passed_on: bool = False
    """Whether the running process was sent SIGTERM because of it."""
    starts: int = 0
    """Number of times that the command was started."""

    def run(self) -> int:
        """Run the command until it is done; return 0. If the supervisor gives up, return the exit code of the command.
        After a stop signal, return `stopped_code` or, if `stopped_code` is 0, the exit code of the command."""
        before = {number: signal.signal(number, self.end) for number in (signal.SIGTERM, signal.SIGINT)}
        began, crashes, repeated, last_step = time.monotonic(), 0, 0, None
        furthest, stuck = -2, 0
        waiting_since = None
        try:
            while self.asked is None:
                started = time.monotonic()
                code, step, stopped, how = self.attempt()
                took = f"{self.starts} starts, {crashes} crashes so far, {duration(time.monotonic() - began)}"
                if self.asked is not None:
                    return self.say("asked to end", f"{how}; {took}", self.stopped_code or code, step)
                if code == 0 and not stopped:
                    return self.say("done", took, code, step)
                if code == 0:
                    self.say("stopped", f"stopped after step {step} by another program; restarting", code, step)
                    continue
                if code == UsageError.exit_code:
                    return self.say("gave up", f"{how}: the command refuses to run; see its message", code, step)
                if code == AbsentPeerError.exit_code:
                    waiting_since = started if waiting_since is None else waiting_since
                    waited = time.monotonic() - waiting_since
                    absent = f"{how}: another process has not joined for {duration(waited)}"
                    if waited >= self.give_up_after:
                        return self.say("gave up", f"{absent}; --give-up-after is {self.give_up_after:g} s", code, step)
                    self.say("waiting", f"{absent}; joining again", code, step)
                    self.sleep(self.first_wait)
                    continue
                waiting_since = None
                crashes += 1
                repeated = repeated + 1 if crashes > 1 and step == last_step else 1
                last_step = step
                reached = -1 if step is None else step
                stuck, furthest = (0 if reached > furthest else stuck + 1), max(furthest, reached)
                place = "outside of training" if step is None else f"after step {step:,}"
                if repeated >= self.same_step:
                    return self.say("gave up", f"{how} {place}, {repeated} times in a row; {took}", code, step)
                if stuck >= self.no_progress:
                    in_vain = f"{stuck} crashes in a row without progress beyond step {furthest:,}"
                    return self.say("gave up", f"{how} {place}, {in_vain}; {took}", code, step)
                again = max(repeated - 1, stuck)
                wait = min(self.first_wait * 2 ** (again - 1), self.longest_wait) if again else 0.0
                self.say("crash", f"{how} {place}; restarting{f' in {wait:.0f} s' if wait else ''}", code, step)
                self.sleep(wait)
            return self.say("asked to end", f"{self.starts} starts", self.stopped_code, None)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def attempt(self) -> tuple[int, int | None, bool, str]:
        """Run the command once; return (exit code, last training step, whether training stopped on request, text on how
        the command ended). For a command that was killed by a signal, the exit code is 128 plus its number."""
        self.starts += 1
        self.passed_on = False
        before = read_heartbeat(self.heart)
        self.process = subprocess.Popen(self.command)
        self.record("start", 0, None, f"process {self.process.pid}")
        # A clock change, forwards or backwards, must not look like a hang, so only changes of the heartbeat count.
        heart, changed, hung = None, time.monotonic(), False
        while True:
            try:
                code = self.process.wait(self.look_seconds)
                break
            except subprocess.TimeoutExpired:
                self.pass_on()
                if (seen := self.beat(before)) != heart:
                    heart, changed = seen, time.monotonic()
                state = heart["state"] if heart else ""
                limit = 2 * self.start_seconds if state == STARTING else self.hang_seconds
                late = limit > 0 and time.monotonic() - changed > limit * PATIENCE.get(state, math.inf)
                if late and not hung and self.beats_can_be_seen():
                    hung = True
                    self.process.kill()
        heart = self.beat(before)
        state = heart["state"] if heart else ""
        step = int(heart["step"]) if heart and state != STARTING else None
        how = f"exit code {code}" if code >= 0 else f"ended by {signal.Signals(-code).name}"
        if hung:
            how = f"killed after {time.monotonic() - changed:.0f} s without progress,"
        return (code if code >= 0 else 128 - code), step, state == "stopped", how

    def beat(self, before: dict | None) -> dict | None:
        """Last heartbeat of the running process; None if the file still has the heartbeat `before`, or has none."""
        heart = read_heartbeat(self.heart)
        assert self.process is not None
        # A container may give the same number to one process after another.
        its = heart is not None and heart["process"] == self.process.pid and heart != before
        return heart if its else None

    def beats_can_be_seen(self) -> bool:
        """Whether heartbeats can be written; not on a full or read-only disk, where training continues without them."""
        probe = self.heart.with_name(f"{self.heart.name}.probe")
        try:
            probe.unlink(missing_ok=True)  # would be written through a link
            probe.write_bytes(bytes(128))
            probe.unlink()
        except OSError:
            return False
        return True

    def end(self, number: int, frame: FrameType | None) -> None:
        """Signal handler: ask the command to save a checkpoint and end."""
        if self.asked is None:
            self.asked, self.asked_at = number, time.monotonic()
        if number == signal.SIGTERM:
            self.pass_on()

    def pass_on(self) -> None:
        """If the supervisor was asked to end, send the command SIGTERM once. After Ctrl-C, first wait 3 seconds
        (BY_ITSELF): at a terminal, the command gets Ctrl-C too and may end."""
        if self.asked == signal.SIGINT and time.monotonic() - self.asked_at < BY_ITSELF:
            return
        if self.asked is not None and not self.passed_on and self.process is not None and self.process.poll() is None:
            self.passed_on = True
            self.process.send_signal(signal.SIGTERM)

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
            break_hard_links(self.log)
            with self.log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        except OSError as error:  # a full disk does not end the supervision
            print(f"supervise: {self.log} cannot be written: {error}", file=sys.stderr, flush=True)


SCRIPTS = ("launch.pretrain", "launch.train")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m launch.supervise", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--same-step", type=int, default=3, help="give up after this many crashes at the same step (default: 3)"
    )
    parser.add_argument(
        "--hang-minutes", type=float, default=30, help="restart after this time without a step; 0: never (default: 30)"
    )
    parser.add_argument(
        "--give-up-after", type=float, default=7200, metavar="SECONDS",
        help="give up if another process of the run does not join for this time (default: 7200)",
    )  # fmt: skip
    parser.add_argument(
        "--stopped-code", type=int, default=0, choices=range(256), metavar="CODE",
        help="exit code after SIGTERM or Ctrl-C (default: 0, the script's own)",
    )  # fmt: skip
    parser.add_argument("script", choices=SCRIPTS)
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="CONFIG.py and options, as for the script itself")
    given = parser.parse_args()
    with handle_cli_errors("launch.supervise"):
        if given.same_step < 1:
            raise UsageError(f"--same-step is {given.same_step}; it must be at least 1.")
        if not 0 <= given.hang_minutes < float("inf"):
            raise UsageError(f"--hang-minutes is {given.hang_minutes}; it must be a number of minutes, or 0 for never.")
        if not 0 <= given.give_up_after < float("inf"):
            raise UsageError(f"--give-up-after is {given.give_up_after}; it must be a number of seconds, at least 0.")
        options = getattr(importlib.import_module(given.script), "Options", None)
        parsed = parse_run(given.script, __doc__ or "", given.arguments, options=options)  # refuses at once
        workdir = parsed.workdir
        refuse_no_run(workdir)
        index = process_index()
        supervisor = Supervisor(
            command=[sys.executable, "-m", given.script, *(word for word in given.arguments if not asks_trust(word))],
            heart=RunPaths(bucket.process_folder(workdir, index)).heartbeat(index),
            log=RunPaths(workdir).supervisor(index),
            same_step=given.same_step,
            hang_seconds=60 * given.hang_minutes,
            start_seconds=parsed.experiment.train.start_seconds,
            give_up_after=given.give_up_after,
            stopped_code=given.stopped_code,
        )
        raise SystemExit(supervisor.run())


if __name__ == "__main__":
    main()
