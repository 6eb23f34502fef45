"""What a run writes about itself: every step once, whole files, and nothing that a terminal would obey."""

import contextlib
import json

import pytest

from lm.files import write_json
from lm.metrics import MetricsLog, duration, for_terminal


def test_a_restart_takes_out_later_steps_and_a_line_cut_short(tmp_path):
    with contextlib.closing(MetricsLog(tmp_path, 0)) as log:
        for step in (1, 2, 3, 4):
            log.write(step, {"loss": 1 / step, "tokens": 10 * step})
    with (tmp_path / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"step": 5, "lo')
    with contextlib.closing(MetricsLog(tmp_path, 2)) as log:
        log.write(3, {"loss": 0.5})
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert rows == [
        {"step": 1, "loss": 1.0, "tokens": 10},
        {"step": 2, "loss": 0.5, "tokens": 20},
        {"step": 3, "loss": 0.5},
    ]


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "folder/x.json"
    write_json(path, {"a": "ü"})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert json.loads(path.read_text(encoding="utf-8")) == {"a": "ü"}


def test_model_text_cannot_steer_the_terminal():
    assert for_terminal("a\x1b[2Jb\x07\rc\nd\u202ee ü") == "a\ufffd[2Jb\ufffd\ufffdc\nd\ufffde ü"


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0:00"), (61.0, "1:01"), (3599.6, "1:00:00"), (3723.0, "1:02:03")])
def test_durations(seconds, text):
    assert duration(seconds) == text
