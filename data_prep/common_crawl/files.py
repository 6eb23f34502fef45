"""Files of one crawl of Common Crawl, chosen by number: listed by their addresses, for whoever reads them streams
them; or, if asked, fetched over HTTPS first, several at once.

A crawl lists its files in crawl-data/<crawl>/warc.paths.gz (wet.paths.gz), one path a line; each path is an address
below the same server. Whole files are kept when a run is interrupted, and half ones are gone on with (download.py).
"""

import hashlib
import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path

from data_prep.common_crawl.download import Client, StoppedError, fetch_file
from data_prep.common_crawl.index import chosen_records
from data_prep.common_crawl.paths import address_of, listed, policy_of
from data_prep.config.pages import CommonCrawlPages, PagesConfig
from data_prep.sources.listing import Listed, asked, guessed
from data_prep.sources.manifest import InputFile
from lm.errors import InputError, UsageError
from lm.storage import Url
from lm.storage.http import NotThereError, RetryPolicy

SECONDS_BETWEEN_NEWS = 15.0
SECONDS_TO_STOP = 1.0


def fetch(config: PagesConfig, out: Path, progress: Callable[[str], None]) -> tuple[list[InputFile], list[dict]]:
    """The crawl's files, or those of its records that the index chooses. Raises as `crawl_files`."""
    crawl = config.common_crawl
    if crawl.index.asked:
        return chosen_records(crawl, out, progress), []
    return (crawl_files if crawl.download else streamed_files)(crawl, out, progress), []


def inputs(config: PagesConfig) -> list[Listed]:
    """None of yours."""
    return []


def crawl_files(config: CommonCrawlPages, out: Path, progress: Callable[[str], None]) -> list[InputFile]:
    """Brings the chosen files to out/pages/, in the order of the crawl's list; whole ones that are there stay.

    Documents call each by its path on the server. Raises UsageError when there is no such crawl or too few files,
    InputError when files cannot be fetched: then what has come is kept for the next try.
    """
    policy = policy_of(config)
    paths = chosen(listed(config, out, progress), config)
    wanted = {path: out / "pages" / path.rpartition("/")[2] for path in paths}
    if len(set(wanted.values())) < len(paths):
        raise InputError(f"Two of the files of {config.crawl} have the same name. Choose others (first_file, seed).")
    there = sum(place.is_file() for place in wanted.values())
    progress(f"{len(paths)} {config.kind.upper()} files of {config.crawl}, {there} of them are here already")
    fetch_all({address_of(config, path): place for path, place in wanted.items()}, config, policy, progress)
    return [InputFile(place, path, config.kind, place.stat().st_size) for path, place in wanted.items()]


def streamed_files(config: CommonCrawlPages, out: Path, progress: Callable[[str], None]) -> list[InputFile]:
    """The chosen files by their addresses, in the order of the crawl's list: whoever reads one streams it. A crawl's
    files stay as they are, so size and ETag are no part of what identifies one. Raises as `crawl_files`."""
    paths = chosen(listed(config, out, progress), config)
    places = [Listed(Url(address_of(config, path)), path, None) for path in paths]
    files = [
        InputFile(one.place, one.name, config.kind, one.bytes, estimated=True)
        for one in guessed(asked("pages.common_crawl", places))
    ]
    size = sum(file.bytes for file in files)
    progress(f"{len(files)} {config.kind.upper()} files of {config.crawl}, about {size / 1e9:,.2f} GB, are streamed")
    return files


def chosen(paths: list[str], config: CommonCrawlPages) -> list[str]:
    """The files to fetch, in the list's order. Raises UsageError when the list is too short."""
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
    else:  # by hash: the same on every machine, and with more files the same ones and others
        order = lambda place: hashlib.sha256(f"{config.seed}/{place}".encode()).digest()
        picked = sorted(sorted(places, key=order)[: config.files])
    return [paths[place] for place in picked]


def fetch_all(
    wanted: dict[str, Path], config: CommonCrawlPages, policy: RetryPolicy, progress: Callable[[str], None]
) -> None:
    """Brings every address to its place, `config.downloads` at once; `progress` is called by this thread alone.

    A file that the server does not have does not keep the others from coming; any other failure stops them, for it is
    the network's or the disk's. Raises InputError that says how much is kept.
    """
    missing = {url: place for url, place in wanted.items() if not place.is_file()}
    news: queue.SimpleQueue[tuple[Path | None, str | BaseException | None]] = queue.SimpleQueue()
    client = Client(policy, lambda line: news.put((None, line)))
    client.waiting_files = len(missing)
    jobs: queue.SimpleQueue[tuple[str, Path]] = queue.SimpleQueue()
    for job in missing.items():
        jobs.put(job)

    def work() -> None:
        while True:
            try:
                url, place = jobs.get_nowait()
            except queue.Empty:
                return
            try:
                fetch_file(url, place, client)
                news.put((place, None))
            except StoppedError:
                return
            except BaseException as error:
                news.put((place, error))

    # Daemons: a thread that waits for a silent server must not keep the process from ending.
    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(config.downloads, len(missing)))]
    for thread in threads:
        thread.start()
    try:
        absent = await_all(len(missing), len(wanted), news, client, progress)
    finally:
        client.stop.set()
        deadline = time.monotonic() + SECONDS_TO_STOP
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
    if absent:
        raise InputError(
            f"{len(absent)} of {len(wanted)} files are not on the server, the others are here and kept:\n"
            + "\n".join(f"  {error}" for error in absent)
            + "\nTry again later by the same command, or choose other files (pages.common_crawl.first_file, choice)."
        )


def await_all(
    missing: int,
    wanted: int,
    news: "queue.SimpleQueue[tuple[Path | None, str | BaseException | None]]",
    client: Client,
    progress: Callable[[str], None],
) -> list[NotThereError]:
    """Waits for `missing` files of `wanted`, and tells how far they are. The errors of those that do not exist.

    Raises any other error as it comes.
    """
    absent: list[NotThereError] = []
    ended, began, next_news = 0, time.monotonic(), time.monotonic() + SECONDS_BETWEEN_NEWS
    while ended < missing:
        try:
            place, what = news.get(timeout=max(0.01, next_news - time.monotonic()))
        except queue.Empty:
            place, what = None, "fetching"
            next_news = time.monotonic() + SECONDS_BETWEEN_NEWS
        ended += place is not None
        if isinstance(what, NotThereError):
            absent.append(what)
        elif isinstance(what, BaseException):
            raise what
        seconds = max(time.monotonic() - began, 1e-3)
        told = f"{client.received / 1e6:,.1f} MB, {client.received / 1e6 / seconds:,.1f} MB/s"
        here = f"{wanted - missing + ended - len(absent)} of {wanted} files"
        if place and not absent:
            progress(f"{place.name} is here; {here}, {told}")
        else:
            progress(str(what) if what != "fetching" else f"{here}, {told}")
    return absent
