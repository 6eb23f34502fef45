"""Shared parts of the launch.cloud scripts: command line, checks before anything is paid for, writing the job file."""

import math
import os
import re
import shlex
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from configs.experiment import parse_command
from configs.layouts import on_hardware
from lm.errors import UsageError, shown
from lm.gpu_memory import set_gpu_memory
from lm.planner.plan import make_plan
from lm.planner.text import memory_lines
from lm.planner.topology import Topology


class Names(NamedTuple):
    """Names of one kind of chip in each launch.cloud script; "" if the cloud does not offer the chip. In a name such as
    "v5p-{}", {} stands for a number: the size of a TPU slice (v5p-64 has 64 cores, 32 chips), or the GPUs of a node."""

    gke: str  # label gke-tpu-accelerator or gke-accelerator
    skypilot: str
    tpu_vm: str = ""  # gcloud's accelerator type
    runtime: str = ""  # gcloud's runtime version, the image of TPU VMs
    slurm: str = ""


NAMES = {
    "v4": Names("tpu-v4-podslice", "tpu-v4-{}", "v4-{}", "tpu-ubuntu2204-base"),
    "v5e": Names("tpu-v5-lite-podslice", "tpu-v5litepod-{}", "v5litepod-{}", "v2-alpha-tpuv5-lite"),
    "v5p": Names("tpu-v5p-slice", "tpu-v5p-{}", "v5p-{}", "v2-alpha-tpuv5"),
    "v6e": Names("tpu-v6e-slice", "tpu-v6e-{}", "v6e-{}", "v2-alpha-tpuv6e"),
    "tpu7x": Names("tpu7x", ""),
    "h100": Names("nvidia-h100-80gb", "H100:{}", slurm="{}"),  # on a3-megagpu machines nvidia-h100-mega-80gb
    "h200": Names("nvidia-h200-141gb", "H200:{}", slurm="{}"),
    "b200": Names("nvidia-b200", "B200:{}", slurm="{}"),
    "a100": Names("nvidia-a100-80gb", "A100-80GB:{}", slurm="{}"),
    "l40s": Names("", "L40S:{}", slurm="{}"),
}
"""{chip of lm.planner.topology: its names}. From docs.cloud.google.com/tpu/docs (queued-resources: tpu7x only on GKE)
and /kubernetes-engine/docs/concepts, xpk's system_characteristics.py, docs.skypilot.co/en/latest/reference/tpu.html
(0.14.1): stored copies of November 2026."""


def accelerator(topology: Topology, cloud: str) -> str:
    """Return what the launch.cloud script `cloud` calls a TPU slice or a GPU node, such as "v5p-64" or "H100:8". Raises
    UsageError if that cloud does not offer it, and for several slices on SkyPilot."""
    offered = [chip for chip, names in NAMES.items() if getattr(names, cloud)]
    if topology.chip.name not in offered or (cloud == "skypilot" and topology.slices > 1):
        raise UsageError(
            f"The topology is {topology.name}, but launch.cloud.{cloud} has {', '.join(offered)}"
            f"{' (one slice)' * (cloud == 'skypilot')}. Choose one of these with --topology, or another script of "
            "launch.cloud (gke, skypilot, slurm, tpu_vm)."
        )
    number = math.prod(topology.shape) * topology.chip.named_by if topology.chip.torus else topology.shape[-1]
    return getattr(NAMES[topology.chip.name], cloud).format(number)


def hosts_of(topology: Topology) -> tuple[int, int]:
    """Return (number of hosts, chips per host). The hosts are those of one TPU slice, or of all GPUs. A TPU host has 4
    chips, but a v5e or v6e slice of at most 8 chips is one host."""
    chips = math.prod(topology.shape)
    of_host = min(chips, 4 if topology.chip.torus == 3 or (topology.chip.torus == 2 and chips > 8) else 8)
    return chips // of_host, of_host


REPOSITORY = Path(__file__).resolve().parents[2]
NAME = r"[a-z]([-a-z0-9]{0,37}[a-z0-9])?"  # accepted by TPU VMs, Kubernetes and SkyPilot, with the suffixes they add
STOPPED = 75  # exit code of a run that was asked to stop and has saved (EX_TEMPFAIL of sysexits.h): start it again
PORT = 8476  # of process 0 with several GPU nodes
BASH = "#!/bin/bash\n"
# Installs the environment on a bare machine. uv fetches Python: that of TPU VMs is too old.
SETUP = (
    "{ command -v make >/dev/null || { sudo apt-get update -qq && sudo apt-get install -qq make; }; } && "
    "make setup ACCELERATOR=%s UV_PYTHON_DOWNLOADS=automatic"
)
# Writes a .tar.gz of the files tracked by git and the config: no runs, no environment, no untracked secrets.
PACK = "{ git ls-files -z; git ls-files -zo -- %s; } | tar -czf - --null -T -"


@dataclass(frozen=True)
class Job:
    """One run as a job of a cloud: command and environment of its processes, hardware, and comments of the job file."""

    name: str
    file: str  # path of the job's files, without suffix; git ignores runs/
    command: str  # of each process
    environment: dict[str, str]  # of each process
    workdir: str
    topology: Topology
    tpu: bool
    accelerator: str  # the cloud's name of a slice or of a GPU node
    hosts: int  # of one TPU slice, or of all GPUs
    chips: int  # chips or GPUs of a host
    setup: str
    pack: str
    notes: list[str]  # script, hardware and memory: the first comments of the file


