"""Metrics of a run: every step once, no truncated lines, and no control characters for the terminal."""

import contextlib
import importlib
import importlib.util
import json
import resource
import signal
import struct
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from lm.data.batches import host_batch
from lm.errors import InputError, for_terminal
from lm.metrics import writers
from lm.metrics.hardware import Peak
from lm.metrics.meter import Meter, MetricsLog, live_text, memory
from lm.metrics.writers import TensorBoard
from lm.terminal import duration, quantity


def test_a_restart_removes_later_steps_and_invalid_lines(tmp_path):
    path = tmp_path / "metrics.jsonl"
    good = [b'{"step": 1, "loss": 3.0}', b'{"step": 2, "loss": 2.0}']
    invalid = [b"\xff\xfe{", b"{}", b"12", b"null", b'{"step": "x"}']
    path.write_bytes(b"\n".join([good[0], *invalid, good[1], b'{"step": 3, "loss": 1.0}', b'{"step": 4, "lo']))
    with contextlib.closing(MetricsLog(tmp_path, 2)) as log:
        log.write(3, {"loss": 0.5})
    assert path.read_bytes().splitlines() == [*good, b'{"step": 3, "loss": 0.5}']


def test_event_files_have_bounded_size(tmp_path, monkeypatch):
    """Uploads of the newest events are small, even for a long run."""
    monkeypatch.setattr(writers, "EVENTS_BYTES", 1000)
    with contextlib.closing(TensorBoard(tmp_path, 0)) as log:
        for step in range(1, 201):
            log.write(step, {"loss": 1 / step})
    files = sorted(tmp_path.iterdir())
    sizes = [file.stat().st_size for file in files]
    assert len(files) > 5 and max(sizes) < 1100 and min(sizes[:-1]) > 1000
    assert [event.step for event in events_of(tmp_path) if event.summary.value] == [*range(1, 201)]
    assert [event.file_version for event in events_of(tmp_path)].count("brain.Event:2") == len(files)


class FakeWandb(ModuleType):
    """Records the calls to the package; the real one is tested below if it is installed."""

    Error = RuntimeError

    def __init__(self, refuses: bool = False):
        super().__init__("wandb")
        self.begun, self.rows, self.finished, self.refuses = [], [], 0, refuses

    def init(self, **arguments):
        if self.refuses:
            raise self.Error("no API key")
        self.begun.append(arguments)
        log = lambda row, step: self.rows.append({"step": step} | row)
        return SimpleNamespace(log=log, finish=lambda: setattr(self, "finished", self.finished + 1))


def events_of(folder: Path) -> list:
    """Parse the files in `folder` as TFRecords: length, its checksum, data, its checksum."""
    from tensorboardX.proto import event_pb2

    data, place, events = b"".join(path.read_bytes() for path in sorted(folder.iterdir())), 0, []
    while place < len(data):
        (length,) = struct.unpack_from("<Q", data, place)
        event = event_pb2.Event()  # ty: ignore[missing-attribute]
        event.ParseFromString(data[place + 12 : place + 12 + length])
        events.append(event)
        place += 16 + length
    return events


def test_events_of_later_steps_are_hidden_on_a_restart(tmp_path):
    MetricsLog(tmp_path, 41).close()
    (_, start) = events_of(tmp_path / "tensorboard")
    assert (start.step, start.session_log.status) == (42, start.session_log.START)


