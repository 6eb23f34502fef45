"""How well and how fast the quality classifier tells two sets of texts apart.

    python -m tests.bench.quality_classifier [--shared ../shared] [--peer PYTHON]

Prints one JSON line: for each task the balanced accuracy and the area under the ROC curve on texts that were not
trained on (no page and no story lies on both sides), and documents scored per CPU-second, some 700 words each. With
--peer, an interpreter that has fasttext installed, its supervised classifier learns the same tasks: with two rates and
numbers of epochs, word pairs, 2**21 buckets and 16 dimensions, from the same words.

Tasks: the last lines of stories (LAMBADA) and captions of films (HellaSwag); true and false ends of the latter, which
were chosen so that word counts cannot tell them; and main text and furniture of the 181 pages of the article-extraction
benchmark, in pieces of 100 words.
"""

import argparse
import bz2
import dataclasses
import hashlib
import json
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator
from itertools import batched
from pathlib import Path

import numpy as np

from configs.recipes.gristmill import QUALITY_CLASSIFIER
from data_prep.quality_classifier import QualityClassifier, load_model
from data_prep.quality_classifier.train import area_under_curve, train_quality_classifier
from data_prep.text.words import split_words

Keyed = list[tuple[str, str]]
"""(key, text); texts of one key are all trained on or all tested."""
NEEDED = ("eval/lambada_test.jsonl", "eval/hellaswag_val_full.txt.bz2", "extraction/aeb.warc.gz")
PEER_SETTINGS = ((0.1, 5), (0.5, 10))
"""Learning rate and epochs: fastText's defaults, and those of its tutorial."""
PEER = """
import fasttext, json, sys, time
train, test, rate, epochs = sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4])
start = time.process_time()
shape = {"wordNgrams": 2, "bucket": 1 << 21, "dim": 16, "thread": 1, "verbose": 0}
model = fasttext.train_supervised(train, lr=rate, epoch=epochs, **shape)
seconds = time.process_time() - start
rows = [line.rstrip("\\n").split(" ", 1) for line in open(test)]
labels, chances = model.predict([text for _, text in rows], k=2)
scores = [min(1.0, dict(zip(l, map(float, c)))["__label__good"]) for l, c in zip(labels, chances)]
print(json.dumps({"good": [s for s, r in zip(scores, rows) if r[0] == "__label__good"],
                  "other": [s for s, r in zip(scores, rows) if r[0] != "__label__good"], "seconds": seconds}))
"""


def pieces(key: str, text: str, words: int) -> Iterator[tuple[str, str]]:
    for piece in batched(text.split(), words):
        if len(piece) >= words // 4:
            yield key, " ".join(piece)


def films(path: Path) -> Iterator[tuple[str, str, str]]:
    """(beginning, true end, a false end)."""
    for beginning, true, *ends in batched(bz2.decompress(path.read_bytes()).decode().splitlines(), 6):
        if len(ends) == 4:
            yield beginning, ends[int(true)], ends[(int(true) + 1) % 4]


def articles(folder: Path) -> Iterator[tuple[str, str, str]]:
    """(address, main text, all the rest of the page)."""
    import lxml.html

    from data_prep.warc import read_pages

    truth = json.loads((folder / "aeb-ground-truth.json").read_text(encoding="utf-8"))
    texts = {page["url"]: page["articleBody"] for page in truth.values()}
    for page in read_pages(folder / "aeb.warc.gz"):
        if page.url not in texts:
            continue
        tree = lxml.html.fromstring(page.body.decode("utf-8", "replace"))
        for element in tree.xpath("//script|//style|//noscript"):
            element.drop_tree()
        plain = re.sub(r"\W+", " ", texts[page.url]).lower()
        lines = [" ".join(line.split()) for line in tree.xpath("//body//text()")]
        rest = [line for line in lines if line and re.sub(r"\W+", " ", line).lower().strip() not in plain]
        yield page.url, texts[page.url], " ".join(rest)


