"""Units on Beam: the same bytes, a graph that does not grow with them, and what fails is set aside there too."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from data_prep.config import ONE_PROCESS, EngineConfig
from data_prep.engine import beam, run_step
from lm.errors import InputError, UsageError
from tests.data_prep.engine.test_units import contents, records, step_of, texts
from tests.run_files import HANG_SECONDS

REPOSITORY = Path(__file__).parents[3]
FN_API = "--runner=apache_beam.runners.portability.fn_api_runner.FnApiRunner"
IN_PROCESS = EngineConfig(runner="beam", beam_options=FN_API, max_failed=0.5)
"""By Beam's options, as a cluster's runner is asked for; this one works in this process."""


def test_units_are_made_and_what_fails_is_set_aside(tmp_path):
    inputs = texts(12) | {"bad": "damaged text"}
    run_step(step_of(texts(12)), ONE_PROCESS, tmp_path / "alone")
    markers = run_step(step_of(inputs), IN_PROCESS, tmp_path / "beam")
    assert list(markers) == list(texts(12))
    assert contents(tmp_path / "beam") == contents(tmp_path / "alone")
    assert records(tmp_path / "beam")["bad"]["attempts"] == 3
    assert not list((tmp_path / "beam/units").glob("*.pickle"))


def test_what_is_done_is_passed_over_where_a_runner_repeats_it(tmp_path, monkeypatch):
    (tmp_path / "log").mkdir()
    ranges = beam.run_range

    def twice(*args, **kwargs) -> None:
        ranges(*args, **kwargs)
        ranges(*args, **kwargs)

    monkeypatch.setattr(beam, "run_range", twice)
    run_step(step_of(texts(3), tmp_path / "log"), IN_PROCESS, tmp_path)
    assert len(list((tmp_path / "log").iterdir())) == 3


def test_the_graph_does_not_grow_with_the_units(tmp_path, monkeypatch):
    seen = tmp_path / "seen"
    seen.mkdir()
    monkeypatch.setattr(beam, "MOST_RANGES", 4)
    ranges = beam.run_range

    def noted(bounds, *args, **kwargs) -> None:
        (seen / "{:02d}-{:02d}".format(*bounds)).touch()
        ranges(bounds, *args, **kwargs)

    monkeypatch.setattr(beam, "run_range", noted)
    assert len(run_step(step_of(texts(30)), IN_PROCESS, tmp_path)) == 30
    assert sorted(path.name for path in seen.iterdir()) == ["00-08", "08-16", "16-24", "24-30"]


def test_what_every_unit_would_fail_of_ends_the_pipeline(tmp_path):
    with pytest.raises(UsageError, match="this cannot be"):
        run_step(step_of({"a": "settings x", "b": "text"}), IN_PROCESS, tmp_path)
    with pytest.raises(InputError, match="is damaged"):
        run_step(step_of({"a": "damaged x", "b": "damaged x"}), IN_PROCESS, tmp_path / "none")


ON_RUNNER = """
import sys
from pathlib import Path
from data_prep.config import EngineConfig
from data_prep.engine import run_step
from tests.data_prep.engine.test_units import step_of, texts

if __name__ == "__main__":
    engine = EngineConfig(runner=sys.argv[1], workers=2, max_failed=0.5)
    print(len(run_step(step_of(texts(200) | {"bad": "damaged text"}), engine, Path(sys.argv[2]))))
"""


@pytest.mark.slow
@pytest.mark.parametrize("runner", ["fn_api", "dask"])
def test_worker_processes_of_runners_make_the_same_bytes(runner, tmp_path):
    """Of 200 units: Dask in Beam takes 128 elements a partition, unless told otherwise."""
    if runner == "dask":
        pytest.importorskip("distributed", reason="Dask is not installed")
    (tmp_path / "main.py").write_text(ON_RUNNER)
    command = [sys.executable, "-W", "ignore", "main.py", runner, "there"]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=HANG_SECONDS)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[-1] == "200"
    run_step(step_of(texts(200)), ONE_PROCESS, tmp_path / "here")
    assert contents(tmp_path / "there") == contents(tmp_path / "here")
    assert set(records(tmp_path / "there")) == {"bad"}
