"""The local copy of a run in a bucket: uploads are atomic, and only one of two machines works on the run."""

import json
import os
import re
import subprocess
import sys
import time

import pytest

from configs.experiment import parse_run
from lm.errors import InputError, UsageError
from lm.storage import (
    LocalCopy,
    StorageError,
    Url,
    fetched,
    local_copy_of,
    local_folder,
    objects,
    write_atomically,
)
from lm.storage.lease import Lease, lease_seconds
from lm.storage.local_copy import COPIES, LEASE
from tests.object_store import HOPELESS, Store, variables
from tests.run_files import REPOSITORY


@pytest.fixture
def machines(tmp_path):
    """Each has its own cache."""

    def machine(name: str):
        return variables({"GRISTMILL_CACHE": str(tmp_path / name), "GRISTMILL_LEASE_SECONDS": "0.5"})

    yield machine
    COPIES.clear()


def opened(url: Url) -> LocalCopy:
    """As a new process opens it."""
    COPIES.clear()
    folder = local_folder(url)
    copy = local_copy_of(folder)
    assert copy is not None and copy.folder == folder
    return copy


def write(copy: LocalCopy, **files: str) -> None:
    for name, text in files.items():
        path = copy.folder / name.replace("__", "/").replace("_jsonl", ".jsonl")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_a_push_of_one_machine_is_fetched_by_another(bucket, machines):
    with machines("a"):
        first = opened(bucket / "run")
        with first.held():
            write(first, a="1", tokens__b="22", tokens__c="333")
            first.push(first.here(["a", "tokens"]))
    with machines("b"):
        second = opened(bucket / "run")
        assert second.folder != first.folder
        with second.held():
            assert second.matching(["tokens", "x*"]) == ["tokens/b", "tokens/c"]
            assert (second.size("a"), second.size("tokens/c"), second.size("d")) == (1, 3, None)
            assert second.fetch(["a", "tokens/b", "absent"]) == ["a", "tokens/b"]
            assert (second.folder / "tokens/b").read_text() == "22" and not (second.folder / "tokens/c").exists()
            assert second.fetch(["a", "tokens/b"]) == []
            second.delete(["a", "absent"])
    assert set((bucket / "run").files()) == {LEASE, "tokens/b", "tokens/c"}


def test_unchanged_files_are_not_pushed_again(bucket, machines, store: Store):
    def pushed() -> list[str]:
        first = len(store.requests)
        copy.push(["a", "b"])
        asked = [
            one.path.rpartition("/")[2].rpartition("%2F")[2] for one in store.requests[first:] if one.method != "GET"
        ]
        return [name for name in asked if not name.endswith("lease")]

    with machines("a"):
        copy = opened(bucket / "run")
        with copy.held():
            write(copy, a="1", b="2")
            assert sorted(pushed()) == ["a", "b"]
            write(copy, b="3")
            assert pushed() == ["b"]
        copy = opened(bucket / "run")
        with copy.held():
            copy.fetch(["a", "b"])
            assert pushed() == []
            write(copy, a="4")
            assert pushed() == ["a"]


def test_a_command_starts_with_only_the_files_in_the_bucket(bucket, machines, tmp_path):
    with machines("a"):
        copy = opened(bucket / "run")
        with copy.held():
            write(copy, a="1", b="2", tokens__c="3")
            copy.push(["a", "b"])
            write(copy, d="only here")
            (copy.folder / "link").symlink_to(tmp_path)
        write_atomically(bucket / "run/a", "changed")
        (bucket / "run/b").unlink()
        copy = opened(bucket / "run")
        with copy.held():
            assert [*copy.folder.iterdir()] == [] and tmp_path.is_dir()
            assert copy.fetch(["a", "b", "d"]) == ["a"]
            assert (copy.folder / "a").read_text() == "changed"


def test_objects_replaced_or_deleted_remotely_are_dropped_at_the_next_listing(bucket, machines):
    for name in "abc":
        write_atomically(bucket / "run" / name, name)
    with machines("a"):
        copy = opened(bucket / "run")
        copy.fetch(["a", "b", "c"])
        write_atomically(bucket / "run/a", "changed")
        (bucket / "run/b").unlink()
        assert copy.fetch(["a", "b", "c"]) == []
        copy.refresh()
        assert sorted(path.name for path in copy.folder.iterdir()) == ["c"]
        assert copy.fetch(["a", "b", "c"]) == ["a"] and (copy.folder / "a").read_text() == "changed"


