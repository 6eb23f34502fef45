"""Programs that stand for those of others, which are not here: gcloud, kubectl, sbatch. They write down how they were
called. What checks generated files is real, and lies in .tools/checkers."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[3]
CHECKERS = REPOSITORY / ".tools/checkers/bin"
needs_checkers = pytest.mark.skipif(not CHECKERS.is_dir(), reason="needs what checks generated files: make checkers")
RECORDER = """#!{python}
import json, sys
with open({record!r}, "a") as file:
    file.write(json.dumps(sys.argv) + "\\n")
stdin = sys.stdin.buffer.read() if {reads_stdin} else b""
open({record!r} + ".stdin", "wb").write(stdin) if stdin else None
{body}
"""


class Programs:
    """A folder of programs before all others on PATH."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch):
        self.folder, self.record = folder / "programs", folder / "calls"
        self.folder.mkdir()
        monkeypatch.setenv("PATH", f"{self.folder}:{os.environ['PATH']}")

    def add(self, name: str, body: str = "", reads_stdin: bool = False) -> None:
        """A program that writes down its words, then does `body`, in Python."""
        path = self.folder / name
        path.write_text(
            RECORDER.format(python=sys.executable, record=str(self.record), body=body, reads_stdin=reads_stdin)
        )
        path.chmod(0o755)

    def calls(self) -> list[list[str]]:
        """The words of every call, the program's name first."""
        if not self.record.exists():
            return []
        found = [json.loads(line) for line in self.record.read_text().splitlines()]
        return [[Path(words[0]).name, *words[1:]] for words in found]

    def stdin(self) -> bytes:
        return self.record.with_name("calls.stdin").read_bytes()


def check(program: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Runs a checker; its exit code says whether the file is right."""
    return subprocess.run([CHECKERS / program, *words], capture_output=True, text=True)


def shown_file(shown: str) -> str:
    """The generated file in the output of a dry run."""
    return shown.partition(":\n")[2].partition("# end of ")[0]
