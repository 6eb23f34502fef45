"""Memory and time of a release: a model of some GB as a run folder, out as a Hugging Face folder, and in again.

    python -m tests.bench.release --layers 24 --width 1024 [--scan]

Each way is a process of its own. Prints one JSON line: bytes of the model and of its largest tensor, and of each way
seconds and the most memory that the process held, less what it held once all was imported (looked at every 2 ms; the
pages of files, which the system takes back when it needs them, do not count).
"""

import argparse
import dataclasses
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from configs.recipes.families import llama3
from lm.config import TokenizerConfig

WAYS = {
    "export": "from launch.release.formats import *; from launch.release.stored_run import *; "
    "from configs.experiment.run_folder import RunFolder; "
    "go = lambda: export(open_run(RunFolder(Path(a))), Path(b), 'hugging_face', ExportOptions())",
    "import": "from launch.release.imported import *; from launch.release.sources import *; "
    "go = lambda: write_run(open_source(Path(a), None), Path(b), 'x', SCAN)",
}
PROGRAM = """
import json, re, sys, threading, time
from pathlib import Path
a, b = sys.argv[1:3]
SCAN = sys.argv[3] == "True"
{way}
import lm.formats.hugging_face.writing, lm.formats.hugging_face.tokenizer_files, launch.release.model_card
import lm.formats.hugging_face.reading, jax
jax.devices()
used = lambda: 1024 * int(re.search("RssAnon:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
before, start, most, done = used(), time.perf_counter(), [0], threading.Event()
def watch():
    while not done.wait(0.002):
        most[0] = max(most[0], used())
watcher = threading.Thread(target=watch)
watcher.start()
go()
done.set()
watcher.join()
print(json.dumps({{"seconds": round(time.perf_counter() - start, 2), "more_bytes": most[0] - before}}))
"""


class RandomParameters(Mapping[str, np.ndarray]):
    """Random values of these shapes, made when they are asked for."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]):
        self.shapes = shapes

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)

    def __getitem__(self, name: str) -> np.ndarray:
        return np.random.default_rng(len(name)).standard_normal(self.shapes[name], np.float32)


def main() -> None:
    from launch.release.imported import write_run
    from lm.formats.source import SourceModel
    from lm.formats.tensors import parameter_shapes
    from lm.tokenizer import train_tokenizer

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--scan", action="store_true")
    asked = parser.parse_args()
    tokenizer = train_tokenizer(["a text of some words. " * 9], TokenizerConfig(258, "gpt2", 1000))
    config = llama3(asked.layers, asked.width, 16, 4 * asked.width)
    config = dataclasses.replace(config, vocab_size=32_000, compute_dtype="float32")
    shapes = parameter_shapes(config)
    sizes = [4 * int(np.prod(shape)) for shape in shapes.values()]
    found: dict[str, object] = {"scan_layers": asked.scan, "model_bytes": sum(sizes), "largest_tensor": max(sizes)}
    with tempfile.TemporaryDirectory() as scratch:
        run, out, again = (str(Path(scratch) / name) for name in ("run", "out", "again"))
        write_run(SourceModel(config, tokenizer, RandomParameters(shapes)), Path(run), "random", asked.scan)
        for way, source, target in (("export", run, out), ("import", out, again)):
            program = PROGRAM.format(way=WAYS[way])
            done = subprocess.run(
                [sys.executable, "-c", program, source, target, str(asked.scan)], capture_output=True, text=True
            )
            if done.returncode:
                raise SystemExit(done.stderr)
            found[way] = json.loads(done.stdout)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
