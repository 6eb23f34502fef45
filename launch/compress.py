"""Packs any file by a run's model: lossless compression, in which what the model expects costs little.

    python -m launch.compress runs/demo notes.txt
    python -m launch.compress runs/demo notes.txt packed.grist --step 880

It is unpacked by launch.decompress, which needs the same checkpoint. The file itself stays.
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
    """The folder of a run that has trained."""
    file: tyro.conf.Positional[str] = ""
    """The file to pack: any bytes."""
    out: tyro.conf.Positional[str] = ""
    """The file to write; FILE.grist, if not given."""
    step: int | None = None
    """Pack by the checkpoint of this step; the newest, if not given."""
    overwrite: tyro.conf.UseCounterAction[int] = 0  # a flag, which takes no value
    """Replace the file to write, if it exists."""
    all_devices: tyro.conf.UseCounterAction[int] = 0
    """Lay the model over all devices, as train.mesh says: for one too large for a single device."""


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
