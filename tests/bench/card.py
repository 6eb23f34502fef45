"""Check an accelerator in ten minutes: correctness, speed, and agreement with the plans.

    python -m tests.bench.card [--minutes 10] [--only PART ...] [--wheels FOLDER]
    python -m tests.bench.card --dry-run                # all parts, tiny, on the CPU
    python -m tests.bench.card --store                  # write the golden values, on the CPU
    python3 -m tests.bench.card --prepare FOLDER        # download the wheels that a bare machine lacks

Parts run in order of importance, each in a separate process, so that a crash or hang does not affect the others. JSON
lines are printed immediately; docs/accelerators.md describes them, and when parts are skipped or stopped. Exit code 1
if a part failed.

This module imports only the standard library: it also runs on machines with only JAX, and does not use the
accelerator itself. The parts are in tests/bench/card_parts.py.
"""

import argparse
import contextlib
import dataclasses
import importlib.metadata
import json
import math
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lm.gpu_memory import set_gpu_memory
from tests.run_files import HANG_SECONDS, QUICK, REPOSITORY

GOLDEN = Path(__file__).with_name("card_golden.json")
WHEELS = (
    "absl-py", "anyio", "array-record", "certifi", "click", "cloudpickle", "docstring-parser", "etils", "flax",
    "fsspec", "grain", "h11", "httpcore", "httpx", "humanize", "idna", "isal", "jaxtyping", "msgpack", "optax",
    "orbax-checkpoint", "phonenumbers", "portpicker", "prometheus-client", "protobuf", "pygments", "pyyaml", "rich",
    "simplejson", "sniffio", "starlette", "tensorboardx", "tensorstore", "treescope", "typing-extensions", "tyro",
    "uvicorn", "uvloop", "zstandard",
)  # fmt: skip
"""Imports of the parts besides JAX and the packages that come with it (numpy, scipy, ml_dtypes, opt_einsum)."""
MOST_BYTES = 50_000_000
"""Maximum size of the prepared folder."""


