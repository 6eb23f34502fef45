"""The right of one process to write what lies below an address, held by an object there and renewed while it works.

It rests on two promises of stores: an object is written only in place of the version that was read, and of two that try
at once, one is refused. A process that was killed no longer renews it: another sees the object unchanged for
GRISTMILL_LEASE_SECONDS, and takes it over. No clock is compared with another's.
"""

import json
import os
import secrets
import threading
import time
from typing import Any

from lm.errors import InputError, UsageError
from lm.storage import objects
from lm.storage.objects import Object, StorageError
from lm.storage.url import Url


def lease_seconds() -> float:
    """GRISTMILL_LEASE_SECONDS, by default 90. Raises UsageError where that is not a number above 0."""
    given = os.environ.get("GRISTMILL_LEASE_SECONDS") or "90"
    try:
        seconds = float(given)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 86_400:
        raise UsageError(f"GRISTMILL_LEASE_SECONDS is {given!r}; give a number of seconds, or leave it out.")
    return seconds


class Lease:
    """Of the process that has taken it, until it is released."""

    def __init__(self, place: Url, holder: str):
        """`holder` names the working copy: processes in the same copy go on with each other's work."""
        self.place, self.holder, self.seconds = place, holder, lease_seconds()
        self.process = secrets.token_hex(8)
        self.version: Object | None = None
        self.renewed = 0.0
        self.lock = threading.Lock()

    def read(self) -> tuple[Object, dict[str, Any]]:
        """(the version that is there, or ABSENT; what it says)."""
        found = objects.head(self.place.address)
        if found is None:
            return objects.ABSENT, {}
        try:
            return found, dict(json.loads(objects.read(self.place.address, etag=found.etag)))
        except (ValueError, TypeError):
            return found, {}

    def write(self, held: bool, instead_of: Object) -> None:
        """Raises InputError where another has written it."""
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        note = {"holder": self.holder, "process": self.process, "host": os.uname().nodename, "number": os.getpid()}
        note |= {"held": held, "beat": secrets.token_hex(4)}
        try:
            self.version = objects.write(self.place.address, json.dumps(note).encode(), instead_of)
        except (AlreadyExistsError, PreconditionError) as error:
            there, said = self.read()
            if (said.get("holder"), said.get("process")) != (self.holder, self.process):
                self.version = None
                raise InputError(self.taken(said)) from error
            self.version = there  # this process wrote it, and the answer was lost
            if said != note:  # and an earlier note at that
                self.write(held, there)
        self.renewed = time.monotonic()

    def taken(self, said: dict[str, Any]) -> str:
        return (
            f"Another process ({said.get('number', '?')} on {said.get('host', 'an unknown host')}) is at work in "
            f"{self.place.parent}. Wait for it to end, or give another place with --workdir."
        )

    def take(self) -> str | None:
        """Who held it last; None where nobody has. Raises InputError when another process holds it, and lives."""
        there, said = self.read()
        if said.get("held") and said.get("holder") != self.holder:
            print(
                f"storage: process {said.get('number')} on {said.get('host')} was at work in {self.place.parent}, and "
                f"did not say that it has ended; looking for {self.seconds:g} s whether it lives",
                flush=True,
            )
            end = time.monotonic() + self.seconds
            while time.monotonic() < end:
                time.sleep(min(self.seconds / 20, 5.0))
                if objects.head(self.place.address) != there:
                    raise InputError(self.taken(said))
        self.write(True, there)
        return said.get("holder")

    def beat(self) -> None:
        """Renews it. Raises InputError when another process has taken it, StorageError where that cannot be known."""
        with self.lock:
            if self.version is None:
                raise StorageError(f"{self.place.parent} was taken over by another process: nothing is written there.")
            self.write(True, self.version)

    def check(self) -> None:
        """Before something is written: renews it where that was not done for long. Raises as `beat`."""
        if self.version is None or time.monotonic() - self.renewed > self.seconds / 2:
            self.beat()

    def release(self) -> None:
        with self.lock:
            if self.version is not None:
                self.write(False, self.version)
                self.version = None
