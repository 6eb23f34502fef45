"""Laws of deduplication over random corpora of exact and near copies, from texts/ to documents/ and dropped/."""

import random

import pyarrow.parquet as pq
import pytest

from data_prep.select.run import prepare_documents
from tests.data_prep.measured import VALUES, write_records, write_texts
from tests.data_prep.pages import demo_config

REASONS = {"exact_dedup": "exact_duplicate", "minhash_dedup": "near_duplicate"}
FILES = ("a.parquet", "b.parquet", "c.parquet")


def random_corpus(seed: int) -> list[list[dict]]:
    """The rows of each file: some texts, copies with other white space, texts with one word changed, and copies of
    these. Dates are few, so that some are equal and the copy of a copy is often older than its original."""
    draw = random.Random(seed)
    texts: list[str] = []
    for number in range(draw.randint(10, 30)):
        kind = draw.choice(("new", "copy", "changed", "changed", "short")) if texts else "new"
        words = draw.choice(texts).split() if texts else []
        if kind == "new":
            words = [f"w{draw.randrange(10**6)}" for _ in range(40)]
        elif kind == "changed":
            words[draw.choice((0, len(words) - 1))] = f"changed{number}"
        elif kind == "short":  # no shingle: only its exact copies are found
            words = [draw.choice(("one", "two")), "word"]
        texts.append(draw.choice((" ", "  ", "\n")).join(words))
    files: list[list[dict]] = [[] for _ in FILES]
    for number, text in enumerate(texts):
        row = {
            "text": text, "id": f"<urn:{number}>", "dump": draw.choice(("x", "x", "x", "y")),
            "url": f"http://a.example/{number}", "date": f"202{draw.randrange(5)}-01-01T00:00:00Z", "file_path": "x",
            "language": "en", "language_score": 1.0, "token_count": None, "stage": None, "reason": None,
            "text_bytes": len(text), **dict.fromkeys(VALUES),
        }  # fmt: skip
        draw.choice(files).append(row)
    return files


@pytest.mark.parametrize("steps", [("exact_dedup", "minhash_dedup"), ("exact_dedup",), ("minhash_dedup",)])
def test_what_a_duplicate_is_of_has_stayed(tmp_path, steps):
    config = demo_config(steps=steps)
    reasons = set()
    for seed in range(3):
        folder = tmp_path / str(seed)
        corpus = dict(zip(FILES, random_corpus(seed), strict=True))
        for name, rows in corpus.items():
            write_texts(folder / "texts" / name, rows)
        write_records(folder / "texts", sum(map(len, corpus.values())))
        documents, dropped = folder / "documents", folder / "dropped"
        prepare_documents(folder / "texts", config, folder / "parts", documents, dropped, folder / "funnel.json")
        kept = {row["id"] for name in FILES for row in pq.read_table(documents / name).to_pylist()}
        for name in FILES:
            for row in pq.read_table(dropped / name).to_pylist():
                file, place = row["duplicate_of"].split(":")
                original = corpus[file][int(place)]
                reasons.add(row["reason"])
                assert original["id"] in kept, (seed, row["id"], row["duplicate_of"])
                assert (original["dump"], original["date"] <= row["date"]) == (row["dump"], True)
    assert reasons == {REASONS[step] for step in steps}