def tasks(data: Path) -> Iterator[tuple[str, Keyed, Keyed]]:
    """(name, good, other)."""
    stories = [json.loads(line)["text"] for line in (data / NEEDED[0]).read_text(encoding="utf-8").splitlines()]
    captions = list(films(data / NEEDED[1]))
    pages = list(articles(data / "extraction"))
    true = [(begin, f"{begin} {end}") for begin, end, _ in captions]
    yield "stories_or_captions", [(story, story) for story in stories], true
    yield "true_or_false_ends", true, [(begin, f"{begin} {end}") for begin, _, end in captions]
    yield (
        "article_or_furniture",
        [piece for url, text, _ in pages for piece in pieces(url, text, 100)],
        [piece for url, _, rest in pages for piece in pieces(url, rest, 100)],
    )


def divided(texts: Keyed) -> tuple[list[str], list[str]]:
    """(to train on, to test): a quarter of the keys is tested."""
    sides: tuple[list[str], list[str]] = ([], [])
    for key, text in sorted(set(texts), key=lambda item: hashlib.sha256(item[1].encode()).digest()):
        sides[hashlib.sha256(key.encode()).digest()[0] < 64].append(text)
    return sides


def figures(good: np.ndarray, other: np.ndarray, seconds: float) -> dict[str, float]:
    return {
        "balanced_accuracy": round(float(np.mean(good >= 0.5) + np.mean(other < 0.5)) / 2, 4),
        "area_under_curve": round(area_under_curve(good, other), 4),
        "training_cpu_seconds": round(seconds, 1),
    }


def ours(train: dict[str, list[str]], test: dict[str, list[str]], folder: Path) -> dict[str, float]:
    for name, texts in train.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    files = {name: (str(folder / f"{name}.jsonl"),) for name in train}
    config = dataclasses.replace(QUALITY_CLASSIFIER.training, held_out_share=0.0, **files)
    start = time.process_time()
    train_quality_classifier(config, folder / "model", lambda line: None)
    seconds = time.process_time() - start
    model = load_model(folder / "model")
    good, other = (np.array([model.score(text) for text in test[name]]) for name in ("good", "other"))
    return figures(good, other, seconds)


def peers(train: dict[str, list[str]], test: dict[str, list[str]], folder: Path, python: str) -> dict[str, object]:
    for side, sets in (("train", train), ("test", test)):
        lines = [
            f"__label__{name} {' '.join(split_words(text.lower()))}\n" for name, texts in sets.items() for text in texts
        ]
        lines.sort(key=lambda line: hashlib.sha256(line.encode()).digest())  # it trains in the order of the file
        (folder / side).write_text("".join(lines))
    found: dict[str, object] = {}
    for rate, epochs in PEER_SETTINGS:
        command = [python, "-c", PEER, str(folder / "train"), str(folder / "test"), str(rate), str(epochs)]
        told = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        scores = (np.array(told["good"]), np.array(told["other"]))
        found[f"fasttext_rate_{rate}_epochs_{epochs}"] = figures(*scores, told["seconds"])
    return found


def documents_per_second(model: QualityClassifier, texts: list[str]) -> float:
    start = time.process_time()
    for text in texts:
        model.score(text)
    return len(texts) / (time.process_time() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path(__file__).parents[2] / "../shared")
    parser.add_argument("--peer", help="Python interpreter with fasttext")
    arguments = parser.parse_args()
    data = arguments.shared / "data"
    if missing := [name for name in NEEDED if not (data / name).is_file()]:
        print(f"quality_classifier: {data / missing[0]} is not there; give the folder that holds data/ by --shared")
        return
    row: dict[str, object] = {"bench": "quality_classifier"}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for task, good, other in tasks(data):
            sides = {"good": divided(good), "other": divided(other)}
            train, test = ({name: both[side] for name, both in sides.items()} for side in (0, 1))
            (folder / task).mkdir()
            row[task] = {"ours": ours(train, test, folder / task)}
            if arguments.peer:
                row[task] |= peers(train, test, folder / task, arguments.peer)  # ty: ignore[unsupported-operator]
        model = load_model(folder / "article_or_furniture/model")
        words = " ".join((data / "eval/wikitext2-valid.txt").read_text(encoding="utf-8").split())
        texts = [text for _, text in pieces("", words, 700)]
        row["documents_per_cpu_second"] = round(
            float(np.median([documents_per_second(model, texts) for _ in range(5)]))
        )
    print(json.dumps(row))


if __name__ == "__main__":
    main()