def job_parser(cloud: str, description: str | None) -> ArgumentParser:
    parser = ArgumentParser(
        prog=f"python -m launch.cloud.{cloud}", formatter_class=RawDescriptionHelpFormatter, allow_abbrev=False,
        description=f"{description}\nAll other options go to the run: --train.steps, --train.micro-batches and so on.",
    )  # fmt: skip
    parser.add_argument("config", metavar="CONFIG.py", help="a config in this repository")
    hardware = "hardware, such as v6e:2x4, v5p-512, 2xv6e-256 or h100:16 (default: the layout's)"
    parser.add_argument("--topology", default="", help=hardware)
    parser.add_argument("--workdir", help="run folder: gs://, s3:// or a path that all hosts share")
    parser.add_argument("--name", help="name of the job (default: the config's)")
    parser.add_argument("--cuda", choices=("cuda12", "cuda13"), default="cuda13", help="JAX's build for GPUs")
    parser.add_argument("--dry-run", action="store_true", help="print the file instead of writing it into runs/cloud")
    parser.set_defaults(cloud=cloud)
    return parser


def parse_job(parser: ArgumentParser, arguments: list[str] | None) -> tuple[Job, Namespace]:
    """Parse the command line of a launch.cloud script; return the job and the script's own options. Raises UsageError
    for errors that would otherwise appear only on paid hardware: unknown options, a config outside of this repository,
    a mesh that does not divide the devices, a training state that does not fit into memory."""
    given, options = parser.parse_known_args(arguments)
    path = Path(given.config).expanduser().resolve()
    if Path.cwd().resolve() != REPOSITORY or not path.is_relative_to(REPOSITORY):
        raise UsageError(
            f"The config is {shown(str(path), quotes=False)} and the current folder {Path.cwd()}, but the hosts get "
            f"{REPOSITORY}. Change to {REPOSITORY}, and copy the config into its configs/."
        )
    config = path.relative_to(REPOSITORY).as_posix()
    options = [*(["--workdir", given.workdir] if given.workdir else []), *options]
    experiment, workdir = parse_command("launch.train", "", [config, *options])
    topology, _, model, train = on_hardware(experiment.model, experiment.train, given.topology)
    tpu, (hosts, chips), kind = bool(topology.chip.torus), hosts_of(topology), accelerator(topology, given.cloud)
    plan = make_plan(model, train, topology)
    memory = memory_lines(plan, model, train)
    if plan.fits is False:
        raise UsageError(f"{config} on {topology.name} {'\n'.join(memory)}")
    name = given.name or Path(config).stem.lower().replace("_", "-")
    if not re.fullmatch(NAME, name):
        raise UsageError(
            f"The name of the job is {shown(name)}. Give one with --name: at most 39 lower-case letters, digits and "
            "hyphens, a letter first, no hyphen at the end."
        )
    script = "launch.pretrain" if hosts * topology.slices == 1 else "launch.train"
    words = [".venv/bin/python", "-m", "launch.supervise", "--stopped-code", str(STOPPED), script, config, *options]
    words += ["--train.layout", train.layout] if train.layout != experiment.train.layout else []
    elsewhere = train.layout == experiment.train.layout and train.xla_options != experiment.train.xla_options
    words += ["--train.xla-options", *train.xla_options] if elsewhere else []  # those of the layout are for its chip
    mesh = ", ".join(f"{axis} {size}" for axis, size in plan.mesh.items() if size > 1) or "one device"
    search = "" if train.layout.endswith(f"/{topology.name}") else " (launch.plan --search finds one for this topology)"
    notes = [f"{script} {config} on {topology.name}; layout {train.layout or 'none'}{search}; mesh {mesh}", memory[0]]
    setup, pack = SETUP % ("tpu" if tpu else given.cuda), PACK % shlex.quote(config)
    run = given.workdir or str(workdir)
    # Next to the run folder, not in it: compiled programs are code, and run folders are shared.
    environment = {"PYTHONUNBUFFERED": "1", "JAX_COMPILATION_CACHE_DIR": f"{run.rstrip('/')}.compiled"}
    if not tpu:
        set_gpu_memory(environment)
    return Job(
        name, f"runs/cloud/{name}", shlex.join(words), environment, run, topology, tpu, kind, hosts, chips, setup, pack,
        notes,
    ), given  # fmt: skip


def exports(job: Job) -> str:
    """Line of bash that sets the environment of a process: export NAME=VALUE ..."""
    return "export " + " ".join(f"{name}={shlex.quote(value)}" for name, value in job.environment.items())


def check_workdir(job: Job, *places: str) -> None:
    """Raise UsageError unless --workdir begins with one of `places`, such as "gs://". A run folder elsewhere would be
    lost with the hosts."""
    folder = job.workdir if "://" in job.workdir else os.path.normpath(job.workdir)
    if not folder.startswith(places):
        raise UsageError(
            f"The run folder is {shown(job.workdir, quotes=False)}, which is deleted with the hosts or not accessible "
            f"to them. Give --workdir {' or '.join(f'{place}...' for place in places)}, such as gs://BUCKET/runs/NAME."
        )


def write_job(job: Job, ending: str, text: str, commands: dict[str, str], dry_run: bool) -> None:
    """Write `text` to runs/cloud/NAME + `ending`, with job.notes and {purpose: command} as comments at its top, and
    print the comments. With `dry_run`, only print the file."""
    notes = [*job.notes, *(f"{purpose}: {command}" for purpose, command in commands.items())]
    comments = "".join(f"# {line}\n" for note in notes for line in note.splitlines())
    text = (BASH if text.startswith(BASH) else "") + comments + text.removeprefix(BASH)
    if not dry_run:
        path = Path(f"{job.file}{ending}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        text = f"# written: {path}\n{comments}"
    print(text, end="", flush=True)
