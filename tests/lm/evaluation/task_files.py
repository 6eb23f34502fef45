"""Synthetic data sets of the tasks, with the columns and the layout of Hugging Face's hub."""

import bz2
import json
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tests.corpus import NAMES, PLACES, THINGS, TIMES, VERBS

PARADIGMS = ("adjunct_island", "drop_argument", "wh_island")


def sentence(draw: random.Random) -> str:
    name, verb, thing, place, time = (draw.choice(words) for words in (NAMES, VERBS, THINGS, PLACES, TIMES))
    return draw.choice([f"{name} {verb} {thing} {place}", f"{time} {name} {verb} {thing}, naïve — as ever", f"{thing}"])


def hellaswag(draw: random.Random) -> dict:
    start = draw.choice(["[header] How to sow [title] Begin early. [step] Take ", "", "The sky is grey. "])
    context = {"ctx_a": start + sentence(draw) + ".", "ctx_b": draw.choice(["", f"{draw.choice(NAMES)} then"])}
    endings = [f"{sentence(draw)}. [substeps]  {sentence(draw)}." for _ in range(4)]
    return {"activity_label": "Sowing", **context, "endings": endings, "label": str(draw.randrange(4))}


def arc(draw: random.Random) -> dict:
    count = draw.choice([3, 4, 4, 5])
    labels = list("ABCDE" if draw.random() < 0.5 else "12345")[:count]
    choices = {"text": [sentence(draw) for _ in labels], "label": labels}
    return {"id": "x", "question": f"Who is it that {sentence(draw)}?", "choices": choices, "answerKey": labels[-2]}


def winogrande(draw: random.Random) -> dict:
    first, second = draw.sample(NAMES, 2)
    text = f"{first} saw {second} {draw.choice(PLACES)}, and _ {draw.choice(VERBS)} {draw.choice(THINGS)}. "
    return {"sentence": text, "option1": first, "option2": second, "answer": str(1 + draw.randrange(2))}


def piqa(draw: random.Random) -> dict:
    return {"goal": sentence(draw), "sol1": sentence(draw), "sol2": sentence(draw), "label": draw.randrange(2)}


def blimp(draw: random.Random, paradigm: str) -> dict:
    return {"sentence_good": sentence(draw), "sentence_bad": sentence(draw), "UID": paradigm}


def write_parquet(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)


def write_jsonl(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(bz2.compress(data) if path.suffix == ".bz2" else data)


def write_tasks(folder: Path, count: int) -> Path:
    """Write `count` examples of each task (for BLiMP, of each paradigm) to `folder`, and return it."""
    draw = random.Random(0)
    some = lambda make, *arguments: [make(draw, *arguments) for _ in range(count)]
    write_parquet(folder / "Rowan/hellaswag/data/validation-00000-of-00001.parquet", some(hellaswag))
    write_jsonl(
        folder / "EleutherAI/lambada_openai/data/lambada_test.jsonl",
        [{"text": f"“{sentence(draw)}!”\n{sentence(draw)}"} for _ in range(count)],
    )
    for name in ("Easy", "Challenge"):
        write_parquet(folder / f"allenai/ai2_arc/ARC-{name}/test-00000-of-00001.parquet", some(arc))
    rows = some(winogrande)
    write_parquet(folder / "winogrande/winogrande_xl/validation-00000-of-00002.parquet", rows[: count // 2])
    write_parquet(folder / "winogrande/winogrande_xl/validation-00001-of-00002.parquet", rows[count // 2 :])
    write_jsonl(folder / "piqa_validation.jsonl.bz2", some(piqa))
    for paradigm in PARADIGMS:
        write_parquet(folder / f"nyu-mll/blimp/{paradigm}/train-00000-of-00001.parquet", some(blimp, paradigm))
    return folder
