"""Shards of a bucket give the batches that they give from a disk, by a cache that holds whole files alone and keeps to
its bound."""

import hashlib
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lm.config import MixtureSource
from lm.data.batches import BatchSource, document_stream
from lm.data.mixture import manifest_sha256, mixture_of
from lm.data.records import check_request, read_manifest
from lm.data.verify_shards import verify_shards
from lm.errors import InputError, UsageError
from lm.storage import StorageError, Url, Wanted, as_files, cache_folder, objects, write_atomically
from tests.lm.data.test_mixture import CONFIG
from tests.lm.shard_files import FINGERPRINT, STREAMS, same, write_tokens
from tests.object_store import Store, variables
from tests.run_files import REPOSITORY


@pytest.fixture
def cache(tmp_path):
    """An empty one, of this test alone."""
    with variables({"GRISTMILL_CACHE": str(tmp_path / "cache")}):
        yield tmp_path / "cache/shards"


@pytest.fixture
def tokens(tmp_path) -> Path:
    (tmp_path / "tokens").mkdir()
    return write_tokens(tmp_path / "tokens", {"train": STREAMS, "val": STREAMS[:1]})


@pytest.fixture
def uploaded(tokens, bucket) -> Url:
    for path in tokens.iterdir():
        objects.upload(path, (bucket / "tokens" / path.name).address)
    return bucket / "tokens"


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.suffix != ".used"}


def wanted(bucket: Url, *contents: bytes) -> list[Wanted]:
    """Objects of these contents."""
    found = []
    for content in contents:
        sha = hashlib.sha256(content).hexdigest()
        write_atomically(bucket / f"of-{sha}", content)
        found.append(Wanted(bucket / f"of-{sha}", len(content), sha))
    return found


def test_the_batches_are_those_of_the_files(tokens, uploaded, cache):
    ours, theirs = (BatchSource(place, "train", 7, 3, 0, 2, FINGERPRINT) for place in (uploaded, tokens))
    assert all(same(ours.batch(step), theirs.batch(step)) for step in range(40))
    assert same(next(ours.iterate(17)), theirs.batch(17))
    assert ours.documents(3)[0].documents == theirs.documents(3)[0].documents
    assert all(map(np.array_equal, document_stream(uploaded, "val"), document_stream(tokens, "val")))
    assert manifest_sha256(uploaded) == manifest_sha256(tokens)
    assert len(verify_shards([(uploaded, "train")])) == len(verify_shards([(tokens, "train")]))


def test_an_object_is_brought_once(uploaded, cache, store: Store):
    BatchSource(uploaded, "train", 7, 3, 0, 2, FINGERPRINT)
    brought = names(cache)
    assert brought == {shard.sha256 for shard in read_manifest(uploaded).splits["train"].shards if shard.records}
    first = len(store.requests)
    BatchSource(uploaded, "train", 7, 3, 0, 2, FINGERPRINT).batch(0)
    assert not [one.path for one in store.requests[first:] if "array_record" in one.path and "list" not in one.path]


def test_a_mixture_names_folders_of_both_kinds(tokens, uploaded, tmp_path):
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


def test_an_object_of_another_size_or_content_is_refused_and_not_kept(uploaded, cache):
    manifest = read_manifest(uploaded)
    first, second = manifest.splits["train"].shards[:2]
    whole = (uploaded / first.file).read_bytes()
    write_atomically(uploaded / first.file, whole[:-1])
    with pytest.raises(InputError, match=rf"{first.file} has {first.bytes - 1} bytes, but manifest\.json says"):
        check_request(manifest, uploaded, "train", 7, FINGERPRINT)
    write_atomically(uploaded / first.file, b"\1" + whole[1:])
    with pytest.raises(StorageError, match=rf"{first.file} holds .* but {first.bytes} bytes with {first.sha256}"):
        BatchSource(uploaded, "train", 7, 3, 0, 2, FINGERPRINT)
    assert names(cache) <= {one.sha256 for one in manifest.splits["train"].shards[1:]} | {f"{first.sha256}.lock"}
    (uploaded / second.file).unlink()
    with pytest.raises(StorageError, match=rf"{second.file} is not there\. Write it again"):
        as_files([Wanted(uploaded / second.file, second.bytes, "0" * 64)])


