"""How large an index of a dump is, and how fast it is written and met.

    python -m tests.bench.dedup_index [--documents 200000] [--seen 0.3]

Prints one JSON line, of documents with keys drawn at random in place of texts, one of the exact text and one a band of
the recipe's MinHash: bytes a document of the index, its ids among them; documents per CPU second of writing it, and of
finding what a second dump of as many documents, of which a share was there before, has in common with it. How fast the
keys are made of texts tells tests.bench.minhash.
"""

import argparse
import json
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import numpy as np

from configs.recipes.gristmill import MINHASH
from data_prep.config import DedupIndexConfig
from data_prep.dedup.clusters import writing_pairs
from data_prep.dedup_index.format import open_index
from data_prep.dedup_index.joins import join_with_indices, map_keys, write_index
from tests.data_prep.dedup.test_clusters import run_here
from tests.data_prep.measured import write_texts
from tests.data_prep.pages import demo_config

KINDS = {"exact": 1, "near": MINHASH.bands}


def timed(work: Callable[[], object]) -> float:
    """CPU seconds."""
    begin = time.process_time()
    work()
    return time.process_time() - begin


def write_pairs(folder: Path, documents: int, seed: int, seen: int) -> dict[str, Path]:
    """Keys of documents, of which the first `seen` are those of seed 0."""
    folder.mkdir(parents=True)
    paths = {}
    for kind, keys in KINDS.items():
        drawn = [np.random.default_rng([one, keys]).bytes(16 * keys * documents) for one in (0, seed)]
        paths[kind] = folder / f"{kind}.pairs"
        with writing_pairs(paths[kind]) as add:
            for row in range(documents):
                own = drawn[row >= seen][16 * keys * row : 16 * keys * (row + 1)]
                add([own[start : start + 16] for start in range(0, len(own), 16)], (seed + 1, row))
    return paths


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=200_000, help="of each dump (default: 200,000)")
    parser.add_argument("--seen", type=float, default=0.3, help="share that was there before (default: 0.3)")
    arguments = parser.parse_args()
    documents, config = arguments.documents, demo_config(dedup_index=DedupIndexConfig(write=True))
    with TemporaryDirectory() as name:
        folder = Path(name)
        draw = Random(0)
        row = {"text": "", "dump": "A", "url": "", "date": "", "file_path": "", "language": "en", "language_score": 1.0}
        rows = [row | {"id": f"<urn:uuid:{uuid.UUID(int=draw.getrandbits(128))}>"} for _ in range(documents)]
        write_texts(folder / "texts/a.parquet", rows, 1000)
        pairs = write_pairs(folder / "a", documents, 0, 0)
        index, parts = folder / "index", folder / "parts"
        for one in (index / "ids", parts):
            one.mkdir(parents=True)
        mapped = {kind: parts / f"{kind}.arrow" for kind in KINDS}
        keys = [(pairs[kind], mapped[kind]) for kind in KINDS]
        mapping = timed(lambda: map_keys(folder / "texts/a.parquet", keys, {}, index / "ids/a.parquet"))
        places = {kind: [path] for kind, path in mapped.items()}
        writing = timed(lambda: write_index({0: "a.parquet"}, places, config, "", index, parts, run_here))
        opened = open_index(str(index))
        later = [*write_pairs(folder / "b", documents, 1, int(documents * arguments.seen)).values()]
        meeting = timed(lambda: join_with_indices(later, [opened], [*KINDS], folder / "met", run_here))
        sizes = {kind: sum(path.stat().st_size for path in (index / "keys" / kind).iterdir()) for kind in KINDS}
        sizes["ids"] = (index / "ids/a.parquet").stat().st_size
        met = sum(path.stat().st_size for path in (folder / "met").glob("*.runs")) / 32
    told = {
        "bench": "dedup_index",
        "documents": documents,
        "bytes_per_document": round(sum(sizes.values()) / documents, 1),
    }
    told |= {f"{kind}_bytes_per_document": round(size / documents, 2) for kind, size in sizes.items()}
    told |= {"written_per_second": round(documents / (mapping + writing)), "met_per_second": round(documents / meeting)}
    print(json.dumps(told | {"join_with_indices": round(met)}))


if __name__ == "__main__":
    main()
