"""Run a launch script, and restart it after crashes until its work is done.

    python -m launch.supervise launch.pretrain configs/demo.py --workdir runs/demo

Training resumes from its last checkpoint. The supervisor gives up if crashes repeat at one step, or if the command is
invalid. It forwards SIGTERM and Ctrl-C, upon which training saves a checkpoint. supervisor.jsonl in the run folder logs
starts and ends. With several processes (launch/stages/processes.py), start each with its own supervisor.
"""

import argparse
import importlib
import sys

from configs.experiment import asks_trust, parse_run
from launch.run_folder import bucket
from launch.run_folder.checks import refuse_no_run
from launch.stages.command import handle_cli_errors
from launch.stages.processes import process_index
from launch.stages.supervision import Supervisor
from lm.errors import UsageError
from lm.run_paths import RunPaths

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
