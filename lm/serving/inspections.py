"""POST /v1/inspect/NAME: what can be asked of a model and its run, beside text. docs/inspect.md has them.

Each is a function of the fields of a JSON object. They run one at a time in a thread of their own: the event loop and
the Engine go on meanwhile.
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
from lm.serving.errors import ApiError
from lm.serving.fields import Fields, Unwanted, parse_object
from lm.serving.http import JSON, json_answer, read_body, unless_gone
from lm.serving.limits import Limits

RETRY_SECONDS = 1


@dataclass(frozen=True)
class Inspection:
    """One thing that can be asked."""

    name: str
    known: tuple[str, ...]
    """Fields of the JSON object."""
    answer: Callable[[Fields], Mapping[str, object]]
    """Called in a thread. May raise ApiError; UsageError and InputError are told as 400 and 404. What may take more
    than a second calls Fields.go_on now and then: all others wait for it."""
    about: str
    """One line for who asks for the list."""


class InspectRoutes:
    """The routes of inspections."""

    def __init__(self, inspections: Iterable[Inspection], limits: Limits):
        self.inspections = {one.name: one for one in inspections}
        self.limits = limits
        self.thread = concurrent.futures.ThreadPoolExecutor(1, "inspect")
        self.waiting = 0
        self.doing = ""
        """What the thread is at that takes long, in words; "" where nothing was said of it."""

    async def list(self, request: Request) -> Response:
        """GET /v1/inspect"""
        shown = [{"name": one.name, "fields": one.known, "about": one.about} for one in self.inspections.values()]
        return json_answer({"object": "list", "data": shown, "doing": self.doing})

    async def ask(self, request: Request) -> Response:
        """POST /v1/inspect/NAME. Raises ApiError: 404 for a name that is not there, 429 where too many wait."""
        name = request.path_params["name"]
        inspection = self.inspections.get(name)
        if inspection is None:
            known = ", ".join(self.inspections)
            raise ApiError(404, f"There is no inspection {name!r} here. Known: {known}.", "name", "not_found")
        body = await read_body(request, self.limits.max_body_bytes, self.limits.read_seconds)
        if self.waiting >= self.limits.max_inspections:
            raise ApiError(
                429, f"{self.waiting:,} inspections wait, as many as this server takes. Try again later.",
                code="queue_full", headers={"Retry-After": str(RETRY_SECONDS)},
            )  # fmt: skip
        self.waiting += 1
        left = threading.Event()
        """Set where the client has gone: what has not begun then does not begin, and what takes long ends."""
        try:
            job = asyncio.get_running_loop().run_in_executor(self.thread, self.answer_of, inspection, body, left)
            return Response(await unless_gone(request.receive, finished(job)), media_type=JSON)
        except (ClientDisconnect, asyncio.CancelledError):
            left.set()
            raise
        finally:
            self.waiting -= 1

    def answer_of(self, inspection: Inspection, body: bytes, left: threading.Event) -> bytes:
        """The answer as JSON. Called in the thread."""
        if left.is_set():
            return b""
        fields = Fields(parse_object(body or b"{}"), inspection.known, left, self.tell)
        try:
            return to_json(inspection.answer(fields))
        except Unwanted:
            return b""
        except UsageError as error:
            raise ApiError(400, str(error), code="invalid_value") from error
        except InputError as error:
            raise ApiError(404, str(error), code="not_found") from error
        finally:
            self.tell("")

    def tell(self, text: str) -> None:
        self.doing = text

    def close(self) -> None:
        """Begins no more of them."""
        self.thread.shutdown(wait=False, cancel_futures=True)


async def finished(job: asyncio.Future[bytes]) -> bytes:
    return await job
