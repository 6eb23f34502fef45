"""Commands of other programs: shown as a shell would take them, and carried out unless it is a dry run."""

import contextlib
import shlex
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

from lm.errors import InputError, UsageError

REPOSITORY = Path(__file__).parents[2]
INSTALL = {
    "gcloud": "Install the Google Cloud CLI (cloud.google.com/sdk/docs/install), then: gcloud auth login",
    "kubectl": "Install it (kubernetes.io/docs/tasks/tools), then give it your cluster: gcloud container clusters "
    "get-credentials CLUSTER",
    "docker": "Install it (docs.docker.com/engine/install), and log in to your registry.",
    "sky": "Install SkyPilot in an environment of its own (uv tool install 'skypilot[gcp]'), then: sky check",
    "git": "Install git, and work in a clone of this repository.",
} | dict.fromkeys(
    ("sbatch", "scancel"),
    "It is a part of Slurm: run this on a login node of the cluster, in a folder that its nodes see.",
)
"""{program: how to come by it}"""


@dataclass(frozen=True)
class Tools:
    """Carries out commands of other programs, or only shows them."""

    dry_run: bool = False

    def run(self, *words: str, stdin: Path | None = None) -> None:
        """Shows a command, and carries it out with this terminal. `stdin` is the file that it reads as its input.

        Raises InputError when the program is not there or ends with another code than 0.
        """
        print(shlex.join(words) + (f" < {shlex.quote(str(stdin))}" if stdin else ""), flush=True)
        if self.dry_run:
            return
        refuse_missing(words[0])
        with stdin.open("rb") if stdin else contextlib.nullcontext() as source:
            code = subprocess.run(words, stdin=source).returncode
        if code:
            raise InputError(
                f"{words[0]} ended with code {code}; what it said stands above. The command: {shlex.join(words)}"
            )

    def ask(self, *words: str) -> subprocess.CompletedProcess[str]:
        """What a command answers, with its exit code; nothing is shown. Raises InputError when it is not there."""
        refuse_missing(words[0])
        return subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True)

    def write(self, path: Path, text: str) -> None:
        """Writes a generated file; of a dry run, shows what it would hold."""
        if self.dry_run:
            print(f"# {path}:\n{text.rstrip()}\n# end of {path}", flush=True)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(f"# written: {path}", flush=True)

    def remove(self, path: Path) -> None:
        """Removes a generated file, if it is there."""
        if path.exists():
            print(f"# removed: {path}", flush=True)
            if not self.dry_run:
                path.unlink()

    def bundle(self, path: Path, config: str) -> None:
        """Packs what git tracks here, and the config, into a .tar.gz: no run, no environment and no file of secrets
        that lies about is among it. Raises InputError where git cannot say what it tracks."""
        print(f"# packs the files that git tracks, and {config}, into {path}", flush=True)
        if self.dry_run:
            return
        listed = self.ask("git", "-C", str(REPOSITORY), "ls-files", "-z")
        if listed.returncode:
            raise InputError(
                f"git cannot list the files of {REPOSITORY}: {listed.stderr.strip()}. Work in a clone of it."
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(path, "w:gz") as archive:
            for name in sorted({*filter(None, listed.stdout.split("\0")), config}):
                if (REPOSITORY / name).exists():  # one that was deleted is listed until that is committed
                    archive.add(REPOSITORY / name, name)


def refuse_missing(program: str) -> None:
    """Raises UsageError unless the program is on PATH."""
    if shutil.which(program) is None:
        raise UsageError(f"{program} is not installed here. {INSTALL[program]} With --dry-run nothing is needed.")


def note(text: str) -> None:
    """Something to know that is neither a command nor a file."""
    print(text, file=sys.stderr, flush=True)
