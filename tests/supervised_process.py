"""tests.train_process under a supervisor, in a separate process: several of them train one model together.

python -m tests.supervised_process RUN FIELDS
"""

import sys
from pathlib import Path

from launch.stages.processes import process_index
from launch.supervise import Supervisor


def main() -> None:
    run, index = Path(sys.argv[1]), process_index()
    ending = f"-{index}" if index else ""
    command = [sys.executable, "-m", "tests.train_process", *sys.argv[1:]]
    supervisor = Supervisor(command, run / f"heartbeat{ending}.json", run / f"supervisor{ending}.jsonl")
    raise SystemExit(supervisor.run())


if __name__ == "__main__":
    main()
