"""MinHash keys per second, compared with datatrove's signatures, and the share of similar pairs found.

    python -m tests.bench.minhash [--seconds 5] [--pairs 6000]

Prints a JSON line: documents per CPU-second on the article texts in ../shared; the same of datatrove, with and without
its word split, if $PEERS_DIR has it (../shared/bench/peers.sh); and for generated pairs of known Jaccard similarity the
share with a common key, next to the law 1 - (1 - s^rows)^bands.
"""

import itertools
import json
import random
import statistics
import time
from collections.abc import Callable, Iterator

from configs.recipes.gristmill import MINHASH
from data_prep.config import MinHashConfig
from data_prep.dedup.minhash import band_keys
from tests.bench.runner import PEERS, SHARED, ask_peer, run_benchmark

TEXTS = SHARED / "extraction/aeb-ground-truth.json"
SIMILARITIES = (0.4, 0.6, 0.72, 0.8, 0.9)
UNION = 500  # shingles of a generated pair in total
WORDS = ["".join(letters) for letters in itertools.product("aeioklmnrs", repeat=5)]  # digits would all become 0

DATATROVE = """
import json, sys, time
from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature
from datatrove.utils.text import simplify_text

texts = json.load(sys.stdin)
config = MinhashConfig(n_grams=5, num_buckets=14, hashes_per_bucket=8)
step = MinhashDedupSignature(output_folder=sys.argv[1], config=config)

def rate(run, seconds):
    for text in texts:
        run(text)
    start, done = time.process_time(), 0
    while time.process_time() - start < seconds:
        run(texts[done % len(texts)])
        done += 1
    return done / (time.process_time() - start)

shingles = {text: step.get_shingles(text) for text in texts}
print(json.dumps([rate(lambda text: step.get_signature(step.get_shingles(text)), float(sys.argv[2])),
                  rate(lambda text: step.get_signature(shingles[text]), float(sys.argv[2]))]))
"""


def collision_probability(similarity: float, config: MinHashConfig) -> float:
    """Probability that two texts of this Jaccard similarity have a key in common."""
    return 1 - (1 - similarity**config.rows) ** config.bands


def similar_pair(similarity: float, rng: random.Random) -> tuple[str, str]:
    """Two texts of random words whose sets of 5-word shingles have exactly this Jaccard similarity."""
    shared = round(similarity * UNION)
    own = (UNION - shared) // 2
    words = rng.choices(WORDS, k=shared + 4 + 2 * own)
    begin, first, second = words[: shared + 4], words[shared + 4 : shared + 4 + own], words[shared + 4 + own :]
    return " ".join(begin + first), " ".join(begin + second)


def documents_per_second(run: Callable[[str], object], texts: list[str], seconds: float) -> tuple[float, float]:
    """Documents per CPU-second of the first pass, with an empty word cache, and the median of later passes."""
    rates, end = [], None
    while end is None or time.process_time() < end or len(rates) < 3:
        before = time.process_time()
        for text in texts:
            run(text)
        rates.append(len(texts) / (time.process_time() - before))
        end = end or time.process_time() + seconds
    return rates[0], statistics.median(rates[1:])


def main(seconds: float = 5, pairs: int = 6000) -> Iterator[dict[str, object]]:
    """Args:
    seconds: CPU seconds of each measurement.
    pairs: Number of pairs for each similarity.
    """
    row: dict[str, object] = {}
    if TEXTS.is_file():
        texts = [article["articleBody"] for article in json.loads(TEXTS.read_text(encoding="utf-8")).values()]
        first_pass, ours = documents_per_second(lambda text: band_keys(text, "", MINHASH), texts, seconds)
        row |= {"characters_per_document": round(statistics.mean(map(len, texts))), "documents_per_second": round(ours)}
        row |= {"first_pass": round(first_pass)}
        python = PEERS / "datatrove/bin/python"
        if python.is_file():
            theirs, without_split = ask_peer(python, DATATROVE, "unused", seconds, input=json.dumps(texts))
            row |= {"datatrove": round(theirs, 1), "ratio": round(ours / theirs, 1)}
            row |= {"datatrove_without_word_split": round(without_split)}
    else:
        row["missing"] = f"{TEXTS.name} and so the speed"
    rng = random.Random(0)
    shares = {}
    for similarity in SIMILARITIES:
        met = 0
        for _ in range(pairs):
            first, second = (band_keys(text, "", MINHASH) for text in similar_pair(similarity, rng))
            met += not set(first or ()).isdisjoint(second or ())
        shares[similarity] = [round(met / pairs, 4), round(collision_probability(similarity, MINHASH), 4)]
    yield row | {"pairs": pairs, "share_met_and_law": shares}


if __name__ == "__main__":
    run_benchmark(main)
