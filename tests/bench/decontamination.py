"""How fast documents are looked through for n-grams of evaluation sets, and repeated lines and passages taken out.

    python -m tests.bench.decontamination [RUN] [--seconds 5] [--sets PATTERN ...]

RUN is a finished run of configs/demo.py, or any run folder with documents/. Prints one JSON line: documents and bytes
a CPU second of one core, n-grams of the index, the seconds that it took, and how many documents have an overlap.

Then examples are planted in 200 of 600 documents of at most 6,000 characters, and found by us and by datatrove, where
its environment lies in $PEERS_DIR (../shared/bench/peers.sh): its n_grams.py with 13 words, prompts too.
"""

import argparse
import itertools
import json
import os
import random
import statistics
import subprocess
import tempfile
import time
from functools import partial
from pathlib import Path

from data_prep.config import ONE_PROCESS, DecontaminationConfig, LineDedupConfig, SubstringDedupConfig
from data_prep.decontamination.examples import Example, example_files, read_examples
from data_prep.decontamination.index import Index, build_index, overlaps
from data_prep.decontamination.run import DOCUMENTS_AT_ONCE
from data_prep.dedup.lines import remove_lines
from data_prep.dedup.substrings import remove_substrings
from data_prep.dedup.survivors import Survivor, SurvivorFile, write_survivors
from data_prep.dedup.words import words_of
from data_prep.engine.tasks import FileRunner
from data_prep.parquet import read_rows

SHARED = Path(__file__).parents[2] / "../shared/data/eval"
SETS = [str(SHARED / name) for name in ("*.jsonl", "hellaswag*.txt.bz2")]
PEERS = Path(os.environ.get("PEERS_DIR", "~/.cache/gristmill-peers")).expanduser()
DATATROVE = """
import json, sys, time
from datatrove.pipeline.decont.n_grams import NGramsDecontConfig, NGramsDecontIndexer
from datatrove.utils.hashing import create_hash_func
from datatrove.utils.text import ngrams, simplify_text
from datatrove.utils.word_tokenizers import load_word_tokenizer

told = json.load(sys.stdin)
config = NGramsDecontConfig(n_grams=13, find_query_ngrams=True)
step = object.__new__(NGramsDecontIndexer)  # its constructor wants lighteval, which only its own tasks need
step.config, step.tokenizer = config, load_word_tokenizer("en")
step.hash_func = create_hash_func(config.hash_config)
index = {one for text in told["examples"] for one in step.compute_hashes(text)}
found, begun = [], time.process_time()
for number, text in enumerate(told["texts"]):
    words = step.tokenizer.word_tokenize(simplify_text(text, config.norm_config))
    if any(step.hash_func(" ".join(some)) in index for some in ngrams(words, 13)):
        found.append(number)
print(json.dumps([found, len(told["texts"]) / (time.process_time() - begun)]))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, nargs="?", default=Path("runs/demo"))
    parser.add_argument("--seconds", type=float, default=5, help="of CPU (default: 5)")
    parser.add_argument("--sets", nargs="+", default=SETS, help="files of evaluation sets")
    arguments = parser.parse_args()
    files = sorted((arguments.run / "documents").glob("*.parquet"))
    if not files or (arguments.sets == SETS and not SHARED.is_dir()):
        missing = f"{arguments.run}/documents" if not files else str(SHARED)
        print(json.dumps({"bench": "decontamination", "skipped": f"there is no {missing}"}))
        return
    config = DecontaminationConfig(sets=tuple(arguments.sets))
    examples = list(read_examples(example_files(config.sets), config.fields))
    begun = time.process_time()
    index = build_index(examples, config)
    built = time.process_time() - begun
    texts = [row["text"] for path in files for row in read_rows(path, ["text"])]
    hit, rate = looked_through(texts, index, arguments.seconds)
    size = statistics.mean(len(text.encode()) for text in texts)
    row = {
        "bench": "decontamination", "documents": len(texts), "bytes_per_document": round(size),
        "documents_per_second": round(rate), "megabytes_per_second": round(rate * size / 1e6, 1),
        "ngrams": len(index.hashes), "index_seconds": round(built, 2), "documents_with_an_overlap": len(hit),
    }  # fmt: skip
    print(json.dumps(row | rates_of_steps(texts) | beside_datatrove(texts, examples, arguments.seconds)))


def looked_through(texts: list[str], index: Index, seconds: float) -> tuple[set[int], float]:
    """The numbers of the texts with an overlap, and how many are looked through a CPU second."""
    rates, hit, end = [], set(), time.process_time() + seconds
    while not rates or time.process_time() < end:
        begun, hit = time.process_time(), set()
        for first in range(0, len(texts), DOCUMENTS_AT_ONCE):
            hit |= {first + number for number in overlaps(texts[first : first + DOCUMENTS_AT_ONCE], index)}
        rates.append(len(texts) / (time.process_time() - begun))
    return hit, statistics.median(rates)


def rates_of_steps(texts: list[str]) -> dict[str, float]:
    """Documents a CPU second of the two other steps, all their passes together, on one group of all texts."""
    found = {}
    for name, step in (
        ("line_dedup", partial(remove_lines, config=LineDedupConfig())),
        ("substring_dedup", partial(remove_substrings, config=SubstringDedupConfig())),
    ):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "0.parquet"
            write_survivors(path, (Survivor(n, n, str(n), "", text) for n, text in enumerate(texts)))
            begun = time.process_time()
            run = FileRunner(Path(folder), ONE_PROCESS, lambda progress: None)
            step([SurvivorFile(path, 0, "", {})], run=run)
            found[f"{name}_documents_per_second"] = round(len(texts) / (time.process_time() - begun), 1)
    return found


def beside_datatrove(texts: list[str], examples: list[Example], seconds: float) -> dict[str, object]:
    """Of 200 planted examples how many are found, and what else is; the same of datatrove."""
    draw = random.Random(0)
    some = [text[:6000] for text in texts[:600]]
    long = [one for one in examples if len(words_of(max(one.texts, key=len))) >= 13]  # others have no n-gram
    used = draw.sample(long, min(1500, len(long)))
    planted = set(draw.sample(range(len(some)), min(200, len(some))))
    for number in sorted(planted):
        words = some[number].split(" ")
        place = draw.randrange(len(words))
        words[place:place] = [max(draw.choice(used).texts, key=len)]
        some[number] = " ".join(words)
    found, rate = looked_through(some, build_index(used, DecontaminationConfig(min_words=13)), seconds)
    row: dict[str, object] = {"planted": len(planted), "found": len(found & planted), "others": len(found - planted)}
    row["short_documents_per_second"] = round(rate)
    if (python := PEERS / "datatrove/bin/python").is_file():
        told = json.dumps({"examples": list(itertools.chain(*(one.texts for one in used))), "texts": some})
        command = [str(python), "-c", DATATROVE]
        done = subprocess.run(command, input=told, capture_output=True, text=True, check=True).stdout
        theirs, their_rate = json.loads(done.splitlines()[-1])
        row |= {"datatrove_found": len(planted & {*theirs}), "datatrove_others": len({*theirs} - planted)}
        row |= {"only_one_of_the_two": sorted(found ^ {*theirs})}
        row |= {"datatrove_documents_per_second": round(their_rate), "ratio": round(rate / their_rate, 1)}
    return row


if __name__ == "__main__":
    main()
