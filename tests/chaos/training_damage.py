"""Damages checkpoints, shards, gradients, the disk and the mesh under small training runs, and asks that all is found.

    python -m tests.chaos.training_damage [--flips 500] [--shard-flips 200] [--seed 0]

The rows of the full and of the read-only disk mount a small tmpfs, for which it must be root. Prints a JSON line a row,
`N passed, N failed` last.
"""

import argparse
import contextlib
import errno
import io
import json
import math
import os
import random
import shutil
import subprocess
import tempfile
import time
from collections.abc import Generator
from pathlib import Path

import jax
import numpy as np

from lm.checkpoints.manager import Checkpoints
from lm.checkpoints.manifest import RetentionPolicy, verify
from lm.config import MeshConfig
from lm.data.batches import BatchSource
from lm.data.records import read_manifest
from lm.data.verify_shards import verify_shards
from lm.errors import InputError
from lm.model.param_names import named_leaves
from lm.parallel import make_mesh
from lm.training.optimizer import make_optimizer
from lm.training.state import abstract_state
from tests import train_process
from tests.chaos_rows import Clock, Rows
from tests.corpus import tiny_experiment, write_tokens
from tests.train_process import finished
from tests.train_runs import bits, copy, steps_there, told

EXPERIMENT = tiny_experiment()
FIELDS = {
    "steps": 80, "checkpoint_every": 20, "validate_every": 40, "sample_every": 80, "log_every": 1,
    "checkpoints_kept": 9,
}  # fmt: skip


