"""Stream files over a network that fails at random: a stream gives one version of the file, or StorageError."""

import gzip
import random

from lm.storage import StorageError, Url, objects
from lm.storage.ranges import Stream
from tests.chaos.runner import Figures, Trial
from tests.data_prep.loopback_crawl import Fault, LoopbackCrawl, serving
from tests.object_store import variables


def random_fault(rng: random.Random, size: int) -> Fault:
    """A random recoverable fault of an honest server: a client that retries gets the right bytes."""
    cut = rng.choice([None, 0, 1, rng.randrange(size), size - 1])
    return rng.choice(
        [
            Fault(cut=rng.randrange(size)),
            Fault(status=rng.choice([403, 408, 429, 500, 502, 503, 504])),
            Fault(status=503, headers={"Retry-After": rng.choice(["0", "Thu, 22 Feb 2024 10:00:00 GMT", "soon"])}),
            Fault(ignore_range=True, cut=cut),
            Fault(chunked=True, cut=cut),
            Fault(shift=rng.choice([-50, 1, 50]), cut=cut),
            Fault(told_length=size + rng.randrange(1, 99)),
            Fault(told_length=rng.randrange(size)),
            Fault(headers={"Content-Range": rng.choice(["bytes 0-1/2", "bytes */*", "", "bytes 5-9/x"])}, cut=cut),
            Fault(headers={"Content-Length": ""}, cut=cut),
            Fault(body=rng.choice([b"", b"<html>log in</html>", b"\x1f"])),
            Fault(headers={"Content-Encoding": "gzip"}, cut=cut),
            Fault(headers={"ETag": rng.choice(["", 'W/"weak"', '"other"'])}, cut=cut),
            Fault(replace=new_file(rng), ignore_condition=rng.random() < 0.5, cut=cut),
        ]
    )


def new_file(rng: random.Random) -> bytes:
    return gzip.compress(rng.randbytes(rng.randrange(100, 60_000)), 1, mtime=0)


def random_stream(seed: int) -> dict:
    """Stream a file over such a network in small ranges with backward seeks."""
    rng = random.Random(seed)
    crawl = LoopbackCrawl.of([new_file(rng)])
    (path,) = crawl.paths
    before, told = crawl.files[path], ""
    with serving(crawl):
        url = Url(f"{crawl.url}{path}")
        version = url.surely()
        crawl.faults[path] = [random_fault(rng, len(before)) for _ in range(rng.randrange(12))]
        asked = len(crawl.faults[path])
        came = bytearray()
        try:
            with Stream(url.address, version, block=rng.choice([500, 5_000, 50_000])) as stream:
                while len(came) < len(before):
                    stream.seek(len(came))
                    came += stream.read(rng.randrange(1, 9_000))
                    if came and rng.random() < 0.1:
                        del came[rng.randrange(len(came)) :]
        except StorageError as error:
            told = str(error)
    ok = before.startswith(came) and (bool(told) or came == before)
    return {"seed": seed, "ok": ok, "faults": asked, "bytes": len(came), "of": len(before), "told": told[-120:]}


def streams(trial: Trial) -> Figures:
    """Call `random_stream` with consecutive seeds."""
    settings = {"NO_PROXY": "127.0.0.1", "GRISTMILL_STORAGE_TIMEOUT": "2", "GRISTMILL_STORAGE_RETRIES": "4"}
    objects.ROUND_SECONDS = 0.0
    with variables(settings):
        found = [random_stream(seed) for seed in range(trial.seed, trial.seed + trial.count)]
    failed = [one for one in found if not one["ok"]]
    return {"passed": not failed, "trials": len(found), "failed": failed}
