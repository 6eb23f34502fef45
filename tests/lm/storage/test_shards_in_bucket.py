"""Shards in a bucket give the same batches as on disk, by range requests for only the bytes that windows need."""

import gc
import os
import re
import subprocess
import sys
import threading
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from launch.verify_shards import Command, run
from lm.config import MixtureSource
from lm.data.batches import BatchSource, document_stream
from lm.data.mixture import manifest_sha256, mixture_of
from lm.data.records import check_request, read_manifest
from lm.data.verify_shards import verify_shards
from lm.errors import InputError, UsageError
from lm.storage import StorageError, Url, objects, write_atomically
from tests.lm.data.test_mixture import CONFIG
from tests.lm.shard_files import FINGERPRINT, LENGTH, STREAMS, random_stream, same, write_tokens
from tests.object_store import Store, variables
from tests.run_files import REPOSITORY


@pytest.fixture(autouse=True)
def no_request_is_left() -> Generator[None]:
    """A batch source that is garbage-collected ends its threads."""
    yield
    if threads := [one for one in threading.enumerate() if one.name == "read-ahead"]:
        gc.collect()  # takes seconds after many other tests
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()


@pytest.fixture
def tokens(tmp_path) -> Path:
    (tmp_path / "tokens").mkdir()
    return write_tokens(tmp_path / "tokens", {"train": STREAMS, "val": STREAMS[:1]})


def upload(folder: Path, place: Url) -> Url:
    for path in folder.iterdir():
        objects.upload(path, (place / path.name).address)
    return place


@pytest.fixture
def uploaded(tokens, bucket) -> Url:
    return upload(tokens, bucket / "tokens")


def source(folders, batch=3, context=7, block=1) -> BatchSource:
    return BatchSource(folders, "train", context, batch, 0, 2, tokenizer_fingerprint=FINGERPRINT, shuffle_block=block)


def test_the_batches_equal_those_of_the_files(tokens, uploaded):
    ours, theirs = source(uploaded), source(tokens)
    assert all(same(ours.batch(step), theirs.batch(step)) for step in (0, 7, 40))
    assert ours.documents(3)[0].documents == theirs.documents(3)[0].documents
    assert all(map(np.array_equal, document_stream(uploaded, "val"), document_stream(tokens, "val")))
    assert manifest_sha256(uploaded) == manifest_sha256(tokens)
    assert theirs.warning() is None
    assert re.search(r"read with one request per [\d,]+ bytes; --train\.shuffle-block \d+", ours.warning() or "")


@pytest.mark.fast_rows
@pytest.mark.parametrize(("context", "block"), [(7, 1), (LENGTH, 1), (8, 5)])
@pytest.mark.parametrize("rows", [np.array([0, 2]), slice(None)])
def test_prefetched_batches_are_equal_from_any_step(tokens, uploaded, context, block, rows):
    """Also for a mixture with a folder on disk, and up to the end."""
    ours = source({uploaded: 1.0}, context=context, block=block).iterate(13, lambda *shape: np.arange(3)[rows], 40)
    theirs = source(tokens, context=context, block=block)
    for step, batch in zip(range(13, 40), ours, strict=True):
        assert same(batch, tuple(array[rows] for array in theirs.batch(step)))


@pytest.mark.slow
@pytest.mark.parametrize("block", [1, 3])
def test_growing_batches_are_equal(tokens, uploaded, block):
    """Each stage has its own parts, from its first step on."""
    schedules = {"batch_schedule": ((5, 4), (17, 8)), "context_schedule": ((0, 4), (9, 12)), "shuffle_block": block}
    config = replace(CONFIG, batch_size=2, micro_batches=1, **schedules)
    ours, theirs = (
        BatchSource(
            folder, "train", 12, config.stages(12), 0, 2, tokenizer_fingerprint=FINGERPRINT, shuffle_block=block
        )
        for folder in (uploaded, tokens)
    )
    for start in (0, 7, 17):
        read = ours.iterate(start, lambda size, _: np.arange(size)[1::2], 30)
        for step, batch in zip(range(start, 30), read, strict=True):
            assert same(batch, tuple(array[1::2] for array in theirs.batch(step)))


def test_adjacent_windows_share_a_request_and_nothing_else_is_read(tmp_path, bucket, store: Store):
    """A request for each block, and two for the footer of each shard."""
    (tmp_path / "tokens").mkdir()
    streams = [random_stream(i, 1024 * 64 + 1, 0, 0) for i in range(2)]
    tokens = write_tokens(tmp_path / "tokens", {"train": streams}, length=1024, dtype="uint32")
    uploaded = upload(tokens, bucket / "tokens")
    ours = source(uploaded, batch=4, context=1024, block=16)
    first, sent = len(store.requests), sum(store.downloaded.values())
    for _ in ours.iterate(0, stop_step=32):  # one epoch
        pass
    requests = [one for one in store.requests[first:] if one.method == "GET" and "array_record" in one.path]
    assert len(requests) <= 2 * 2 + 8
    stored = sum(shard.bytes for shard in read_manifest(tokens).splits["train"].shards)
    assert sum(store.downloaded.values()) - sent < 1.3 * stored


