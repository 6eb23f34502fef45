"""Lease: the right of one process to write to an address. It is an object, which that process renews while it runs.

Leases rely on conditional writes: the store writes an object only if it is still the version that was read, so of two
writers one is refused. If a holder is killed, another process takes over after the object has not changed for
GRISTMILL_LEASE_SECONDS. Clocks of different machines are never compared.
"""

import json
import os
import secrets
import threading
import time
from typing import Any

from lm.errors import InputError
from lm.storage import objects
from lm.storage.objects import Object, StorageError
from lm.storage.url import Url


def lease_seconds() -> float:
    """Return GRISTMILL_LEASE_SECONDS, by default 90. Raises UsageError like `setting`."""
    return objects.setting("GRISTMILL_LEASE_SECONDS", 90, 0.01)


class Lease:
    """Right of this process to write to a run in a bucket, from `take` to `release`. An object names the holder."""

    def __init__(self, place: Url, holder: str):
        """`place` is the lease object. `holder` identifies the local folder of the run: another process with the same
        holder takes the lease over at once."""
        self.place, self.holder, self.seconds = place, holder, lease_seconds()
        self.process = secrets.token_hex(8)
        self.version: Object | None = None
        self.renewed = 0.0
        self.lock = threading.Lock()

    def read(self) -> tuple[Object, dict[str, Any]]:
        """Return (metadata of the lease object, its contents), or (ABSENT, {}) if there is none."""
        found = objects.head(self.place.address)
        if found is None:
            return objects.ABSENT, {}
        try:
            return found, dict(json.loads(objects.read(self.place.address, version=found)))
        except (ValueError, TypeError):
            return found, {}

    def write(self, held: bool, instead_of: Object) -> None:
        """Write the lease object if its current version is `instead_of`; `held` is False to release the lease. Raises
        InputError if another process has written the object."""
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        note = {"holder": self.holder, "process": self.process, "host": os.uname().nodename, "number": os.getpid()}
        note |= {"held": held, "beat": secrets.token_hex(4)}
        try:
            self.version = objects.upload(json.dumps(note).encode(), self.place.address, instead_of)
        except (AlreadyExistsError, PreconditionError) as error:
            there, found = self.read()
            if (found.get("holder"), found.get("process")) != (self.holder, self.process):
                self.version = None
                raise InputError(self.taken(found)) from error
            self.version = there  # this process wrote it, and the answer was lost
            if found != note:  # and an earlier note at that
                self.write(held, there)
        self.renewed = time.monotonic()

    def taken(self, found: dict[str, Any]) -> str:
        return (
            f"Another process ({found.get('number', '?')} on {found.get('host', 'an unknown host')}) is working in "
            f"{self.place.parent}. Wait for it to end, or give another --workdir."
        )

    def take(self) -> str | None:
        """Take the lease; return the previous holder, or None. If another holder has not released the lease, wait
        lease_seconds(), and raise InputError if that holder renews the lease meanwhile."""
        there, found = self.read()
        if found.get("held") and found.get("holder") != self.holder:
            print(
                f"storage: process {found.get('number')} on {found.get('host')} holds {self.place.parent} and did not "
                f"release it; waiting {self.seconds:g} s to see whether it is still running",
                flush=True,
            )
            end = time.monotonic() + self.seconds
            while time.monotonic() < end:
                time.sleep(min(self.seconds / 20, 5.0))
                if objects.head(self.place.address) != there:
                    raise InputError(self.taken(found))
        self.write(True, there)
        return found.get("holder")

    def beat(self) -> None:
        """Renew the lease. Raises InputError if another process has taken it, and StorageError from then on;
        StorageError also if the store does not answer."""
        with self.lock:
            if self.version is None:
                raise StorageError(
                    f"{self.place.parent} was taken over by another process. Run the command again when that ends."
                )
            self.write(True, self.version)

    def check(self) -> None:
        """Renew the lease if half of its duration is over; called before each write. Raises the errors of `beat`."""
        if self.version is None or time.monotonic() - self.renewed > self.seconds / 2:
            self.beat()

    def release(self) -> None:
        with self.lock:
            if self.version is not None:
                self.write(False, self.version)
                self.version = None