def flip(path: Path, generator: random.Random) -> None:
    """One bit of the file, at a random place."""
    data = bytearray(path.read_bytes())
    data[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
    path.write_bytes(data)


def checkpoint_flips(rows: Rows, run: Path, count: int, generator: random.Random) -> None:
    """The damaged file is named, and the state of the checkpoint before it comes back."""
    mesh = make_mesh(MeshConfig(), EXPERIMENT.model, EXPERIMENT.train.batch_size, jax.devices()[:1])
    optimizer = make_optimizer(EXPERIMENT.train.optimizer, FIELDS["steps"])
    like = abstract_state(EXPERIMENT.model, optimizer, mesh)
    newest, before = run / "checkpoints/80", run / "checkpoints/60"
    expected = bits(run, 60)
    files = [path for path in newest.rglob("*") if path.is_file() and path.stat().st_size]
    found, clock = 0, Clock()
    with contextlib.closing(Checkpoints(run / "checkpoints", RetentionPolicy(newest=9))) as checkpoints:
        for _ in range(count):
            (path,) = generator.choices(files, [path.stat().st_size for path in files])
            if generator.random() < 0.5:  # else the small files would hardly be hit
                path = generator.choice(files)
            whole, out = path.read_bytes(), io.StringIO()
            flip(path, generator)
            with contextlib.redirect_stdout(out):
                restored = checkpoints.restore_newest(like)
            assert restored is not None
            leaves = named_leaves({"model": restored[0].model})
            same = all(np.asarray(x).tobytes() == expected[name] for name, x in leaves.items())
            found += restored[1]["step"] == 60 and same and f"{path} " in out.getvalue()
            if not newest.exists():
                shutil.move(run / "checkpoints.damaged/80", newest)
            path.write_bytes(whole)
    assert before.exists()
    rows.add("bits flipped in a checkpoint", found == count, flips=count, found=found, seconds=clock())


def shard_flips(rows: Rows, tokens: Path, count: int, generator: random.Random) -> None:
    """The shard is named, also where it is damaged after it was verified."""
    folder = tokens / "tokens"
    manifest = read_manifest(folder)
    named, later, silent, clock = 0, 0, 0, Clock()
    expected = [batch.inputs_BT.copy() for batch in BatchSource(folder, "train", 32, 8, 0, 1).sequential_windows()]
    paths = [folder / shard.file for split in manifest.splits.values() for shard in split.shards]
    for _ in range(count):
        path = generator.choice(paths)
        whole = path.read_bytes()
        flip(path, generator)
        try:
            verify_shards([(folder, "train"), (folder, "val")])
        except InputError as error:
            named += str(path) in str(error)
        if path.name.startswith("train"):
            try:
                batches = list(BatchSource(folder, "train", 32, 8, 0, 1).sequential_windows())
                silent += not all((a.inputs_BT == b).all() for a, b in zip(batches, expected, strict=True))
            except InputError:
                later += 1
        path.write_bytes(whole)
    passed = named == count and not silent
    rows.add(
        "bits flipped in shards", passed, flips=count, found=named, found_when_read_too=later, read_wrongly=silent,
        seconds=clock(),
    )  # fmt: skip


POISON = """
import json, sys
from pathlib import Path
import jax
import jax.numpy as jnp
from lm.training import step as train_step
from lm.data.batches import BatchSource
from tests.corpus import tiny_experiment
from tests.poison import poisoned
poison = {int(k): float(v) for k, v in json.loads(sys.argv[3]).items()}
source = BatchSource(Path(sys.argv[1]) / "tokens", "train", 32, 8, tiny_experiment().train.seed, 1)
train_step.loss_and_gradients = poisoned(source, poison)
if sys.argv[4] == "skip":  # the batches are not seen at all: the state is moved behind them
    import lm.training.setup
    real_compile = lm.training.setup.compile_ahead
    def compile_ahead(*arguments):
        step, cost = real_compile(*arguments)
        @jax.transfer_guard("allow")
        def skipping(state, batch):
            number = int(state.step) + 1
            if number not in poison:
                return step(state, batch)
            metrics = {name: jnp.zeros(()) for name in ("loss", "gradient_norm", "learning_rate", "skipped", "in_row")}
            return state._replace(step=state.step + 1), metrics | {"applied": jnp.array(True)}
        return skipping, cost
    lm.training.setup.compile_ahead = compile_ahead
sys.argv = sys.argv[:3]
from tests.train_process import main
main()
"""


def skipped_steps(rows: Rows, root: Path, tokens: Path, generator: random.Random) -> None:
    """20 steps of 200 with gradients of NaN, infinity, and a million times as large."""
    steps = sorted(generator.sample(range(40, 200), 20))
    factors = [(math.nan, math.inf, 1e6)[i % 3] for i in range(20)]
    poison = json.dumps({step: str(factor) for step, factor in zip(steps, factors, strict=True)})
    fields = FIELDS | {"steps": 200, "spikes": {"window": 32, "deviations": 50.0, "stop_after": 10}}
    ends, clock = {}, Clock()
    for name in ("spoil", "skip"):
        run = copy(tokens, root / name)
        process = train_process.start(run, fields, code=POISON, arguments=(poison, name))
        output, _ = process.communicate(timeout=600)
        assert process.returncode == 0, output
        ends[name] = {key: value for key, value in bits(run).items() if ".guard.in_row" not in key}
    lines = [json.loads(line) for line in (root / "spoil/skipped_steps.jsonl").read_text().splitlines()]
    told_steps = [line["step"] for line in lines]
    same = ends["spoil"] == ends["skip"]
    rows.add(
        "NaN, infinite and 1e6-fold gradients at 20 steps", same and told_steps == steps, skipped=len(told_steps),
        identical_to_skipping=same, seconds=clock(),
    )  # fmt: skip


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Generator[None]:
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def full_disk(rows: Rows, root: Path, tokens: Path) -> None:
    """All checkpoints are kept until the disk is full: training goes on, and ends with the reason; those before are
    whole. With space again, the same command ends in the same bits."""
    if os.geteuid():
        rows.add("a full disk", False, reason="only root can mount a tmpfs")
        return
    fields = FIELDS | {"steps": 120, "checkpoint_every": 5, "checkpoints_kept": 99, "sample_every": 30}
    undisturbed, clock = copy(tokens, root / "space"), Clock()
    finished(undisturbed, fields)
    with small_disk(root / "full", "4m"):
        run = root / "full/run"
        shutil.copytree(tokens, run)
        output, _ = (process := train_process.start(run, fields)).communicate(timeout=120)
        there = steps_there(run)
        whole = all(verify(run / f"checkpoints/{step}")["step"] == step for step in there)
        clear = process.returncode == 1 and "is not saved, and training goes on" in output
        clear = clear and "Traceback" not in output and "step 120  validation loss" in output
        if not clear:
            print(output[-3000:])
        for step in there[:-1]:
            shutil.rmtree(run / f"checkpoints/{step}")
        again = finished(run, fields | {"checkpoints_kept": 2})
        same = bits(run) == bits(undisturbed)
    resumed = f"going on from the checkpoint at step {there[-1]}" in again
    passed = clear and whole and same and resumed and 1 < len(there) < 24
    rows.add(
        "a full disk", passed, checkpoints_whole=len(there), clear_message=clear, torn=int(not whole), resumed=resumed,
        identical=same, seconds=clock(),
    )  # fmt: skip


def read_only_disk(rows: Rows, root: Path, tokens: Path) -> None:
    """Checkpoints on a disk that can only be read from some moment on, as a kernel leaves one that has failed: training
    goes on, and ends with the reason; those of before are whole. Mended, the same command ends in the same bits."""
    if os.geteuid():
        rows.add("a read-only disk", False, reason="only root can mount a tmpfs")
        return
    fields = FIELDS | {"steps": 1200, "checkpoint_every": 50, "sample_every": 300}
    undisturbed, clock = copy(tokens, root / "writable"), Clock()
    finished(undisturbed, fields)
    run = copy(tokens, root / "failing")
    with small_disk(run / "checkpoints", "64m"):
        remount = lambda how: subprocess.run(["mount", "-o", f"remount,{how}", str(run / "checkpoints")]).returncode
        process = train_process.start(run, fields)
        while len(steps_there(run)) < 2 or remount("ro"):  # busy while a save is under way
            time.sleep(0.01)
        output, _ = process.communicate(timeout=120)
        there = steps_there(run)
        whole = all(verify(run / f"checkpoints/{step}")["step"] == step for step in there)
        clear = process.returncode == 1 and output.count(os.strerror(errno.EROFS)) > 1
        clear = clear and "Traceback" not in output and "step 1,200  validation loss" in output
        if not clear:
            print(output[-3000:])
        remount("rw")
        again = finished(run, fields)
        same = bits(run) == bits(undisturbed)
    resumed = f"going on from the checkpoint at step {there[-1]}" in again
    rows.add(
        "a read-only disk", clear and whole and same and resumed and there[-1] < 1200, checkpoints_whole=len(there),
        clear_message=clear, torn=int(not whole), resumed=resumed, identical=same, seconds=clock(),
    )  # fmt: skip


PAIR = 0  # in place of a number of devices: two processes of four each


def meshes(rows: Rows, root: Path, tokens: Path) -> None:
    """Every quarter of the run on another mesh."""
    places: dict[str, list[tuple[int, dict[str, int]]]] = {
        "8 to 2 to 4 to 8 devices": [(8, {}), (2, {}), (4, {}), (8, {})],
        "fsdp to tensor and back": [(2, {"fsdp": 2}), (2, {"tensor": 2}), (2, {"fsdp": 2}), (1, {})],
        "2 processes x 4 devices to 1 x 8 and back": [(PAIR, {}), (8, {}), (PAIR, {}), (8, {})],
    }
    common = FIELDS | {"model": {"kv_heads": 2}}
    undisturbed = copy(tokens, root / "one")
    finished(undisturbed, common)
    for name, quarters in places.items():
        run, clock = copy(tokens, root / "moved"), Clock()
        for quarter, (devices, mesh) in enumerate(quarters, 1):
            fields = common | {"mesh": mesh} | ({"leave_at": 20 * quarter} if quarter < 4 else {})
            for process in started(run, fields, devices):
                output, _ = process.communicate(timeout=300)
                assert process.returncode == 0, output
            assert max(steps_there(run)) == 20 * quarter
        pairs = list(zip(told(run), told(undisturbed), strict=True))
        worst = max(abs(a[key] - b[key]) for a, b in pairs for key in a.keys() & b.keys() if "loss" in key)
        same_order = all(a["step"] == b["step"] and a.get("tokens") == b.get("tokens") for a, b in pairs)
        rows.add(f"mesh: {name}", worst <= 1e-5 and same_order, largest_loss_difference=worst, seconds=clock())


def started(run: Path, fields: dict, devices: int) -> list[subprocess.Popen]:
    if devices != PAIR:
        return [train_process.start(run, fields, devices=devices)]
    return train_process.start_together(run, fields, 2, devices=4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flips", type=int, default=500)
    parser.add_argument("--shard-flips", type=int, default=200)
    parser.add_argument("--only", default="", help="rows whose function has this in its name (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="chooses the places (default: 0)")
    arguments = parser.parse_args()
    rows, generator = Rows(), random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        tokens = root / "tokens"
        write_tokens(tokens, EXPERIMENT)
        run = copy(tokens, root / "run")
        finished(run, FIELDS)
        proofs = {
            "checkpoint_flips": lambda: checkpoint_flips(rows, run, arguments.flips, generator),
            "shard_flips": lambda: shard_flips(rows, tokens, arguments.shard_flips, generator),
            "skipped_steps": lambda: skipped_steps(rows, root, tokens, generator),
            "meshes": lambda: meshes(rows, root, tokens),
            "full_disk": lambda: full_disk(rows, root, tokens),
            "read_only_disk": lambda: read_only_disk(rows, root, tokens),
        }
        for name, proof in proofs.items():
            if arguments.only in name:
                proof()
    rows.end()


if __name__ == "__main__":
    main()
