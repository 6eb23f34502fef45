"""Ctrl-C while a script is still being imported."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from launch.sample import Options
from launch.stages.command import handle_cli_errors, run_command
from tests.run_files import REPOSITORY


def run_script(script: str, tmp_path: Path, imported: str) -> subprocess.CompletedProcess[str]:
    """Run the script with this text as tyro, which is imported after launch itself."""
    (tmp_path / "tyro.py").write_text(imported)
    command = [sys.executable, "-m", f"launch.{script}", "configs/demo.py"]
    environment = {"PYTHONPATH": str(tmp_path), "PATH": ""}
    return subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True)


@pytest.mark.fast_rows
@pytest.mark.parametrize("script", ["sample", "pretrain", "inspect_tokenizer", "supervise"])
def test_ctrl_c_during_the_imports_prints_no_traceback(script, tmp_path):
    lines = "import os, signal", "signal.signal(signal.SIGINT, signal.default_int_handler)", "os.kill(os.getpid(), 2)"
    done = run_script(script, tmp_path, "\n".join(lines))
    assert done.returncode == -signal.SIGINT  # the shell sees 130
    assert done.stderr.strip() == "interrupted; nothing was begun." and not done.stdout


def test_other_errors_keep_their_traceback(tmp_path):
    done = run_script("sample", tmp_path, "raise ValueError('broken')\n")
    assert done.returncode == 1 and "Traceback" in done.stderr and "ValueError: broken" in done.stderr


def test_ctrl_c_only_claims_kept_work(monkeypatch, capsys):
    """Printed output, and files written whole at the end, are not resumed."""

    def interrupted(*given):
        raise KeyboardInterrupt

    with pytest.raises(SystemExit, match="130"), handle_cli_errors("launch.export"):
        interrupted()
    assert capsys.readouterr().err == "\nlaunch.export: interrupted; nothing was written.\n"
    monkeypatch.setattr(sys, "argv", ["sample", str(REPOSITORY / "configs/demo.py"), "--prompt", "x"])
    with pytest.raises(SystemExit, match="130"):
        run_command("launch.sample", interrupted, ("sample",), options=Options, on_the_side=interrupted)
    assert capsys.readouterr().err == "\nlaunch.sample: interrupted; the run was not changed.\n"
