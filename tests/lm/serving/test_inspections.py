"""The routes of inspections: answers, rejections, lanes, and clients that disconnect."""

import asyncio
import json
import threading
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import httpx
import pytest
from starlette.responses import Response

from lm.errors import InputError, UsageError
from lm.inference.requests import GenerationRequest
from lm.serving.fields import Fields
from lm.serving.inspections import Inspection
from lm.serving.protocol import Limits
from tests.lm.serving.in_process import GREEDY, SECONDS, answer, call, in_process, until

pytestmark = pytest.mark.anyio
KEY = {"Authorization": "Bearer open-sesame"}
LIMITS = Limits(context=32, max_inspections=3, max_body_bytes=300)


class Gate:
    """An inspection that signals its start, and waits for permission to end."""

    def __init__(self) -> None:
        self.begun, self.may_end, self.numbers = threading.Event(), threading.Event(), []

    def __call__(self, fields: Fields) -> Mapping[str, object]:
        fields.change_lane("gate", "a gate is closed")
        self.numbers.append(fields.integer("number", 0, 0, 99))
        self.begun.set()
        assert self.may_end.wait(SECONDS)
        return {"number": self.numbers[-1]}


@pytest.fixture
def gate():
    made = Gate()
    yield made
    made.may_end.set()


def raising(error: Exception) -> Callable[[Fields], Mapping[str, object]]:
    def answer(fields: Fields) -> Mapping[str, object]:
        raise error

    return answer


@pytest.fixture
def serve(engine, gate):
    """Like `in_process`, with some inspections and a page."""
    double = lambda fields: {"twice": 2 * fields.integer("number", 0, 0, 99), "text": fields.string("text", "")}
    inspections = [
        Inspection("double", ("number", "text"), double, "twice a number"),
        Inspection("wait", ("number",), gate, "waits"),
        Inspection("usage", (), raising(UsageError("width is 3, which heads = 2 does not divide.")), "refuses"),
        Inspection("input", (), raising(InputError("checkpoints/4 is damaged.")), "lacks something"),
        Inspection("bug", (), raising(ZeroDivisionError("a bug")), "fails"),
    ]
    pages = {"/window": lambda: Response("<h1>The window</h1>", media_type="text/html")}

    def of(key: str = "", origins: tuple[str, ...] = (), host: str = "test"):
        return in_process(engine, key, inspections, pages, limits=LIMITS, origins=origins, hosts=[host])

    return of


def ask(client: httpx.AsyncClient, name: str, **fields: object):
    return client.post(f"/v1/inspect/{name}", json=fields)


async def test_inspections_are_listed_and_answered(serve):
    async with serve() as (client, _, _):
        listed = (await client.get("/v1/inspect")).json()
        assert listed["object"] == "list" and [one["name"] for one in listed["data"]][:2] == ["double", "wait"]
        assert listed["data"][0] == {"name": "double", "fields": ["number", "text"], "about": "twice a number"}
        hostile = {"number": 21, "text": "<script>\u202e\ud83c"}  # ends with an unpaired surrogate
        answer = await client.post("/v1/inspect/double", content=json.dumps(hostile))
        assert answer.json() == {"twice": 42, "text": "<script>\u202e\ud83c"}
        assert answer.headers["content-type"] == "application/json"
        assert (await client.post("/v1/inspect/double")).json()["twice"] == 0  # no body means no fields


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
async def test_errors_have_the_format_of_openais_api(serve, name, body, status, param, message):
    async with serve() as (client, server, _):
        answer = await client.post(f"/v1/inspect/{name}", json=body)
        error = answer.json()["error"]
        assert (answer.status_code, error["param"]) == (status, param) and message in error["message"]
        assert error["type"] == ("server_error" if status == 500 else "invalid_request_error")
        assert server.inspect.waiting == 0
        assert (await client.get("/v1/inspect/double")).status_code == 405


