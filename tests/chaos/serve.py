"""Hostile requests to launch.serve: wrong types, huge counts, broken UTF-8, deep JSON, no HTTP, cut connections."""

import collections
import concurrent.futures
import contextlib
import json
import random
import re
import socket
import threading
from pathlib import Path

import httpx

from lm.serving.protocol import KNOWN
from tests.chaos.runner import Figures, Trial
from tests.server_process import ServerProcess, quick_environment, serving, write_served_run

NUMBERS = [0, 1, -1, 0.5, -0.5, 1e308, -1e308, 1e-320, 2**31, 2**32, 2**63, 2**64, -(2**63), 10**50, 17, 33]
WORDS = ["", "a", "The miller", "\x00", "\ud800", "é" * 50, "<|endoftext|>", "x" * 5000, "\u202e", "NaN"]
FIELDS = [*KNOWN, "messages", "__proto__"]
PATHS = ("/v1/completions",) * 8 + ("/tokenize", "/detokenize")


def value(random: random.Random, depth: int = 0) -> object:
    """Random JSON."""
    kind = random.randrange(9 if depth < 3 else 6)
    if kind < 2:
        return random.choice(NUMBERS)
    if kind < 4:
        return random.choice(WORDS)
    if kind < 6:
        return random.choice([None, True, False, 1, "The"])
    if kind < 8:
        return [value(random, depth + 1) for _ in range(random.randrange(5))]
    return {random.choice(WORDS): value(random, depth + 1) for _ in range(random.randrange(3))}


def prompt(random: random.Random) -> object:
    """A valid or invalid prompt of any size."""
    ids = lambda most: [random.choice([*range(320), -1, 320, 2**40]) for _ in range(random.randrange(most))]
    return random.choice([
        lambda: "", lambda: "The miller", list, lambda: [[]], lambda: ids(10), lambda: ids(5000),
        lambda: [ids(10) for _ in range(random.randrange(200))], lambda: ["a"] * random.randrange(300),
        lambda: "word " * random.randrange(40_000), lambda: "\n" * random.randrange(100_000),
        lambda: random.choice(WORDS), lambda: value(random), lambda: [320] * 50_000,
    ])()  # fmt: skip


def fuzzed(random: random.Random) -> bytes:
    """A fuzzed request body."""
    fields: dict[str, object] = {"prompt": prompt(random), "max_tokens": random.choice([0, 1, 2, 3])}
    for _ in range(random.choice([0, 0, 1, 1, 2, 3])):
        fields[random.choice(FIELDS)] = value(random)
    body = json.dumps(fields).encode()
    kind = random.randrange(14)
    if kind == 0:
        return body[: random.randrange(len(body))]
    if kind == 1:
        place = random.randrange(len(body))
        return body[:place] + random.randbytes(random.randrange(1, 9)) + body[place + 1 :]
    if kind == 2:
        return random.randbytes(random.randrange(3000))
    if kind == 3:
        deep = random.choice([b"[", b'{"a":', b'{"prompt":[']) * random.choice([10, 1000, 100_000])
        return deep + b"1" + b"]" * random.randrange(2)
    if kind == 4:
        return random.choice([b"", b"null", b"[]", b"1", b'"a"', b"1e999", b"NaN", b'{"prompt":NaN}', b"9" * 9999])
    if kind == 5 and random.randrange(10) == 0:
        return b'{"prompt": "' + b"a" * random.choice([2**20, 2**21, 2**22]) + b'"}'
    return body


def head(path: str, length: object, more: bytes = b"") -> bytes:
    first = b"POST %s HTTP/1.1\r\nHost: localhost\r\n" % path.encode()
    return first + b"Content-Length: %s\r\n%s\r\n" % (str(length).encode(), more)


