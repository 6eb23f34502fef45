"""Data that must be equal in two run folders: bytes of documents, tokenizer and shards, bits of the parameters."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
LICENSE = (REPOSITORY / "LICENSE").read_text(encoding="utf-8")
"""A natural text."""
QUICK = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "XLA_FLAGS": "--xla_cpu_parallel_codegen_split_count=1"}
"""Programs of tests run a few times, on few numbers: optimizing them would take most of the time."""
HANG_SECONDS = 600
"""Longer runs hang; nothing takes nearly this long on any machine."""
DATA = ("texts", "documents", "dropped", "tokenizer", "tokens")


def start_module(*words: object, **variables: str) -> subprocess.Popen[str]:
    """Start `python -m words` with these environment variables; its output has both streams."""
    return subprocess.Popen(
        [sys.executable, "-m", *map(str, words)], cwd=REPOSITORY, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, env=os.environ | QUICK | variables,
    )  # fmt: skip


def start(workdir: Path, warc: Path, *options: str, script: str = "launch.pretrain") -> subprocess.Popen[str]:
    """The main job on the tiny config, as a user starts it."""
    return start_module(script, "tests/configs.py", "--workdir", workdir, "--pages.warc", f"{warc}/*.warc.gz", *options)


def finish(process: subprocess.Popen) -> str:
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    assert "Traceback" not in output, output
    return output


def digests(workdir: Path) -> dict[str, str]:
    """{path: SHA-256} of all data files."""
    files = sorted(path for name in DATA for path in (workdir / name).rglob("*") if path.is_file())
    return {str(path.relative_to(workdir)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def restore_model(config, folder: Path, mesh=None, step: int | None = None):
    """The parameters of the newest checkpoint in `folder`, or of `step`, after verifying its files."""
    from lm.checkpoints.reading import read_parameters, whole_parameters

    return read_parameters(config, whole_parameters((folder,), step), mesh)


def parameters(workdir: Path) -> dict[str, bytes]:
    """{name: bits} of the newest checkpoint's parameters."""
    import numpy as np

    from lm.model.param_names import named_leaves
    from tests.corpus import tiny_experiment

    model = restore_model(tiny_experiment().model, workdir / "checkpoints")
    return {name: np.asarray(value).tobytes() for name, value in named_leaves(model).items()}