def test_a_growing_log_is_pushed_by_whole_lines(bucket, machines):
    with machines("a"):
        copy = opened(bucket / "run")
        with copy.held():
            write(copy, log_jsonl='{"step": 1}\n{"st')
            copy.push(["log.jsonl"])
            assert (bucket / "run/log.jsonl").read_text() == '{"step": 1}\n'
            write(copy, log_jsonl='{"step": 1}\n{"step": 2}\n')
            copy.push(["log.jsonl"])
            assert (bucket / "run/log.jsonl").read_text() == '{"step": 1}\n{"step": 2}\n'


@pytest.mark.parametrize("fault", ["500", "cut", "lost reply"])
def test_an_interrupted_push_is_repeated(bucket, machines, store: Store, fault):
    with machines("a"):
        copy = opened(bucket / "run")
        with variables(HOPELESS), copy.held():
            write(copy, **{f"f{number}": str(number) for number in range(9)})
            store.fail(lambda request: fault if request.method == "PUT" and "f5" in request.path else None)
            with pytest.raises(StorageError, match="f5 cannot be written"):
                copy.push([f"f{number}" for number in range(9)])
            store.fail(lambda request: None)
            copy.push(copy.here(["f*"]))
        assert [(bucket / f"run/f{number}").read_text() for number in range(9)] == [*"012345678"]


def test_an_interrupted_fetch_leaves_whole_files(bucket, machines, store: Store):
    for number in range(9):
        write_atomically(bucket / f"run/f{number}", str(number) * 1000)
    with machines("a"):
        copy = opened(bucket / "run")
        with variables(HOPELESS), copy.held():
            store.fail(lambda request: "cut reply" if request.method == "GET" and "f5" in request.path else None)
            with pytest.raises(StorageError, match="f5 cannot be read"):
                copy.fetch(copy.matching(["f*"]))
            store.fail(lambda request: None)
            here = [path for path in copy.folder.iterdir() if path.name.startswith("f")]
            assert all(path.read_text() == path.name[1] * 1000 for path in here) and len(here) < 9
            missing = {f"f{number}" for number in range(9)} - {path.name for path in here}
            assert set(copy.fetch(copy.matching(["f*"]))) == missing  # whole files are not downloaded again
            assert len([path for path in copy.folder.iterdir() if path.name.startswith("f")]) == 9


def test_only_one_of_two_machines_works(bucket, machines):
    with machines("a"):
        ours = opened(bucket / "run")
        with ours.held():
            theirs = Lease(bucket / "run" / LEASE, "another copy")
            theirs.seconds = 60.0  # how long they watch; ours is renewed meanwhile
            with pytest.raises(
                InputError, match=rf"Another process \({os.getpid()} on .*\) is working in {bucket}/run"
            ):
                theirs.take()
            write(ours, a="1")
            ours.push(["a"])
        theirs.take()
        with pytest.raises(InputError, match="is working in"):
            Lease(bucket / "run" / LEASE, "a third").write(True, objects.ABSENT)


@pytest.mark.parametrize("transfer", ["push", "fetch"])
def test_the_lease_is_renewed_during_a_transfer(bucket, machines, store: Store, transfer):
    write_atomically(bucket / "run/there", "1")
    with machines("a"):
        ours = opened(bucket / "run")
        with ours.held():
            write(ours, here="1")
            assert ours.lease is not None
            begun = ours.lease.renewed
            seen: list[float] = []

            def until_renewed_twice(request) -> None:
                """The transfer ends after the lease was renewed twice, or after 60 s if it is not renewed."""
                if request.path.endswith("here"):
                    end = time.monotonic() + 60
                    while len(seen) < 2 and time.monotonic() < end:
                        if ours.lease and ours.lease.renewed not in (begun, *seen):
                            seen.append(ours.lease.renewed)
                        time.sleep(0.01)

            store.fail(until_renewed_twice)
            ours.push(["here"]) if transfer == "push" else ours.fetch(["there"])
            assert len(seen) == 2


