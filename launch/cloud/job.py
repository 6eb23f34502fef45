"""A job: one launch script with its config and options on named hardware, and how a command line tells it."""

import argparse
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from configs.experiment import Experiment, parse_command
from launch.cloud.names import hosts, is_tpu
from launch.cloud.tools import REPOSITORY, Tools
from lm.devices import mesh_sizes
from lm.errors import UsageError, shown
from lm.planner.plan import as_devices
from lm.planning.topology import Topology, topology_of
from lm.storage import is_url

SCRIPTS = ("launch.pretrain", "launch.train", "launch.evaluate", "launch.sample")
SUPERVISED = ("launch.pretrain", "launch.train")
STOPPED = 75
"""The exit code of a run that was asked to end, and saved: whatever runs it may start it again. sysexits.h calls it
EX_TEMPFAIL."""
USAGE = UsageError.exit_code
"""That of a command that cannot be run as it is: starting it again is of no use."""
NAME = r"[a-z]([-a-z0-9]{0,37}[a-z0-9])?"
"""Of a job: what TPU VMs, Kubernetes and SkyPilot all take, short enough for the names that they make of it."""
SHARED = (
    "Give the path of one on a disk that all hosts share, such as --workdir /mnt/shared/runs/NAME; docs/cloud.md says "
    "how hosts get such a disk."
)
PYTHON = ".venv/bin/python"
SETUP = (
    "{ command -v make >/dev/null || { sudo apt-get update -qq && sudo apt-get install -qq make; }; } && "
    "make setup ACCELERATOR=%s UV_PYTHON_DOWNLOADS=automatic"
)
"""Brings the environment on a bare machine: the images of TPU VMs have a Python that is too old, so uv fetches one."""


@dataclass(frozen=True)
class Job:
    """What is to run, and on what."""

    name: str
    config: str
    """The config's path in the repository."""
    script: str
    options: tuple[str, ...]
    """Words of the command line for the script, --workdir among them."""
    workdir: str
    """The run folder: a path, or a URL of an object store."""
    topology: Topology
    cuda: str = "cuda13"
    """The build of jax on GPUs."""

    @property
    def accelerator(self) -> str:
        """The ACCELERATOR of `make setup`."""
        return "tpu" if is_tpu(self.topology) else self.cuda

    @property
    def command(self) -> list[str]:
        """What every process runs, in the repository's folder."""
        supervised = ["launch.supervise", "--stopped-code", str(STOPPED)] if self.script in SUPERVISED else []
        return [PYTHON, "-m", *supervised, self.script, self.config, *self.options]

    @property
    def shell_command(self) -> str:
        return shlex.join(self.command)

    @property
    def setup(self) -> str:
        """A shell command that brings the environment, in the repository's folder."""
        return SETUP % self.accelerator

    def file(self, ending: str) -> Path:
        """Where a generated file lies: runs/ is no part of the repository."""
        return Path("runs/cloud") / f"{self.name}{ending}"


