"""Decontamination over files: n-grams are looked for in each, counted over the corpus, and judged by these counts.

Two passes over units: the first reads each file's documents once and writes the few that hold an n-gram; between them
the counts are added, 4 bytes for each n-gram of the sets, whatever the corpus; the second reads what the first wrote.
"""

import functools
import hashlib
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from data_prep.config.deduplicate import DecontaminationConfig
from data_prep.decontamination.examples import example_files, read_examples, set_digests
from data_prep.decontamination.index import Index, build_index, overlaps, read_index, write_index
from data_prep.dedup.survivors import Edit, Over, SurvivorFile, read_survivors, write_edits
from data_prep.parquet import read_rows, rows_in, write_rows
from lm.storage import appearing, write_json

REASON = "contaminated"
DOCUMENTS_AT_ONCE = 200
"""Whose words are looked at together."""
EXAMPLES_TOLD = 20
"""Of each document, in the report."""
FREQUENT_TOLD = 100
"""N-grams of each set that are too frequent, in the report."""
HIT_SCHEMA = pa.schema([("row", pa.int64()), ("id", pa.string()), ("ngrams", pa.list_(pa.int64()))])


@dataclass(frozen=True)
class HitFile:
    """A unit: the survivors of a file, and where its documents with an n-gram are noted, and the edits."""

    survivors: SurvivorFile
    hits: Path
    edits: Path

    @property
    def bytes(self) -> int:
        return self.survivors.bytes


def decontaminate(
    files: Sequence[SurvivorFile], config: DecontaminationConfig, folder: Path, report: Path, over: Over
) -> list[Path]:
    """The edits of each file: documents that hold an n-gram of an evaluation set go.

    `folder` keeps what is done for a later call; `report` is where _decontamination.json and .jsonl go, names
    that readers of a folder of Parquet pass over. Raises UsageError where a set is not there, InputError where one
    cannot be read.
    """
    here = folder / identity_of(config)
    for name in ("hits", "edits"):
        (here / name).mkdir(parents=True, exist_ok=True)
    if not (here / "index.json").is_file():
        write_index(build_index(read_examples(example_files(config.sets), config.fields), config), here)
    names = [file.path.name for file in files]
    units = [
        HitFile(file, here / "hits" / name, here / "edits" / name) for file, name in zip(files, names, strict=True)
    ]
    over(functools.partial(find_hits, index=here), units)
    index = read_index(here)
    documents = count_documents([unit.hits for unit in units], index)
    np.save(here / "documents.npy", documents)
    over(functools.partial(judge, counts=here / "documents.npy", config=config), units)
    write_reports(units, index, documents, config, report)
    return [unit.edits for unit in units]


def identity_of(config: DecontaminationConfig) -> str:
    """Of all that decides the n-grams and the verdicts."""
    settings = [config.fields, config.ngram_words, config.min_words, config.max_corpus_documents, config.action]
    return hashlib.sha256(json.dumps([settings, set_digests(config.sets)]).encode()).hexdigest()[:16]


def find_hits(unit: HitFile, index: Path) -> None:
    """Writes the file's documents that hold an n-gram of the index, with which, unless they are there."""
    if rows_in(unit.hits) is None:
        rows = ((unit.hits, row) for row in hits_in(unit.survivors, read_index(index)))
        write_rows(rows, {unit.hits: HIT_SCHEMA}, scratch=unit.hits.parent)


def hits_in(file: SurvivorFile, index: Index) -> Iterator[dict]:
    for batch in itertools.batched(read_survivors(file), DOCUMENTS_AT_ONCE):
        for number, ngrams in overlaps([one.text for one in batch], index).items():
            yield {"row": batch[number].row, "id": batch[number].id, "ngrams": ngrams}


