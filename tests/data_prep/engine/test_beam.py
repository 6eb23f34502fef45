"""Units on Beam: the same bytes, a graph of constant size, and errors reported in one line."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from data_prep.config import ONE_PROCESS, EngineConfig
from data_prep.engine import Step, beam, run_step
from lm.errors import InputError, UsageError
from tests.data_prep.engine.test_units import BEAM, contents, records, step_of, texts
from tests.run_files import HANG_SECONDS, REPOSITORY


def test_units_run_and_failing_ones_are_quarantined(tmp_path):
    inputs = texts(12) | {"bad": "damaged text"}
    run_step(step_of(texts(12)), ONE_PROCESS, tmp_path / "alone")
    markers = run_step(step_of(inputs), BEAM, tmp_path / "beam")
    assert list(markers) == list(texts(12))
    assert contents(tmp_path / "beam") == contents(tmp_path / "alone")
    assert records(tmp_path / "beam")["bad"]["attempts"] == 3
    assert {path.suffix for path in (tmp_path / "beam/units").rglob("*.*")} == {".json"}


def test_finished_units_are_skipped_if_a_runner_repeats_a_range(tmp_path, monkeypatch):
    (tmp_path / "log").mkdir()
    ranges = beam.run_range

    def twice(*args, **kwargs) -> None:
        ranges(*args, **kwargs)
        ranges(*args, **kwargs)

    monkeypatch.setattr(beam, "run_range", twice)
    run_step(step_of(texts(3), tmp_path / "log"), BEAM, tmp_path)
    assert len(list((tmp_path / "log").iterdir())) == 3


def test_the_graph_size_does_not_depend_on_the_number_of_units(tmp_path, monkeypatch):
    seen = tmp_path / "seen"
    seen.mkdir()
    monkeypatch.setattr(beam, "MOST_RANGES", 4)
    ranges = beam.run_range

    def noted(bounds, *args, **kwargs) -> None:
        (seen / "{:02d}-{:02d}".format(*bounds)).touch()
        ranges(bounds, *args, **kwargs)

    monkeypatch.setattr(beam, "run_range", noted)
    assert len(run_step(step_of(texts(30)), BEAM, tmp_path)) == 30
    assert sorted(path.name for path in seen.iterdir()) == ["00-08", "08-16", "16-24", "24-30"]


def test_units_lost_by_a_runner_are_an_error_and_a_rerun_completes_them(tmp_path, monkeypatch):
    monkeypatch.setattr(beam, "MOST_RANGES", 4)
    ranges = beam.run_range
    some = lambda bounds, *args, **kwargs: bounds[0] and ranges(bounds, *args, **kwargs)
    with monkeypatch.context() as patched, pytest.raises(InputError, match=r"2 of 8 units of step are neither done"):
        patched.setattr(beam, "run_range", some)
        run_step(step_of(texts(8)), BEAM, tmp_path)
    assert len(run_step(step_of(texts(8)), BEAM, tmp_path)) == 8


def interrupt(unit, space) -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_an_interrupt_during_a_unit_stops_the_run(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run_step(Step("step", step_of(texts(3)).units, interrupt), BEAM, tmp_path)


UNSUITABLE = ("--runner=Nobody", "--flink_master=x --runner=a.b.C", "--direct_num_workers=many")


@pytest.mark.parametrize("options", UNSUITABLE)
def test_options_unknown_to_beam_are_rejected_in_one_line(options, tmp_path):
    with pytest.raises(UsageError, match=r"^Beam rejects engine.beam_options .+: .+"):
        run_step(step_of(texts(2)), EngineConfig(runner="beam", beam_options=options), tmp_path)


def test_several_workers_without_a_cluster_are_rejected(tmp_path):
    with pytest.raises(UsageError, match=r"engine.workers is 2, .* --engine.runner processes"):
        run_step(step_of(texts(2)), EngineConfig(runner="beam", workers=2), tmp_path)


ON_DASK = """
import sys
from pathlib import Path
from data_prep.config import EngineConfig
from data_prep.engine import run_step
from data_prep.engine.beam import DASK
from lm.errors import InputError
from tests.data_prep.engine.test_units import step_of, texts

if __name__ == "__main__":
    units, *options = sys.argv[2:]
    inputs = texts(int(units)) | {"bad": "damaged text"}
    words = " ".join([f"--runner={DASK}", *options])
    engine = EngineConfig(runner="beam", workers=2, max_failed=0.5, beam_options=words)
    try:
        print(len(run_step(step_of(inputs), engine, Path(sys.argv[1]))))
    except InputError as error:
        print(error)
"""


def on_dask(folder: Path, units: int, *options: str) -> str:
    """Run on Dask and return the last printed line: Dask's workers import the main module again."""
    (folder / "main.py").write_text(ON_DASK)
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "5s"}
    command = [sys.executable, "-W", "ignore", "main.py", "there", str(units), *options]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder, timeout=HANG_SECONDS)
    assert ended.returncode == 0, ended.stderr
    noise = [line for line in ended.stderr.splitlines() if re.search("Traceback|CommClosed|distributed|INFO", line)]
    assert not noise, ended.stderr  # it ends quietly
    return ended.stdout.splitlines()[-1]


@pytest.mark.slow
def test_dask_writes_the_same_bytes(tmp_path):
    """With 200 units, because Beam on Dask puts 128 elements in a partition by default."""
    assert on_dask(tmp_path, 200) == "200"
    run_step(step_of(texts(200)), ONE_PROCESS, tmp_path / "here")
    assert contents(tmp_path / "there") == contents(tmp_path / "here")
    assert set(records(tmp_path / "there")) == {"bad"}


@pytest.mark.slow
def test_an_unreachable_scheduler_is_named(tmp_path):
    address = "--dask_client_address=tcp://127.0.0.1:1"
    said = on_dask(tmp_path, 2, address)
    assert said.startswith("The Beam runner ended (") and address in said and "OSError" in said
