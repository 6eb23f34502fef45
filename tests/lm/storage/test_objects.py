"""Objects are complete or absent after any fault; permanent failures are reported with URL and remedy."""

import io
import os
import random
import re
import subprocess
import sys

import pytest
from obstore.exceptions import AlreadyExistsError, PreconditionError

from lm.errors import UsageError
from lm.storage import StorageError, Url, appearing, objects, place_of, size_of, stores, write_atomically, write_json
from tests.object_store import FAULTS, HOPELESS, IMPATIENT, Request, Store, variables
from tests.run_files import REPOSITORY

BOTH = pytest.mark.parametrize("bucket", objects.SCHEMES, indirect=True)
"""For tests of what differs between the stores."""
CHUNK = 5 << 20
"""The smallest part of an upload that S3 allows."""
LARGE = CHUNK + 12_345
"""Bytes of an object that is uploaded and downloaded in parts."""


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(objects, "CHUNK", CHUNK)


def noise(size: int) -> bytes:
    return random.Random(size).randbytes(size)


@pytest.mark.parametrize("size", [0, 1, CHUNK, LARGE])
def test_an_upload_is_downloaded_unchanged(bucket, tmp_path, size):
    (tmp_path / "up").write_bytes(noise(size))
    objects.upload(tmp_path / "up", (bucket / "a/b").address)
    stores.download((bucket / "a/b").address, tmp_path / "down")
    assert (tmp_path / "down").read_bytes() == noise(size) == (bucket / "a/b").read_bytes()
    assert size_of(bucket / "a/b") == size


@BOTH
def test_a_url_is_written_and_read_like_a_file(bucket, tmp_path):
    for folder in (bucket / "run", tmp_path / "run"):
        write_json(folder / "a/note.json", {"grist": "mill"})
        write_atomically(folder / "b.txt", "Müller")
        with appearing(folder / "a/c") as partial:
            partial.write_bytes(b"whole")
            assert not (folder / "a/c").exists()
        assert (folder / "b.txt").read_text(encoding="utf-8") == "Müller"
        assert sorted(path.name for path in folder.iterdir()) == ["a", "b.txt"]
        assert (folder / "a").is_dir() and (folder / "a/c").is_file() and not (folder / "a").is_file()
        assert size_of(folder / "a/c") == 5 and size_of(folder / "a") is None and size_of(folder / "d") is None
        assert (folder / "a/c").parent == folder / "a" and (folder / "a/c").with_name("d") == folder / "a/d"
        (folder / "a/c").unlink(missing_ok=True)
        (folder / "a/c").unlink(missing_ok=True)
        assert not (folder / "a/c").exists() and (folder / "a/note.json").exists()
        with pytest.raises(FileNotFoundError, match="a/c"):
            (folder / "a/c").read_bytes()


def test_a_failed_block_keeps_the_old_object(bucket):
    write_atomically(bucket / "a", b"before")
    with pytest.raises(KeyError), appearing(bucket / "a") as partial:
        partial.write_bytes(b"half")
        raise KeyError
    assert (bucket / "a").read_bytes() == b"before"


def test_files_lists_all_objects_below_a_prefix(bucket):
    names = ["a", "run/a", "run/b/c", "run2/d"]
    for name in names:
        write_atomically(bucket / name, name)
    assert list(bucket.files()) == names
    assert {name: found.size for name, found in (bucket / "run").files().items()} == {"a": 5, "b/c": 7}
    assert (bucket / "r").files() == {}


def test_listings_and_deletions_of_more_than_a_page(store):
    store.bucket("many")
    bucket = Url("s3://many")
    for number in range(1005):
        store.put(f"{bucket}/{number:04d}", b"x")
    assert len(bucket.files()) == 1005
    objects.delete((bucket / name).address for name in bucket.files())
    assert bucket.files() == {}


def test_a_file_is_read_from_any_offset(bucket):
    content = noise(3_000_000)
    write_atomically(bucket / "a", content)
    ours, theirs = (bucket / "a").open(), io.BytesIO(content)
    for offset, whence, size in [(5, 0, 10), (2_999_990, 0, 100), (-7, 2, -1), (100, 0, 2_500_000), (3, 1, 4)]:
        assert ours.seek(offset, whence) == theirs.seek(offset, whence)
        assert ours.read(size) == theirs.read(size)
    assert (bucket / "a").read_range(7, 9) == content[7:9]
    assert (bucket / "a").read_range(9, 9) == b""


