"""Training on the tiny experiment in a process of its own, for those who end it in the middle.

    python -m tests.train_process RUN '{"steps": 40, "checkpoint_every": 1}'

RUN has tokenizer/ and tokens/, as tests.corpus.write_tokens leaves them; the JSON has fields of the TrainConfig, and of
the model under "model".
"""

import dataclasses
import json
import os
import subprocess
import sys
import time
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]


def start(run: Path, fields: dict, devices: int = 1, **environment: str) -> subprocess.Popen:
    """The process; it prints on one pipe what training prints. Each has `devices` CPU devices."""
    flags = f"--xla_force_host_platform_device_count={devices}" if devices > 1 else ""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.train_process", str(run), json.dumps(fields)], cwd=REPOSITORY, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=os.environ | {"XLA_FLAGS": flags} | environment,
    )  # fmt: skip


def main() -> None:
    began = time.time()
    from launch.command import told
    from launch.processes import join
    from lm.train import train
    from tests.corpus import tiny_experiment

    run, fields = Path(sys.argv[1]), json.loads(sys.argv[2])
    experiment = tiny_experiment()
    model = dataclasses.replace(experiment.model, **fields.pop("model", {}))
    nested = {
        name: dataclasses.replace(getattr(experiment.train, name), **fields.pop(name))
        for name in ("mesh", "optimizer", "spikes", "start")
        if name in fields
    }
    join()
    with told("train_process"):
        train(model, dataclasses.replace(experiment.train, **fields, **nested), run, began)


if __name__ == "__main__":
    main()
