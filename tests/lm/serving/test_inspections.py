"""The routes of inspections: who is answered, who is refused and how, and that nobody else waits for them."""

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncGenerator, Callable, Mapping

import httpx
import pytest
from starlette.responses import Response

from lm.errors import InputError, UsageError
from lm.inference.engine import Engine
from lm.inference.requests import GenerationRequest, SamplingParams
from lm.serving.app import CompletionServer
from lm.serving.fields import Fields
from lm.serving.inspections import Inspection
from lm.serving.protocol import Limits
from lm.serving.worker import EngineWorker
from tests.lm.serving.test_worker import CONFIG, TOKENIZER, answer, engine, model  # noqa: F401  (fixtures)

SECONDS = 60
KEY = {"Authorization": "Bearer open-sesame"}


class Gate:
    """An inspection that says when it has begun, and waits until it may end."""

    def __init__(self) -> None:
        self.begun, self.may_end, self.numbers = threading.Event(), threading.Event(), []

    def __call__(self, fields: Fields) -> Mapping[str, object]:
        fields.change_lane("gate", "a gate is closed")
        self.numbers.append(fields.integer("number", 0, 0, 99))
        self.begun.set()
        assert self.may_end.wait(SECONDS)
        return {"number": self.numbers[-1]}


def raising(error: Exception) -> Callable[[Fields], Mapping[str, object]]:
    def answer(fields: Fields) -> Mapping[str, object]:
        raise error

    return answer


def server_of(worker: EngineWorker, gate: Gate, key: str = "") -> CompletionServer:
    double = lambda fields: {"twice": 2 * fields.integer("number", 0, 0, 99), "text": fields.string("text", "")}
    limits = Limits(context=32, max_inspections=3, max_body_bytes=300)
    return CompletionServer(
        worker, TOKENIZER, "tiny", 4, limits, key,
        [
            Inspection("double", ("number", "text"), double, "twice a number"),
            Inspection("wait", ("number",), gate, "waits"),
            Inspection("usage", (), raising(UsageError("width is 3, which heads = 2 does not divide.")), "refuses"),
            Inspection("input", (), raising(InputError("checkpoints/4 is damaged.")), "lacks something"),
            Inspection("bug", (), raising(ZeroDivisionError("a bug")), "fails"),
        ],
        {"/window": lambda: Response("<h1>The window</h1>", media_type="text/html")},
    )  # fmt: skip


@contextlib.asynccontextmanager
async def client_of(engine: Engine, gate: Gate, key: str = "") -> AsyncGenerator[tuple]:  # noqa: F811
    """(a client, its server, the engine's worker)"""
    worker = EngineWorker(engine, 2, 10)
    server = server_of(worker, gate, key)
    transport = httpx.ASGITransport(server.app(allowed_hosts=["test"]), raise_app_exceptions=False)
    try:
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=SECONDS) as client:
            yield client, server, worker
    finally:
        gate.may_end.set()
        server.inspect.close()
        await asyncio.wait_for(worker.stop(), SECONDS)


def ask(client: httpx.AsyncClient, name: str, **fields: object):
    return client.post(f"/v1/inspect/{name}", json=fields)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(SECONDS):
        while not holds():
            await asyncio.sleep(0.005)


def test_they_are_listed_and_answered(engine):  # noqa: F811
    async def run() -> None:
        async with client_of(engine, Gate()) as (client, _, _):
            listed = (await client.get("/v1/inspect")).json()
            assert listed["object"] == "list" and [one["name"] for one in listed["data"]][:2] == ["double", "wait"]
            assert listed["data"][0] == {"name": "double", "fields": ["number", "text"], "about": "twice a number"}
            hostile = {"number": 21, "text": "<script>\u202e\ud83c"}  # half a pair of surrogates at its end
            told = await client.post("/v1/inspect/double", content=json.dumps(hostile))
            assert told.json() == {"twice": 42, "text": "<script>\u202e\ud83c"}
            assert told.headers["content-type"] == "application/json"
            assert (await client.post("/v1/inspect/double")).json()["twice"] == 0  # no body: no fields

    asyncio.run(run())


