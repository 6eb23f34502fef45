"""Examples from the Hugging Face hub: the Parquet files that it provides for every public dataset, in the branch
refs/convert/parquet (https://huggingface.co/docs/hub/datasets-viewer), cached for this user."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

from lm.errors import InputError, UsageError
from lm.evaluation.tasks.sources import Source
from lm.storage import StorageError, Url, appearing, inside, stores, user_cache, write_json


def hub_files(source: Source, environment: Mapping[str, str] = os.environ) -> list[Path]:
    """Return the Parquet files of the dataset's split in the user's cache (`user_cache`), downloaded on first use.
    Raises InputError if they cannot be downloaded, UsageError if the hub has none."""
    folder = user_cache(environment) / "tasks" / source.repository / (source.subset or "all") / source.split
    listing = folder / "files.json"
    if not listing.is_file():
        try:
            download(source, folder)
        except StorageError as error:
            raise InputError(
                f"The data set {source.repository} cannot be downloaded: {error} Or put the data set into a folder and "
                "give the folder as tasks.data (--task-data)."
            ) from error
    return [inside(folder, name, listing) for name in json.loads(listing.read_text(encoding="utf-8"))]


def download(source: Source, folder: Path) -> None:
    """Download the dataset's files, SUBSET/SPLIT/NUMBER.parquet, to `folder`, then write files.json, the list of their
    names, there. Raises StorageError if a download fails, UsageError if there are no files."""
    branch, names = Url(f"hf://datasets/{source.repository}@refs/convert/parquet"), []
    folder.mkdir(parents=True, exist_ok=True)
    for name, found in branch.files().items():
        subset, _, path = name.partition("/")
        is_wanted = source.subset in ("", subset) and path.startswith(f"{source.split}/") and path.endswith(".parquet")
        if is_wanted:
            names.append(name.replace("/", "_"))
            with appearing(folder / names[-1], scratch=folder) as partial:
                stores.download(f"{branch}/{name}", partial, found)
    if not names:
        raise UsageError(
            f"{branch} has no files of the split {source.split} of {source.subset or 'any subset'}. Put the data set "
            "into a folder and give the folder as tasks.data (--task-data)."
        )
    write_json(folder / "files.json", names)
