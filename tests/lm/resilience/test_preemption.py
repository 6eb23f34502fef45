"""On a signal, training saves a checkpoint and exits; the resumed run ends bit for bit equal."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lm.checkpoints.manifest import verify
from lm.resilience.goodput import read_heartbeat
from tests import train_process
from tests.run_files import HANG_SECONDS, REPOSITORY
from tests.train_runs import bits, steps_there, told

FIELDS = {
    "steps": 200, "checkpoint_every": 60, "validate_every": 50, "sample_every": 200, "log_every": 1,
    "checkpoints_kept": 9, "model": {"layers": 1},
}  # fmt: skip


SIGNALS = pytest.mark.parametrize(
    ("number", "ends"), [(signal.SIGTERM, 0), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow)]
)
"""A signal, and the exit code of a process that it ends."""


@pytest.fixture(scope="module")
def undisturbed(tokens, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    shutil.copytree(tokens, run)
    process = train_process.start(run, FIELDS)
    output, _ = process.communicate(timeout=HANG_SECONDS)
    assert process.returncode == 0, output
    return run


SIGNALLED = """
import os, sys, time
from pathlib import Path
from lm.resilience.goodput import Goodput
from tests.train_process import main

number, at, checkpoint = map(int, sys.argv[3:])
real, sent = Goodput.beat, []

def beat(goodput, step, *state):
    real(goodput, step, *state)
    if sent:
        time.sleep(0.2)  # other processes hear of it before their last step
    elif step == at and not state:
        sent.append(number)  # a second signal would say something else
        while checkpoint and not Path(sys.argv[1], f"checkpoints/{checkpoint}/manifest.json").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), number)

