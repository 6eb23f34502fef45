"""Compare the shards on disk with their SHA-256 while training runs."""

import contextlib
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax

from lm.data.verify_shards import known_shards, verify_shards
from lm.errors import InputError
from lm.resilience.multihost import collect, fail_together, settle
from lm.storage import Place, write_json

WAIT_SECONDS = 60.0
"""Seconds that the first step waits for the result; enough for about 100 GB per process."""


class ShardVerification:
    """Compares shards on disk with their SHA-256 in a background thread; each process reads a part of the shards.

    `splits` are (folder of shards, split) pairs; folders in buckets are not verified. Intact shards are recorded in the
    file `note`, so the next start does not read them again.
    """

    def __init__(self, splits: Iterable[tuple[Place, str]], note: Path, stack: contextlib.ExitStack):
        self.note, self.finished = note, False
        local = [(folder, split) for folder, split in splits if isinstance(folder, Path)]
        given_up = threading.Event()
        pool = stack.enter_context(ThreadPoolExecutor(1, "verify"))
        stack.callback(given_up.set)
        share = jax.process_index(), jax.process_count()
        self._verified = pool.submit(verify_shards, local, share, given_up, known_shards(note))

    def check(self, wait_seconds: float = 0.0) -> None:
        """Wait up to `wait_seconds` for the result. Raises InputError in all processes if one of them has found a
        damaged shard. All processes must call this at the same steps."""
        error, whole = None, None
        try:
            whole = self._verified.result(wait_seconds)
        except TimeoutError:
            pass
        except InputError as raised:
            error = raised
        fail_together("shards", error)
        self.finished = settle("verified", whole is not None, all)
        if self.finished:
            parts = collect("whole shards", whole)
            if jax.process_index() == 0 and any(parts):
                with contextlib.suppress(OSError):  # the next start reads them again
                    write_json(self.note, {path: stamp for part in parts for path, stamp in part.items()})
