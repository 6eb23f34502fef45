"""Config of the executors of the data stages, and of failures. It does not affect the outputs."""

import shlex
from dataclasses import dataclass
from typing import Literal

from lm.errors import UsageError, shown
from lm.fields import Config, not_hashed, within


@dataclass(frozen=True)
class Executor:
    """One way to run the units of a step, chosen by engine.runner."""

    module: str
    """Module with run_units(attempts), which runs all remaining units."""
    options: tuple[str, ...] = ()
    """Fields of EngineConfig that only this executor reads."""
    this_machine: bool = False
    """Whether all units run on this machine."""
    detached: bool = False
    """Whether the command ends after submitting the units of a step, and single-core jobs continue it."""


EXECUTORS = {
    "processes": Executor("data_prep.engine.processes", this_machine=True),
    "ray": Executor("data_prep.engine.ray_tasks", ("address",)),
    "beam": Executor("data_prep.engine.beam", ("beam_options",)),
    "slurm": Executor("data_prep.engine.slurm", ("slurm_options",), detached=True),
}
"""{engine.runner: executor}. Options, checks and tests derive from it."""


SET_BY_US = ("--array", "--dependency", "--wait", "--wrap", "--test-only")
"""Options of sbatch that the command sets itself; sbatch accepts prefixes of them too."""


@dataclass(frozen=True)
class EngineConfig(Config):
    """How to run units of work (an input file or a hash range each), and what to do if they fail (docs/engines.md)."""

    workers: int = not_hashed(default=1)
    """Worker processes on this machine; with runner slurm, tasks per array job. With 1, units run in the main process,
    so a unit that crashes it ends the run; with more, the unit is retried and then quarantined."""
    runner: Literal[*EXECUTORS] = not_hashed(default="processes")  # ty: ignore[invalid-type-form] - its keys
    """Executor of the units. processes: on this machine. ray: on a Ray cluster, by default a local one with `workers`
    processes. beam: on the Beam runner set in beam_options, by default one unit at a time in this process. slurm: array
    jobs of `workers` tasks; after each step a job runs the same command again."""
    address: str = not_hashed(default="")
    """For runner ray: address of a running cluster, e.g. "HOST:6379", or "auto" on one of its nodes."""
    beam_options: str = not_hashed(default="")
    """For runner beam: pipeline options in shell syntax, e.g. "--runner=FlinkRunner --flink_master=HOST:8081"."""
    slurm_options: str = not_hashed(default="")
    """For runner slurm: sbatch options in shell syntax, e.g. "--partition=cpu --mem=4G --time=12:00:00". Each task runs
    one worker process per core (--cpus-per-task), by default one."""
    attempts: int = not_hashed(default=3)
    """Attempts per unit before it is quarantined (quarantine/)."""
    max_failed: float = not_hashed(default=0.001)
    """Maximum share of quarantined units per step; above it, the stage fails after all other units are done."""
    retry_failed: bool = not_hashed(default=False)
    """Retry units that were quarantined earlier."""
    unit_hours: float = not_hashed(default=6.0)
    """Timeout of one attempt at a unit, in hours; its worker process is then ended. Only for several worker processes
    and for ray. It affects only whole units, not single pages."""
    max_unit_bytes: int = not_hashed(default=2**40)
    """Quarantine a unit after this many bytes of input, as read, decompressed or decoded, whichever is largest."""

    def check_values(self):
        within(self, "engine", 1, 10_000, "workers")
        within(self, "engine", 1, 100, "attempts")
        within(self, "engine", 0, 1, "max_failed")
        within(self, "engine", 0.0001, 10_000, "unit_hours")
        within(self, "engine", 1, 2**62, "max_unit_bytes")
        for name, executor in EXECUTORS.items():
            for option in executor.options:
                if getattr(self, option) and name != self.runner:
                    raise UsageError(
                        f"engine.{option} is {shown(getattr(self, option))}, but engine.runner is {self.runner}; only "
                        f"{name} uses it. Give --engine.runner {name}, or remove the option."
                    )
        split_options("beam_options", self.beam_options, "--runner=FlinkRunner --flink_master=HOST:8081")
        words = split_options("slurm_options", self.slurm_options, "--partition=cpu --mem=4G")
        for word in words:
            name = word.partition("=")[0]
            if not name.startswith("--") or any(own.startswith(name) for own in SET_BY_US):
                raise UsageError(
                    f"engine.slurm_options has {shown(word)}. Give long options of sbatch, each as one word with its "
                    f"value, such as --partition=cpu, except {', '.join(SET_BY_US)}, which Gristmill sets."
                )

    def refuse_detached(self, script: str) -> None:
        """Raise UsageError if engine.runner would continue the command in single-core jobs, in which `script` cannot
        train."""
        if self.executor.detached:
            raise UsageError(
                f"engine.runner is {self.runner}, which continues the command in single-core jobs, but {script} also "
                "trains, which needs more. Prepare the data first: python -m launch.pretrain CONFIG --workdir "
                f"DIR --engine.runner {self.runner} --until shards; then run {script} with --engine.runner processes."
            )

    @property
    def executor(self) -> Executor:
        return EXECUTORS[self.runner]


def split_options(field: str, text: str, example: str) -> list[str]:
    """Return the words of `text`, the value of engine.`field`, split as a shell does. Raises UsageError, which shows
    the `example`, if that fails."""
    try:
        return shlex.split(text)
    except ValueError as error:
        raise UsageError(
            f"engine.{field} is {shown(text)}: {error}. Give options in shell syntax, such as "
            f"--engine.{field.replace('_', '-')}='{example}'."
        ) from error


ONE_PROCESS = EngineConfig()
"""Runs all units in this process."""