Goodput.beat = beat
main()
"""
"""A process that sends itself a signal after a step, once the checkpoint is written: the order is deterministic."""


def signalled(run: Path, number: int, step: int, checkpoint: int = 0, code: str = "") -> tuple[int, str]:
    """Return exit code and output of a training process that runs `code` and gets the signal after the step."""
    arguments = str(int(number)), str(step), str(checkpoint)
    process = train_process.start(run, FIELDS, code=code + SIGNALLED, arguments=arguments)
    output, _ = process.communicate(timeout=HANG_SECONDS)
    return process.returncode, output


@pytest.mark.slow
def test_a_run_resumed_after_kills_and_signals_ends_bit_for_bit_equal(run, undisturbed):
    """SIGKILL, then Ctrl-C, then SIGTERM, each in its own process."""
    assert signalled(run, signal.SIGKILL, 70, checkpoint=60)[0] == -signal.SIGKILL
    behind = 60
    for number, code, step in ((signal.SIGINT, 130, 85), (signal.SIGTERM, 0, 130)):
        ended, output = signalled(run, number, step)
        assert ended == code, output
        assert f"resuming from the checkpoint at step {behind}\n" in output
        behind = max(steps_there(run))
        assert step <= behind <= step + 1, "the step under way at the signal, and none after it"
        assert f"stopped by {signal.Signals(number).name}; saved at step {behind}" in output
        assert verify(run / f"checkpoints/{behind}")["evaluated"] is False
    output, _ = (process := train_process.start(run, FIELDS)).communicate(timeout=HANG_SECONDS)
    assert process.returncode == 0, output
    assert f"resuming from the checkpoint at step {behind}\n" in output
    assert bits(run, 200) == bits(undisturbed, 200)
    assert told(run) == told(undisturbed)

    attempts = json.loads((run / "goodput.json").read_text())
    assert attempts[0]["step"] == 70
    assert [one["first_step"] for one in attempts[:2]] == [0, 60]
    assert [one["step"] for one in attempts[2:]] == [behind, 200]
    for line in ("in 4 attempts", "steps lost and repeated", "nothing ran between two attempts"):
        assert line in output


@pytest.mark.slow
def test_a_resumed_run_evaluates_the_step_at_which_it_was_stopped(run, undisturbed):
    """As if SIGTERM arrived when the validation at step 100 was due."""
    code = (
        "import lm.training.hooks, os, signal\n"
        "real = lm.training.hooks.Evaluation.run\n"
        "def run(self, state, step):\n"
        "    if step == 100: os.kill(os.getpid(), signal.SIGTERM)\n"
        "    return real(self, state, step)\n"
        "lm.training.hooks.Evaluation.run = run\n"
        "from tests.train_process import main\n"
        "main()\n"
    )
    process = train_process.start(run, FIELDS, code=code)
    output, _ = process.communicate(timeout=HANG_SECONDS)
    assert process.returncode == 0, output
    assert "saved at step 100; run the same command" in output
    assert "step 100  validation loss" not in output
    output, _ = (process := train_process.start(run, FIELDS, code=code)).communicate(
        timeout=HANG_SECONDS
    )  # a second time
    assert process.returncode == 0, output
    heart = read_heartbeat(run / "heartbeat.json")
    assert heart is not None and (heart["step"], heart["state"]) == (100, "stopped")
    output, _ = (process := train_process.start(run, FIELDS | {"checkpoints_kept": 99})).communicate(
        timeout=HANG_SECONDS
    )
    assert process.returncode == 0, output
    (loss,) = [row["validation_loss"] for row in told(run) if row["step"] == 100 and "validation_loss" in row]
    about = verify(run / "checkpoints/100")
    assert about["evaluated"] is True
    assert about["validation_loss"] == pytest.approx(loss, rel=1e-6)
    assert "step 100  validation loss" in output
    assert told(run) == told(undisturbed)


@SIGNALS
def test_a_signal_before_the_first_step_stops_the_process_immediately(run, number, ends):
    code = (
        "import lm.training.setup, os, signal, time\n"
        "def compile_ahead(*arguments):\n"  # Python handlers cannot run here
        f"    os.kill(os.getpid(), {int(number)})\n"
        "    time.sleep(3600)\n"
        "lm.training.setup.compile_ahead = compile_ahead\n"
        "from tests.train_process import main\n"
        "main()\n"
    )
    output, _ = (process := train_process.start(run, FIELDS, code=code)).communicate(timeout=HANG_SECONDS)
    assert process.returncode == ends, output
    assert f"stopped by {signal.Signals(number).name} before the first step; nothing is lost" in output
    assert "Traceback" not in output


@SIGNALS
def test_a_signal_while_jax_is_loaded_stops_the_process_immediately(tmp_path, number, ends):
    """The heartbeat must tell a supervisor that the work is not complete."""
    code = (
        "import os, sys, time\n"
        "from pathlib import Path\n"
        "from launch.stages.processes import load_training\n"
        "class Loading:\n"
        "    def find_spec(self, name, *rest):\n"
        "        if name == 'jax':\n"
        f"            os.kill(os.getpid(), {int(number)})\n"
        "            time.sleep(3600)\n"
        "sys.meta_path.insert(0, Loading())\n"
        "load_training(Path(sys.argv[1]), time.time(), 1.0, 0)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=HANG_SECONDS)
    assert ended.returncode == ends, ended.stderr
    heart = read_heartbeat(tmp_path / "heartbeat.json")
    assert heart is not None and heart["state"] == "stopped"


def test_a_pending_signal_is_raised_again_on_exit(tmp_path):
    code = (
        "import os, signal, time\n"
        "from lm.resilience.preemption import PreemptionHandler\n"
        "with PreemptionHandler() as preemption:\n"
        "    preemption.training = True\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    while not preemption.requested(1): time.sleep(0.01)\n"
        "time.sleep(3600)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, timeout=HANG_SECONDS)
    assert ended.returncode == -signal.SIGTERM


def test_a_second_sigterm_has_no_effect(tmp_path):
    code = (
        "import os, signal, time\n"
        "from lm.errors import Stopped\n"
        "from lm.resilience.preemption import PreemptionHandler\n"
        "try:\n"
        "    with PreemptionHandler() as preemption:\n"
        "        preemption.training = True\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "        while not preemption.requested(1): time.sleep(0.01)\n"
        "        raise preemption.stopped(1)\n"
        "except Stopped:\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    print('left in peace')\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, timeout=HANG_SECONDS
    )
    assert (ended.returncode, ended.stdout) == (0, "left in peace\n")


@pytest.mark.slow
def test_a_second_ctrl_c_does_not_wait_for_the_save(run):
    code = (
        "import lm.checkpoints.manager, os, signal, time\n"
        "def begin(*arguments):\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    time.sleep(3600)\n"
        "lm.checkpoints.manager.Checkpoints.begin = begin\n"
    )
    ended, output = signalled(run, signal.SIGINT, 3, code=code)
    assert ended == 130, output
    assert "not waiting for the save" in output
