"""Select files of one crawl of Common Crawl by number, and stream them or, if configured, download them first.

A crawl lists its files in crawl-data/<crawl>/warc.paths.gz (wet.paths.gz), one path per line, relative to the root of
the server.
"""

import contextlib
import difflib
import gzip
import hashlib
import json
import queue
import re
import shutil
import threading
import zlib
from collections.abc import Callable
from pathlib import Path

from data_prep.common_crawl.index import chosen_records
from data_prep.config.pages import CommonCrawlPages, PagesConfig
from data_prep.sources.listing import Listed, asked, guessed
from data_prep.sources.manifest import InputFile
from lm.errors import InputError, UsageError
from lm.storage import Url, appearing, stores, sync, write_atomically, writing

PATH = re.compile(r"crawl-data/(?:[\w.=-]+/)+[\w=-][\w.=-]*\.gz")
LISTS = "parts/crawl-lists"
"""Folder in the run folder, kept while the pages are incomplete."""
MAX_LIST_BYTES = 100_000_000  # decompressed; the longest lists have 100,000 paths of 140 bytes
INDEX_PATH = re.compile(r"cc-index/table/(?:[\w.=-]+/)+[\w=-][\w.=-]*\.parquet")
PIECE = 1 << 20
SECONDS_TO_STOP = 1.0


def fetch(config: PagesConfig, out: Path, progress: Callable[[str], None]) -> tuple[list[InputFile], list[dict]]:
    """Return the crawl's files, or the records selected by its index. Raises like `crawl_files`."""
    crawl = config.common_crawl
    if crawl.index.asked:
        tables = [Url(address_of(crawl, path)) for path in listed(crawl, out, "cc-index-table", INDEX_PATH)]
        return chosen_records(crawl, tables, progress), []
    return (crawl_files if crawl.download else streamed_files)(crawl, out, progress), []


def inputs(config: PagesConfig) -> list[Listed]:
    """Return no files: a crawl has no files of the user."""
    return []


def crawl_files(config: CommonCrawlPages, out: Path, progress: Callable[[str], None]) -> list[InputFile]:
    """Download the selected files to out/pages/, in the order of the crawl's list. Their name in documents is the path
    on the server.

    Raises UsageError if the crawl does not exist or has too few files, InputError if files cannot be downloaded;
    downloaded data is kept for the next attempt.
    """
    paths = chosen(listed(config, out), config)
    wanted = {path: out / "pages" / path.rpartition("/")[2] for path in paths}
    if len(set(wanted.values())) < len(paths):
        raise InputError(f"Two of the files of {config.crawl} have the same name. Choose others (first_file, seed).")
    there = sum(place.is_file() for place in wanted.values())
    progress(f"{len(paths)} {config.kind.upper()} files of {config.crawl}, {there} of them are here already")
    fetch_all({address_of(config, path): place for path, place in wanted.items()}, config.downloads, progress)
    return [InputFile(place, path, config.kind, place.stat().st_size) for path, place in wanted.items()]


def streamed_files(config: CommonCrawlPages, out: Path, progress: Callable[[str], None]) -> list[InputFile]:
    """Return the selected files by their URLs, in the order of the crawl's list.

    A crawl's files do not change, so size and ETag are not part of their identity. Raises like `crawl_files`.
    """
    paths = chosen(listed(config, out), config)
    places = [Listed(Url(address_of(config, path)), path) for path in paths]
    files = [
        InputFile(one.place, one.name, config.kind, one.bytes, estimated=True)
        for one in guessed(asked("pages.common_crawl", places))
    ]
    size = sum(file.bytes for file in files)
    progress(f"{len(files)} {config.kind.upper()} files of {config.crawl}, about {size / 1e9:,.2f} GB, are streamed")
    return files