def test_a_full_disk_is_reported_once_per_sink_and_the_rest_continues(tmp_path, capsys):
    """The size of files is limited."""
    with contextlib.closing(MetricsLog(tmp_path, 0)) as log:
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        log.write(1, {"loss": 1.0})
        before = (tmp_path / "metrics.jsonl").read_text()
        ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 10, limits[1]))
            for step in range(2, 50):
                log.write(step, {"loss": 1.0 / step, "gradient_norm": 2.0})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            signal.signal(signal.SIGXFSZ, ignored)
        assert (tmp_path / "metrics.jsonl").read_text() == before, "half a line is none"
        log.write(50, {"loss": 0.5})
    out = capsys.readouterr().out
    assert out.count("JsonLines cannot be written; training continues") == 1
    assert out.count("TensorBoard cannot be written; training continues") == 1
    assert [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [1, 50]
    assert events_of(tmp_path / "tensorboard")[-1].step == 50


def test_every_sink_gets_the_same_rows_with_lists_only_in_json_and_no_infinities(tmp_path, monkeypatch):
    wandb = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    rows = [(1, {"loss": 1.234567, "tokens": 10}), (1, {"validation_loss": 2.0}), (2, {"mfu": 0.5})]
    left_out = {"gradient_norm": float("inf"), "norm": float("nan")}
    with contextlib.closing(MetricsLog(tmp_path, 0, "mill", {"seed": 7})) as log:
        for step, row in rows:
            log.write(step, row | left_out | {"host_seconds": [1 / 3, 2.0]})
    expected = [{"step": step} | row for step, row in rows]
    written = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert written == [row | {"host_seconds": [0.3333333, 2.0]} for row in expected]
    assert wandb.rows == expected
    events = events_of(tmp_path / "tensorboard")
    scalars = [(step, name, np.float32(row[name])) for step, row in rows for name in row]
    assert [(event.step, v.tag, v.simple_value) for event in events for v in event.summary.value] == scalars
    assert wandb.finished == 1
    assert (wandb.begun[0]["project"], wandb.begun[0]["config"]) == ("mill", {"seed": 7})


def test_a_restart_continues_the_same_run_of_weights_and_biases(tmp_path, monkeypatch):
    wandb = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    for folder in (tmp_path / "a", tmp_path / "a", tmp_path / "b"):
        MetricsLog(folder, 0, "mill").close()
    first, second, other = (arguments["id"] for arguments in wandb.begun)
    assert first == second != other
    assert all(arguments["resume"] == "allow" for arguments in wandb.begun)


def test_errors_of_weights_and_biases_are_reported_with_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", FakeWandb(refuses=True))
    with pytest.raises(InputError, match=r"wandb_project = 'mill': no API key\. Log in .* WANDB_MODE=offline"):
        MetricsLog(tmp_path, 0, "mill")
    assert not (tmp_path / "metrics.jsonl").exists()


@pytest.mark.skipif(not importlib.util.find_spec("wandb"), reason="wandb is not installed; make add PACKAGE=wandb")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # from the package itself
def test_the_real_wandb_writes_into_the_run_folder_offline(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    for step in (1, 2):
        with contextlib.closing(MetricsLog(tmp_path, step - 1, "mill")) as log:
            log.write(step, {"loss": 1 / step})
    importlib.import_module("wandb").teardown()  # waits for its service, which writes in the background
    run_id = (tmp_path / "wandb/run_id").read_text()
    written = list((tmp_path / "wandb").glob(f"offline-run-*-{run_id}/run-{run_id}.wandb"))
    assert len(written) in (1, 2)  # two that began within the same second share a name
    assert all(b"loss" in path.read_bytes() for path in written)


BATCH = host_batch(*[np.zeros((1, 2), np.int32)] * 3, np.zeros((1, 2), np.float32))


class Clock:
    """A clock that the test sets."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr("lm.metrics.meter.time", SimpleNamespace(perf_counter=lambda: self.now))

    def batches(self, *waits: float):
        for wait in waits:
            self.now += wait
            yield BATCH


HUNDRED = lambda step: 100 * step


def test_speed_counts_only_training_and_seconds_left_count_all_time(monkeypatch):
    clock = Clock(monkeypatch)
    meter = Meter(first=10, steps=20, tokens=HUNDRED, flops=lambda step: 6_000 * step, peak=Peak(5_000.0, ""))
    batches = clock.batches(0.5, 0.0)
    for _ in range(2):
        with meter.training():
            assert meter.next(batches) is BATCH
            clock.now += 0.75
    clock.now += 2.0  # validation
    assert meter.row(12) == {
        "tokens": 1200, "tokens_per_second": 100.0, "data_wait_share": 0.25, "seconds": 4.0, "seconds_left": 16.0,
        "mfu": 1.2, "train_flops": 72_000.0,
    }  # fmt: skip
    with meter.training():
        clock.now += 1.0
    row = meter.row(13)  # each row covers the steps since the previous one
    assert (row["tokens_per_second"], row["data_wait_share"], row["mfu"]) == (100.0, 0.0, 1.2)


def test_speed_and_seconds_left_follow_growing_batches(monkeypatch):
    """After step 2, a step has three times as many tokens and takes three times as long."""
    clock = Clock(monkeypatch)
    tokens = lambda step: 100 * (step + 2 * max(step - 2, 0))
    meter = Meter(0, 4, tokens, lambda step: 60 * tokens(step), Peak(5_000.0, ""))
    found = []
    for step in range(1, 5):
        with meter.training():
            clock.now += 1.0 if step <= 2 else 3.0
        found.append(meter.row(step))
    assert [row["tokens"] for row in found] == [100, 200, 500, 800]
    assert [row["train_flops"] for row in found] == [6_000, 12_000, 30_000, 48_000]
    assert [row["seconds_left"] for row in found] == [7.0, 6.0, 3.0, 0.0]
    assert {(row["tokens_per_second"], row["mfu"]) for row in found} == {(100.0, 1.2)}


@pytest.mark.parametrize(
    ("peak", "share"),
    [(Peak(None, ""), {}), (Peak(5_000.0, "", "cpu_matmul_share"), {"cpu_matmul_share": 2.4})],
    ids=["unknown", "measured"],
)
def test_mfu_needs_a_known_peak_rate(monkeypatch, peak, share):
    """A measured share can exceed 1 if the machine was busy during the measurement."""
    clock = Clock(monkeypatch)
    meter = Meter(first=0, steps=2, tokens=HUNDRED, flops=lambda step: 6_000 * step, peak=peak)
    with meter.training():
        clock.now += 0.5
    row = meter.row(1) | {"loss": 2.0}
    assert "mfu" not in row and share.items() <= row.items() and ("cpu_matmul_share" in row) == bool(share)
    assert live_text(1, 2, row) == "step 1/2  loss 2.000  200 tokens/s  0:00 left"
    assert live_text(1, 2, row | {"mfu": 0.543}) == "step 1/2  loss 2.000  200 tokens/s  MFU 54 %  0:00 left"


def test_memory_is_that_of_the_fullest_device_or_of_the_process():
    tells = [SimpleNamespace(memory_stats=lambda n=n: {"bytes_in_use": n, "peak_bytes_in_use": 10 - n}) for n in (1, 3)]
    assert memory(tells) == {"device_bytes_in_use": 3, "device_bytes_peak": 9}
    silent = [SimpleNamespace(memory_stats=lambda: None)]
    row = memory(silent)
    assert row.keys() <= {"process_bytes_in_use", "process_bytes_peak"}
    assert row["process_bytes_peak"] > 50e6  # Python with jax
    if Path("/proc/self/statm").exists():
        assert 0 < row["process_bytes_in_use"] <= row["process_bytes_peak"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (314_000, "314 kB"), (3.14e9, "3.1 GB"), (2e21, "2000000 PB")],
)
def test_quantities(value, text):
    assert quantity(value, "B") == text


def test_model_text_cannot_steer_the_terminal():
    assert for_terminal("a\x1b[2Jb\x07\rc\nd\u202ee ü") == "a\ufffd[2Jb\ufffd\ufffdc\nd\ufffde ü"


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0:00"), (61.0, "1:01"), (3599.6, "1:00:00"), (3723.0, "1:02:03")])
def test_durations(seconds, text):
    assert duration(seconds) == text