def rude(random: random.Random) -> tuple[list[bytes], bool]:
    """Parts to send for a request that violates HTTP, and whether to wait for a response."""
    body = json.dumps({"prompt": ["The"] * random.randrange(1, 9), "max_tokens": 20, "stream": random.random() < 0.5})
    whole = head("/v1/completions", len(body)) + body.encode()
    cut = random.randrange(len(whole))
    return random.choice([
        ([whole[:cut]], False), ([whole], False), ([whole[:cut], whole[cut:]], False),
        ([head("/v1/completions", len(body) + 50) + body.encode()], False),
        ([head("/v1/completions", random.choice([-1, 10**30, "x", "1, 2"])) + b"{}"], True),
        ([b"GET /" + b"a" * 100_000], True), ([random.randbytes(500)], True), ([b"\r\n" * 100], False),
        ([b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"], True),
        ([b"POST /v1/completions HTTP/9.9\r\n\r\n"], True), ([bytes([one]) for one in whole[:40]], False),
        ([head("/v1/completions", 2, b"X: " + b"y" * 70_000 + b"\r\n") + b"{}"], True),
    ])  # fmt: skip


def send_rudely(server: ServerProcess, random: random.Random) -> int:
    """Return the status of the response; 0 without one."""
    parts, waits = rude(random)
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        for part in parts:
            connection.sendall(part)
        if waits:
            found = re.match(rb"HTTP/1\.1 (\d+)", connection.recv(100))
            return int(found[1]) if found else 0
    return 0


def memory(server: ServerProcess) -> int:
    """Resident memory of the process in bytes."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return 1024 * int(status.partition("VmRSS:")[2].split()[0])


def answer(server: ServerProcess) -> object:
    fields = {"prompt": "The miller", "max_tokens": 12, "temperature": 0, "logprobs": 3, "echo": True}
    return httpx.post(f"{server.url}/v1/completions", json=fields, timeout=600).json()["choices"]


def attack(server: ServerProcess, first: int, count: int, seed: int) -> collections.Counter[int]:
    """Send `count` bodies; return {status: responses}."""
    statuses: collections.Counter[int] = collections.Counter()
    lock, local = threading.Lock(), threading.local()

    def one(number: int) -> None:
        source = random.Random(f"{seed} {number}")
        if source.randrange(5) == 0:
            status = send_rudely(server, source)
        else:
            if not hasattr(local, "client"):
                local.client = httpx.Client(timeout=600)
            try:
                status = local.client.post(server.url + source.choice(PATHS), content=fuzzed(source)).status_code
            except httpx.TransportError:  # it responded and closed before the whole body was sent
                status = 0
        with lock:
            statuses[status] += 1

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        for done in concurrent.futures.as_completed([pool.submit(one, first + i) for i in range(count)]):
            done.result()
    return statuses


def bodies(trial: Trial) -> Figures:
    """No 5xx, the server survives, memory grows by at most 5 %, and the final answer equals the first."""
    write_served_run(trial.folder / "tiny")
    with serving(trial.folder / "tiny", "--warm-up", environment=quick_environment()) as server:
        before, part = answer(server), max(1, trial.count // 5)
        statuses = attack(server, 0, part, trial.seed)  # the first allocations do not count as growth
        held = [memory(server)]
        for number in range(1, 5):
            statuses += attack(server, number * part, part, trial.seed)
            held.append(memory(server))
        alive = server.process.poll() is None
        health = httpx.get(f"{server.url}/health", timeout=60).json()
        found = {
            "no_5xx": not any(status >= 500 for status in statuses),
            "some_answered": statuses[200] > trial.count // 50, "memory_within_5_percent": held[-1] < 1.05 * held[0],
            "alive": alive, "same_answer": answer(server) == before,
            "nothing_in_flight": health["status"] == "ok" and health["in_flight"] == 0,
        }  # fmt: skip
    shown = {str(status): count for status, count in sorted(statuses.items())}
    return {"passed": all(found.values()), **found, "statuses": shown, "bytes": held}