def test_what_takes_long_is_told_while_it_lasts(engine):  # noqa: F811
    async def run() -> None:
        gate = Gate()
        async with client_of(engine, gate) as (client, _, _):
            doing = lambda: client.get("/v1/inspect")
            assert (await doing()).json()["doing"] == ""
            asked = asyncio.create_task(ask(client, "wait"))
            await until(gate.begun.is_set)
            assert (await doing()).json()["doing"] == "a gate is closed"
            gate.may_end.set()
            await asked
            assert (await doing()).json()["doing"] == ""

    asyncio.run(run())


@pytest.mark.parametrize(
    ("name", "body", "status", "param", "message"),
    [
        ("nothing", {}, 404, "name", "no inspection 'nothing' here. Known: double, wait, usage, input, bug."),
        ("double", {"numbers": 1}, 400, "numbers", "Unknown fields: numbers. Known: number, text."),
        ("double", {"number": "1"}, 400, "number", "number is '1'; it must be an integer."),
        ("double", {"number": 100}, 400, "number", "number is 100; it must be from 0 to 99 here."),
        ("double", [1], 400, None, "it must be a JSON object"),
        ("double", {"text": "x" * 300}, 413, None, "the limit is 300"),
        ("usage", {}, 400, None, "width is 3, which heads = 2 does not divide."),
        ("input", {}, 404, None, "checkpoints/4 is damaged."),
        ("bug", {}, 500, None, "Internal error: a bug. The server's log has the traceback."),
    ],
)  # fmt: skip
def test_what_is_refused_is_told_as_by_openais_api(engine, name, body, status, param, message):  # noqa: F811
    async def run() -> None:
        async with client_of(engine, Gate()) as (client, server, _):
            told = await client.post(f"/v1/inspect/{name}", json=body)
            error = told.json()["error"]
            assert (told.status_code, error["param"]) == (status, param) and message in error["message"]
            assert error["type"] == ("server_error" if status == 500 else "invalid_request_error")
            assert server.inspect.waiting == 0
            assert (await client.get("/v1/inspect/double")).status_code == 405

    asyncio.run(run())


def test_the_engine_goes_on_meanwhile_and_too_many_are_told_to_come_again(engine):  # noqa: F811
    gate = Gate()

    async def run() -> None:
        async with client_of(engine, gate) as (client, server, worker):
            asked = [asyncio.create_task(ask(client, "wait", number=number)) for number in range(3)]
            await until(lambda: server.inspect.waiting == 3 and gate.begun.is_set())
            params = SamplingParams(max_tokens=2, temperature=0.0)
            assert await answer(worker, GenerationRequest((1, 2), params)) == [(0, "length")]
            assert (await client.post("/v1/completions", json={"prompt": "The", "max_tokens": 1})).status_code == 200
            refused = await ask(client, "double", number=1)
            assert refused.status_code == 429 and refused.headers["retry-after"] == "1"
            assert refused.json()["error"]["code"] == "queue_full"
            assert refused.json()["error"]["type"] == "rate_limit_error"
            gate.may_end.set()
            assert [(await one).json()["number"] for one in asked] == [0, 1, 2]
            assert (await ask(client, "double", number=1)).json()["twice"] == 2

    asyncio.run(run())


def test_what_takes_long_keeps_nothing_else_waiting_and_is_done_one_at_a_time(engine):  # noqa: F811
    """Not even another call of the same name: it is the long part that has a lane of its own."""
    gate, begun, at_once = Gate(), [], []

    def sometimes(fields: Fields) -> Mapping[str, object]:
        number = fields.integer("number", 0, 0, 99)
        if not number:
            return {"number": 0}
        fields.change_lane("compile", "a program is compiled")
        begun.append(number)
        at_once.append(number)
        assert len(at_once) == 1 and gate.may_end.wait(SECONDS)
        at_once.remove(number)
        return {"number": number}

    async def run() -> None:
        async with client_of(engine, gate) as (client, server, _):
            server.inspect.inspections["wait"] = Inspection("wait", ("number",), sometimes, "is long now and then")
            long = [asyncio.create_task(ask(client, "wait", number=number)) for number in (1, 2)]
            await until(lambda: len(begun) == 1 and server.inspect.waiting == 2)
            assert (await ask(client, "wait", number=0)).json() == {"number": 0}
            assert (await ask(client, "double", number=1)).json()["twice"] == 2
            assert len(begun) == 1
            gate.may_end.set()
            assert [(await one).json()["number"] for one in long] == [1, 2]
            assert sorted(begun) == [1, 2]

    asyncio.run(run())


