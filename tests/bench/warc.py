"""How fast WARC files are read, against FastWARC in the same run, on one core.

    python -m tests.bench.warc [FILE.warc.gz …]

Prints one JSON line a file: records per CPU second of `read_pages`, and of FastWARC asked for the same (block digests
of responses checked, HTTP parsed, HTML bodies read), and of both asked for the records alone; medians of runs that
alternate. Damage, which FastWARC does not survive, is not part of it.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from data_prep.warc import read_pages
from data_prep.warc.byte_sources import FileBytes
from data_prep.warc.records import RecordReader

SHARED = Path(__file__).parents[2] / "../shared/data"
FILES = ("warc/warcfile.warc.gz", "warc/sample-0000.warc.gz", "extraction/aeb.warc.gz")
RUNS = 9
ENOUGH_BYTES = 5_000_000  # a smaller file is repeated


def our_pages(path: str) -> None:
    for _ in read_pages(path):
        pass


def our_records(path: str) -> int:
    with Path(path).open("rb", buffering=0) as file:
        return sum(1 for _ in RecordReader(FileBytes(file), print).records())


def fastwarc_pages(path: str) -> None:
    from fastwarc.warc import ArchiveIterator, WarcRecordType

    for record in ArchiveIterator(path, parse_http=False, fsspec_args=False):
        if record.record_type == WarcRecordType.response and record.verify_block_digest():
            record.parse_http()
            if record.http_content_type == "text/html":
                record.reader.read()


def fastwarc_records(path: str) -> None:
    from fastwarc.warc import ArchiveIterator

    for _ in ArchiveIterator(path, parse_http=True, fsspec_args=False):
        pass


READERS: dict[str, Callable[[str], object]] = {
    "pages_records_per_second": our_pages,
    "fastwarc_pages_records_per_second": fastwarc_pages,
    "records_per_second": our_records,
    "fastwarc_records_per_second": fastwarc_records,
}


def measured(path: Path, folder: Path) -> dict:
    content = path.read_bytes()
    copy = folder / "copy.warc.gz"
    copy.write_bytes(content * (1 + ENOUGH_BYTES // len(content)))
    records = our_records(str(copy))
    seconds: dict[str, list[float]] = {name: [] for name in READERS}
    for _ in range(RUNS):
        for name, reader in READERS.items():
            begun = time.process_time()
            reader(str(copy))
            seconds[name].append(time.process_time() - begun)
    rates = {name: round(records / statistics.median(times)) for name, times in seconds.items()}
    ratios = {
        "pages_ratio": rates["pages_records_per_second"] / rates["fastwarc_pages_records_per_second"],
        "records_ratio": rates["records_per_second"] / rates["fastwarc_records_per_second"],
    }
    return {"file": path.name, "records": records, **rates, **{name: round(r, 2) for name, r in ratios.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, help="WARC files (default: those of ../shared)")
    files = parser.parse_args().files or [SHARED / name for name in FILES if (SHARED / name).is_file()]
    if not files:
        print(json.dumps({"bench": "warc", "skipped": "no file given, and ../shared/data is not here"}))
    with tempfile.TemporaryDirectory() as folder:
        for path in files:
            print(json.dumps({"bench": "warc", **measured(path, Path(folder))}), flush=True)


if __name__ == "__main__":
    main()
