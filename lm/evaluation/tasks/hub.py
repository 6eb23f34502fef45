"""Examples from the Hugging Face hub: the Parquet files that it provides for every public dataset, by its documented
addresses (https://huggingface.co/docs/hub/datasets-viewer, "List Parquet files"), cached for this user."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from lm.errors import InputError, UsageError, network_reason
from lm.evaluation.tasks.sources import Source
from lm.storage import appearing, inside, user_cache, write_json

SERVER = "https://huggingface.co"
CONNECT_SECONDS, READ_SECONDS = 30.0, 60.0
PIECE = 1 << 20


def hub_files(source: Source, environment: Mapping[str, str] = os.environ) -> list[Path]:
    """Return the Parquet files of the dataset's split in the user's cache (`user_cache`), downloaded on first use.
    HF_ENDPOINT sets another server, HF_TOKEN an access token. Raises InputError if they cannot be downloaded,
    UsageError if the hub lists none."""
    folder = user_cache(environment) / "tasks" / source.repository / (source.subset or "all") / source.split
    listing = folder / "files.json"
    if not listing.is_file():
        server = (environment.get("HF_ENDPOINT") or SERVER).rstrip("/")
        download(source, folder, server, environment.get("HF_TOKEN", ""))
    return [inside(folder, name, listing) for name in json.loads(listing.read_text(encoding="utf-8"))]


def download(source: Source, folder: Path, server: str, token: str) -> None:
    """Download the dataset's files to `folder`, then write files.json, the list of their names, there. Raises
    InputError if a download fails."""
    import requests

    index = f"{server}/api/datasets/{quote(source.repository)}/parquet"
    names = []
    with requests.Session() as session:
        if token:
            session.headers["Authorization"] = f"Bearer {token}"
        try:
            for subset, addresses in sorted(addresses_of(session, source, index).items()):
                for number, address in enumerate(addresses):
                    names.append(f"{subset}-{number}.parquet".replace("/", "_"))
                    fetch(session, address, folder / names[-1])
        except (requests.RequestException, ValueError) as error:
            raise InputError(
                f"The data set {source.repository} cannot be downloaded from {server}: {network_reason(error)}. Check "
                "the network, or put the data set into a folder and give the folder as tasks.data (--task-data)."
            ) from error
    write_json(folder / "files.json", names)


def addresses_of(session, source: Source, index: str) -> dict[str, list[str]]:
    """Return {subset: URLs of the Parquet files of source.split}, read from `index`, the hub's JSON list of a dataset's
    files. Raises UsageError if there are none, and requests' exceptions."""
    answer = session.get(index, timeout=(CONNECT_SECONDS, READ_SECONDS))
    answer.raise_for_status()
    listed = answer.json()
    wanted = {
        subset: [str(address) for address in splits.get(source.split, ())]
        for subset, splits in (listed.items() if isinstance(listed, dict) else ())
        if source.subset in ("", subset) and isinstance(splits, dict)
    }
    wanted = {subset: addresses for subset, addresses in wanted.items() if addresses}
    if not wanted:
        raise UsageError(
            f"{index} lists no files of the split {source.split} of {source.subset or 'any subset'}. Put the data set "
            "into a folder and give the folder as tasks.data (--task-data)."
        )
    return wanted


def fetch(session, address: str, path: Path) -> None:
    """Download `address` to `path`, which appears only when it is complete. Raises requests' exceptions."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with session.get(address, timeout=(CONNECT_SECONDS, READ_SECONDS), stream=True) as answer:
        answer.raise_for_status()
        with appearing(path, scratch=path.parent) as partial, partial.open("wb") as file:
            for piece in answer.iter_content(PIECE):
                file.write(piece)