def chosen(paths: list[str], config: CommonCrawlPages) -> list[str]:
    """Return the selected files in the order of the list. Raises UsageError if the list is too short."""
    places = range(config.first_file, len(paths))
    if config.files > len(places):
        raise UsageError(
            f"pages.common_crawl.files is {config.files}, but {config.crawl} has {len(paths)} {config.kind.upper()} "
            f"files, {len(places)} of them from first_file = {config.first_file} on. Ask for fewer."
        )
    if config.choice == "first":
        picked = list(places[: config.files])
    elif config.choice == "spread":
        picked = [places[number * len(places) // config.files] for number in range(config.files)]
    else:  # by hash: the same on every machine; a larger number only adds files
        order = lambda place: hashlib.sha256(f"{config.seed}/{place}".encode()).digest()
        picked = sorted(sorted(places, key=order)[: config.files])
    return [paths[place] for place in picked]


def fetch_all(wanted: dict[str, Path], threads: int, progress: Callable[[str], None]) -> None:
    """Download each URL to its path in several threads; `progress` is called only in the caller's thread.

    If the server does not have a file, the others are still downloaded; any other failure stops all downloads. Raises
    InputError.
    """
    missing = {url: place for url, place in wanted.items() if not place.is_file()}
    jobs: queue.SimpleQueue[tuple[str, Path]] = queue.SimpleQueue()
    ended: queue.SimpleQueue[tuple[Path, Exception | None]] = queue.SimpleQueue()
    for job in missing.items():
        jobs.put(job)
    stop = threading.Event()

    def work() -> None:
        with contextlib.suppress(queue.Empty):
            while not stop.is_set():
                url, place = jobs.get_nowait()
                try:
                    fetch_file(Url(url), place, stop)
                    ended.put((place, None))
                except Exception as error:
                    ended.put((place, error))

    # Daemon threads: one that waits for an unresponsive server must not keep the process from exiting.
    workers = [threading.Thread(target=work, daemon=True) for _ in range(min(threads, len(missing)))]
    for worker in workers:
        worker.start()
    absent = []
    try:
        for number in range(1, len(missing) + 1):
            place, error = ended.get()
            if isinstance(error, FileNotFoundError):
                absent.append(f"  {error.filename}")
            elif error is not None:
                raise InputError(f"{error}\nWhat has come is kept, and the same command goes on from there.") from error
            else:
                progress(f"{place.name} is here; {len(wanted) - len(missing) + number - len(absent)} of {len(wanted)}")
    finally:
        stop.set()
        for worker in workers:
            worker.join(SECONDS_TO_STOP)
    if absent:
        raise InputError(
            f"{len(absent)} of {len(wanted)} files are not on the server, the others are here and kept:\n"
            + "\n".join(absent)
            + "\nTry again later by the same command, or choose other files (pages.common_crawl.first_file, choice)."
        )


def fetch_file(url: Url, path: Path, stop: threading.Event) -> None:
    """Download one file. If `stop` is set, the partial download stays in PATH.part; the next call resumes it if the
    version in PATH.part.json is unchanged on the server.

    Raises FileNotFoundError, StorageError, or InputError if the disk is full or not writable.
    """
    part, told = (path.with_name(path.name + ending) for ending in (".part", ".part.json"))
    version = url.surely()
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        same = version.etag and told.is_file() and told.read_bytes() == json.dumps(version).encode()
        if not same or (part.is_file() and part.stat().st_size > version.size):
            part.unlink(missing_ok=True)
            write_atomically(told, json.dumps(version))
        with part.open("ab") as file, url.stream(version) as stream:
            lacking, free = version.size - file.tell(), shutil.disk_usage(path.parent).free
            if lacking > free:
                raise InputError(
                    f"{path.name} still needs {lacking / 1e9:.2f} GB, but {path.parent} has {free / 1e9:.2f} GB free. "
                    "Make room, fetch fewer files, or give a --workdir on a larger disk."
                )
            stream.seek(file.tell())
            while piece := stream.read(PIECE):
                if stop.is_set():
                    return
                file.write(piece)
        sync(part)
        part.replace(path)
        told.unlink()


def address_of(config: CommonCrawlPages, path: str) -> str:
    return f"{config.address.rstrip('/')}/{path}"


def listed(config: CommonCrawlPages, out: Path, kind: str = "", paths: re.Pattern[str] = PATH) -> list[str]:
    """Return the paths of all files of a kind in the crawl. Raises UsageError that suggests similar crawls if it does
    not exist, InputError if the list is damaged."""
    kind = kind or config.kind
    path = out / LISTS / f"{config.crawl}-{kind}.paths.gz"
    url = address_of(config, f"crawl-data/{config.crawl}/{kind}.paths.gz")
    try:
        if not path.is_file():
            with appearing(path) as partial:
                stores.download(url, partial)
    except FileNotFoundError as error:
        raise UsageError(
            f"There is no crawl {config.crawl} with {kind.upper()} files: {url} is not there.{known_crawls(config)} "
            "Mend pages.common_crawl.crawl."
        ) from error
    try:
        with gzip.open(path) as file:
            lines = file.read(MAX_LIST_BYTES).decode("ascii").split()
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        path.unlink(missing_ok=True)
        raise InputError(f"{url} is damaged: {error}. Try again, or mend pages.common_crawl.address.") from error
    strange = [line for line in lines if not paths.fullmatch(line) or ".." in line.split("/")]
    if strange or not lines:
        path.unlink(missing_ok=True)
        raise InputError(
            f"{url} is no list of a crawl's files: it has {strange[0][:200]!r} in it."
            if strange
            else f"{url} lists no file."
        )
    return lines


def known_crawls(config: CommonCrawlPages) -> str:
    """Return a sentence with the most similar names of crawls; empty if the list of crawls cannot be downloaded."""
    import requests

    try:
        answer = requests.get(config.crawls_address, timeout=30)
        answer.raise_for_status()
        ids = [entry["id"] for entry in answer.json()]
        near = difflib.get_close_matches(config.crawl, ids, n=4, cutoff=0.0)
    except (requests.RequestException, ValueError, KeyError, TypeError):
        return ""
    return f" Most like it are: {', '.join(near)}." if near else ""
