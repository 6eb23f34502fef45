"""Compression by a model: every file is restored bit for bit, and damaged files are never decoded to other files.

Without --run a small model is trained first.
"""

import contextlib
import dataclasses
import itertools
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq

from launch.stages.packing import load_packer
from lm.compression.codec import Packer, compress, decompress
from lm.compression.coder import Coded, decode, encode
from lm.compression.pieces import cut_pieces, joined
from lm.compression.token_model import Layout, TokenModel, segments_for
from lm.errors import InputError
from lm.run_paths import RunPaths
from lm.storage import write_json
from tests.chaos.runner import Figures, Trial
from tests.corpus import tiny_experiment, write_tokens
from tests.hostile_files import hostile_file

MOST_GROWTH, LARGEST = 150, 20_000
"""Bytes."""


def small_run(folder: Path, steps: int = 60) -> Path:
    """A run folder with a small, briefly trained model."""
    from lm.training.loop import train

    tiny = tiny_experiment()
    quick = dataclasses.replace(
        tiny.train, steps=steps, checkpoint_every=steps, validate_every=0, sample_every=0, log_every=steps
    )
    experiment = dataclasses.replace(tiny, train=quick)
    write_tokens(folder, experiment)
    train(experiment.model, experiment.train, folder)
    write_json(RunPaths(folder).config_json, dataclasses.asdict(experiment))
    return folder


def run_of(trial: Trial) -> Path:
    return trial.run or small_run(trial.folder / "run")


def round_trips(trial: Trial) -> Figures:
    """Random and hostile files in one process, also through the model's coder if xz would be smaller."""
    packer, wrong, growth, worst, by_model = load_packer(str(run_of(trial))), [], 0, 0.0, 0
    for number in range(trial.count):
        kind, data = hostile_file(number, LARGEST)
        packed = compress(data, packer)
        same = decompress(packed.data, packer, kind) == data
        growth = max(growth, len(packed.data) - len(data))
        coded_bits, bits = 8 * packed.coded_bytes, packed.cross_entropy_bits
        by_model += bool(packed.tokens)
        if not packed.tokens:
            through, coded_bits, bits = through_the_coder(packer, data)
            same = same and through
        wrong += [] if same else [number]
        if bits:  # the coder ends with whole 32-bit words
            worst = max(worst, (coded_bits - 64) / bits - 1)
    return {
        "passed": not wrong and growth <= MOST_GROWTH and worst < 0.01, "files": trial.count, "wrong": wrong,
        "by_the_model": by_model, "most_growth_bytes": growth, "most_above_cross_entropy": round(worst, 5),
    }  # fmt: skip


def through_the_coder(packer: Packer, data: bytes) -> tuple[bool, int, float]:
    """Return (whether the text is restored, bits of the coder, cross-entropy in bits), also for incompressible
    texts."""
    pieces, context = cut_pieces(data, packer.tokenizer), packer.config.context_length
    layout = Layout(len(pieces.tokens), segments_for(len(pieces.tokens), context), context)
    fresh = lambda: TokenModel(packer.model, packer.config, packer.mesh, layout)
    tokens, coded = [], Coded(b"", 0.0)
    if pieces.tokens:
        coded = encode(pieces.tokens, fresh(), packer.tokenizer, lambda done: None)
        tokens = [*itertools.chain.from_iterable(decode(coded.data, fresh(), packer.tokenizer, lambda done: None))]
    text = packer.tokenizer.decode_bytes(tokens)
    return b"".join(joined([text], [pieces.raw], pieces.lengths)) == data, 8 * len(coded.data), coded.bits


def documents(run: Path, size: int = 3000) -> list[bytes]:
    """Beginnings of documents of the run, which its model compresses better than xz."""
    file = min(RunPaths(run).documents.glob("*.parquet"))
    texts = pq.read_table(file, columns=["text"])["text"].to_pylist()
    return [text.encode()[:size] for text in texts[:6]]


def damage(trial: Trial) -> Figures:
    """One bit flipped, or the end truncated: an error, and no output."""
    run, missed = run_of(trial), 0
    packer = load_packer(str(run))
    packed = compress(documents(run)[0], packer)
    for number in range(trial.count):
        data = bytearray(packed.data)
        if number % 5:
            data[trial.random.randrange(len(data))] ^= 1 << trial.random.randrange(8)
        else:
            del data[trial.random.randrange(len(data)) :]
        with contextlib.suppress(InputError):
            decompress(bytes(data), packer, "x")
            missed += 1
    return {"passed": not missed, "trials": trial.count, "missed": missed, "tokens": packed.tokens}


def two_processes(trial: Trial) -> Figures:
    """launch.decompress in one process restores the file of launch.compress in another."""
    run, same = run_of(trial), 0
    files = documents(run)[: trial.count]
    for number, data in enumerate(files):
        file, again = trial.folder / f"{number}", trial.folder / f"{number}.again"
        file.write_bytes(data)
        python = [sys.executable, "-m"]
        subprocess.run([*python, "launch.compress", str(run), str(file)], check=True, stdout=subprocess.DEVNULL)
        command = [*python, "launch.decompress", str(run), f"{file}.grist", str(again)]
        done = subprocess.run(command, stdout=subprocess.DEVNULL)
        same += done.returncode == 0 and again.read_bytes() == data
    return {"passed": same == len(files), "files": len(files), "same": same}