def test_inspections_of_one_lane_run_one_at_a_time_and_those_of_others_beside_them(engine):  # noqa: F811
    inside, together = [], threading.Barrier(2)

    def of_lane(fields: Fields) -> Mapping[str, object]:
        inside.append(fields)
        assert len(inside) == 1
        inside.remove(fields)
        return {}

    def meets(fields: Fields) -> Mapping[str, object]:
        together.wait(SECONDS)
        return {}

    async def run() -> None:
        async with client_of(engine, Gate()) as (client, server, _):
            made = {name: Inspection(name, (), of_lane, "", "shared") for name in ("double", "usage")}
            made |= {name: Inspection(name, (), meets, "") for name in ("input", "bug")}
            server.inspect.inspections |= made
            pairs = [ask(client, name) for name in ("input", "bug")]
            assert [told.status_code for told in await asyncio.gather(*pairs)] == [200, 200]
            for _ in range(20):
                asked = [ask(client, name) for name in ("double", "usage", "double")]
                assert {told.status_code for told in await asyncio.gather(*asked)} == {200}

    asyncio.run(run())


async def call(app, body: dict, gone: asyncio.Event) -> list[dict]:
    """What a client is sent that leaves when `gone` is set."""
    parts = [{"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}]
    sent: list[dict] = []

    async def receive() -> dict:
        if parts:
            return parts.pop()
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict) -> None:
        sent.append(message)

    scope = {
        "type": "http", "method": "POST", "path": "/v1/inspect/wait", "headers": [], "query_string": b"",
        "http_version": "1.1", "scheme": "http", "root_path": "", "raw_path": b"/v1/inspect/wait",
    }  # fmt: skip
    await app(scope, receive, send)
    return sent


def test_what_a_client_that_leaves_has_asked_is_not_begun(engine):  # noqa: F811
    gate = Gate()

    async def run() -> None:
        async with client_of(engine, gate) as (client, server, _):
            app, stays, leaves = server.app(allowed_hosts=["test"]), asyncio.Event(), asyncio.Event()
            first = asyncio.create_task(call(app, {"number": 1}, stays))
            await until(gate.begun.is_set)
            second = asyncio.create_task(call(app, {"number": 2}, leaves))
            await until(lambda: server.inspect.waiting == 2)
            third = asyncio.create_task(call(app, {"number": 3}, stays))
            await until(lambda: server.inspect.waiting == 3)
            leaves.set()
            assert (await second)[0]["status"] == 499
            assert server.inspect.waiting == 2  # its place is free at once
            gate.may_end.set()
            assert [(await one)[0]["status"] for one in (first, third)] == [200, 200]
            assert gate.numbers == [1, 3]
            assert (await ask(client, "double", number=4)).json()["twice"] == 8

    asyncio.run(run())


HERE = "127.0.0.1:8000"
PAGES = (
    ({"Host": HERE}, 200),  # no browser
    ({"Host": HERE, "Origin": f"http://{HERE}", "Sec-Fetch-Site": "same-origin"}, 200),
    ({"Host": HERE, "Origin": f"http://{HERE}"}, 200),
    ({"Host": HERE, "Origin": "https://window.example", "Sec-Fetch-Site": "same-origin"}, 200),  # behind a proxy
    ({"Host": "[::1]:8000"}, 200),
    ({"Host": "localhost:8000", "Origin": "http://localhost:8000"}, 200),
    ({"Host": HERE, "Origin": "https://friend.example", "Sec-Fetch-Site": "cross-site"}, 200),
    ({"Host": "friend.example", "Origin": "http://friend.example"}, 200),
    ({"Host": "named.example:8000", "Origin": "http://named.example:8000"}, 200),
    ({"Host": "NAMED.example."}, 200),
    ({"Host": "10.0.0.5"}, 200),  # an address needs no DNS
    ({"Host": HERE, "Origin": "https://evil.example"}, 403),
    ({"Host": HERE, "Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}, 403),
    ({"Host": HERE, "Origin": "http://127.0.0.1:9000", "Sec-Fetch-Site": "same-site"}, 403),
    ({"Host": HERE, "Origin": "null"}, 403),
    ({"Host": "evil.example:8000", "Origin": "http://evil.example:8000", "Sec-Fetch-Site": "same-origin"}, 403),
    ({"Host": "evil.example:8000"}, 403),
    ({"Host": "127.0.0.1.evil.example"}, 403),
    ({"Host": "[::1"}, 403),
)  # fmt: skip


@pytest.mark.parametrize(("headers", "status"), PAGES)
def test_a_page_of_another_site_is_not_worked_for(engine, headers, status):  # noqa: F811
    async def run() -> None:
        worker = EngineWorker(engine, 2, 10)
        server = server_of(worker, Gate())
        app = server.app(["https://friend.example"], ["named.example"])
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
            simple = {"Content-Type": "text/plain", **headers}  # of which browsers ask nobody before they send it
            asked = {"/v1/inspect/double": "{}", "/v1/completions": '{"prompt": "", "max_tokens": 0}', "/tokenize": ""}
            for path, body in asked.items():
                told = await client.post(path, content=body, headers=simple)
                assert (told.status_code == 403) == (status == 403)
            assert (await client.get("/window", headers={"Host": HERE})).status_code == 200
            if "evil" in headers["Host"]:
                for path in ("/v1/inspect", "/window"):
                    assert (await client.get(path, headers=headers)).status_code == 403
                assert (await client.get("/health", headers=headers)).status_code == 200
        server.inspect.close()
        await asyncio.wait_for(worker.stop(), SECONDS)

    asyncio.run(run())


def test_what_runs_is_told_when_its_client_leaves_or_the_server_ends(engine):  # noqa: F811
    """A long inspection, for which all others wait, can end."""
    asked: list[Fields] = []

    def long(fields: Fields) -> Mapping[str, object]:
        asked.append(fields)
        while not gate.may_end.wait(0.001):
            fields.check_cancelled()
        return {}

    gate = Gate()
    waits = Inspection("wait", ("number",), long, "goes on until nobody waits for it")

    async def run() -> None:
        async with client_of(engine, gate) as (client, server, _):
            server.inspect.inspections["wait"] = waits
            leaves = asyncio.Event()
            first = asyncio.create_task(call(server.app(allowed_hosts=["test"]), {"number": 1}, leaves))
            await until(lambda: len(asked) == 1)
            leaves.set()
            await first
            assert (await ask(client, "double", number=4)).json()["twice"] == 8
            second = asyncio.create_task(call(server.app(allowed_hosts=["test"]), {"number": 2}, asyncio.Event()))
            await until(lambda: len(asked) == 2)
            second.cancel()  # as uvicorn does at its end
            assert (await ask(client, "double", number=5)).json()["twice"] == 10

    asyncio.run(run())


def test_a_key_is_asked_for_all_but_the_page(engine):  # noqa: F811
    async def run() -> None:
        async with client_of(engine, Gate(), "open-sesame") as (client, _, _):
            assert (await client.get("/window")).text == "<h1>The window</h1>"
            for refused in (await client.get("/v1/inspect"), await ask(client, "double"), await ask(client, "nothing")):
                assert refused.status_code == 401 and refused.json()["error"]["code"] == "invalid_api_key"
                assert refused.headers["www-authenticate"] == "Bearer"
            assert (await client.get("/v1/inspect", headers=KEY)).status_code == 200
            told = await client.post("/v1/inspect/double", json={"number": 2}, headers=KEY)
            assert told.json()["twice"] == 4

    asyncio.run(run())
