"""Read the examples of evaluation sets from rows in the formats of common tasks, or from fields that the config
names."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lm.errors import InputError, UsageError, shown
from lm.storage import Url, fetched, file_sha256, is_url, matching_paths
from lm.storage.example_rows import read_json_rows, read_parquet_rows, read_text_examples

OPTION = "documents.decontamination.sets"
REMEDY = f"Copy it again, or leave it out of {OPTION}."
PROMPTS = (
    "question", "query", "prompt", "problem", "goal", "instruction", "ctx", "input", "sentence", "text", "content",
)  # fmt: skip
"""Field names of prompts; the first one in a row is used."""
ANSWERS = (
    "answer", "answers", "choices", "options", "endings", "target", "targets", "completion", "solution",
    "canonical_solution", "output", "response", "best_answer", "correct_answers",
)  # fmt: skip
"""Field names of answers; all of them in a row are used."""
IDS = ("id", "ind", "idx", "uid", "question_id", "task_id")
TEXT_LINES = 6
"""Lines per example in HellaSwag's .txt format: context, number of the correct ending, four endings."""


@dataclass(frozen=True)
class ExampleFile:
    set: str
    path: Path


@dataclass(frozen=True)
class Example:
    set: str
    number: int
    """Position in its set, from 0."""
    id: str
    """Id in the row; empty if the row has none."""
    texts: tuple[str, ...]
    """The prompt joined with each answer; only the prompt if there are no answers."""


def example_files(sets: Sequence[str]) -> list[ExampleFile]:
    """Return the files of the evaluation sets `sets` (DecontaminationConfig.sets), after downloading URLs. Raises
    UsageError if a pattern matches no file, InputError if a download fails."""
    found: list[ExampleFile] = []
    for one in sets:
        name, named, pattern = one.partition("=")
        if not named or "/" in name:
            name, pattern = "", one
        matched = [fetched(Url(pattern))] if is_url(pattern) else matching_paths(pattern)
        paths = [path for path in matched if path.is_file()]
        if not paths:
            raise UsageError(
                f"{OPTION}: {one!r} matches no file (seen from {Path.cwd()}). Correct the path, or leave the set out."
            )
        found += [ExampleFile(name or path.name.split(".")[0], path) for path in paths]
    return found


def set_digests(sets: Sequence[str]) -> list[list[str]]:
    """Return [[name of the evaluation set, SHA-256 of a file], ...], which identifies the contents of `sets`."""
    return [[one.set, file_sha256(one.path)] for one in example_files(sets)]


def read_examples(files: Sequence[ExampleFile], fields: Sequence[str]) -> Iterator[Example]:
    """Yield the examples in the files, in order. `fields` names their texts (DecontaminationConfig.fields). Raises
    InputError for a bad file or row."""
    numbers: dict[str, int] = {}
    for file in files:
        for row in rows_of(file.path):
            number = numbers[file.set] = numbers.get(file.set, -1) + 1
            texts = texts_of(row, fields)
            if not texts:
                raise InputError(
                    f"{file.path}, example {number}, has no known text field: its fields are "
                    f"{shown(', '.join(map(str, row)))}. Set documents.decontamination.fields = prompt=FIELD "
                    "answer=FIELD."
                )
            own = next((row[name] for name in IDS if isinstance(row.get(name), str | int)), "")
            yield Example(file.set, number, str(own), texts)


def rows_of(path: Path) -> Iterator[dict[str, Any]]:
    """Return the rows of one evaluation file as dicts. Raises InputError if it is damaged or of unknown type."""
    name = path.name.removesuffix(path.suffix) if path.suffix in (".gz", ".bz2", ".zst") else path.name
    if name.endswith(".parquet"):
        return read_parquet_rows(path, REMEDY)
    if name.endswith(".txt"):
        examples = read_text_examples(path, TEXT_LINES, REMEDY)
        return ({"query": query, "choices": choices} for query, _, *choices in examples)
    return read_json_rows(path, REMEDY)


def texts_of(row: dict[str, Any], fields: Sequence[str]) -> tuple[str, ...]:
    """Return the texts of an example (Example.texts) from its row; () if it has none of the fields."""
    if fields:
        named = [field.partition("=") for field in fields]
        texts_in = lambda part: [text for role, _, name in named if role == part for text in strings_in(row.get(name))]
        return joined(" ".join(texts_in("prompt")), texts_in("answer"))
    match row:
        case {"context_options": contexts, "continuation": rest}:  # WinoGrande, as lm-eval scores it
            return joined("", [f"{context} {rest}" for context in strings_in(contexts)])
        case {"sentence": str(sentence), "option1": str(one), "option2": str(other)}:  # WinoGrande
            return joined("", [sentence.replace("_", one), sentence.replace("_", other)])
        case {"goal": str(goal), "sol1": str(one), "sol2": str(other)}:  # PIQA
            return joined(goal, [one, other])
        case {"sentence_good": str(good), "sentence_bad": str(bad)}:  # BLiMP
            return joined("", [good, bad])
        case {"ctx_a": str(begin), "ctx_b": str(end), "endings": endings}:  # HellaSwag
            return joined(f"{begin} {end}", strings_in(endings))
    prompt = next((row[name] for name in PROMPTS if isinstance(row.get(name), str) and row[name].strip()), "")
    return joined(prompt, [text for name in ANSWERS for text in strings_in(row.get(name))])


def joined(prompt: str, answers: Sequence[str]) -> tuple[str, ...]:
    """Return the prompt, without "Question:" before and "Answer:" after it, joined with each answer."""
    prompt = prompt.strip().removeprefix("Question:").removesuffix("Answer:").strip()
    return tuple(dict.fromkeys(text for one in answers or [""] if (text := f"{prompt} {one}".strip())))


def strings_in(value: Any) -> list[str]:
    """Return all strings in a string, list or dict, at any depth, except those of one character, such as the labels A,
    B, C and D of answers."""
    if isinstance(value, str):
        return [value] if len(value.strip()) > 1 else []
    if isinstance(value, dict):
        return [text for part in value.values() for text in strings_in(part)]
    if isinstance(value, list | tuple):
        return [text for part in value for text in strings_in(part)]
    return []