def count_documents(hits: Sequence[Path], index: Index) -> np.ndarray:
    """In how many documents of the corpus each n-gram stands, int64 (ngrams,)."""
    documents = np.zeros(len(index.hashes), np.int64)
    for path in hits:
        for row in read_rows(path, ["ngrams"]):
            documents[row["ngrams"]] += 1  # each once in a row
    return documents


def judge(unit: HitFile, counts: Path, config: DecontaminationConfig) -> None:
    """Writes the file's edits: what holds an n-gram that is not frequent goes, unless only a report is asked for."""
    if rows_in(unit.edits) is not None:
        return
    rare = np.load(counts) <= config.max_corpus_documents
    found = [row["row"] for row in read_rows(unit.hits) if rare[row["ngrams"]].any() and config.action == "drop"]
    write_edits(unit.edits, ((row, Edit(reason=REASON)) for row in found))


def write_reports(
    units: Sequence[HitFile], index: Index, documents: np.ndarray, config: DecontaminationConfig, report: Path
) -> None:
    """Writes _decontamination.jsonl, a line for each document with an overlap, and _decontamination.json, an entry for
    each set."""
    rare = documents <= config.max_corpus_documents
    touched = dict.fromkeys((name for name, *_ in index.names), 0)
    with appearing(report / "_decontamination.jsonl", report) as partial, partial.open("w", encoding="utf-8") as file:
        for unit in units:
            for row in read_rows(unit.hits):
                if not rare[row["ngrams"]].any():
                    continue
                told = of_document(row, unit.survivors.path.name, index, rare)
                for name in told["sets"]:
                    touched[name] += 1
                line = {"dropped": config.action == "drop", **told}
                file.write(json.dumps(line, ensure_ascii=False, sort_keys=True) + "\n")
    skipped = [index.names[number][0] for number in index.skipped]
    hit = {number for ngram in np.flatnonzero(rare & (documents > 0)).tolist() for number in index.examples_of(ngram)}
    frequent = [
        (ngram, {index.names[number][0] for number in index.examples_of(ngram)})
        for ngram in by_frequency(documents, rare)
    ]
    sets = {
        name: {
            "examples": sum(one[0] == name for one in index.names),
            "examples_too_short": skipped.count(name),
            "examples_hit": sum(index.names[number][0] == name for number in hit),
            "documents": count,
            "ngrams_too_frequent": sum(name in names for _, names in frequent),
            "most_frequent": [
                {"ngram": " ".join(index.ngram(ngram)), "documents": int(documents[ngram])}
                for ngram, names in frequent if name in names
            ][:FREQUENT_TOLD],
        }
        for name, count in touched.items()
    }  # fmt: skip
    settings = {
        "ngram_words": config.ngram_words, "min_words": config.min_words,
        "max_corpus_documents": config.max_corpus_documents, "action": config.action,
    }  # fmt: skip
    write_json(report / "_decontamination.json", {"settings": settings, "sets": sets})


def by_frequency(documents: np.ndarray, rare: np.ndarray) -> list[int]:
    """The n-grams that are too frequent, the most frequent first."""
    numbers = np.flatnonzero(~rare)
    return numbers[np.argsort(-documents[numbers], kind="stable")].tolist()


def of_document(row: dict, name: str, index: Index, rare: np.ndarray) -> dict:
    """What the report tells of one document: of each example that it overlaps with, the first n-gram."""
    found: dict[int, int] = {}
    for ngram in row["ngrams"]:
        if rare[ngram]:
            for example in index.examples_of(ngram):
                found.setdefault(example, ngram)
    examples = [
        {"set": index.names[example][0], "example": index.names[example][1], "id": index.names[example][2],
         "ngram": " ".join(index.ngram(ngram))}
        for example, ngram in sorted(found.items())
    ]  # fmt: skip
    return {
        "document": row["id"], "texts": f"{name}:{row['row']}", "sets": sorted({one["set"] for one in examples}),
        "examples_in_all": len(examples), "examples": examples[:EXAMPLES_TOLD],
    }  # fmt: skip
