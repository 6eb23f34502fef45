"""Nodes of the graph of documents, and files of the keys by which they meet."""

import contextlib
import hashlib
from array import array
from collections.abc import Callable, Generator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from data_prep.dedup.sorted_runs import writing_run_file

PAIRS_AT_ONCE = 1 << 20
"""Pairs of a key and a node that are sorted in memory, 32 bytes each."""
Node = tuple[int, int]
"""A document as two words of 64 bits: when it was fetched, then a hash of its id (32 bits each); where it stands, its
file's number (`file_numbers`), then its row (32 bits each). The smallest node of a cluster stays."""
LOW_WORD = 2**32 - 1
UNKNOWN_DATE = 2**32 - 1


def make_node(date: str, document_id: str, file: int, row: int) -> Node:
    """The node of the document in `row` of the input file of number `file`.

    Nodes are ordered by the date (ISO 8601, to the second; one that cannot be read comes last), then by a hash of the
    id, and only for the same document read twice by place: who stays does not depend on the order of the files.
    """
    digest = hashlib.blake2b(document_id.encode("utf-8", "surrogatepass"), digest_size=4).digest()
    return seconds_since_1970(date) << 32 | int.from_bytes(digest, "little"), file << 32 | row


def file_numbers(names: Sequence[str]) -> dict[str, int]:
    """A number of 32 bits for each file: a hash of its name, of those that collide the next that is free, in the order
    of the names. So a file keeps its number when others come or go, hardly one excepted."""
    numbers, taken = {}, set[int]()
    for name in sorted(names):
        number = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=4).digest(), "little")
        while number in taken:
            number = (number + 1) % 2**32
        numbers[name] = number
        taken.add(number)
    return numbers


def seconds_since_1970(date: str) -> int:
    """Of an ISO 8601 date, in UTC unless it says otherwise, within 32 bits; UNKNOWN_DATE for one that is none."""
    try:
        moment = datetime.fromisoformat(date)
    except ValueError:
        return UNKNOWN_DATE
    moment = moment.replace(tzinfo=moment.tzinfo or UTC)
    return min(max(int(moment.timestamp()), 0), UNKNOWN_DATE - 1)


@contextlib.contextmanager
def writing_pairs(path: Path, scratch: Path | None = None) -> Generator[Callable[[Sequence[bytes], Node], None]]:
    """Gives what adds the keys (of 16 bytes, evenly spread as hashes are) of a node to a file for `find_duplicates`.

    The file appears whole at the end. Raises InputError when the disk does not take it.
    """
    waiting, nodes = bytearray(), array("Q")
    with writing_run_file(path, scratch) as add_run:

        def flush() -> None:
            halves = [np.frombuffer(waiting, ">u8").reshape(-1, 2), np.frombuffer(nodes, np.uint64).reshape(-1, 2)]
            add_run(np.concatenate(halves, axis=1).astype(np.uint64).T)

        def add(keys: Sequence[bytes], node: Node) -> None:
            waiting.extend(b"".join(keys))
            nodes.extend(node * len(keys))
            if len(nodes) >= 2 * PAIRS_AT_ONCE:
                flush()
                waiting.clear()
                del nodes[:]

        yield add
        flush()
