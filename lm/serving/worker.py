"""Thread that owns the Engine. It exchanges requests and events with the event loop through queues."""

import asyncio
import queue
import sys
import threading
import traceback
from collections.abc import AsyncGenerator, Sequence

from lm.errors import UsageError
from lm.inference.engine import Engine
from lm.inference.requests import GenerationEvent, GenerationRequest
from lm.serving.fields import ApiError

RETRY_SECONDS = 1


class RunningCall:
    """State of one call whose requests are in the Engine. Used only by the event loop, except `ids`."""

    def __init__(self, requests: Sequence[GenerationRequest]):
        self.requests = requests
        self.accepted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the Engine has accepted all requests; ApiError if it rejected them."""
        self.news: asyncio.Queue[tuple[int, GenerationEvent] | ApiError] = asyncio.Queue()
        self.unfinished = len(requests)
        self.ids: list[int] = []
        """Request ids of the Engine, in the order of `requests`; used only by the thread."""

    async def is_accepted(self) -> None:
        """Wait until the Engine has accepted the call. Raises ApiError if it rejects it."""
        await asyncio.shield(self.accepted)

    async def events(self) -> AsyncGenerator[tuple[int, GenerationEvent]]:
        """Yield (index of the request, event) until all requests have ended. Raises ApiError if the Engine fails."""
        left = len(self.requests)
        while left:
            news = await self.news.get()
            if isinstance(news, ApiError):
                raise news
            left -= news[1].finish_reason is not None
            yield news


class EngineWorker:
    """Runs an Engine in a thread. All methods must be called from the event loop that created it."""

    def __init__(self, engine: Engine, slots: int, max_queue: int):
        """At most `max_queue` requests wait in addition to those in the `slots`."""
        self.slots, self.most = slots, slots + max_queue
        self.failure = ""
        """Why the Engine has failed; "" while it works."""
        self.stopping = threading.Event()
        """Set when running calls are ended because the server stops."""
        self._engine = engine
        self.loop = asyncio.get_running_loop()
        self._calls: set[RunningCall] = set()
        self._commands: queue.SimpleQueue[tuple[str, RunningCall | None]] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._of: dict[int, tuple[RunningCall, int]] = {}
        """{id of an unfinished request: (its call, its index there)}; used only by the thread."""
        self._thread.start()

    @property
    def in_flight(self) -> int:
        """Number of unfinished requests, in slots or waiting for one."""
        return sum(call.unfinished for call in self._calls)

    def submit(self, requests: Sequence[GenerationRequest]) -> RunningCall:
        """Submit all requests or none. Raises ApiError 429 if the queue is full, 503 if the Engine has failed."""
        if self.failure:
            raise ApiError(503, f"The engine has failed: {self.failure}. Restart the server.", code="engine_failed")
        if self.in_flight + len(requests) > self.most:
            raise ApiError(
                429, f"{self.in_flight:,} texts are running or waiting; {len(requests):,} more would exceed the limit "
                f"of {self.most:,}. Try again later.",
                code="queue_full", headers={"Retry-After": str(RETRY_SECONDS)},
            )  # fmt: skip
        call = RunningCall(requests)
        self._calls.add(call)
        self._commands.put(("submit", call))
        return call

    def cancel(self, call: RunningCall) -> None:
        """Cancel the requests of a call whose client has disconnected. Does nothing if the call has ended."""
        if call in self._calls:
            self._commands.put(("cancel", call))

    def fail_all(self, error: ApiError) -> None:
        """End all calls with `error`, and cancel their requests, because the server stops."""
        self.stopping.set()
        for call in list(self._calls):
            self._refuse(call, error)
            self._commands.put(("cancel", call))

    async def stop(self) -> None:
        """Stop the thread after the Engine's current step, and wait for it."""
        self._commands.put(("stop", None))
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        """Main function of the thread."""
        try:
            while self._obey():
                if self._engine.has_work:
                    self._tell(self._deliver, self._step())
        except BaseException as error:  # any error: otherwise waiting clients would hang
            self._tell(self._fail, f"{type(error).__name__}: {error}")  # first: the log may be closed
            traceback.print_exc(file=sys.stderr)
        finally:
            self._engine.close()

    def _obey(self) -> bool:
        """Process pending commands; wait for one if there is no other work. Returns False to stop."""
        while True:
            try:
                what, call = self._commands.get(block=not self._engine.has_work)
            except queue.Empty:
                return True
            if call is None:
                return False
            if what == "submit":
                self._submit(call)
            else:
                for id in call.ids:
                    if id in self._of:
                        self._engine.cancel(id)

    def _submit(self, call: RunningCall) -> None:
        try:
            for number, request in enumerate(call.requests):
                call.ids.append(self._engine.submit(request))
                self._of[call.ids[-1]] = (call, number)
        except UsageError as error:
            for id in call.ids:
                self._of.pop(id)
                self._engine.cancel(id)
            self._tell(self._refuse, call, ApiError(400, str(error), param="prompt"))
            return
        self._tell(lambda: call.accepted.done() or call.accepted.set_result(None))

    def _step(self) -> list[tuple[RunningCall, int, GenerationEvent]]:
        """Run one step of the Engine; return (call, index of the request there, event) for each event."""
        events = self._engine.step()
        found = [(*self._of[event.request_id], event) for event in events if event.request_id in self._of]
        for event in events:
            if event.finish_reason is not None:
                self._of.pop(event.request_id, None)
        return found

    def _tell(self, method, *arguments) -> None:
        """Call `method` in the event loop; does nothing if that has ended."""
        try:
            self.loop.call_soon_threadsafe(method, *arguments)
        except RuntimeError:
            self._of.clear()

    def _refuse(self, call: RunningCall, error: ApiError) -> None:
        self._calls.discard(call)
        if not call.accepted.done():
            call.accepted.set_exception(error)
            call.accepted.exception()  # so that asyncio does not log it if the client is gone
        call.news.put_nowait(error)

    def _deliver(self, events: Sequence[tuple[RunningCall, int, GenerationEvent]]) -> None:
        for call, number, event in events:
            call.news.put_nowait((number, event))
            if event.finish_reason is not None:
                call.unfinished -= 1
                if not call.unfinished:
                    self._calls.discard(call)

    def _fail(self, reason: str) -> None:
        self.failure = reason
        for call in list(self._calls):
            self._refuse(call, ApiError(500, f"The engine has failed: {reason}.", code="engine_failed"))