@BOTH
def test_an_object_replaced_during_a_read_is_not_mixed_with_the_new_one(bucket, tmp_path):
    write_atomically(bucket / "a", noise(2**21))
    file = (bucket / "a").open()
    file.read(10)
    was = (bucket / "a").found()
    write_atomically(bucket / "a", bytes(2**21))
    with pytest.raises(StorageError, match=r"/a was replaced while it was read\. Run the command again"):
        file.read()
    with pytest.raises(StorageError, match=r"/a was replaced while it was read"):
        stores.download((bucket / "a").address, tmp_path / "a", was)


@BOTH
def test_conditional_writes(bucket):
    address = (bucket / "lease").address
    first = objects.upload(b"1", address, objects.ABSENT)
    with pytest.raises(AlreadyExistsError):
        objects.upload(b"2", address, objects.ABSENT)
    second = objects.upload(b"2", address, first)
    with pytest.raises(PreconditionError):
        objects.upload(b"3", address, first)
    assert objects.head(address) == second
    assert objects.read(address) == b"2"


PASSING = [one for one in FAULTS if one != "stall"]  # that costs the time until it gives up


@pytest.mark.fast_rows
@pytest.mark.parametrize("faults", [PASSING, *([one] for one in PASSING)], ids=["all", *PASSING])
def test_intermittent_failures_are_retried(store: Store, bucket, tmp_path, faults):
    """Every third request fails."""
    content = noise(LARGE)
    (tmp_path / "up").write_bytes(content)
    store.fail(lambda request: None if request.number % 3 else faults[request.number // 3 % len(faults)])
    with variables({"GRISTMILL_STORAGE_RETRIES": "8"}):
        objects.upload(tmp_path / "up", (bucket / "a").address)
        write_atomically(bucket / "b", b"small")
        stores.download((bucket / "a").address, tmp_path / "down")
        assert (bucket / "b").read_bytes() == b"small"
        assert list(bucket.files()) == ["a", "b"]
        objects.delete([(bucket / "b").address])
        assert list(bucket.files()) == ["a"]
    assert (tmp_path / "down").read_bytes() == content


@pytest.mark.fast_rows
@pytest.mark.parametrize(
    "patterns",
    [
        ("GET .*/a", "PUT .*partNumber=2", "GET .*list-type"),
        ("PUT .*/a", "POST .*uploads", "POST .*uploadId"),
    ],
    ids=["reads", "writes"],
)
def test_a_request_without_a_response_is_retried(store: Store, bucket, tmp_path, patterns):
    """The first request that matches each pattern gets no response."""
    content, left = noise(LARGE), [*patterns]
    (tmp_path / "up").write_bytes(content)
    write_atomically(bucket / "b", b"small")

    def fault(request: Request) -> str | None:
        with store.lock:
            found = next((one for one in left if re.search(one, f"{request.method} {request.path}")), None)
            if found is not None:
                left.remove(found)
        return found and "stall"

    store.fail(fault)
    with variables(IMPATIENT):
        objects.upload(tmp_path / "up", (bucket / "a").address)
        write_atomically(bucket / "ab", b"small")
        stores.download((bucket / "a").address, tmp_path / "down")
        assert list(bucket.files()) == ["a", "ab", "b"]
    assert (tmp_path / "down").read_bytes() == content and not left


@pytest.mark.parametrize("fault", ["lost reply", "cut reply"])
def test_an_upload_whose_last_response_is_lost_succeeds(store: Store, bucket, tmp_path, fault):
    """The parts were joined, so the retried request finds none."""
    (tmp_path / "up").write_bytes(noise(LARGE))
    store.fail_once(fault, "POST .*uploadId")
    objects.upload(tmp_path / "up", (bucket / "a").address)
    assert (bucket / "a").read_bytes() == noise(LARGE)


@pytest.mark.parametrize("fault", PASSING)
def test_permanent_failures_are_reported_with_url_cause_and_remedy(store: Store, bucket, tmp_path, fault):
    write_atomically(bucket / "a", b"before")
    (tmp_path / "up").write_bytes(noise(LARGE))
    store.fail(lambda request: fault)
    tries = [
        ("read", lambda: (bucket / "a").read_bytes()),
        ("written", lambda: objects.upload(tmp_path / "up", (bucket / "a").address)),
        ("listed", bucket.files),
    ]
    if fault != "cut reply":  # it is empty
        tries.append(("written", lambda: write_atomically(bucket / "a", b"after")))
    with variables(HOPELESS):
        for verb, request in tries:
            message = rf"^{re.escape(str(bucket))}(/a)? cannot be {verb}: .*[^.]\. Tried 4 times\. Check the store"
            with pytest.raises(StorageError, match=message) as raised:
                request()
            assert {"500": "500 Internal", "503": "SlowDown"}.get(fault, "") in str(raised.value)
            assert "Debug" not in str(raised.value) and len(str(raised.value)) < 700
    store.fail(lambda request: None)
    allowed = [b"before", b"after", noise(LARGE)] if fault in ("lost reply", "cut reply") else [b"before"]
    assert (bucket / "a").read_bytes() in allowed


@pytest.mark.parametrize("at", ["POST .*uploads", "PUT .*partNumber=2", "POST .*uploadId"])
def test_a_killed_upload_keeps_the_old_object(store: Store, bucket, tmp_path, at):
    """Killed at the first request, at a part, and at the request that joins the parts."""
    (tmp_path / "up").write_bytes(noise(LARGE))
    write_atomically(bucket / "a", b"before")
    program = f"import sys, pathlib\nfrom lm.storage import objects\nobjects.CHUNK = {CHUNK}\n"
    program += "objects.upload(pathlib.Path(sys.argv[1]), sys.argv[2])"
    command = [sys.executable, "-c", program, str(tmp_path / "up"), (bucket / "a").address]
    process = subprocess.Popen(command, cwd=REPOSITORY)

    def kill(request: Request) -> str | None:
        if not re.search(at, f"{request.method} {request.path}"):
            return None
        process.kill()
        return "cut"

    store.fail(kill)
    process.wait(60)
    store.fail(lambda request: None)
    assert process.returncode == -9
    assert (bucket / "a").read_bytes() == b"before"
    assert list(bucket.files()) == ["a"]


def test_requests_to_a_missing_bucket_are_not_retried(store: Store):
    first = len(store.requests)
    with pytest.raises(StorageError, match=r"there is no bucket gone\. Create it, or correct the name in s3://gone"):
        write_atomically(Url("s3://gone/a"), b"")
    assert len(store.requests) == first + 1
    with pytest.raises(StorageError, match="there is no bucket gone"):
        Url("s3://gone/a").files()


@pytest.mark.parametrize("name", ["plain a.txt", "a#b", "a%23b", "a?b", "a*b", "a[1]", "a+b&c", "ü", "{x}", "a\\b"])
def test_names_are_listed_as_given(bucket, name):
    write_atomically(bucket / "folder" / name, name)
    assert list((bucket / "folder").files()) == [name]
    assert (bucket / "folder" / name).read_text() == name
    objects.delete([(bucket / "folder" / name).address])
    assert (bucket / "folder").files() == {}


def test_invalid_object_names_are_rejected_at_once(store: Store, bucket):
    first = len(store.requests)
    with pytest.raises(StorageError, match=r"cannot be written: .*illegal character.*another name"):
        write_atomically(bucket / "a\tb", b"")
    assert len(store.requests) == first


def test_keys_that_lead_out_of_a_folder_are_rejected(store: Store, bucket):
    store.put(f"{bucket}/run/../../evil", b"x")
    with pytest.raises(StorageError, match=r"cannot be listed: .*invalid path.*another name"):
        bucket.files()


@BOTH
def test_without_credentials_the_missing_ones_are_named(store: Store, bucket):
    with variables(
        {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "GOOGLE_BEARER_TOKEN": "", "HOME": "/nowhere"}
    ):
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "GOOGLE_BEARER_TOKEN"):
            del os.environ[name]
        name = (
            r"AWS_ACCESS_KEY_ID .*~/\.aws is not read"
            if bucket.address.startswith("s3")
            else "GOOGLE_APPLICATION_CREDENTIALS"
        )
        with pytest.raises(StorageError, match=name):
            (bucket / "a").read_bytes()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ftp://host/a", "begins with none of s3://, gs://"),
        ("hf://datasets/owner", "is not a file on the hub"),
        ("https://name:password@host/a", "is not the address of an object"),
        ("s3://", "is not the address of an object"),
        ("s3:///key", "is not the address of an object"),
        ("s3://bucket/../a", r"with no \. or \.\. in NAME"),
    ],
)
def test_other_urls_are_rejected(text, message):
    with pytest.raises(UsageError, match=message):
        place_of(text)


@pytest.mark.parametrize(("name", "value"), [("TIMEOUT", "soon"), ("TIMEOUT", "0"), ("RETRIES", "-1")])
def test_invalid_settings_are_rejected(name, value):
    with (
        variables({f"GRISTMILL_STORAGE_{name}": value}),
        pytest.raises(UsageError, match=f"GRISTMILL_STORAGE_{name} is '{value}'; give a number from"),
    ):
        objects.timeout(), objects.retries()