def test_a_mixture_has_folders_of_both_kinds(tokens, uploaded, tmp_path):
    config = replace(CONFIG, mixture=(MixtureSource(str(uploaded), 2.0),))
    assert mixture_of(config, tokens) == {tokens: 1.0, uploaded: 2.0}
    twice = replace(config, mixture=(MixtureSource(f"{uploaded}/", 2.0), MixtureSource(str(uploaded), 1.0)))
    with pytest.raises(UsageError, match="twice"):
        mixture_of(twice, tokens)
    nowhere = replace(config, mixture=(MixtureSource(str(uploaded.parent / "nowhere"), 2.0),))
    with pytest.raises(InputError, match=r"nowhere/manifest\.json is missing\. Name the tokens/ of another run"):
        mixture_of(nowhere, tokens)
    run = replace(config, mixture=(MixtureSource(str(uploaded.parent), 2.0),))
    with pytest.raises(InputError, match=rf"Name {uploaded}, which has one"):
        mixture_of(run, tokens)
    (tmp_path / "other").mkdir()
    other = write_tokens(tmp_path / "other", {"train": [random_stream(9, 100, 3000, 0)]})
    ours, theirs = source({other: 1.0, uploaded: 2.0}), source({other: 1.0, tokens: 2.0})
    assert all(same(batch, theirs.batch(step)) for step, batch in enumerate(ours.iterate(stop_step=20)))


def test_damage_is_found_by_reading_and_by_the_command(uploaded, capsys):
    manifest = read_manifest(uploaded)
    first, second = manifest.splits["train"].shards[:2]
    whole = (uploaded / first.file).read_bytes()
    write_atomically(uploaded / first.file, whole[:-1])
    with pytest.raises(InputError, match=rf"{first.file} has {first.bytes - 1} bytes, but manifest\.json says"):
        check_request(manifest, uploaded, "train", 7, FINGERPRINT)
    write_atomically(uploaded / first.file, whole[:150] + bytes(20) + whole[170:])
    with pytest.raises(InputError, match=rf"Record 0 of {uploaded / first.file} cannot be read: .*Restore the shard"):
        list(source(uploaded).iterate(stop_step=20))
    with pytest.raises(InputError, match=rf"1 of 5 shards differ .*{first.file} has the SHA-256 .* instead of"):
        run(Command((str(uploaded),)))
    write_atomically(uploaded / first.file, whole)
    run(Command((str(uploaded), str(uploaded.parent))[:1]))
    assert re.search(r"5 shards, [\d,]+ bytes: all unchanged", capsys.readouterr().out)
    (uploaded / second.file).unlink()
    with pytest.raises(InputError, match=rf"{second.file} cannot be read"):
        verify_shards([(uploaded, "train")])


@pytest.mark.fast_rows
@pytest.mark.parametrize("fault", ["cut reply", "500"])
def test_batches_are_read_although_requests_fail(tokens, uploaded, store: Store, fault):
    with variables({"GRISTMILL_STORAGE_RETRIES": "8"}):
        ours = source(uploaded)
        store.fail(lambda request: fault if request.number % 3 else None)
        theirs = source(tokens)
        assert all(same(batch, theirs.batch(step)) for step, batch in enumerate(ours.iterate(stop_step=6)))


@pytest.mark.slow
def test_a_bucket_that_does_not_answer_is_not_reported_as_damage(uploaded, store: Store):
    ours = source(uploaded)
    with variables(dict(os.environ) | {"GRISTMILL_STORAGE_TIMEOUT": "1", "GRISTMILL_STORAGE_RETRIES": "0"}):
        store.fail(lambda request: "500")
        with pytest.raises(StorageError, match="cannot be read"):
            next(ours.iterate())


@pytest.mark.slow
def test_an_abandoned_loader_ends_although_the_bucket_does_not_answer(uploaded, store: Store):
    """The loader's threads, which wait for steps of the part requested last, would keep the process alive. A part has
    342 steps here, 1,024 windows; the last one is requested when step 684 is read."""
    program = (
        "import sys\nfrom lm.data.batches import BatchSource\nfrom lm.storage import Url\n"
        f"batches = BatchSource(Url({str(uploaded)!r}), 'train', 7, 3, 0, 2).iterate()\n"
        "for _ in range(680): next(batches)\n"
        "print('ready', flush=True)\nsys.stdin.readline()\n"
        "for _ in range(340): next(batches)\n"
        "batches.close()\n"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        stalled = threading.Event()

        def fault(request) -> str | None:
            return "stall" if stalled.is_set() else None

        store.fail(fault)
        assert process.stdout and process.stdout.readline() == "ready\n"
        stalled.set()
        process.communicate("\n", timeout=60)
        assert process.returncode == 0


def test_requests_of_a_closed_loader_are_cancelled(uploaded, store: Store):
    """Otherwise its threads would wait for a bucket that does not answer."""
    ours = source(uploaded)
    ours.batch(0)  # the footers are read
    store.fail(lambda request: "stall")
    ahead = ours._read_ahead(ours.stages.at(0), np.arange(3), 0, 20)
    assert ahead is not None
    requested = {*ahead.part(0).values()}
    ahead.close()
    assert requested and all(one.cancelled() for one in requested)


def test_a_block_that_does_not_fit_into_memory_is_rejected(uploaded):
    with pytest.raises(UsageError, match=r"shuffle_block = 10000000 x 66 blocks .* Lower train\.shuffle_block to \d+"):
        source(uploaded, block=10_000_000).iterate()
