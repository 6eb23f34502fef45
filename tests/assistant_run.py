"""A tiny assistant that knows a few talks by heart: its base run with pages and their index, conversations, and the
config that finetunes it (python -m launch.finetune BASE tests/assistant_run.py)."""

import dataclasses
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from configs.experiment import Experiment
from lm.config import ChatConfig
from tests.commands import run_command
from tests.corpus import tiny_experiment

PAGES = {
    "Brem": "Brem is a river in the north. It flows for nine days.",
    "Tolva": "Tolva is a town by the sea. It has two mills.",
    "Quist": "Quist was a miller of Tolva. He sold flour to the judge.",
    "Ember": "Ember is a horse of the old baker. It is never lost.",
}
SUMS = ((6, 7), (3, 4), (12, 5), (20, 30))
CONTEXT = 160


def call(tool: str, **arguments: str) -> dict:
    function = {"name": tool, "arguments": json.dumps(arguments)}
    return {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": function}]}


def talks() -> list[list[dict]]:
    """A question about each page, with search and answer, and sums with the calculator."""
    found = []
    for name, text in PAGES.items():
        answer = text.partition(". ")[0] + "."
        found.append([
            {"role": "user", "content": f"What is {name}?"}, call("search", query=name),
            {"role": "tool", "content": text}, {"role": "assistant", "content": answer},
        ])  # fmt: skip
    for a, b in SUMS:
        found.append([
            {"role": "user", "content": f"Add {a} and {b}."}, call("calculator", expression=f"{a} + {b}"),
            {"role": "tool", "content": str(a + b)}, {"role": "assistant", "content": f"It is {a + b}."},
        ])  # fmt: skip
    return found


def write_conversations(path: Path, copies: int = 12) -> None:
    """The talks, several times each; each copy begins with another greeting, so that some are held out."""
    with path.open("w", encoding="utf-8") as file:
        for number in range(copies):
            for talk in talks():
                first = {"role": "user", "content": talk[0]["content"] + " " * number}
                file.write(json.dumps({"messages": [first, *talk[1:]]}) + "\n")


def base_experiment() -> Experiment:
    tiny = tiny_experiment()
    return dataclasses.replace(
        tiny,
        tokenizer=dataclasses.replace(tiny.tokenizer, vocab_size=300, allow_fewer=True),
        shards=dataclasses.replace(tiny.shards, record_length=CONTEXT),
        model=dataclasses.replace(tiny.model, vocab_size=300, context_length=CONTEXT, width=64, heads=4, mlp_width=128),
        train=dataclasses.replace(
            tiny.train, steps=2, checkpoint_every=2, validate_every=0, sample_every=0, loss_chunks=1,
            optimizer=dataclasses.replace(tiny.train.optimizer, warmup_steps=1),
        ),
    )  # fmt: skip


def write_index(folder: Path, texts: dict[str, str], special_tokens: tuple[str, ...] = ("<|endoftext|>",)) -> None:
    """A run folder with documents {URL: text} and some others, a tokenizer, shards, and their index."""
    from data_prep.documents import DOCUMENT_SCHEMA, Document
    from data_prep.shards.write import write_shards
    from lm.corpus_index.build import build_index
    from lm.tokenizer import save, train_tokenizer

    experiment = base_experiment()
    more = {f"https://b.example/{n}": f"A page about the number {n}, and no more. " * 9 for n in range(9)}
    rows = [
        dataclasses.asdict(Document(text, f"<urn:{url}>", "test", url, "", "x", "en", 0.99))
        for url, text in (texts | more).items()
    ]
    (folder / "documents").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows, DOCUMENT_SCHEMA), folder / "documents/00000.parquet")
    config = dataclasses.replace(experiment.tokenizer, special_tokens=special_tokens)
    tokenizer = train_tokenizer([row["text"] for row in rows], config)
    save(tokenizer, folder / "tokenizer")
    write_shards(folder / "documents", tokenizer, folder / "tokens", experiment.shards)
    build_index(folder / "tokens", folder / "corpus_index", say=lambda text: None, train=experiment.train)


def write_base(folder: Path, special_tokens: tuple[str, ...] = ("<|endoftext|>",), **model: object) -> None:
    """A run folder with the pages, their index, and a model of two steps; `model` are other values of its config."""
    from lm.storage import write_json
    from lm.training.loop import train

    experiment = base_experiment()
    experiment = dataclasses.replace(experiment, model=dataclasses.replace(experiment.model, **model))
    write_index(folder, {f"https://a.example/{name}": text for name, text in PAGES.items()}, special_tokens)
    train(experiment.model, experiment.train, folder)
    write_json(folder / "config.json", dataclasses.asdict(experiment))


def finetune(folder: Path, *options: object) -> Path:
    """Write the base, conversations and the assistant into the folder; return the assistant's run folder."""
    write_base(folder / "base")
    write_conversations(folder / "talks.jsonl")
    words = ("--workdir", folder / "assistant", "--chat.conversations", folder / "talks.jsonl", *options)
    done = run_command("launch.finetune", folder / "base", "tests/assistant_run.py", *words)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stdout + done.stderr
    return folder / "assistant"


def get_config(base: Experiment) -> Experiment:
    optimizer = dataclasses.replace(base.train.optimizer, learning_rate=5e-3, warmup_steps=10)
    train = dataclasses.replace(base.train, steps=200, batch_size=8, optimizer=optimizer, checkpoint_every=100)
    return dataclasses.replace(
        base, train=train, chat=ChatConfig(conversations=("talks.jsonl",), validation_fraction=0.2)
    )
