"""Decompress a file of launch.compress with the same run. Writes exactly the original bytes, or nothing.

    python -m launch.decompress runs/demo notes.txt.grist
    python -m launch.decompress runs/demo notes.txt.grist again.txt

The file records the step of the checkpoint. If the model, the tokenizer, a library version or the kind of processor
differs from when it was compressed, the command fails with an error.
"""

from dataclasses import dataclass
from pathlib import Path

import tyro

from launch.stages.command import run_without_config
from launch.stages.packing import decompress_file, files_of
from lm.errors import UsageError

SUFFIX = ".grist"


@dataclass(frozen=True)
class Command:
    run: tyro.conf.Positional[str]
    """Folder of the run that compressed it."""
    file: tyro.conf.Positional[str]
    """File written by launch.compress."""
    out: tyro.conf.Positional[str] = ""
    """Output file; default: FILE without .grist."""
    overwrite: bool = False
    """Overwrite the output file if it exists."""
    all_devices: bool = False
    """Use all devices; set it if it was set for launch.compress."""
    try_anyway: bool = False
    """Try even if library versions or the processor differ. The output is written only if its SHA-256 matches the
    original."""
    trust_code: bool = False
    """Run code named in the run folder that you have not run from a config file on this machine. Prints each file with
    its SHA-256 first."""


def without_suffix(file: Path) -> Path:
    if file.suffix != SUFFIX:
        raise UsageError(f"{file} does not end in {SUFFIX}: give the name of the output file too.")
    return file.with_suffix("")


def run(command: Command) -> None:
    files = files_of(command.file, command.out, without_suffix, command.overwrite)
    decompress_file(command.run, files, command.all_devices, command.try_anyway, command.trust_code)


if __name__ == "__main__":
    run_without_config("launch.decompress", Command, run)
