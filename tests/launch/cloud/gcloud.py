"""Stands for gcloud: queued resources and the hosts of TPU VMs, as folders. What is sent to a host by ssh is run by
bash in the host's folder. The body of a program of tests/launch/cloud/programs.py."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

CLOUD = Path(os.environ["CLOUD"])
"""state: that of the queued resource. hosts/NODE-NUMBER: the home folders."""
HOSTS = int(os.environ.get("HOSTS", "1"))
"""Of each node."""


def option(name: str) -> str:
    return next((word.partition("=")[2] for word in sys.argv if word.startswith(f"--{name}=")), "")


def hosts_of(node: str) -> list[Path]:
    found = sorted((CLOUD / "hosts").glob(f"{node}@*"))
    return found if option("worker") == "all" else [found[int(option("worker"))]]


def create(name: str) -> None:
    if (CLOUD / "state").exists():
        sys.exit("ALREADY_EXISTS")
    count = int(option("node-count") or "0")
    nodes = [f"{option('node-prefix')}-{number}" for number in range(count)] or [option("node-id")]
    for node in nodes:
        for number in range(HOSTS):
            (CLOUD / f"hosts/{node}@{number}").mkdir(parents=True)
    (CLOUD / "state").write_text(os.environ.get("FIRST_STATE", "ACTIVE"))


def delete(name: str) -> None:
    for file in ("run.shell", "run.pid"):  # the shell first, which would write down how the other ended
        for pid in (CLOUD / "hosts").rglob(file):
            subprocess.run(["kill", "-KILL", pid.read_text().strip()], stderr=subprocess.DEVNULL)
    while (CLOUD / "hosts").exists():
        shutil.rmtree(CLOUD / "hosts", ignore_errors=True)
    (CLOUD / "state").unlink()


def describe(name: str) -> None:
    if not (CLOUD / "state").exists():
        sys.exit(f"ERROR: (gcloud.compute.tpus.queued-resources.describe) NOT_FOUND: {name}")
    print((CLOUD / "state").read_text())


def ssh(node: str) -> None:
    for host in hosts_of(node):
        done = subprocess.run(["bash", "-c", option("command")], cwd=host, env=os.environ | {"HOME": str(host)})
        if done.returncode:
            sys.exit(done.returncode)


def scp(source: str, target: str) -> None:
    node, _, name = target.partition(":")
    for host in hosts_of(node):
        shutil.copy(source, host / name)


compute, tpus, group, verb, *words = sys.argv[1:]
assert (compute, tpus, option("zone")) == ("compute", "tpus", "us-east5-b"), sys.argv
globals()[verb](*[word for word in words if not word.startswith("--")])
