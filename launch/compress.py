"""Compress any file losslessly with a run's model: the better the model predicts it, the smaller it gets.

    python -m launch.compress runs/demo notes.txt
    python -m launch.compress runs/demo notes.txt packed.grist --step 880

Decompress with launch.decompress, which needs the same checkpoint. The original file is kept.
"""

import sys
from dataclasses import dataclass

import tyro

from configs.experiment.command_line import parse_alone
from launch.stages.command import handle_cli_errors
from launch.stages.packing import compress_file, files_of
from lm.errors import UsageError


@dataclass(frozen=True)
class Command:
    run: tyro.conf.Positional[str] = ""
    """Folder of a trained run."""
    file: tyro.conf.Positional[str] = ""
    """File to compress, of any type."""
    out: tyro.conf.Positional[str] = ""
    """Output file; default: FILE.grist."""
    step: int | None = None
    """Step of the checkpoint; default: the newest."""
    overwrite: tyro.conf.UseCounterAction[int] = 0  # a flag without value
    """Overwrite the output file if it exists."""
    all_devices: tyro.conf.UseCounterAction[int] = 0
    """Use all devices according to train.mesh, for a model that is too large for one."""


def run(command: Command) -> None:
    if not command.run or not command.file:
        raise UsageError("A run's folder and a file are needed: python -m launch.compress runs/demo notes.txt")
    files = files_of(
        command.file, command.out, lambda file: file.with_name(file.name + ".grist"), bool(command.overwrite)
    )
    compress_file(command.run, files, command.step, bool(command.all_devices))


if __name__ == "__main__":
    with handle_cli_errors(program := "launch.compress"):
        run(parse_alone(Command, program, (__doc__ or "").strip(), sys.argv[1:]))