@pytest.mark.parametrize(
    "fault", ["500", "cut reply", *(pytest.param(one, marks=pytest.mark.slow) for one in ("503", "cut"))]
)
def test_shards_are_whole_though_requests_fail(tokens, uploaded, cache, store: Store, fault):
    store.fail(lambda request: fault if request.number % 3 else None)
    with variables({"GRISTMILL_STORAGE_RETRIES": "8"}):
        ours = BatchSource(uploaded, "train", 7, 3, 0, 2, FINGERPRINT)
    assert same(ours.batch(5), BatchSource(tokens, "train", 7, 3, 0, 2, FINGERPRINT).batch(5))


def test_a_process_that_is_killed_leaves_no_half_of_a_file(bucket, cache, store: Store):
    (one,) = wanted(bucket, bytes(3 * objects.CHUNK))
    program = f"from lm.storage import *\nas_files([Wanted(Url({str(one.place)!r}), {one.bytes}, {one.sha256!r})])"
    process = subprocess.Popen([sys.executable, "-c", program], cwd=REPOSITORY, stdout=subprocess.DEVNULL)
    gets: list[int] = []

    def kill(request) -> str | None:
        gets.extend([1] if request.method == "GET" else [])
        if len(gets) == 2:
            process.kill()
            return "cut"
        return None

    store.fail(kill)
    assert process.wait(60) == -9
    store.fail(lambda request: None)
    assert one.sha256 not in names(cache)
    (path,) = as_files([one])
    assert path.read_bytes() == bytes(3 * objects.CHUNK)


def test_over_its_bound_it_forgets_what_was_asked_for_the_longest_time_ago(bucket, cache):
    old, new, more = wanted(bucket, b"a" * 400, b"b" * 400, b"c" * 400)
    program = "from lm.storage import *\nimport sys\n" + "".join(
        f"as_files([Wanted(Url({str(one.place)!r}), {one.bytes}, {one.sha256!r})])\n" for one in (old, new)
    )
    subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, check=True, stdout=subprocess.DEVNULL)
    before = (cache / new.sha256).stat().st_mtime_ns
    subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, check=True, stdout=subprocess.DEVNULL)
    assert (cache / new.sha256).stat().st_mtime_ns == before  # to be asked for again changes nothing of a file
    os.utime(cache / f"{old.sha256}.used", (1, 1))
    with variables({"GRISTMILL_CACHE_GB": str(900 / 1e9)}):
        as_files([more])
        assert names(cache) == {new.sha256, more.sha256}
        with pytest.raises(InputError, match=r"more do not fit into the cache .* raise GRISTMILL_CACHE_GB"):
            as_files([old, new])
    assert (cache / more.sha256).read_bytes() == b"c" * 400


def test_what_a_living_process_reads_is_not_forgotten(bucket, cache):
    theirs, ours = wanted(bucket, b"a" * 400, b"b" * 400)
    program = (
        f"from lm.storage import *\nas_files([Wanted(Url({str(theirs.place)!r}), 400, {theirs.sha256!r})])\n"
        "print('ready', flush=True)\ninput()"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stdout.readline() and process.stdout.readline() == "ready\n"
        with variables({"GRISTMILL_CACHE_GB": str(500 / 1e9)}):
            with pytest.raises(InputError, match="are read now"):
                as_files([ours])
            process.communicate("")
            as_files([ours])
    assert names(cache) == {ours.sha256}


def test_a_bound_that_is_no_number_is_refused(bucket, cache):
    with (
        variables({"GRISTMILL_CACHE_GB": "much"}),
        pytest.raises(UsageError, match="GRISTMILL_CACHE_GB is 'much'; give a number of gigabytes"),
    ):
        as_files(wanted(bucket, b"a"))


def test_a_cache_that_cannot_be_written_is_told_with_a_remedy(bucket, tmp_path):
    (tmp_path / "file").write_text("")
    with (
        variables({"GRISTMILL_CACHE": str(tmp_path / "file")}),
        pytest.raises(InputError, match=r"cannot be used: Not a directory.*GRISTMILL_CACHE"),
    ):
        as_files(wanted(bucket, b"a"))


def test_the_cache_is_beside_the_others_of_the_user():
    with variables({"XDG_CACHE_HOME": "/caches", "GRISTMILL_CACHE": ""}):
        assert cache_folder() == Path("/caches/gristmill")
