"""Memorization of passages by number of copies, and few-shot learning of a format. docs/base_model.md shows both.

    python -m tests.bench.base_model [RUN] [--workdir FOLDER]

Trains the demo's model on the documents of RUN (default: runs/demo), in which some passages are repeated 1 to 64 times
(configs/demo.py without deduplication, five minutes on two cores), and prints JSON lines:

- recitation, by number of copies: characters of the passage that greedy decoding continues correctly after its first
  24 tokens, and bits per byte (arXiv:2202.07646 does so for larger models);
- few_shot: bits per byte of the n-th line of an invented format, by the model of RUN (arXiv:2005.14165).
"""

import itertools
import json
import math
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import mean

import pyarrow.parquet as pq
import tyro

from configs.experiment.run_folder import Loaded, RunFolder
from lm.evaluation.log_likelihood import LogLikelihoods, Request
from lm.inference.engine import Engine
from lm.inference.requests import GenerationRequest, SamplingParams
from tests.bench.runner import require_model, run_benchmark

COPIES = (0, 1, 2, 4, 8, 16, 32, 64)
PASSAGES = 6
"""Number of passages for each number of copies."""
PASSAGE, PROMPT = 700, 24
"""Characters, and tokens. Prompts are cut by tokens because text cut within a word is tokenized differently."""
OTHERS = 350
"""Documents without copies: together with the copies, about as many tokens as the demo's training reads."""
FORMS, LINES = 40, 8


def passages_of(run: RunFolder) -> tuple[dict[int, list[str]], list[str]]:
    """Return ({copies: passages}, other documents), sampled from the run's documents."""
    texts = [
        text
        for path in sorted(run.documents.glob("*.parquet"))
        for text in pq.read_table(path, columns=["text"])["text"].to_pylist()
    ]
    random.Random(0).shuffle(texts)
    long = (text[-PASSAGE:] for text in texts if len(text) > 4 * PASSAGE)
    chosen = {copies: list(itertools.islice(long, PASSAGES)) for copies in COPIES}
    whole = {passage for found in chosen.values() for passage in found}
    others = (text for text in texts if text[-PASSAGE:] not in whole)
    return chosen, list(itertools.islice(others, OTHERS))


def train(chosen: dict[int, list[str]], others: list[str], workdir: Path) -> None:
    """Train the demo's model on the passages, each repeated its number of times, and on the other documents."""
    texts = [*others, *(text for copies, found in chosen.items() for text in found * copies)]
    random.Random(1).shuffle(texts)
    table = workdir.with_name(f"{workdir.name}.jsonl")
    table.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    command = ["configs/demo.py", "--pages.tables", str(table), "--documents.steps", "--workdir", str(workdir)]
    subprocess.run([sys.executable, "-m", "launch.pretrain", *command], check=True, stdout=sys.stderr)


def scores_of(run: Loaded) -> LogLikelihoods:
    return LogLikelihoods(run.experiment.model, run.experiment.evaluate.batch_size)


def recitation(run: Loaded, chosen: dict[int, list[str]]) -> Iterator[dict[str, object]]:
    """Yield a row for each number of copies."""
    tokenizer, config, log_likelihoods = run.tokenizer, run.experiment.model, scores_of(run)
    engine = Engine(run.model, config, tokenizer, slots=PASSAGES, mesh=run.mesh)
    for copies, passages in chosen.items():
        encoded = [tokenizer.encode(text) for text in passages]
        requests = [Request([tokenizer.bos_id, *ids[:PROMPT]], ids[PROMPT:]) for ids in encoded]
        greedy = [SamplingParams(len(one.continuation), temperature=0.0) for one in requests]
        asked = [GenerationRequest(tuple(one.context), of) for one, of in zip(requests, greedy, strict=True)]
        rests = [tokenizer.decode(one.continuation) for one in requests]
        same = [
            len(os.path.commonprefix([one.text, rest]))  # noqa: RUF071 (of characters, and not of paths)
            for one, rest in zip(engine.complete(asked), rests, strict=True)
        ]
        scores = log_likelihoods.score(run.model, run.mesh, requests)
        bits = [-one.log_likelihood / math.log(2) / len(rest.encode()) for one, rest in zip(scores, rests, strict=True)]
        yield {
            "copies": copies, "passages": len(passages), "characters": sorted(map(len, rests)),
            "recited": sorted(same), "bits_per_byte": round(mean(bits), 3),
        }  # fmt: skip


NAMES = ("Anna", "Paul", "Mary", "John", "Ruth", "Peter", "Clara", "Hugh")
PLACES = ("Rome", "Paris", "London", "Boston", "Vienna", "Dublin")


def few_shot(run: Loaded) -> Iterator[dict[str, object]]:
    """Yield a row for each number of preceding lines."""
    generator, log_likelihoods, tokenizer = random.Random(2), scores_of(run), run.tokenizer
    bits: dict[int, list[float]] = {n: [] for n in range(LINES)}
    for _ in range(FORMS):
        line = lambda: f"{generator.choice(NAMES)}; {generator.choice(PLACES)}; {generator.randint(1700, 1999)}\n"
        lines = [line() for _ in range(LINES)]
        encoded = [tokenizer.encode(one) for one in lines]
        before = [[tokenizer.bos_id, *itertools.chain.from_iterable(encoded[:n])] for n in range(LINES)]
        scores = log_likelihoods.score(run.model, run.mesh, list(map(Request, before, encoded)))
        for n, (one, text) in enumerate(zip(scores, lines, strict=True)):
            bits[n].append(-one.log_likelihood / math.log(2) / len(text.encode()))
    for n, found in bits.items():
        yield {"lines_before": n, "forms": FORMS, "bits_per_byte": round(mean(found), 3)}


def main(
    run: tyro.conf.Positional[Path] = Path("runs/demo"), workdir: Path | None = None
) -> Iterator[dict[str, object]]:
    """Args:
    run: Run folder with the documents and the model.
    workdir: Keep the model trained on the copies in this folder.
    """
    folder = RunFolder(require_model(run))
    chosen, others = passages_of(folder)
    yield from few_shot(folder.load())
    with tempfile.TemporaryDirectory() as scratch:
        workdir = workdir or Path(scratch) / "copies"
        train(chosen, others, workdir)  # skips training if it is complete
        yield from recitation(RunFolder(workdir).load(), chosen)


if __name__ == "__main__":
    run_benchmark(main)
