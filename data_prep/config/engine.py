"""Who does the work of the data stages, and what becomes of a unit of work that fails. Nothing here decides a byte."""

import shlex
from dataclasses import dataclass
from typing import Literal

from lm.errors import UsageError, shown
from lm.fields import Config, not_hashed, within


@dataclass(frozen=True)
class Executor:
    """How the units of a step are run."""

    module: str
    """Has run_units(attempts), which runs all units that are left."""
    options: tuple[str, ...] = ()
    """Fields of EngineConfig that only this executor reads."""
    this_machine: bool = False
    """Whether all units run on this machine."""
    detached: bool = False
    """Whether the command ends when it has submitted the units of a step, and jobs of one core continue it."""


EXECUTORS = {
    "processes": Executor("data_prep.engine.processes", this_machine=True),
    "ray": Executor("data_prep.engine.ray_tasks", ("address",)),
    "beam": Executor("data_prep.engine.beam", ("beam_options",)),
    "slurm": Executor("data_prep.engine.slurm", ("slurm_options",), detached=True),
}
"""By the values of engine.runner. Options, refusals and tests derive from it."""


SET_BY_US = ("--array", "--dependency", "--wait", "--wrap", "--test-only")
"""Options of sbatch that are not the user's; sbatch takes their beginnings too."""


@dataclass(frozen=True)
class EngineConfig(Config):
    """How units of work are run: an input file or a range of hashes each (docs/engines.md)."""

    workers: int = not_hashed(default=1)
    """Worker processes of this machine; of runner slurm, tasks of an array. One works in this process: a unit that
    kills its process then ends the run, where with more it is tried again, and set aside."""
    runner: Literal[*EXECUTORS] = not_hashed(default="processes")  # ty: ignore[invalid-type-form] - its keys
    """Who runs the units. processes: processes of this machine. ray: a Ray cluster, by default one of `workers`
    processes of this machine. beam: the Beam runner that beam_options name, by default one unit at a time in this
    process. slurm: array jobs of `workers` tasks; each step is followed by a job that runs the same command again."""
    address: str = not_hashed(default="")
    """Of runner ray: the address of a running cluster, such as "HOST:6379", or "auto" on one of its nodes."""
    beam_options: str = not_hashed(default="")
    """Of runner beam: Beam's options as a shell takes them, such as "--runner=FlinkRunner
    --flink_master=HOST:8081"."""
    slurm_options: str = not_hashed(default="")
    """Of runner slurm: sbatch's options as a shell takes them, such as "--partition=cpu --mem=4G --time=12:00:00". Each
    task has as many worker processes as --cpus-per-task gives it cores, by default one."""
    attempts: int = not_hashed(default=3)
    """Times that a unit is tried before it is set aside (quarantine/)."""
    max_failed: float = not_hashed(default=0.001)
    """Share of a step's units that may be set aside; with more the stage ends with an error, when all others are
    done."""
    retry_failed: bool = not_hashed(default=False)
    """Whether units that were set aside earlier are tried again."""
    unit_hours: float = not_hashed(default=6.0)
    """Hours after which an attempt of a unit counts as hanging and its worker process is ended, with several processes
    and on ray. It decides about whole units only, never about a page."""
    max_unit_bytes: int = not_hashed(default=2**40)
    """Bytes after which a unit is set aside: of its input as they are read, as they are unpacked, or of contents,
    whichever are more."""

    def __post_init__(self):
        super().__post_init__()
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
                        f"{name} reads it. Give --engine.runner {name}, or leave it out."
                    )
        refuse_bad_words("beam_options", self.beam_options, "--runner=FlinkRunner --flink_master=HOST:8081")
        words = refuse_bad_words("slurm_options", self.slurm_options, "--partition=cpu --mem=4G")
        for word in words:
            name = word.partition("=")[0]
            if not name.startswith("--") or any(own.startswith(name) for own in SET_BY_US):
                raise UsageError(
                    f"engine.slurm_options has {shown(word)}. Give long options of sbatch, each as one word with its "
                    f"value, such as --partition=cpu, and none of {', '.join(SET_BY_US)}: the command gives these."
                )

    def refuse_detached(self, script: str) -> None:
        """Raise UsageError if jobs of one core would continue the script, which needs more."""
        if self.executor.detached:
            raise UsageError(
                f"engine.runner is {self.runner}, which continues a command in jobs of one core, and {script} trains "
                "after the data stages. Make the data first: python -m launch.pretrain CONFIG --workdir DIR "
                f"--engine.runner {self.runner} --until shards; then run {script} with --engine.runner processes."
            )

    @property
    def executor(self) -> Executor:
        return EXECUTORS[self.runner]


def refuse_bad_words(field: str, text: str, example: str) -> list[str]:
    """The words of a field as a shell takes them. Raises UsageError if it would not."""
    try:
        return shlex.split(text)
    except ValueError as error:
        raise UsageError(
            f"engine.{field} is {shown(text)}: {error}. Give options as a shell takes them, as "
            f"--engine.{field.replace('_', '-')}='{example}'."
        ) from error


ONE_PROCESS = EngineConfig()
"""This process alone."""