async def test_the_engine_continues_meanwhile_and_too_many_inspections_get_429(serve, gate):
    async with serve() as (client, server, worker):
        doing = lambda: client.get("/v1/inspect")
        assert (await doing()).json()["doing"] == ""
        asked = [asyncio.create_task(ask(client, "wait", number=number)) for number in range(3)]
        await until(lambda: server.inspect.waiting == 3 and gate.begun.is_set())
        assert (await doing()).json()["doing"] == "a gate is closed"
        assert await answer(worker, GenerationRequest((1, 2), GREEDY)) == [(0, "length")]
        assert (await client.post("/v1/completions", json={"prompt": "The", "max_tokens": 1})).status_code == 200
        refused = await ask(client, "double", number=1)
        assert refused.status_code == 429 and refused.headers["retry-after"] == "1"
        assert refused.json()["error"]["code"] == "queue_full"
        assert refused.json()["error"]["type"] == "rate_limit_error"
        gate.may_end.set()
        assert [(await one).json()["number"] for one in asked] == [0, 1, 2]
        assert (await doing()).json()["doing"] == ""
        assert (await ask(client, "double", number=1)).json()["twice"] == 2


async def test_long_inspections_run_one_at_a_time_and_do_not_block_short_calls_of_the_same_name(serve, gate):
    begun, at_once = [], []

    def sometimes(fields: Fields) -> Mapping[str, object]:
        if number := fields.integer("number", 0, 0, 99):
            fields.change_lane("compile", "a program is compiled")
            begun.append(number)
            at_once.append(number)
            assert len(at_once) == 1 and gate.may_end.wait(SECONDS)
            at_once.remove(number)
        return {"number": number}

    async with serve() as (client, server, _):
        server.inspect.inspections["wait"] = Inspection("wait", ("number",), sometimes, "is long now and then")
        long = [asyncio.create_task(ask(client, "wait", number=number)) for number in (1, 2)]
        await until(lambda: len(begun) == 1 and server.inspect.waiting == 2)
        assert (await ask(client, "wait", number=0)).json() == {"number": 0}
        assert (await ask(client, "double", number=1)).json()["twice"] == 2
        assert len(begun) == 1
        gate.may_end.set()
        assert [(await one).json()["number"] for one in long] == [1, 2]
        assert sorted(begun) == [1, 2]


async def test_inspections_of_one_lane_run_one_at_a_time_and_different_lanes_in_parallel(serve):
    inside, together = [], threading.Barrier(2)

    def alone(fields: Fields) -> Mapping[str, object]:
        inside.append(fields)
        assert len(inside) == 1
        inside.remove(fields)
        return {}

    def meets(fields: Fields) -> Mapping[str, object]:
        together.wait(SECONDS)
        return {}

    async with serve() as (client, server, _):
        server.inspect.inspections |= {
            name: Inspection(name, (), alone, "", "shared") for name in ("double", "usage")
        } | {name: Inspection(name, (), meets, "") for name in ("input", "bug")}
        for names in (("input", "bug"), *[("double", "usage", "double")] * 20):
            answers = await asyncio.gather(*(ask(client, name) for name in names))
            assert {one.status_code for one in answers} == {200}


def call_wait(server, number: int, gone: asyncio.Event) -> Coroutine[Any, Any, int]:
    app, body = server.app(allowed_hosts=["test"]), json.dumps({"number": number}).encode()
    return call(app, "/v1/inspect/wait", [body], gone)


async def test_waiting_inspections_of_a_client_that_disconnects_do_not_start(serve, gate):
    async with serve() as (client, server, _):
        stays, leaves = asyncio.Event(), asyncio.Event()
        first = asyncio.create_task(call_wait(server, 1, stays))
        await until(gate.begun.is_set)
        second = asyncio.create_task(call_wait(server, 2, leaves))
        await until(lambda: server.inspect.waiting == 2)
        third = asyncio.create_task(call_wait(server, 3, stays))
        await until(lambda: server.inspect.waiting == 3)
        leaves.set()
        assert await second == 499
        assert server.inspect.waiting == 2  # its place is free immediately
        gate.may_end.set()
        assert (await first, await third) == (200, 200)
        assert gate.numbers == [1, 3]
        assert (await ask(client, "double", number=4)).json()["twice"] == 8


