"""Request ranges of shards in a bucket before the steps that use them.

The order of the windows, and therefore of the records, is known in advance. Steps are planned in parts: the records of
a part are sorted, neighbors are merged into runs, and each run is one GET. The current and the next part are held in
memory; nothing is written to disk.
"""

import contextlib
import queue
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError

import numpy as np

from lm.data.shards import RUN_BYTES, Run, ShardRecords
from lm.errors import UsageError

REQUESTS = 64
"""Maximum number of concurrent requests."""
WINDOWS_AHEAD = 1024
"""Target number of windows in a part, rounded up to whole blocks (train.shuffle_block); fewer if they exceed
PART_BYTES."""
GAP_BYTES = 2**16
"""Maximum gap in bytes between two records that one request may span; the bytes in the gap are discarded. Gaps occur if
a part begins or ends inside a block."""
PART_BYTES = 500 * 10**6
"""Maximum bytes of a part; three parts are briefly in memory when one ends."""

Wanted = list[tuple[ShardRecords, np.ndarray, np.ndarray]]
"""For each source: (its records, numbers of the wanted records, step of each relative to the part)."""
Request = tuple[ShardRecords, int, int, Future[Run]]
"""(records, first record, end, future that gets the run)"""
Part = dict[tuple[int, int], Future[Run]]
"""{(ShardRecords.owner, record number): future of the run that contains the record}"""


class ReadAhead:
    """Requests records in buckets before steps `first_step` to `stop_step` - 1 need them. Each part of `steps`
    consecutive steps is requested at once (see `steps_of_part`).

    `wanted(begin, end)` returns the records in buckets that steps `begin` to `end` - 1 need. With `in_blocks`
    (train.shuffle_block > 1), a request may also cover short gaps between records.
    """

    def __init__(
        self, wanted: Callable[[int, int], Wanted], steps: int, in_blocks: bool, first_step: int, stop_step: int
    ):
        self.wanted, self.steps, self.first_step, self.stop_step = wanted, steps, first_step, stop_step
        self.gap_bytes = GAP_BYTES if in_blocks else 0
        self.parts: dict[int, Part] = {}
        self.lock = threading.Lock()
        self.requests, self.stopped = queue.SimpleQueue[Request | None](), list[bool]()
        self.pending = set[Future[Run]]()
        """Requests that `close` cancels; otherwise a loader thread could wait for one forever."""
        for _ in range(REQUESTS):
            # Daemon threads: an unresponsive server must not keep the process alive.
            threading.Thread(target=work, args=(self.requests, self.pending), name="read-ahead", daemon=True).start()
        self.close = weakref.finalize(self, stop, self.requests, self.pending, self.stopped)
        """Stops the requests; also called when the object is garbage-collected."""

    def part(self, step: int) -> Part:
        """Return the requests of the part that contains `step`; starts them, and those of the next part, if
        necessary."""
        number = step // self.steps
        with self.lock:
            for one in (number, number + 1):
                if one not in self.parts:
                    self.parts[one] = self.plan(one)
            # Loader threads may still be reading the previous part.
            for old in [one for one in self.parts if one < number - 1]:
                del self.parts[old]
            return self.parts[number]

    def plan(self, number: int) -> Part:
        """Start the requests of part `number` (those of the earliest steps first) and return them."""
        begin, end = max(number * self.steps, self.first_step), (number + 1) * self.steps
        end = min(end, self.stop_step)
        part: Part = {}
        runs = []
        for records, numbers, steps in self.wanted(begin, end) if begin < end else ():
            for first, last, step in runs_of(records, numbers, steps, self.gap_bytes):
                future = Future[Run]()
                part.update(dict.fromkeys(((records.owner, index) for index in range(first, last)), future))
                runs.append((step, records, first, last, future))
        for _, records, first, last, future in sorted(runs, key=lambda run: run[0]):
            self.pending.add(future)
            self.requests.put((records, first, last, future))
            if self.stopped:
                future.cancel()
        return part


def steps_of_part(windows: int, shuffle_block: int, steps_in_blocks: int, stored_bytes: int) -> int:
    """Return how many steps to request at once, a multiple of `steps_in_blocks`, for a process that reads `windows`
    windows of `stored_bytes` bytes per step. Raises UsageError if the blocks do not fit into memory."""
    blocks = windows * steps_in_blocks
    if blocks * stored_bytes > PART_BYTES and shuffle_block > 1:
        fitting = max(PART_BYTES * shuffle_block // (blocks * stored_bytes), 1)
        raise UsageError(
            f"train.shuffle_block = {shuffle_block} x {blocks // shuffle_block} blocks of this process x "
            f"{stored_bytes:,} bytes of a window take {blocks * stored_bytes:,} bytes of memory; {PART_BYTES:,} is "
            f"the limit. Lower train.shuffle_block to {fitting}, or use more processes."
        )
    most = max(PART_BYTES // (blocks * stored_bytes), 1)
    return steps_in_blocks * min(-(-WINDOWS_AHEAD // blocks), most)


def runs_of(
    records: ShardRecords, numbers: np.ndarray, steps: np.ndarray, gap_bytes: int
) -> list[tuple[int, int, int]]:
    """Merge records of a shard into runs, each read by one request; gaps of up to `gap_bytes` are read too. Return
    (first record, end, first step that needs it) of each run. steps[i] is the step that needs record numbers[i]."""
    order = np.lexsort((steps, numbers))
    numbers, steps = numbers[order], steps[order]
    kept = np.diff(numbers, prepend=-1) != 0
    numbers, steps = numbers[kept], steps[kept]
    if not len(numbers):
        return []
    stored = max(records.stored_bytes(), 1)
    shards = np.searchsorted(records.first, numbers, side="right")
    starts = np.diff(numbers, prepend=-1) > 1 + gap_bytes // stored
    starts |= np.diff(shards, prepend=-1) != 0
    starts[0] = True
    begins = np.flatnonzero(starts)
    lengths, longest = np.diff(begins, append=len(numbers)), max(RUN_BYTES // stored, 1)
    begins = np.concatenate([np.arange(b, b + n, longest) for b, n in zip(begins, lengths, strict=True)])
    ends = np.append(begins[1:], len(numbers))
    first_steps = np.minimum.reduceat(steps, begins)
    return list(zip(numbers[begins].tolist(), (numbers[ends - 1] + 1).tolist(), first_steps.tolist(), strict=True))


def work(requests: queue.SimpleQueue[Request | None], pending: set[Future[Run]]) -> None:
    """Run requests from the queue and set the results of their futures, until the queue yields None."""
    while (request := requests.get()) is not None:
        records, first, last, future = request
        del request
        with contextlib.suppress(InvalidStateError):  # cancelled meanwhile
            try:
                if not future.cancelled():
                    future.set_result(records.read_run(first, last))
            except InvalidStateError:
                raise
            except BaseException as error:
                future.set_exception(error)
        pending.discard(future)
        del records, future


def stop(requests: queue.SimpleQueue[Request | None], pending: set[Future[Run]], stopped: list[bool]) -> None:
    """Cancel pending requests and stop the threads. As a finalizer, this can run in a thread that holds a lock, so it
    takes only reentrant ones."""
    stopped.append(True)
    for future in pending.copy():
        future.cancel()
    for _ in range(REQUESTS):
        requests.put(None)
