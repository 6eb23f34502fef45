"""Export a trained model to the format of another program.

    python -m launch.export runs/demo release/demo --format hugging_face

Holds only one parameter in memory at a time. The run is not changed.
"""

from dataclasses import dataclass
from pathlib import Path

import tyro

from configs.experiment import existing_run
from launch.stages.command import run_without_config


@dataclass(frozen=True)
class Command:
    run: tyro.conf.Positional[str]
    """Run folder, on a disk or in a bucket."""
    out: tyro.conf.Positional[str]
    """Output folder: new, empty, or written by this script before. For gguf, the output file."""
    format: str = "hugging_face"
    """Format: hugging_face, gguf (llama.cpp), or standalone (a folder that needs only NumPy)."""
    step: int | None = None
    """Step of the checkpoint; default: the newest."""
    dtype: str = ""
    """Type of the weights: float32, bfloat16, float16, and for gguf also q8_0; default: the type of training."""
    adapter: bool = False
    """Only the adapters of a run with train.lora, as peft loads them onto the exported base run; for hugging_face."""
    trust_code: bool = False
    """Run code named in the run folder that you have not run from a config file on this machine. Prints each file with
    its SHA-256 first."""


def run(command: Command) -> None:
    from launch.release.formats import export

    opened = existing_run(command.run).open_to_publish(command.step, "trust" if command.trust_code else "leave out")
    out = Path(command.out).expanduser()
    export(opened, out, command.format, command.dtype, bool(command.adapter))
    print(f"export: {opened.name} at step {opened.step:,}, as {command.format}{' adapters' * command.adapter}: {out}")


if __name__ == "__main__":
    run_without_config("launch.export", Command, run)
