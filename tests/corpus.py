"""Small synthetic corpora of invented sentences: as documents, web pages, tokenizer and shards."""

import dataclasses
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from configs.demo import get_config
from configs.experiment import Experiment
from data_prep.documents import DOCUMENT_SCHEMA, Document, WebPage
from data_prep.shards.write import write_shards
from lm.config import SpikeConfig
from lm.tokenizer import save, train_tokenizer

NAMES = [
    "the miller",
    "a farmer",
    "the old baker",
    "her sister",
    "a traveller",
    "the judge",
    "my neighbour",
    "the cook",
]
VERBS = ["carried", "sold", "found", "counted", "remembered", "painted", "hid", "measured", "promised", "lost"]
THINGS = ["a sack of grain", "the letter", "two horses", "the silver spoon", "a map of the valley", "all of the flour"]
PLACES = ["by the river", "in the village", "behind the church", "on the road to town", "at the edge of the forest"]
TIMES = ["before dawn", "in the evening", "that winter", "when the rain had stopped", "after many years"]


def paragraph(generator: random.Random, sentences: int) -> str:
    made = []
    for _ in range(sentences):
        name, verb, thing, place, time = (generator.choice(words) for words in (NAMES, VERBS, THINGS, PLACES, TIMES))
        made.append(f"{name[0].upper()}{name[1:]} {verb} {thing} {place} {time}, and that was number {_ + 1}.")
    return " ".join(made)


def texts(count: int, seed: int = 0, paragraphs: int = 3) -> list[str]:
    """`count` distinct documents of about 150 words per paragraph, deterministic for a seed."""
    generator = random.Random(seed)
    return ["\n".join(paragraph(generator, 9) for _ in range(paragraphs)) for _ in range(count)]


def web_pages(count: int, seed: int = 0) -> list[WebPage]:
    """The texts as web pages with a menu and a footer around them."""
    pages = []
    for number, text in enumerate(texts(count, seed)):
        body = "".join(f"<p>{part}</p>" for part in text.split("\n"))
        html = (
            f"<!DOCTYPE html><html><head><title>Tale {number}</title></head><body><nav><a href='/'>Home</a></nav>"
            f"<article><h1>Tale {number}</h1>{body}</article><footer>Imprint</footer></body></html>"
        )
        url = f"https://tales-{number % 3}.example/{seed}/{number}.html"
        page_id, date = f"<urn:tale:{seed}:{number}>", "2026-01-02T03:04:05Z"
        pages.append(WebPage(url, page_id, date, "text/html; charset=utf-8", html.encode(), ""))
    return pages


def tiny_experiment() -> Experiment:
    """The demo, so small that every stage takes seconds. Model and optimizer are a plain Llama and AdamW, independent
    of the demo's."""
    demo = get_config()
    optimizer = dataclasses.replace(
        demo.train.optimizer, warmup_steps=3, learning_rate=1e-2, final_learning_rate=4e-4, schedule="cosine", muon=None
    )
    return dataclasses.replace(
        demo,
        # With only some fifty words, they would be dropped as repetitive.
        documents=dataclasses.replace(demo.documents, steps=("gopher_quality", "exact_dedup")),
        tokenizer=dataclasses.replace(demo.tokenizer, vocab_size=320),
        shards=dataclasses.replace(demo.shards, record_length=64, validation_fraction=0.2),
        model=dataclasses.replace(
            demo.model, vocab_size=320, context_length=32, layers=2, width=32, heads=2, kv_heads=1, mlp_width=48,
            mlp="swiglu", initial_std=0.02, qk_norm=False, zero_init=False, token_shift=False, ngram_rows=0,
        ),
        train=dataclasses.replace(
            demo.train, steps=12, batch_size=8, optimizer=optimizer, validate_every=6, validation_batches=2,
            sample_every=6, sample_tokens=24, checkpoint_every=4, log_every=2, checkpoints_kept=5, snapshot_steps=(),
            spikes=SpikeConfig(),
        ),
        evaluate=dataclasses.replace(demo.evaluate, stride=16),
        sample=dataclasses.replace(demo.sample, prompts=("The miller", ""), temperatures=(0.0, 0.8), tokens=24),
    )  # fmt: skip


def write_tokens(run: Path, experiment: Experiment, count: int = 40) -> None:
    """Write documents/, tokenizer/ and tokens/ of a run folder with the functions of the stages."""
    rows = [
        dataclasses.asdict(Document(text, f"<urn:{i}>", "test", f"https://a.example/{i}", "", "x", "en", 0.99))
        for i, text in enumerate(texts(count))
    ]
    (run / "documents").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows, DOCUMENT_SCHEMA), run / "documents/00000.parquet")
    tokenizer = train_tokenizer([row["text"] for row in rows], experiment.tokenizer)
    save(tokenizer, run / "tokenizer")
    write_shards(run / "documents", tokenizer, run / "tokens", experiment.shards)
