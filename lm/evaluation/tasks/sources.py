"""Locate the examples of a task in a folder: files named like the task, or files in the layout of the Hugging Face hub.

No JAX here, because examples are located before the first stage.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lm.errors import UsageError
from lm.storage.example_rows import read_json_rows, read_parquet_rows

PACKED = ("", ".bz2", ".gz", ".zst")
TABLES = tuple(kind + packing for kind in (".jsonl", ".json", ".parquet") for packing in PACKED)
REMEDY = "Download the file again, or give another folder."
Example = dict[str, Any]
"""Row of a task's file."""


@dataclass(frozen=True)
class Source:
    """Where a task's examples come from: a dataset on the hub or local files."""

    repository: str
    """Dataset id on the hub."""
    subset: str
    """Config name on the hub; empty: all configs."""
    split: str
    """Split that lm-eval scores."""
    file: str
    """Prefix of the names of local files, in lower case, with underscores for blanks and dashes."""
    chance: float
    """Accuracy of random guessing."""
    text: bool = False
    """Whether examples can also be in a .txt file."""


SOURCES = {
    "hellaswag": Source("Rowan/hellaswag", "default", "validation", "hellaswag", 0.25, text=True),
    "lambada_openai": Source("EleutherAI/lambada_openai", "default", "test", "lambada", 0.0),
    "arc_easy": Source("allenai/ai2_arc", "ARC-Easy", "test", "arc_easy", 0.25),
    "arc_challenge": Source("allenai/ai2_arc", "ARC-Challenge", "test", "arc_challenge", 0.25),
    "winogrande": Source("allenai/winogrande", "winogrande_xl", "validation", "winogrande", 0.5),
    "piqa": Source("baber/piqa", "default", "validation", "piqa", 0.5),
    "blimp": Source("nyu-mll/blimp", "", "train", "blimp", 0.5),
}
"""{task: its dataset}, with the names of lm-eval."""


def local_files(source: Source, folder: Path, option: str) -> list[Path]:
    """Return the files in `folder` with a task's examples, sorted. `option` is the option that set the folder, for
    messages. Raises UsageError if there are none.

    First it looks for the dataset's folder, in `folder` or as `folder` itself, with .parquet or .jsonl files such as
    SUBSET/SPLIT-*.parquet, data/SPLIT-*.parquet or SUBSET/SPLIT/*.parquet (the hub's own conversion). Otherwise it
    returns one file in `folder` that is named like the task. Names with the split are preferred, then short names.
    """
    folder = folder.expanduser()
    if not folder.is_dir():
        raise UsageError(f"{option} = {str(folder)!r} is not a folder. Give the folder with the tasks' data sets.")
    owner, name = source.repository.split("/")
    roots = [folder / owner / name, folder / name, folder / f"{owner}--{name}", folder / source.file]
    roots += [folder] if folder.name.lower() in (name.lower(), source.file) else []
    for root in roots:
        if found := in_dataset(source, root):
            return found
    plain = lambda path: path.name.lower().replace("-", "_").replace(" ", "_")
    endings = (*TABLES, *(f".txt{packing}" for packing in PACKED if source.text))
    named = [path for path in sorted(folder.iterdir()) if path.is_file() and plain(path).startswith(source.file)]
    named = [path for path in named if plain(path).endswith(endings)]
    if not named:
        raise UsageError(
            f"{option} = {str(folder)!r} has no examples of {source.repository}: neither {owner}/{name}/ in the layout "
            f"of the hub, nor a file {source.file}*.jsonl or {source.file}*.parquet (.bz2, .gz and .zst too). Put the "
            "examples there, or give another folder."
        )
    return [min(named, key=lambda path: (source.split not in path.name.lower(), len(path.name), path.name))]


def in_dataset(source: Source, root: Path) -> list[Path]:
    """Return the files of source.split in `root`, a dataset's folder in the layout of the hub; [] if there are none."""
    if not root.is_dir():
        return []
    if not source.subset:
        return sorted(path for path in root.rglob("*") if path.is_file() and path.name.endswith(TABLES))
    split = source.split
    patterns = [f"{source.subset}/{split}-*", f"{source.subset}/{split}.*", f"{source.subset}/{split}/*"]
    patterns += [f"data/{source.subset}/{split}-*"]
    if source.subset == "default" or root.name == source.file:
        patterns += [f"data/{split}-*", f"{split}-*", f"{split}.*", f"data/{source.file}_{split}.*", f"data/{split}.*"]
    for pattern in patterns:
        if found := sorted(path for path in root.glob(pattern) if path.name.endswith(TABLES)):
            return found
    return []


def read_rows(path: Path) -> Iterator[Example]:
    """Yield the rows of a .parquet or .jsonl file. Raises InputError if it is damaged."""
    return (read_parquet_rows if path.name.endswith(".parquet") else read_json_rows)(path, REMEDY)