LIBRARIES = (
    "jax", "jaxlib", "libtpu", "jax-cuda12-plugin", "jax-cuda13-plugin", "nvidia-cudnn-cu12", "nvidia-cudnn-cu13",
    "flax", "optax",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Part:
    name: str
    function: str
    """Its name in tests/bench/card_parts.py."""
    seconds: int
    """Minimum remaining time to start it; an estimate, not measured on an accelerator."""
    arguments: dict[str, Any] = dataclasses.field(default_factory=dict)


def mfu(seconds: int, model: str, rows: int, remat: str, xla_options: bool = False) -> Part:
    """The part that measures `rows` sequences of 1,024 tokens per device and micro-batch."""
    name = f"mfu/{model}/{rows}/{remat}" + ("/xla_options" if xla_options else "")
    return Part(name, "mfu", seconds, {"model": model, "rows": rows, "remat": remat, "xla_options": xla_options})


KEPT = "minimal_with_context"
PARTS = (
    Part("attention", "attention", 60),
    Part("golden", "golden", 40),
    mfu(60, "gpt2_124m", 32, "none"),
    mfu(70, "gpt2_1558m", 16, KEPT),
    mfu(60, "gpt2_774m", 16, KEPT),
    mfu(60, "gpt2_355m", 16, "none"),
    Part("profile", "profile", 40),
    Part("determinism", "determinism", 60),
    Part("resume", "resume", 60),
    Part("generate", "generate", 40),
    Part("serve", "serve", 60),
    mfu(70, "gpt2_1558m", 16, KEPT, xla_options=True),
    mfu(70, "gpt2_1558m", 32, "full"),
    mfu(70, "gpt2_1558m", 8, KEPT),
    mfu(60, "gpt2_774m", 32, KEPT),
    mfu(60, "gpt2_774m", 16, KEPT, xla_options=True),
    mfu(60, "gpt2_355m", 32, KEPT),
    mfu(60, "gpt2_355m", 16, "none", xla_options=True),
    mfu(60, "gpt2_124m", 64, "none"),
    mfu(60, "gpt2_124m", 32, "none", xla_options=True),
)
DRY_PARTS = (*(part for part in PARTS if part.function != "mfu"), mfu(60, "small", 2, KEPT, xla_options=True))


def device() -> dict[str, Any]:
    """Description of the machine in all lines."""
    import jax

    from lm.devices import target_of

    first, driver = jax.devices()[0], Path("/proc/driver/nvidia/version")
    versions = {}
    for name in LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return {
        "device_kind": first.device_kind, "devices": jax.device_count(), "platform": target_of(first).platform,
        "memory_bytes": (first.memory_stats() or {}).get("bytes_limit"), "python": sys.version.split()[0], **versions,
        "runtime": " ".join(first.client.platform_version.split()),
        "driver": driver.read_text(encoding="utf-8").splitlines()[0] if driver.exists() else None,
    }  # fmt: skip


def run_part(options: argparse.Namespace, parts: dict[str, Part]) -> None:
    """Run options.part in this process and print its rows; an exception is also printed as a row."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    with os.fdopen(os.dup(1), "w") as out:
        os.dup2(2, 1)  # output of libraries is not a row
        try:
            if options.part == "device":
                print(json.dumps({"machine": device()}), file=out)
                return
            from tests.bench import card_parts

            part = parts[options.part]
            arguments = part.arguments | ({"file": options.golden} if part.function == "golden" else {})
            for row in getattr(card_parts, part.function)(options.dry_run, **arguments):
                print(json.dumps(row), file=out, flush=True)
        except Exception as error:
            traceback.print_exc()
            print(json.dumps({"ok": False, "error": f"{type(error).__name__}: {error}"}), file=out)


def in_json(value: Any) -> Any:
    """Replace numbers that JSON does not support (nan, inf) by text."""
    if isinstance(value, dict):
        return {name: in_json(one) for name, one in value.items()}
    if isinstance(value, list):
        return [*map(in_json, value)]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


class Runner:
    """Run parts, each in its own process, and print their lines."""

    def __init__(self, options: argparse.Namespace, wheels: str | None):
        self.options, self.start, self.machine = options, time.monotonic(), {}
        self.failed: list[str] = []
        self.skipped: list[str] = []
        self.hang = HANG_SECONDS if options.dry_run else 300
        """Seconds after which a part is stopped."""
        self.environment = os.environ | ({"JAX_PLATFORMS": "cpu"} | QUICK if options.dry_run else {})
        set_gpu_memory(self.environment)
        if wheels:
            self.environment["PYTHONPATH"] = os.pathsep.join(filter(None, (wheels, os.environ.get("PYTHONPATH"))))

    @property
    def left(self) -> float:
        """Remaining seconds of the budget."""
        return self.start + 60 * self.options.minutes - time.monotonic()

    def print(self, part: str, row: dict[str, Any]) -> None:
        if not row.get("ok", True):
            self.failed.append(part)
        print(json.dumps({"bench": "card", "part": part} | in_json(row) | {"machine": self.machine}), flush=True)

    def rows(self, part: str, budget: float, expected: float) -> Iterator[dict[str, Any]]:
        """Yield the rows of the part as they are printed, and a row with the error if its process fails. At the end of
        the budget a part is skipped, or fails if it has run for three times the `expected` seconds."""
        command = [
            sys.executable,
            "-m",
            "tests.bench.card",
            "--part",
            part,
            "--golden",
            str(self.options.golden.absolute()),
        ]
        command += ["--dry-run"] if self.options.dry_run else []
        begun, ended, found, limit = time.monotonic(), threading.Event(), [], min(self.hang, budget)
        with tempfile.TemporaryFile("w+", errors="replace") as log:
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])  # until the process can be stopped
            process = subprocess.Popen(
                command, cwd=REPOSITORY, env=self.environment, text=True, start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log,
            )  # fmt: skip

            def end() -> None:  # including its child processes
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)

            timer = threading.Timer(limit, lambda: (ended.set(), end()))
            timer.daemon = True
            try:
                timer.start()
                signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
                assert process.stdout is not None
                for line in process.stdout:
                    try:
                        row = json.loads(line)
                    except ValueError:  # the part was stopped while writing
                        row = {"ok": False, "error": f"it printed {line[:100]!r}, which is no JSON"}
                    found.append(row | {"seconds": round(time.monotonic() - begun, 1)})
                    yield found[-1]
                code = process.wait()
            finally:
                timer.cancel()
                end()
                process.communicate()
            log.seek(0)
            last = log.read()[-4000:]
        seconds = round(time.monotonic() - begun, 1)
        if ended.is_set() and limit < self.hang and limit < 3 * expected:
            self.skipped.append(part)
            yield {"not_run": f"ended after {limit:.0f} s, with the budget", "seconds": seconds}
        elif ended.is_set():
            found.append({"ok": False, "error": f"did not end within {limit:.0f} s", "seconds": seconds})
            yield found[-1]
        elif code:
            how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
            error = f"its process ended with {how}: {last[-300:]}"
            found.append({"ok": False, "error": error, "seconds": seconds})
            yield found[-1]
        if any("error" in row for row in found):
            print(f"card: {part} failed. The end of what it printed:\n{last}", file=sys.stderr, flush=True)

    def run(self, parts: tuple[Part, ...]) -> int:
        """Return the exit code."""
        (found, *_) = [*self.rows("device", self.hang, self.hang)]
        if "error" in found:
            self.print("device", found)
            return 1
        self.machine = found["machine"] | {"commit": self.options.commit or commit()}
        if self.machine["platform"] == "cpu" and not self.options.dry_run:
            print("card: JAX finds no accelerator here. Try all parts on the CPU with --dry-run.", file=sys.stderr)
            return 2
        for part in parts:
            if self.left < part.seconds:
                self.skipped.append(part.name)
                continue
            for row in self.rows(part.name, self.left, part.seconds):
                self.print(part.name, row)
        failed = list(dict.fromkeys(self.failed))
        seconds = round(time.monotonic() - self.start, 1)
        self.print("end", {"skipped": self.skipped, "failed": failed, "seconds": seconds})
        return 1 if failed else 0


def commit() -> str:
    """Return the commit of this tree, with "-dirty" if files were changed; "unknown" in a copy without .git."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        return subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, text=True).stdout.strip()
    return "unknown"


def prepare(folder: Path, python_version: str) -> None:
    """Download WHEELS in the versions and with the hashes of requirements.lock for this platform. Raises SystemExit if
    their total size exceeds MOST_BYTES."""
    lock = (REPOSITORY / "requirements.lock").read_text(encoding="utf-8")
    entries = {entry.partition("==")[0]: entry for entry in re.split(r"\n(?=[a-z])", lock.strip())}
    folder.mkdir(parents=True, exist_ok=True)
    if there := [path.name for path in folder.iterdir()]:
        raise SystemExit(f"card: {folder} holds {len(there)} files ({there[0]}, ...). Give an empty folder.")
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as requirements:
        requirements.write("\n".join(re.sub(r" ; [^\\\n]*", " ", entries[name]) for name in WHEELS) + "\n")
        requirements.flush()
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--require-hashes"]
        command += ["--python-version", python_version, "--dest", str(folder), "--requirement", requirements.name]
        if subprocess.run(command, check=False, stdout=sys.stderr).returncode:
            raise SystemExit("card: pip download failed. It needs a Python that has pip: python3 -m tests.bench.card")
    sizes = sorted(((path.stat().st_size, path.name) for path in folder.iterdir()), reverse=True)
    total = sum(size for size, _ in sizes)
    print(json.dumps({"bench": "card", "part": "prepare", "wheels": len(sizes), "bytes": total, "largest": sizes[:3]}))
    if total > MOST_BYTES:
        raise SystemExit(f"card: {total:,} bytes are more than {MOST_BYTES:,}; the largest is {sizes[0][1]}.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10, help="budget")
    parser.add_argument("--only", nargs="+", metavar="PART", help="run these parts (default: all)")
    parser.add_argument("--dry-run", action="store_true", help="tiny sizes on the CPU")
    parser.add_argument("--golden", type=Path, default=GOLDEN, help="file of golden values")
    parser.add_argument("--store", action="store_true", help="write the golden values, on the CPU")
    parser.add_argument("--wheels", type=Path, help="folder that --prepare has filled; used before installed packages")
    parser.add_argument("--prepare", type=Path, metavar="FOLDER", help="download the wheels into this empty folder")
    parser.add_argument(
        "--python-version", default="{}.{}".format(*sys.version_info), help="to prepare for: 3.12, 3.13"
    )
    parser.add_argument("--commit", help="of this tree, for a copy without .git")
    parser.add_argument("--part", help=argparse.SUPPRESS)  # run it in this process
    parser.add_argument("--train", type=Path, help=argparse.SUPPRESS)  # train the run in this folder, in this process
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)  # serve a model, in this process
    options = parser.parse_args()
    if options.prepare:
        return prepare(options.prepare, options.python_version)
    if options.store:
        os.environ["JAX_PLATFORMS"] = "cpu"
    parts = DRY_PARTS if options.dry_run else PARTS
    if options.part:
        return run_part(options, {part.name: part for part in parts})
    if options.train or options.store or options.serve:
        from tests.bench import card_parts

        if options.serve:
            return card_parts.serve_model(options.dry_run)
        return card_parts.train(options.train) if options.train else card_parts.store(options.golden)
    if unknown := {*(options.only or ())} - {part.name for part in parts}:
        parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(part.name for part in parts)}")
    if options.wheels and not [*options.wheels.glob("*.whl")]:
        parser.error(f"--wheels {options.wheels} holds no wheel. Fill the folder: --prepare {options.wheels}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # stops the part, which would keep the accelerator
    chosen = tuple(part for part in parts if not options.only or part.name in options.only)
    with tempfile.TemporaryDirectory() as unpacked:
        for wheel in sorted(options.wheels.glob("*.whl")) if options.wheels else ():
            try:
                zipfile.ZipFile(wheel).extractall(unpacked)
            except zipfile.BadZipFile:
                parser.error(f"{wheel} is damaged. Fill an empty folder again: --prepare FOLDER")
        sys.exit(Runner(options, unpacked if options.wheels else None).run(chosen))


if __name__ == "__main__":
    main()
