"""Every file comes back, bit for bit, and a damaged one never as another: random and hostile files, packed by a model.

    python -m tests.chaos.compression [--run runs/demo] [--files 200] [--largest 20000]

Without --run a small model is trained first. Prints a JSON line a row: round trips in one process (what xz packs better
goes through the model's coder too) and, of some files, by launch.compress and launch.decompress in two; the most bytes
that a file grew by, and the most by which the coder was above the model's cross-entropy; flips of a bit and cuts.
"""

import argparse
import dataclasses
import itertools
import random
import subprocess
import sys
import tempfile
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
from tests.chaos_rows import Clock, Rows
from tests.corpus import tiny_experiment, write_tokens
from tests.hostile_files import hostile_file

MOST_GROWTH = 150
PROCESSES = 6
"""Files that go through two processes."""


def small_run(folder: Path, steps: int = 60) -> Path:
    """A run folder with a small model that was trained a little."""
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


def round_trips(rows: Rows, packer: Packer, files: int, largest: int) -> None:
    clock, wrong, growth, worst, by_model = Clock(), [], 0, 0.0, 0
    for number in range(files):
        kind, data = hostile_file(number, largest)
        packed = compress(data, packer)
        if decompress(packed.data, packer, kind) != data:
            wrong.append(number)
        growth = max(growth, len(packed.data) - len(data))
        coded_bits, bits = 8 * packed.coded_bytes, packed.cross_entropy_bits
        if packed.tokens:
            by_model += 1
        else:
            same, coded_bits, bits = through_the_coder(packer, data)
            wrong += [] if same else [number]
        if bits:  # the coder ends in whole words of 32 bits
            worst = max(worst, (coded_bits - 64) / bits - 1)
    rows.add(
        "round trips", not wrong and growth <= MOST_GROWTH and worst < 0.01, files=files, wrong=wrong,
        by_the_model=by_model, most_growth_bytes=growth, most_above_cross_entropy=round(worst, 5), seconds=clock(),
    )  # fmt: skip


def through_the_coder(packer: Packer, data: bytes) -> tuple[bool, int, float]:
    """(whether its text comes back, bits of the coder, cross-entropy in bits), also where that does not pay."""
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
    """The beginnings of documents of the run, which its model packs better than xz."""
    file = min(RunPaths(run).documents.glob("*.parquet"))
    texts = pq.read_table(file, columns=["text"])["text"].to_pylist()
    return [text.encode()[:size] for text in texts[:PROCESSES]]


def damage(rows: Rows, packer: Packer, text: bytes, trials: int = 500) -> None:
    """One bit flipped, or the end cut off: told, and nothing comes out."""
    generator, missed = random.Random(0), 0
    made = compress(text, packer)
    packed = made.data
    for number in range(trials):
        data = bytearray(packed)
        if number % 5:
            data[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
        else:
            del data[generator.randrange(len(data)) :]
        try:
            decompress(bytes(data), packer, "x")
            missed += 1
        except InputError:
            pass
    rows.add("damage", not missed, trials=trials, missed=missed, tokens=made.tokens)


def two_processes(rows: Rows, run: Path, folder: Path) -> None:
    """What one process packs, another unpacks: it computes the same bits."""
    same = 0
    files = documents(run)
    for number, data in enumerate(files):
        file, again = folder / f"{number}", folder / f"{number}.again"
        file.write_bytes(data)
        python = [sys.executable, "-m"]
        subprocess.run([*python, "launch.compress", str(run), str(file)], check=True, stdout=subprocess.DEVNULL)
        packed = f"{file}.grist"
        done = subprocess.run([*python, "launch.decompress", str(run), packed, str(again)], stdout=subprocess.DEVNULL)
        same += done.returncode == 0 and again.read_bytes() == data
    rows.add("two processes", same == len(files), files=len(files), same=same)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--files", type=int, default=200)
    parser.add_argument("--largest", type=int, default=20_000, help="bytes")
    arguments = parser.parse_args()
    rows = Rows()
    with tempfile.TemporaryDirectory() as folder:
        run = arguments.run or small_run(Path(folder) / "run")
        packer = load_packer(str(run))
        round_trips(rows, packer, arguments.files, arguments.largest)
        damage(rows, packer, documents(run)[0])
        two_processes(rows, run, Path(folder))
    rows.end()


if __name__ == "__main__":
    main()
