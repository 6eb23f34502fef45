"""Every executor writes the bytes of one process in all data stages, including deduplication."""

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from data_prep.config import EngineConfig
from data_prep.config.engine import EXECUTORS
from data_prep.engine.beam import DASK
from data_prep.warc import write_pages
from launch.stages.stage import run_stage
from tests.corpus import tiny_experiment, web_pages
from tests.launch.test_data_stages import STAGES, digests
from tests.run_files import DATA, HANG_SECONDS, REPOSITORY
from tests.slurm_programs import StandIn

CHOICES = {
    "processes": {"workers": 2},
    "ray": {"workers": 2},
    "beam": {},
    "beam on dask": {"runner": "beam", "workers": 2, "beam_options": f"--runner={DASK}"},
    "slurm": {"workers": 2},
}
"""{name of an executor, or another name for a second row: engine}."""
STEPS = ("exact_dedup", "minhash_dedup", "line_dedup")


def write_inputs(folder: Path) -> None:
    """Write three WARC files: five pages are in two of them, and the third has near-duplicates of three others."""
    pages = web_pages(24)
    near = [dataclasses.replace(one, body=one.body.replace(b"number 1.", b"number one.")) for one in pages[:3]]
    for number, made in enumerate((pages[:10], pages[8:18], [*pages[16:], pages[3], *near])):
        write_pages(folder / f"{number}.warc.gz", made)


def make(warcs: Path, workdir: Path, **engine) -> None:
    """Write pages, texts, documents, tokenizer and shards."""
    tiny = tiny_experiment()
    experiment = dataclasses.replace(
        tiny,
        pages=dataclasses.replace(tiny.pages, warc=(str(warcs),)),
        documents=dataclasses.replace(tiny.documents, steps=STEPS),
        engine=EngineConfig(**engine),
    )
    for stage in STAGES:
        run_stage(stage, experiment, workdir)


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("alone")
    write_inputs(folder / "warc")
    make(folder / "warc", folder / "run")
    tables = [pq.read_table(path) for path in (folder / "run/dropped").glob("*.parquet")]
    dropped = [one for table in tables for one in table["duplicate_of"].to_pylist()]
    assert len(dropped) == 8 and None not in dropped
    return folder


def test_every_executor_is_covered():
    assert {row.get("runner", name) for name, row in CHOICES.items()} == EXECUTORS.keys()


def short_folder() -> tempfile.TemporaryDirectory:
    """A short path for Ray: socket paths have at most 107 bytes."""
    return tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True)


MAIN = """
import json, sys
from pathlib import Path
from launch.stages.command import handle_cli_errors
from tests.data_prep.engine.test_executors import make

if __name__ == "__main__":
    with handle_cli_errors("main"):
        make(Path(sys.argv[1]), Path(sys.argv[2]), **json.loads(sys.argv[3]))
"""


NO_RAY = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed (make ray)")
MARKS = {
    one: (pytest.mark.slow, NO_RAY) if one == "ray" else (pytest.mark.slow,) for one in CHOICES if one != "processes"
}


@pytest.mark.parametrize("name", [pytest.param(one, marks=MARKS.get(one, ())) for one in CHOICES])
def test_data_stages_with_deduplication_give_the_bytes_of_one_process(name, alone, tmp_path):
    """In a separate process: clusters import the main module again, and leave threads and warnings."""
    engine = {"runner": name} | CHOICES[name]
    (tmp_path / "main.py").write_text(MAIN)
    command = [sys.executable, "-W", "ignore", "main.py", str(alone / "warc"), "run", json.dumps(engine)]
    slurm = StandIn(tmp_path / "slurm")
    with short_folder() as home:
        environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "HOME": home, "RAY_TMPDIR": home}
        ended = subprocess.run(
            command, capture_output=True, text=True, env=environment | slurm.environment, cwd=tmp_path,
            timeout=HANG_SECONDS,
        )  # fmt: skip
        try:
            slurm.wait()
        finally:
            slurm.end()
    assert ended.returncode == 0, ended.stderr
    assert (name == "slurm") == (len(slurm.jobs()) > 3)
    expected = digests(alone / "run", *DATA, "funnel.json")
    assert len(expected) > 10 and digests(tmp_path / "run", *DATA, "funnel.json") == expected
