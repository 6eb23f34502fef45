"""Decontamination over files: n-grams are looked for in each, counted over the corpus, and judged by these counts.

Two passes over units: the first reads each file's documents once and writes the few that hold an n-gram; between them
the counts are added, 8 bytes for each n-gram of the sets, whatever the corpus; the second reads what the first wrote.
Counts and the report's lines are merged by units, 64 files at a time.
"""

import functools
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
from data_prep.dedup.survivors import Edit, OfSurvivors, SurvivorFile, read_survivors, write_edits
from data_prep.engine import identity_of
from data_prep.engine.tasks import FileRunner, here, merge_in_groups
from data_prep.engine.units import Counts
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
    """A unit: the survivors of a file, and where its documents with an n-gram are noted, the edits, and its lines of
    the report."""

    hits: Place
    edits: Place
    lines: Place


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
    place = lambda kind, file: folder / kind / file.path.name
    units = [HitFile(file, *(place(kind, file) for kind in ("hits", "edits", "lines"))) for file in files]
    units, written = run("overlaps", units, functools.partial(find_hits, index=own), ["hits"], [identity])
    index = read_index(own)
    merge = functools.partial(merge_counts, ngrams=len(index.hashes))
    few = merge_in_groups("ngrams", [one["hits"] for one in written], merge, run.folder, run.engine, run.on_progress)
    documents = count_documents([run.folder / name for name, _ in few], len(index.hashes))
    frequent = np.flatnonzero(documents > config.max_corpus_documents).tolist()
    work = functools.partial(judge, index=own, frequent=frozenset(frequent), drops=config.action == "drop")
    units, written = run("contaminated", units, work, ["edits", "lines"], [identity, frequent, config.action])
    lines = [one["lines"] for one in written]
    few = merge_in_groups("overlap-lines", lines, join_lines, run.folder, run.engine, run.on_progress)
    with appearing(report / "_decontamination.jsonl") as partial:
        join_lines([run.folder / name for name, _ in few], partial)
    touched = [one["sets"] for one in run.counts["contaminated"]]
    write_report(touched, index, documents, config, report)
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


def count_documents(files: Sequence[Place], ngrams: int) -> np.ndarray:
    """In how many documents of the corpus each n-gram stands, int64 (ngrams,), of files of hits or of counts."""
    documents = np.zeros(ngrams, np.int64)
    for file in files:
        if file.name.endswith(".merged"):
            documents += np.frombuffer(file.read_bytes(), "<i8")
            continue
        for row in read_rows(file, ["ngrams"]):
            documents[row["ngrams"]] += 1  # each once in a row
    return documents


def merge_counts(files: Sequence[Place], target: Path, scratch: Path, ngrams: int) -> int:
    target.write_bytes(count_documents(files, ngrams).astype("<i8").tobytes())
    return len(files)


def join_lines(files: Sequence[Place], target: Path, scratch: Path | None = None) -> int:
    """Writes the lines of all files, in their order."""
    with target.open("wb") as out:
        for file in files:
            out.write(file.read_bytes())
    return len(files)


def judge(unit: HitFile, index: Place, frequent: frozenset[int], drops: bool) -> Counts:
    """Writes, for one file, the edits that drop each document with an n-gram of an evaluation set that is not among the
    `frequent` ones (no edits without `drops`), and a line of the report for each such document. Counts these documents
    by evaluation set."""
    sets: dict[str, int] = {}
    overlapping = []
    with here(unit.lines).open("w", encoding="utf-8") as file:
        for row in read_rows(unit.hits):
            if frequent.issuperset(row["ngrams"]):
                continue
            overlapping.append(row["row"])
            told = of_document(row, unit.survivors.path.name, read_index(index), frequent)
            for name in told["sets"]:
                sets[name] = sets.get(name, 0) + 1
            file.write(json.dumps({"dropped": drops, **told}, ensure_ascii=False, sort_keys=True) + "\n")
    write_edits(here(unit.edits), ((row, Edit(reason=REASON)) for row in overlapping if drops))
    return {"sets": sets}


def write_report(
    touched: Sequence[dict[str, int]], index: Index, documents: np.ndarray, config: DecontaminationConfig, report: Place
) -> None:
    """Writes _decontamination.json, an entry for each set; `touched` are the documents by set, of each file."""
    rare = documents <= config.max_corpus_documents
    counts = {
        name: sum(one.get(name, 0) for one in touched) for name in dict.fromkeys(name for name, *_ in index.names)
    }
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
        for name, count in counts.items()
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


def of_document(row: dict, name: str, index: Index, frequent: frozenset[int]) -> dict:
    """What the report tells of one document: of each example that it overlaps with, the first n-gram."""
    found: dict[int, int] = {}
    for ngram in row["ngrams"]:
        if ngram not in frequent:
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
