"""Decontamination over files: n-grams are looked for in each, counted over the corpus, and judged by these counts.

Two passes over units: the first reads each file's documents once and writes the few that hold an n-gram; between them
the counts are added, 4 bytes for each n-gram of the sets, whatever the corpus; the second reads what the first wrote.
"""

import functools
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from data_prep.config.deduplicate import DecontaminationConfig
from data_prep.decontamination.examples import example_files, read_examples, set_digests
from data_prep.decontamination.index import Index, build_index, overlaps, read_index, write_index
from data_prep.dedup.survivors import Edit, OfSurvivors, SurvivorFile, read_survivors, write_edits
from data_prep.engine import identity_of
from data_prep.engine.tasks import FileRunner, here
from data_prep.parquet import read_rows, write_rows
from lm.storage import Place, appearing, size_of, write_json

REASON = "contaminated"
DOCUMENTS_AT_ONCE = 200
"""Whose words are looked at together."""
EXAMPLES_TOLD = 20
"""Of each document, in the report."""
FREQUENT_TOLD = 100
"""N-grams of each set that are too frequent, in the report."""
HIT_SCHEMA = pa.schema([("row", pa.int64()), ("id", pa.string()), ("ngrams", pa.list_(pa.int64()))])


@dataclass(frozen=True)
class HitFile(OfSurvivors):
    """A unit: the survivors of a file, and where its documents with an n-gram are noted, and the edits."""

    hits: Place
    edits: Place


def decontaminate(
    files: Sequence[SurvivorFile], config: DecontaminationConfig, folder: Place, report: Place, run: FileRunner
) -> list[SurvivorFile]:
    """The files with their edits, by which documents that hold an n-gram of an evaluation set go; those that failed are
    missing.

    `folder` is of what units hand on; `report` is where _decontamination.json and .jsonl go, names that readers of a
    folder of Parquet pass over. Raises UsageError where a set is not there, InputError where one cannot be read, and as
    `run_step`.
    """
    settings = [config.fields, config.ngram_words, config.min_words, set_digests(config.sets)]
    identity = identity_of(settings)
    own = folder / identity[:12]
    if size_of(own / "index.json") is None:
        write_index(build_index(read_examples(example_files(config.sets), config.fields), config), own)
    units = [HitFile(file, folder / "hits" / file.path.name, folder / "edits" / file.path.name) for file in files]
    units, _ = run("overlaps", units, functools.partial(find_hits, index=own), ["hits"], [identity])
    index = read_index(own)
    documents = count_documents([unit.hits for unit in units], index)
    frequent = np.flatnonzero(documents > config.max_corpus_documents).tolist()
    work = functools.partial(judge, frequent=frozenset(frequent), drops=config.action == "drop")
    units, written = run("contaminated", units, work, ["edits"], [identity, frequent, config.action])
    write_reports(units, index, documents, config, report)
    return [unit.survivors.edited(unit.edits, one["edits"][1]) for unit, one in zip(units, written, strict=True)]


def find_hits(unit: HitFile, index: Place) -> None:
    """Writes the file's documents that hold an n-gram of the index, with which."""
    path = here(unit.hits)
    rows = ((path, row) for row in hits_in(unit.survivors, read_index(index)))
    write_rows(rows, {path: HIT_SCHEMA}, scratch=path.parent)


def hits_in(file: SurvivorFile, index: Index) -> Iterator[dict]:
    for batch in itertools.batched(read_survivors(file), DOCUMENTS_AT_ONCE):
        for number, ngrams in overlaps([one.text for one in batch], index).items():
            yield {"row": batch[number].row, "id": batch[number].id, "ngrams": ngrams}


def count_documents(hits: Sequence[Place], index: Index) -> np.ndarray:
    """In how many documents of the corpus each n-gram stands, int64 (ngrams,)."""
    documents = np.zeros(len(index.hashes), np.int64)
    for path in hits:
        for row in read_rows(path, ["ngrams"]):
            documents[row["ngrams"]] += 1  # each once in a row
    return documents


def judge(unit: HitFile, frequent: frozenset[int], drops: bool) -> None:
    """Writes the file's edits: what holds an n-gram that is not frequent goes, unless only a report is asked for."""
    rows = read_rows(unit.hits) if drops else ()
    found = (row["row"] for row in rows if not frequent.issuperset(row["ngrams"]))
    write_edits(here(unit.edits), ((row, Edit(reason=REASON)) for row in found))


def write_reports(
    units: Sequence[HitFile], index: Index, documents: np.ndarray, config: DecontaminationConfig, report: Place
) -> None:
    """Writes _decontamination.jsonl, a line for each document with an overlap, and _decontamination.json, an entry for
    each set."""
    rare = documents <= config.max_corpus_documents
    touched = dict.fromkeys((name for name, *_ in index.names), 0)
    with appearing(report / "_decontamination.jsonl") as partial, partial.open("w", encoding="utf-8") as file:
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
