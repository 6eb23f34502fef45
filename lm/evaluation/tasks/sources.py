"""Where the examples of a task are: in a folder, as files of its name or in the layout of Hugging Face's hub.

No jax: whether they are there is looked at before the first stage.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lm.errors import UsageError
from lm.storage.example_rows import read_json_rows, read_parquet_rows

TABLES = (".jsonl", ".json", ".parquet")
PACKED = ("", ".bz2", ".gz", ".zst")
REMEDY = "Bring the file anew, or give another folder."
Example = dict[str, Any]
"""A row of a task's file."""


@dataclass(frozen=True)
class Source:
    """A task's data set."""

    repository: str
    """Its id on the hub."""
    subset: str
    """The config there; empty for all of them."""
    split: str
    """The split that lm-eval scores."""
    file: str
    """What the name of a file with its examples begins with, lower case, blanks and dashes as underscores."""
    chance: float
    """The accuracy of guessing."""
    text: bool = False
    """Whether a .txt file has them too."""


SOURCES = {
    "hellaswag": Source("Rowan/hellaswag", "default", "validation", "hellaswag", 0.25, text=True),
    "lambada_openai": Source("EleutherAI/lambada_openai", "default", "test", "lambada", 0.0),
    "arc_easy": Source("allenai/ai2_arc", "ARC-Easy", "test", "arc_easy", 0.25),
    "arc_challenge": Source("allenai/ai2_arc", "ARC-Challenge", "test", "arc_challenge", 0.25),
    "winogrande": Source("allenai/winogrande", "winogrande_xl", "validation", "winogrande", 0.5),
    "piqa": Source("baber/piqa", "default", "validation", "piqa", 0.5),
    "blimp": Source("nyu-mll/blimp", "", "train", "blimp", 0.5),
}
"""{task: its data set}, as lm-eval's tasks name them."""


def local_files(source: Source, folder: Path, option: str) -> list[Path]:
    """The files with the task's examples, in order. `option` is what named the folder. Raises UsageError where there
    are none.

    First those of a folder named after the data set, `folder` itself too: SUBSET/SPLIT-*.parquet, data/SPLIT-*.parquet,
    SUBSET/SPLIT/*.parquet (the hub's own conversion), or .jsonl in their place. Else one file in `folder` that is named
    after the task; of several one that names the split, and of those the one with the shortest name.
    """
    folder = folder.expanduser()
    if not folder.is_dir():
        raise UsageError(f"{option} = {str(folder)!r} is no folder. Give the one with the data sets of the tasks.")
    owner, name = source.repository.split("/")
    roots = [folder / owner / name, folder / name, folder / f"{owner}--{name}", folder / source.file]
    roots += [folder] if folder.name.lower() in (name.lower(), source.file) else []
    for root in roots:
        if found := in_dataset(source, root):
            return found
    named = [path for path in sorted(folder.iterdir()) if path.is_file() and is_named(source, path)]
    if not named:
        raise UsageError(
            f"{option} = {str(folder)!r} has no examples of {source.repository}: neither {owner}/{name}/ in the layout "
            f"of the hub, nor a file {source.file}*.jsonl or {source.file}*.parquet (.bz2, .gz and .zst too). Put them "
            "there, or give another folder."
        )
    return [min(named, key=lambda path: (source.split not in path.name.lower(), len(path.name), path.name))]


def is_named(source: Source, path: Path) -> bool:
    name = path.name.lower().replace("-", "_").replace(" ", "_")
    kinds = (*TABLES, ".txt") if source.text else TABLES
    return name.startswith(source.file) and name.endswith(tuple(a + b for a, b in itertools.product(kinds, PACKED)))


def in_dataset(source: Source, root: Path) -> list[Path]:
    """The files of the split in the folder of a data set; [] where there are none."""
    if not root.is_dir():
        return []
    if not source.subset:
        return sorted(path for path in root.rglob("*") if path.is_file() and path.name.endswith(all_kinds()))
    split = source.split
    patterns = [f"{source.subset}/{split}-*", f"{source.subset}/{split}.*", f"{source.subset}/{split}/*"]
    patterns += [f"data/{source.subset}/{split}-*"]
    if source.subset == "default":
        patterns += [f"data/{split}-*", f"{split}-*", f"{split}.*", f"data/{source.file}_{split}.*", f"data/{split}.*"]
    for pattern in patterns:
        if found := sorted(path for path in root.glob(pattern) if path.name.endswith(all_kinds())):
            return found
    return []


def all_kinds() -> tuple[str, ...]:
    return tuple(kind + packing for kind in TABLES for packing in PACKED)


def read_rows(path: Path) -> Iterator[Example]:
    """The rows of a .parquet or a .jsonl file, one at a time. Raises InputError for what is damaged."""
    return (read_parquet_rows if path.name.endswith(".parquet") else read_json_rows)(path, REMEDY)
