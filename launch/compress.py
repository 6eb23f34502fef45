"""Compress any file losslessly with a run's model: the better the model predicts it, the smaller it gets.

    python -m launch.compress runs/demo notes.txt
    python -m launch.compress runs/demo notes.txt packed.grist --step 880

Decompress with launch.decompress, which needs the same checkpoint. The original file is kept.
"""

from dataclasses import dataclass

import tyro

from launch.stages.command import run_without_config
from launch.stages.packing import compress_file, files_of


@dataclass(frozen=True)
class Command:
    run: tyro.conf.Positional[str]
    """Folder of a trained run."""
    file: tyro.conf.Positional[str]
    """File to compress, of any type."""
    out: tyro.conf.Positional[str] = ""
    """Output file; default: FILE.grist."""
    step: int | None = None
    """Step of the checkpoint; default: the newest."""
    overwrite: bool = False
    """Overwrite the output file if it exists."""
    all_devices: bool = False
    """Use all devices according to train.mesh, for a model that is too large for one."""
    trust_code: bool = False
    """Run code named in the run folder that you have not run from a config file on this machine. Prints each file with
    its SHA-256 first."""


def run(command: Command) -> None:
    files = files_of(command.file, command.out, lambda file: file.with_name(file.name + ".grist"), command.overwrite)
    compress_file(command.run, files, command.step, command.all_devices, command.trust_code)


if __name__ == "__main__":
    run_without_config("launch.compress", Command, run)
