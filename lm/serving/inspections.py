"""POST /v1/inspect/NAME: inspections of a model and its run. See docs/inspect.md.

An inspection is a function of the fields of a JSON object, and runs in a thread. Inspections in the same lane run one
at a time, which bounds their memory and protects shared state; different lanes run in parallel. Work that takes
seconds, such as compilation, moves to another lane (Fields.change_lane), so that others need not wait for it.
"""

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from lm.errors import InputError, UsageError
from lm.serving.answers import to_json
from lm.serving.fields import ApiError, Cancelled, Fields, parse_object
from lm.serving.http import JSON, json_answer, read_body, unless_disconnected
from lm.serving.protocol import Limits

RETRY_SECONDS = 1


@dataclass(frozen=True)
class Inspection:
    """A kind of inspection that clients can request by name."""

    name: str
    known: tuple[str, ...]
    """Fields of the JSON object."""
    answer: Callable[[Fields], Mapping[str, object]]
    """Called in a thread. May raise ApiError; UsageError becomes 400 and InputError 404. Work of more than a second
    should call Fields.check_cancelled periodically, and Fields.change_lane before anything that cannot be
    interrupted."""
    about: str
    """One-line description for the list."""
    lane: str = ""
    """Inspections in the same lane run one at a time; by default each has its own lane, by its name."""


class InspectRoutes:
    """HTTP endpoints of the inspections, and the threads and lanes that they run in."""

    def __init__(self, inspections: Iterable[Inspection], limits: Limits):
        self.inspections = {one.name: one for one in inspections}
        self.limits = limits
        self.threads = concurrent.futures.ThreadPoolExecutor(limits.max_inspections, "inspect")
        """One thread per waiting inspection, so that waiting for one lane does not block others."""
        self.lanes: dict[str, threading.Lock] = {}
        self.doings: dict[threading.Event, str] = {}
        """{event of a running inspection, set when its client disconnects: description} of long-running work."""
        self.waiting, self.closed = 0, False

    async def list(self, request: Request) -> Response:
        """Answer GET /v1/inspect: the names, fields and descriptions of all inspections."""
        shown = [{"name": one.name, "fields": one.known, "about": one.about} for one in self.inspections.values()]
        return json_answer({"object": "list", "data": shown, "doing": self.doing()})

    async def ask(self, request: Request) -> Response:
        """Answer POST /v1/inspect/NAME. Raises ApiError 404 for an unknown name, 429 if too many wait."""
        name = request.path_params["name"]
        inspection = self.inspections.get(name)
        if inspection is None:
            known = ", ".join(self.inspections)
            raise ApiError(404, f"There is no inspection {name!r} here. Known: {known}.", "name", "not_found")
        body = await read_body(request, self.limits.max_body_bytes, self.limits.read_seconds)
        if self.waiting >= self.limits.max_inspections:
            raise ApiError(
                429, f"{self.waiting:,} inspections are waiting, which is the limit. Try again later.",
                code="queue_full", headers={"Retry-After": str(RETRY_SECONDS)},
            )  # fmt: skip
        self.waiting += 1
        left = threading.Event()
        """Set when the client disconnects: pending work does not start, and long work stops."""
        try:
            job = asyncio.get_running_loop().run_in_executor(self.threads, self.answer_of, inspection, body, left)
            return Response(await unless_disconnected(request.receive, finished(job)), media_type=JSON)
        except (ClientDisconnect, asyncio.CancelledError):
            left.set()
            raise
        finally:
            self.waiting -= 1

    def answer_of(self, inspection: Inspection, body: bytes, left: threading.Event) -> bytes:
        """Run an inspection, in a thread, and return its JSON; b"" if the client has disconnected (`left`). Raises
        ApiError: 400 for wrong fields, 404 if the run lacks what they ask for."""
        lane = self.lanes.setdefault(inspection.lane or inspection.name, threading.Lock())

        def change_lane(name: str, text: str) -> None:
            nonlocal lane
            if left in self.doings:
                return
            self.doings[left] = ""
            lane.release()  # first: never hold one lane while waiting for another
            lane = self.lanes.setdefault(name, threading.Lock())
            lane.acquire()
            self.doings[left] = text
            if left.is_set() or self.closed:
                raise Cancelled

        lane.acquire()
        try:
            if left.is_set() or self.closed:
                return b""
            fields = Fields(parse_object(body or b"{}"), inspection.known, left, change_lane)
            return to_json(inspection.answer(fields))
        except Cancelled:
            return b""
        except UsageError as error:
            raise ApiError(400, str(error), code="invalid_value") from error
        except InputError as error:
            raise ApiError(404, str(error), code="not_found") from error
        finally:
            self.doings.pop(left, None)
            lane.release()

    def doing(self) -> str:
        """Return the description of a long-running inspection's work, for waiting clients; "" if there is none."""
        return next(filter(None, list(self.doings.values())), "")

    def close(self) -> None:
        """Start no more inspections."""
        self.closed = True
        self.threads.shutdown(wait=False, cancel_futures=True)


async def finished(job: asyncio.Future[bytes]) -> bytes:
    return await job
