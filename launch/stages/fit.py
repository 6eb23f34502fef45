"""Defaults that depend on the data: applied once, before the first stage, and unchanged for later commands."""

import dataclasses
import json
from pathlib import Path

from configs import own_text
from configs.experiment import Command, Experiment
from data_prep.sources.sizes import InputSizes, input_sizes
from launch.run_folder import bucket
from launch.stages.processes import process_index
from lm.run_paths import RunPaths


def fit_to_data(command: Command) -> Experiment:
    """Return the command's experiment. If its config file has a function `fit`, or an imported model is trained in a
    new run folder, defaults are fitted to the data; each value is printed with its reason when the run begins.

    The text is measured until the run has documents; later commands use the measure in config.json, so new files change
    no value. Raises UsageError and InputError like `input_sizes` and `fit`.
    """
    fit, run = command.fit, command.run
    if run is not None and run.root.resolve() != command.workdir.resolve() and run.marker("imported").exists():
        fit = own_text.fit
    if fit is None:
        return command.experiment
    recorded = recorded_sizes(bucket.to_read(command.workdir))
    sizes = recorded or input_sizes(command.experiment.pages)
    experiment, reasons = fit(command.experiment, sizes, command.given)
    if recorded is None and process_index() == 0:
        print("Defaults that follow the data; an option of the same name changes one:")
        print("".join(f"  {line}\n" for line in reasons), flush=True)
    return dataclasses.replace(experiment, fitted_to=tuple(sizes))


def recorded_sizes(workdir: Path) -> InputSizes | None:
    """Sizes that the run's values were fitted to; None before it has documents, or if config.json cannot be read."""
    run = RunPaths(workdir)
    if not run.marker("documents").exists():
        return None
    try:
        size, documents = json.loads(run.config_json.read_text(encoding="utf-8"))["fitted_to"]
        return InputSizes(int(size), int(documents))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
