"""Decontaminate files of documents.

The first pass writes the documents that contain an n-gram of an evaluation set, which are few. Then the documents of
each n-gram are counted (8 bytes per n-gram). The second pass reads the output of the first.
"""

import functools
import itertools
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from data_prep.config.deduplicate import DecontaminationConfig
from data_prep.decontamination.examples import example_files, read_examples, set_digests
from data_prep.decontamination.index import build_index, overlaps, read_index, write_index
from data_prep.dedup.survivors import Edit, SurvivorFile, edits_name, read_survivors, write_edits
from data_prep.engine import Counts, Workspace, identity_of
from data_prep.engine.tasks import FileRunner, files_of
from data_prep.parquet import read_rows, write_rows
from lm.storage import Place, appearing, size_of, write_json

REASON = "contaminated"
DOCUMENTS_AT_ONCE = 200
"""Number of documents that are searched together."""
MAX_REPORTED_EXAMPLES = 20
"""Maximum number of examples listed per document in the report."""
MAX_REPORTED_NGRAMS = 100
"""Maximum number of n-grams listed per set in the report as too frequent."""
HIT_SCHEMA = pa.schema([("row", pa.int64()), ("id", pa.string()), ("ngrams", pa.list_(pa.int64()))])


def decontaminate(files: list[SurvivorFile], config: DecontaminationConfig, run: FileRunner) -> list[SurvivorFile]:
    """Return the files, without failed ones, with edits that drop documents containing an n-gram of an evaluation set;
    without edits if config.action is "report". Writes dropped/_decontamination.json and .jsonl, which Parquet readers
    ignore. Raises UsageError for a missing set, InputError for an unreadable one, and like `run_step`."""
    settings = [config.fields, config.ngram_words, config.min_words, set_digests(config.sets)]
    identity, report = identity_of(settings), run.folder / "dropped"
    own = run.folder / "parts/decontamination" / identity[:12]
    if size_of(own / "index.json") is None:
        write_index(build_index(read_examples(example_files(config.sets), config.fields), config), own)
    files, hits = run("overlaps", files, functools.partial(find_hits, index=own), [identity])
    index = read_index(own)
    few = run.merge("ngrams", files_of(hits.values()), functools.partial(merge_counts, ngrams=len(index.hashes)))
    documents = count_documents(few, len(index.hashes))
    frequent = np.flatnonzero(documents > config.max_corpus_documents).tolist()
    work = functools.partial(write_contaminated, index=own, frequent=frozenset(frequent), drops=config.action == "drop")
    files, contaminated = run("contaminated", files, work, [identity, frequent, config.action])
    few = run.merge("overlap-lines", files_of(contaminated.values(), lines_name("")), join_lines)
    with appearing(report / "_decontamination.jsonl") as partial:
        join_lines(few, partial)
    skipped = [index.names[number][0] for number in index.skipped]
    rare = np.flatnonzero((documents > 0) & (documents <= config.max_corpus_documents)).tolist()
    hit = {number for ngram in rare for number in index.examples_of(ngram)}
    frequent.sort(key=lambda ngram: -documents[ngram])
    sets_of = [(ngram, {index.names[number][0] for number in index.examples_of(ngram)}) for ngram in frequent]
    sets = {
        name: {
            "examples": sum(one[0] == name for one in index.names),
            "examples_too_short": skipped.count(name),
            "examples_hit": sum(index.names[number][0] == name for number in hit),
            "documents": sum(one.counts["sets"].get(name, 0) for one in contaminated.values()),
            "ngrams_too_frequent": sum(name in names for _, names in sets_of),
            "most_frequent": [
                {"ngram": " ".join(index.ngram(ngram)), "documents": int(documents[ngram])}
                for ngram, names in sets_of if name in names
            ][:MAX_REPORTED_NGRAMS],
        }
        for name in dict.fromkeys(name for name, *_ in index.names)
    }  # fmt: skip
    names = ("ngram_words", "min_words", "max_corpus_documents", "action")
    settings = {name: getattr(config, name) for name in names}
    write_json(report / "_decontamination.json", {"settings": settings, "sets": sets})
    return [file.edited("decontamination", run.folder, contaminated[file.name]) for file in files]


def hits_name(file: str) -> str:
    return f"parts/decontamination/hits/{file}"


def lines_name(file: str) -> str:
    return f"parts/decontamination/lines/{file}"


def find_hits(file: SurvivorFile, space: Workspace, index: Place) -> None:
    """Write the row, id and n-grams of each document in the file that contains an n-gram of the index at `index`."""
    path = space.output(hits_name(file.name))

    def rows() -> Iterator[tuple[Path, dict]]:
        for batch in itertools.batched(read_survivors(file), DOCUMENTS_AT_ONCE):
            for number, ngrams in overlaps([one.text for one in batch], read_index(index)).items():
                yield path, {"row": batch[number].row, "id": batch[number].id, "ngrams": ngrams}

    write_rows(rows(), {path: HIT_SCHEMA}, space.scratch)


def count_documents(files: Sequence[Place], ngrams: int) -> np.ndarray:
    """Return the number of documents that contain each n-gram, int64 (ngrams,), from files of `find_hits`, or from
    files of such counts (.merged)."""
    documents = np.zeros(ngrams, np.int64)
    for file in files:
        if file.name.endswith(".merged"):
            documents += np.frombuffer(file.read_bytes(), "<i8")
            continue
        for row in read_rows(file, ["ngrams"]):
            documents[row["ngrams"]] += 1  # unique within a row
    return documents


def merge_counts(files: Sequence[Place], target: Path, scratch: Path, ngrams: int) -> int:
    target.write_bytes(count_documents(files, ngrams).astype("<i8").tobytes())
    return len(files)


def join_lines(files: Sequence[Place], target: Path, scratch: Path | None = None) -> int:
    with target.open("wb") as out:
        for file in files:
            out.write(file.read_bytes())
    return len(files)


def write_contaminated(
    file: SurvivorFile, space: Workspace, index: Place, frequent: frozenset[int], drops: bool
) -> Counts:
    """Write a line of the report for each document with an n-gram that is not `frequent` and, if `drops`, an edit that
    drops the document. Return {"sets": {evaluation set: number of such documents}}."""
    sets: Counter[str] = Counter()
    overlapping, found = [], read_index(index)
    with space.output(lines_name(file.name)).open("w", encoding="utf-8") as out:
        for row in read_rows(space.place(hits_name(file.name))):
            if frequent.issuperset(row["ngrams"]):
                continue
            overlapping.append(row["row"])
            first: dict[int, int] = {}  # {overlapping example: its first rare n-gram}
            for ngram in row["ngrams"]:
                if ngram not in frequent:
                    for example in found.examples_of(ngram):
                        first.setdefault(example, ngram)
            examples = [
                {"set": found.names[example][0], "example": found.names[example][1], "id": found.names[example][2],
                 "ngram": " ".join(found.ngram(ngram))}
                for example, ngram in sorted(first.items())
            ]  # fmt: skip
            names = sorted({found.names[example][0] for example in first})
            sets.update(names)
            entry = {
                "document": row["id"], "texts": f"{file.path.name}:{row['row']}", "dropped": drops, "sets": names,
                "examples_in_all": len(examples), "examples": examples[:MAX_REPORTED_EXAMPLES],
            }  # fmt: skip
            out.write(json.dumps(entry, ensure_ascii=False, sort_keys=True) + "\n")
    path = space.output(edits_name("decontamination", file.name))
    write_edits(path, ((row, Edit(reason=REASON)) for row in overlapping if drops))
    return {"sets": dict(sets)}
