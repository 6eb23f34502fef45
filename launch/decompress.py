"""Unpacks what launch.compress has packed, by the same run: the same bytes, or an error and no file.

    python -m launch.decompress runs/demo notes.txt.grist
    python -m launch.decompress runs/demo notes.txt.grist again.txt

The file names the checkpoint's step, and is refused where the model, the tokenizer, a version or the kind of processor
is another than it was packed by.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from configs.experiment.command_line import parse_alone
from launch.stages.command import handle_cli_errors
from launch.stages.packing import decompress_file, files_of
from lm.errors import UsageError

SUFFIX = ".grist"


@dataclass(frozen=True)
class Command:
    run: tyro.conf.Positional[str] = ""
    """The folder of the run that packed it."""
    file: tyro.conf.Positional[str] = ""
    """What launch.compress has written."""
    out: tyro.conf.Positional[str] = ""
    """The file to write; FILE without .grist, if not given."""
    overwrite: tyro.conf.UseCounterAction[int] = 0  # a flag, which takes no value
    """Replace the file to write, if it exists."""
    all_devices: tyro.conf.UseCounterAction[int] = 0
    """Lay the model over all devices, as launch.compress did."""
    try_anyway: tyro.conf.UseCounterAction[int] = 0
    """Try it although versions or the processor are others: only the same bytes are ever written."""


def without_suffix(file: Path) -> Path:
    if file.suffix != SUFFIX:
        raise UsageError(f"{file} does not end in {SUFFIX}: give the name of the file to write too.")
    return file.with_suffix("")


def run(command: Command) -> None:
    if not command.run or not command.file:
        raise UsageError("A run's folder and a file are needed: python -m launch.decompress runs/demo notes.txt.grist")
    files = files_of(command.file, command.out, without_suffix, bool(command.overwrite))
    decompress_file(command.run, files, bool(command.all_devices), bool(command.try_anyway))


if __name__ == "__main__":
    with handle_cli_errors(program := "launch.decompress"):
        run(parse_alone(Command, program, (__doc__ or "").strip(), sys.argv[1:]))
