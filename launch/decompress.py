"""Decompress a file of launch.compress with the same run. Writes exactly the original bytes, or nothing.

    python -m launch.decompress runs/demo notes.txt.grist
    python -m launch.decompress runs/demo notes.txt.grist again.txt

The file records the step of the checkpoint. If the model, the tokenizer, a library version or the kind of processor
differs from when it was compressed, the command fails with an error.
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
    """Folder of the run that compressed it."""
    file: tyro.conf.Positional[str] = ""
    """File written by launch.compress."""
    out: tyro.conf.Positional[str] = ""
    """Output file; default: FILE without .grist."""
    overwrite: tyro.conf.UseCounterAction[int] = 0  # a flag without value
    """Overwrite the output file if it exists."""
    all_devices: tyro.conf.UseCounterAction[int] = 0
    """Use all devices; set it if it was set for launch.compress."""
    try_anyway: tyro.conf.UseCounterAction[int] = 0
    """Try even if library versions or the processor differ. The output is written only if its SHA-256 matches the
    original."""


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