def test_the_lease_of_a_killed_process_expires_and_is_taken_over(bucket, machines, tmp_path, capsys):
    program = (
        f"from lm.storage import *\ncopy = local_copy_of(local_folder(Url({str(bucket / 'run')!r})))\n"
        "with copy.held():\n    (copy.folder / 'a').write_text('1')\n    copy.push(['a'])\n"
        "    print('ready', flush=True)\n    input()"
    )
    environment = os.environ | {"GRISTMILL_CACHE": str(tmp_path / "a"), "GRISTMILL_LEASE_SECONDS": "600"}
    command = [sys.executable, "-c", program]
    with subprocess.Popen(
        command, cwd=REPOSITORY, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout and process.stdout.readline() == "ready\n"
        process.kill()
    with machines("b"), (copy := opened(bucket / "run")).held():
        assert "did not release it; waiting 0.5 s to see whether it is still running" in capsys.readouterr().out
        assert copy.fetch(["a"]) == ["a"]
    with machines("a"), opened(bucket / "run").held():  # and back, although its list of files was never current
        pass


def test_a_process_that_lost_the_lease_writes_nothing(bucket, machines):
    with machines("a"):
        ours = opened(bucket / "run")
        with ours.held():
            assert ours.lease is not None
            _, said = ours.lease.read()
            objects.upload(json.dumps(said | {"holder": "another"}).encode(), f"{bucket}/run/{LEASE}")
            ours.lease.renewed = -1e9
            write(ours, a="1")
            with pytest.raises(InputError, match=r"is working in|taken over by another"):
                ours.push(["a"])
        assert set((bucket / "run").files()) == {LEASE}
        assert json.loads((bucket / "run" / LEASE).read_bytes())["holder"] == "another"


def test_a_lease_is_held_if_the_response_was_lost(bucket, machines, store: Store):
    with machines("a"):
        store.fail_once("lost reply", "PUT .*lease")
        with opened(bucket / "run").held():
            pass


@pytest.mark.parametrize("lost", ["beat", "release"])
def test_a_lease_renewed_just_before_a_network_outage_is_held(bucket, machines, store: Store, lost):
    """Its next renewal replaces the one whose response was lost."""
    with machines("a"), variables({"GRISTMILL_STORAGE_RETRIES": "0", "GRISTMILL_STORAGE_TIMEOUT": "30"}):
        lease = Lease(bucket / "run" / LEASE, "a copy")
        lease.take()
        faults = ["lost reply"]
        store.fail(lambda request: faults.pop() if faults else "cut")
        with pytest.raises(StorageError, match="lease cannot be"):
            lease.beat()
        store.fail(lambda request: None)
        lease.beat() if lost == "beat" else lease.release()
        _, said = lease.read()
        assert (said["process"], said["held"]) == (lease.process, lost == "beat")


def test_without_the_lease_nothing_is_written(bucket, machines):
    with machines("a"):
        copy = opened(bucket / "run")
        write(copy, a="1")
        with pytest.raises(StorageError, match="is read-only here"):
            copy.push(["a"])
        assert (bucket / "run").files() == {}


def test_a_folder_that_cannot_be_created_is_reported_with_a_remedy(bucket, tmp_path):
    (tmp_path / "file").write_text("")
    with (
        variables({"GRISTMILL_CACHE": str(tmp_path / "file")}),
        pytest.raises(InputError, match=r"for files of .*/run, cannot be written: .*GRISTMILL_CACHE"),
    ):
        opened(bucket / "run").clear()


def test_an_unused_url_leaves_nothing_on_disk(bucket, machines, tmp_path):
    with machines("a"):
        opened(bucket / "run")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", ["0", "soon", "1e9"])
def test_invalid_lease_durations_are_rejected(value):
    with (
        variables({"GRISTMILL_LEASE_SECONDS": value}),
        pytest.raises(UsageError, match=f"GRISTMILL_LEASE_SECONDS is '{value}'; give a number from 0.01 to 86,400"),
    ):
        lease_seconds()


def test_downloads_are_cached_for_all_processes_until_the_object_changes(bucket, machines, store: Store):
    """Processes that download a file at the same time get whole files, later ones download nothing."""
    texts = {f"f{number}": str(number) * 100_000 for number in range(20)}
    for name, text in texts.items():
        write_atomically(bucket / "model" / name, text)
    program = (
        f"from lm.storage import *\ninput()\nfolder = fetched(Url({str(bucket / 'model')!r}))\n"
        "assert folder.name == 'model'\n"
        "assert all((folder / f'f{n}').read_text() == str(n) * 100_000 for n in range(20))"
    )
    with machines("a"):
        command = [sys.executable, "-c", program]
        processes = [subprocess.Popen(command, cwd=REPOSITORY, stdin=subprocess.PIPE, text=True) for _ in range(3)]
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.close()
        assert [process.wait(60) for process in processes] == [0, 0, 0]
        read = lambda: {path.name: path.read_text() for path in fetched.__wrapped__(bucket / "model").iterdir()}
        for change in ({}, {"f3": "changed"}, {"f3": "again", "g": "new"}):
            for name, text in change.items():
                write_atomically(bucket / "model" / name, text)
            texts |= change
            assert read() == texts
            already = len(store.requests)
            assert read() == texts
            assert not [one.path for one in store.requests[already:] if re.search("model(/|%2F)[a-z]", one.path)]


def test_an_object_replaced_during_its_download_is_fetched_again(bucket, machines, store: Store):
    write_atomically(bucket / "model/a", "version 0")
    versions = ["version 3", "version 2", "version 1"]

    def fault(request) -> None:
        if request.method == "GET" and re.search("model(/|%2F)a", request.path) and versions:
            write_atomically(bucket / "model/a", versions.pop())

    with machines("a"):
        store.fail(fault)
        assert (fetched(bucket / "model") / "a").read_text() == "version 3"
        store.fail(lambda request: None)
        assert not fetched(bucket / "nothing").exists()


def test_long_names_are_fetched(bucket, machines):
    name = "n" * 215
    write_atomically(bucket / ("p" * 100) / name, "long")
    with machines("a"):
        assert fetched(bucket / ("p" * 100) / name).read_text() == "long"


def test_a_relative_cache_is_the_same_folder_from_everywhere(bucket, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, value in (("GRISTMILL_CACHE", "cache"), ("XDG_CACHE_HOME", "home")):
        monkeypatch.delenv("GRISTMILL_CACHE", raising=False)
        monkeypatch.setenv(name, value)
        folder = local_folder(bucket / "run")
        assert folder.is_relative_to(tmp_path) and local_copy_of(folder.absolute()) is not None


def test_the_local_folder_of_a_run_in_a_bucket_is_no_run_folder(bucket, machines):
    with machines("a"):
        copy = opened(bucket / "run")
        copy.make()
        with pytest.raises(UsageError, match="is the local folder of a run in a bucket, and is emptied"):
            parse_run("launch.train", "", ["tests/configs.py", "--workdir", str(copy.folder)])


def test_folders_of_killed_readers_are_deleted(bucket, machines, tmp_path):
    program = (
        f"from lm.storage import *\nprint(local_folder(Url({str(bucket / 'run')!r}), 'reading'), flush=True)\n"
        "import os, signal\ncopy = local_copy_of(local_folder(Url('s3://a/b'), 'reading'))\ncopy.make()\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    environment = os.environ | {"GRISTMILL_CACHE": str(tmp_path / "a")}
    command = [sys.executable, "-c", program]
    for _ in range(3):
        subprocess.run(command, cwd=REPOSITORY, env=environment, check=False, capture_output=True)
        assert len([path for path in (tmp_path / "a/readers").iterdir() if path.is_dir()]) == 1
        assert len([*(tmp_path / "a/readers").glob("*.lock")]) == 1


@pytest.mark.parametrize("address", ["hf://datasets/a/b/run", "https://host/run"])
def test_a_run_folder_needs_a_store_with_conditional_writes(address):
    with pytest.raises(UsageError, match=r"cannot be a run folder: give one on a disk, or in s3:// or gs://"):
        local_folder(Url(address))
