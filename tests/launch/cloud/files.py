"""Helpers for tests of launch.cloud: dry runs, and the programs that check files (make checkers)."""

import importlib
import shlex
import subprocess

import pytest

from tests.run_files import REPOSITORY

CONFIG = "configs/gpt2_124m.py"
CHECKERS = REPOSITORY / ".tools/checkers/bin"
needs_checkers = pytest.mark.skipif(not CHECKERS.is_dir(), reason="needs what checks generated files: make checkers")
WORDS = {  # the options that each script needs besides --topology
    "gke": ["--image", "registry.example/gristmill:1", "--workdir", "gs://bucket/runs/a"],
    "skypilot": ["--workdir", "s3://bucket/runs/a"],
    "slurm": [],
    "tpu_vm": ["--zone", "us-east5-b", "--workdir", "gs://bucket/runs/a"],
}
ANY = ["--train.batch-size", "512", "--train.micro-batches", "1", "--train.remat", "full"]  # fits every topology


def check(program: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([CHECKERS / program, *words], capture_output=True, text=True)


def dry_run(capsys: pytest.CaptureFixture[str], cloud: str, topology: str, *words: str, config: str = CONFIG) -> str:
    arguments = [config, "--topology", topology, *WORDS[cloud], *words, "--dry-run"]
    importlib.import_module(f"launch.cloud.{cloud}").main(arguments)
    return capsys.readouterr().out


def comments_in(text: str) -> str:
    return "\n".join(line.removeprefix("# ") for line in text.splitlines() if line.startswith("# "))


def commands_in(text: str) -> dict[str, list[str]]:
    lines = [line.partition(": ") for line in comments_in(text).splitlines()]
    return {purpose: shlex.split(command) for purpose, _, command in lines if command}


def pod_of(made: dict) -> dict:
    return made["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