async def test_a_running_inspection_finishes_after_its_client_or_the_server_is_gone(serve, gate):
    asked: list[Fields] = []

    def long(fields: Fields) -> Mapping[str, object]:
        asked.append(fields)
        while not gate.may_end.wait(0.001):
            fields.check_cancelled()
        return {}

    async with serve() as (client, server, _):
        server.inspect.inspections["wait"] = Inspection("wait", ("number",), long, "runs until nobody waits for it")
        leaves = asyncio.Event()
        first = asyncio.create_task(call_wait(server, 1, leaves))
        await until(lambda: len(asked) == 1)
        leaves.set()
        await first
        assert (await ask(client, "double", number=4)).json()["twice"] == 8
        second = asyncio.create_task(call_wait(server, 2, asyncio.Event()))
        await until(lambda: len(asked) == 2)
        second.cancel()  # as uvicorn does on shutdown
        assert (await ask(client, "double", number=5)).json()["twice"] == 10


HERE = "127.0.0.1:8000"
PAGES = (
    ({"Host": HERE}, 200),  # no browser
    ({"Host": HERE, "Origin": f"http://{HERE}", "Sec-Fetch-Site": "same-origin"}, 200),
    ({"Host": HERE, "Origin": f"http://{HERE}"}, 200),
    ({"Host": HERE, "Origin": "https://window.example", "Sec-Fetch-Site": "same-origin"}, 200),  # via a proxy
    ({"Host": "[::1]:8000"}, 200),
    ({"Host": "localhost:8000", "Origin": "http://localhost:8000"}, 200),
    ({"Host": HERE, "Origin": "https://friend.example", "Sec-Fetch-Site": "cross-site"}, 200),
    ({"Host": "friend.example", "Origin": "http://friend.example"}, 200),
    ({"Host": "named.example:8000", "Origin": "http://named.example:8000"}, 200),
    ({"Host": "NAMED.example."}, 200),
    ({"Host": "10.0.0.5"}, 200),  # an IP address needs no DNS
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
async def test_pages_of_other_sites_are_rejected(serve, headers, status):
    async with serve(origins=("https://friend.example",), host="named.example") as (client, _, _):
        simple = {"Content-Type": "text/plain", **headers}  # browsers send it without a preflight request
        asked = {"/v1/inspect/double": "{}", "/v1/completions": '{"prompt": "", "max_tokens": 0}', "/tokenize": ""}
        for path, body in asked.items():
            answer = await client.post(path, content=body, headers=simple)
            assert (answer.status_code == 403) == (status == 403)
        assert (await client.get("/window", headers={"Host": HERE})).status_code == 200
        if "evil" in headers["Host"]:
            for path in ("/v1/inspect", "/window"):
                assert (await client.get(path, headers=headers)).status_code == 403
            assert (await client.get("/health", headers=headers)).status_code == 200


async def test_the_key_protects_everything_but_the_page(serve):
    async with serve("open-sesame") as (client, _, _):
        assert (await client.get("/window")).text == "<h1>The window</h1>"
        for refused in (await client.get("/v1/inspect"), await ask(client, "double"), await ask(client, "nothing")):
            assert refused.status_code == 401 and refused.json()["error"]["code"] == "invalid_api_key"
            assert refused.headers["www-authenticate"] == "Bearer"
        assert (await client.get("/v1/inspect", headers=KEY)).status_code == 200
        answer = await client.post("/v1/inspect/double", json={"number": 2}, headers=KEY)
        assert answer.json()["twice"] == 4