def parser_of(program: str, description: str, actions: dict[str, str]) -> argparse.ArgumentParser:
    """The options that all scripts of this room share. `actions` are {action: what it does}."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {program}", description=description, formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False, epilog="All other options go to the script: --workdir, --train.steps and so on.",
    )  # fmt: skip
    parser.add_argument("config", metavar="CONFIG.py", help="a config in this repository")
    parser.add_argument("action", choices=actions, help="; ".join(f"{name}: {does}" for name, does in actions.items()))
    parser.add_argument("--topology", required=True, help="such as v6e:2x4, v5p-512, 2xv6e-256 or h100:16")
    parser.add_argument("--name", help="of the job (default: the config's)")
    parser.add_argument(
        "--script", choices=SCRIPTS, help="default: launch.pretrain on one host, launch.train on several"
    )
    parser.add_argument(
        "--workdir", help="the run folder: gs://, s3:// or a path that stays; of several hosts, a path that they share"
    )
    parser.add_argument("--cuda", choices=("cuda12", "cuda13"), default="cuda13", help="of GPUs: the build of jax")
    parser.add_argument("--flag", action="append", default=[], metavar="=FLAG", help="one more flag for what creates "
                        "or submits the job, such as --flag=--partition=gpu; may be given again")  # fmt: skip
    parser.add_argument("--dry-run", action="store_true", help="only show the commands and files; nothing is needed")
    return parser


def parse_job(parser: argparse.ArgumentParser, words: list[str]) -> tuple[Job, argparse.Namespace, Tools]:
    """What the words ask for. Exits with code 0 after --help.

    Raises UsageError for all that could only fail on hardware that is paid for: a topology or an option that there is
    not, a config that is not here, a mesh that does not fit the devices.
    """
    given, options = parser.parse_known_args(words)
    topology = topology_of(given.topology)
    config = config_here(given.config)
    script = given.script or ("launch.train" if hosts(topology) > 1 else "launch.pretrain")
    if script == "launch.pretrain" and hosts(topology) > 1:
        raise UsageError(
            f"launch.pretrain makes the data, in one process, but {topology.name} has {hosts(topology)} hosts. Make "
            "the shards first, on one machine, with the scripts up to launch.write_shards; then run launch.train here."
        )
    if given.workdir:
        options = ["--workdir", given.workdir, *options]
    if is_url(given.workdir) and hosts(topology) > 1:
        raise UsageError(
            f"The run folder {shown(given.workdir, quotes=False)} is in a bucket, where one process can work, but "
            f"{topology.name} has {hosts(topology)} hosts. {SHARED}"
        )
    experiment, workdir = parse_command(script, "", [str(REPOSITORY / config), *options])
    refuse_mesh(experiment, topology)
    name = given.name or Path(config).stem.lower().replace("_", "-")
    if not re.fullmatch(NAME, name):
        raise UsageError(
            f"The name of the job is {shown(name)}. Give one with --name: a letter, then at most 38 letters, digits "
            "and hyphens, all in lower case, no hyphen at the end."
        )
    job = Job(name, config, script, tuple(options), given.workdir or str(workdir), topology, given.cuda)
    return job, given, Tools(given.dry_run)


def config_here(given: str) -> str:
    """The path in the repository of a config, which goes with it. Raises UsageError for one that lies elsewhere."""
    path = Path(given).expanduser().resolve()
    if not path.is_relative_to(REPOSITORY):
        raise UsageError(
            f"The config {shown(given, quotes=False)} lies outside of {REPOSITORY}, which is what the hosts get. Copy "
            "it into configs/."
        )
    return path.relative_to(REPOSITORY).as_posix()


def refuse_mesh(experiment: Experiment, topology: Topology) -> None:
    """Raises UsageError where the config's mesh and batch cannot be laid over the devices."""
    train = experiment.train
    mesh_sizes(train.mesh, experiment.model, train.batch_size, as_devices(topology), train.micro_batches)


def volume_of(given: str) -> tuple[str, str]:
    """(name, where it is mounted) of `--volume NAME:/PATH`; two empty texts where nothing is given. Raises UsageError
    for any other text."""
    name, _, path = given.partition(":")
    if given and not (name and Path(path).is_absolute() and path != "/"):
        raise UsageError(f"--volume is {shown(given)}. Give NAME:/PATH, such as --volume runs:/mnt/shared.")
    return name, path


def refuse_lost(job: Job, why: str, shared: str = "") -> None:
    """Raises UsageError where the run folder would go with the machine, or would be another one on each of several
    hosts. `shared` is the folder in which the disk of all hosts lies; without it there is none."""
    if is_url(job.workdir) or (shared and Path(job.workdir).is_relative_to(shared)):
        return
    if hosts(job.topology) > 1:
        raise UsageError(f"The run folder {job.workdir} is on a disk of one host, {why}. {SHARED}")
    raise UsageError(
        f"The run folder {job.workdir} is on a disk of the machine, {why}. Give one in an object store, such as "
        "--workdir gs://BUCKET/runs/NAME."
    )
