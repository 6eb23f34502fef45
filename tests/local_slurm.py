"""A local Slurm cluster: a controller and several node daemons on loopback, in a temporary folder.

    with running() as cluster:
        subprocess.run([...], env=os.environ | cluster.environment)

The daemons authenticate with a key in the folder, without munge, listen on the loopback interface, and use neither
cgroups nor systemd. Needs Debian's slurm-wlm and root: the daemons keep a socket in /run.
"""

import contextlib
import fcntl
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from pathlib import Path

from tests.run_files import HANG_SECONDS
from tests.train_process import free_port
from tests.until import until

PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
"""The daemons are often not on the PATH of users."""
PROGRAMS = ("slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "scancel")
RUN_FOLDERS = (Path("/run/slurm"), Path("/run/slurmctld"))
LOCK = Path(tempfile.gettempdir()) / "gristmill-local-slurm.lock"
"""Held by the process that runs a cluster: the others wait."""
CONFIG = """
ClusterName=local
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/slurm
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
CredType=cred/slurm
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=2,sched_min_interval=0,bf_interval=1
MaxArraySize={max_array_size}
MaxJobCount=10000
MinJobAge=300
KillWait=60
MessageTimeout=100
TCPTimeout=60
BatchStartTimeout=600
ReturnToService=2
{nodes}
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def why_not() -> str:
    """Return why no Slurm can be started here; "" if it can."""
    if missing := [name for name in PROGRAMS if shutil.which(name, path=PATH) is None]:
        return f"Slurm is not installed ({', '.join(missing)})"
    if os.getuid():
        return "Slurm's daemons need root"
    with LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for path in Path("/proc").glob("[0-9]*/comm"):
            with contextlib.suppress(OSError):
                if path.read_text().strip() in ("slurmctld", "slurmd"):
                    return "a Slurm runs on this machine"
    return ""


@dataclass
class Cluster:
    folder: Path
    environment: dict[str, str]
    """Variables with which Slurm's commands, and the jobs that they submit, find this cluster."""
    daemons: list[subprocess.Popen] = field(default_factory=list)

    def ask(self, *words: str) -> str:
        """Return the output of a Slurm command. Raises CalledProcessError."""
        ended = subprocess.run(words, env=os.environ | self.environment, capture_output=True, text=True, check=True)
        return ended.stdout

    def jobs(self) -> list[str]:
        """IDs of all jobs in the queue, with array tasks separately."""
        return self.ask("squeue", "--noheader", "--array", "--format=%i").split()

    def wait_for(self, true: Callable[[], bool]) -> None:
        """Wait until `true()` holds. Raises AssertionError, with the controller's log, after HANG_SECONDS."""
        until(true, self.log)

    def log(self) -> str:
        return (self.folder / "slurmctld.log").read_text(errors="replace")


@contextlib.contextmanager
def running(nodes: int = 2, cpus: int = 2, max_array_size: int = 5) -> Generator[Cluster]:
    """Start the daemons; stop them and all jobs at the end of the block."""
    lock = LOCK.open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    ports = [free_port() for _ in range(nodes + 1)]
    host = socket.gethostname().partition(".")[0]
    folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))  # the path of a socket has at most 107 bytes
    lines = [
        f"NodeName=n{number} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={cpus} RealMemory=1000"
        for number, port in enumerate(ports[1:])
    ]
    config = CONFIG.format(
        host=host, port=ports[0], folder=folder, max_array_size=max_array_size,
        nodes="\n".join(lines),
    )  # fmt: skip
    (folder / "slurm.conf").write_text(config)
    for number in range(nodes):
        (folder / f"spool-n{number}").mkdir()
    (folder / "cgroup.conf").write_text("CgroupPlugin=disabled\n")
    (folder / "slurm.key").write_bytes(secrets.token_bytes(1024))
    (folder / "slurm.key").chmod(0o600)
    cluster = Cluster(folder, {"PATH": PATH, "SLURM_CONF": str(folder / "slurm.conf")})
    try:
        start(cluster, "slurmctld", "-D")
        for number in range(nodes):
            start(cluster, "slurmd", "-D", "-N", f"n{number}")
            wait_for_nodes(cluster, number + 1)
        yield cluster
    finally:
        with contextlib.suppress(subprocess.CalledProcessError, AssertionError):
            cluster.ask("scancel", "--user=root")
            until(lambda: not cluster.jobs())
        for daemon in reversed(cluster.daemons):
            daemon.terminate()
        for daemon in cluster.daemons:
            try:
                daemon.wait(HANG_SECONDS)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        for one in (folder, *RUN_FOLDERS):
            shutil.rmtree(one, ignore_errors=True)
        lock.close()


def start(cluster: Cluster, *command: str) -> None:
    """Start a daemon."""
    with (cluster.folder / f"{len(cluster.daemons)}.output").open("wb") as output:
        cluster.daemons.append(
            subprocess.Popen(
                command, env=os.environ | cluster.environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        )


def wait_for_nodes(cluster: Cluster, nodes: int) -> None:
    deadline = time.monotonic() + HANG_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(subprocess.CalledProcessError):
            if cluster.ask("sinfo", "--noheader", "--Node", "--format=%T").split().count("idle") == nodes:
                return
        if gone := [daemon.args for daemon in cluster.daemons if daemon.poll() is not None]:
            break
        time.sleep(0.2)
    said = [f"{path}:\n{path.read_text(errors='replace')[-2000:]}" for path in cluster.folder.rglob("*.log")]
    said += [f"{path}:\n{path.read_text(errors='replace')[-2000:]}" for path in cluster.folder.glob("*.output")]
    raise RuntimeError(f"Slurm did not start: {gone}\n" + "\n".join(said))
