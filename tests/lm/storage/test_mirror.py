"""A working copy and the bucket agree: what is pushed is whole, what somebody changed there is right, nothing that only
is here is lost, and of two machines one works."""

import itertools
import json
import os
import shutil
import subprocess
import sys
import time

import pytest

from lm.errors import InputError, UsageError
from lm.storage import Mirror, StorageError, Url, copy_of, mirror_of, objects, write_atomically
from lm.storage import mirror as mirror_module
from lm.storage.lease import Lease, lease_seconds
from lm.storage.mirror import LEASE, MIRRORS, log_parts
from tests.object_store import HOPELESS, Store, variables
from tests.run_files import REPOSITORY


@pytest.fixture
def machines(tmp_path):
    """Each has a cache of its own."""

    def machine(name: str):
        return variables({"GRISTMILL_CACHE": str(tmp_path / name), "GRISTMILL_LEASE_SECONDS": "0.5"})

    yield machine
    MIRRORS.clear()


def opened(url: Url) -> Mirror:
    """As a new process opens it."""
    MIRRORS.clear()
    folder = copy_of(url)
    mirror = mirror_of(folder)
    assert mirror is not None and mirror.folder == folder
    return mirror


def write(mirror: Mirror, **files: str) -> None:
    for name, text in files.items():
        path = mirror.folder / name.replace("__", "/").replace("_jsonl", ".jsonl")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_what_one_machine_pushes_another_fetches(bucket, machines):
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


def test_what_is_alike_is_not_pushed_again(bucket, machines, store: Store):
    with machines("a"):
        mirror = opened(bucket / "run")
        with mirror.held():
            write(mirror, a="1", b="2")
            mirror.push(["a", "b"])
        mirror = opened(bucket / "run")
        with mirror.held():
            write(mirror, b="3")
            first = len(store.requests)
            mirror.push(["a", "b"])
            asked = [one.path.rpartition("/")[2].rpartition("%2F")[2] for one in store.requests[first:]]
            assert [name for name in asked if not name.endswith("lease")] == ["b"]


def test_what_somebody_changed_or_deleted_there_is_right(bucket, machines):
    with machines("a"):
        mirror = opened(bucket / "run")
        with mirror.held():
            write(mirror, a="1", b="2", c="3")
            mirror.push(["a", "b", "c"])
        write_atomically(bucket / "run/a", "changed")
        (bucket / "run/b").unlink()
        mirror = opened(bucket / "run")
        with mirror.held():
            assert not (mirror.folder / "a").exists() and not (mirror.folder / "b").exists()
            assert (mirror.folder / "c").read_text() == "3"
            mirror.fetch(["a"])
            assert (mirror.folder / "a").read_text() == "changed"


def test_what_was_not_pushed_stays_where_nobody_else_was_at_work(bucket, machines):
    with machines("a"):
        mirror = opened(bucket / "run")
        with mirror.held():
            write(mirror, a="1", log_jsonl="1\n")
            mirror.push(["a", "log.jsonl"])
            write(mirror, b="only here", log_jsonl="1\n2\n")
        mirror = opened(bucket / "run")
        with mirror.held():
            assert (mirror.folder / "b").read_text() == "only here"
            assert (mirror.folder / "log.jsonl").read_text() == "1\n2\n"


def test_what_was_not_pushed_is_moved_aside_where_another_machine_went_on(bucket, machines, capsys):
    with machines("a"):
        mirror = opened(bucket / "run")
        with mirror.held():
            write(mirror, a="1", log_jsonl="1\n")
            mirror.push(["a", "log.jsonl"])
            write(mirror, b="only here", log_jsonl="1\nmine\n")
    with machines("b"):
        other = opened(bucket / "run")
        with other.held():
            other.fetch(["log.jsonl"])
            write(other, log_jsonl="1\ntheirs\n")
            other.push(["log.jsonl"])
    with machines("a"):
        mirror = opened(bucket / "run")
        with mirror.held():
            assert {path.name for path in mirror.folder.iterdir()} == {".remote", "a"}
            mirror.fetch(["log.jsonl"])
            assert (mirror.folder / "log.jsonl").read_text() == "1\ntheirs\n"
        aside = mirror.folder.with_name(f"{mirror.folder.name}.aside-1")
        assert (aside / "b").read_text() == "only here" and (aside / "log.jsonl").read_text() == "1\nmine\n"
    assert str(aside) in capsys.readouterr().out


def test_a_log_that_grows_is_pushed_by_whole_lines(bucket, machines):
    with machines("a"):
        mirror = opened(bucket / "run")
        with mirror.held():
            write(mirror, log_jsonl='{"step": 1}\n{"st')
            mirror.push(["log.jsonl"])
            assert (bucket / "run/log.jsonl").read_text() == '{"step": 1}\n'
            write(mirror, log_jsonl='{"step": 1}\n{"step": 2}\n')
            mirror.push(["log.jsonl"])
            assert (bucket / "run/log.jsonl").read_text() == '{"step": 1}\n{"step": 2}\n'


@pytest.mark.parametrize("fault", ["500", "cut", "lost reply"])
def test_a_push_that_was_cut_short_is_done_again(bucket, machines, store: Store, fault):
    with machines("a"):
        mirror = opened(bucket / "run")
        with variables(HOPELESS), mirror.held():
            write(mirror, **{f"f{number}": str(number) for number in range(9)})
            store.fail(lambda request: fault if request.method == "PUT" and "f5" in request.path else None)
            with pytest.raises(StorageError, match="f5 cannot be written"):
                mirror.push([f"f{number}" for number in range(9)])
        store.fail(lambda request: None)
        mirror = opened(bucket / "run")
        with mirror.held():
            mirror.push(mirror.here(["f*"]))
        assert [(bucket / f"run/f{number}").read_text() for number in range(9)] == [*"012345678"]


def test_a_fetch_that_was_cut_short_leaves_whole_files(bucket, machines, store: Store):
    for number in range(9):
        write_atomically(bucket / f"run/f{number}", str(number) * 1000)
    with machines("a"):
        mirror = opened(bucket / "run")
        with variables(HOPELESS), mirror.held():
            store.fail(lambda request: "cut reply" if request.method == "GET" and "f5" in request.path else None)
            with pytest.raises(StorageError, match="f5 cannot be read"):
                mirror.fetch(mirror.matching(["f*"]))
            store.fail(lambda request: None)
            here = [path for path in mirror.folder.iterdir() if path.name.startswith("f")]
            assert all(path.read_text() == path.name[1] * 1000 for path in here) and len(here) < 9
            mirror.fetch(mirror.matching(["f*"]))
            assert len([path for path in mirror.folder.iterdir() if path.name.startswith("f")]) == 9


def test_of_two_machines_one_works(bucket, machines):
    with machines("a"):
        ours = opened(bucket / "run")
        with ours.held():
            theirs = Lease(bucket / "run" / LEASE, "another copy")
            theirs.seconds = 60.0  # they look for so long; ours is renewed meanwhile
            with pytest.raises(
                InputError, match=rf"Another process \({os.getpid()} on .*\) is at work in {bucket}/run"
            ):
                theirs.take()
            write(ours, a="1")
            ours.push(["a"])
        theirs.take()
        with pytest.raises(InputError, match="is at work in"):
            Lease(bucket / "run" / LEASE, "a third").write(True, objects.ABSENT)


@pytest.mark.parametrize("transfer", ["push", "fetch"])
def test_the_lease_is_renewed_while_a_file_is_on_its_way(bucket, machines, store: Store, transfer):
    write_atomically(bucket / "run/there", "1")
    with machines("a"):
        ours = opened(bucket / "run")
        with ours.held():
            write(ours, here="1")
            assert ours.lease is not None
            begun = ours.lease.renewed
            seen: list[float] = []

            def until_renewed_twice(request) -> None:
                """The transfer ends after the lease was renewed twice, or, where it is not, after 30 s."""
                if request.path.endswith("here"):
                    end = time.monotonic() + 30
                    while len(seen) < 2 and time.monotonic() < end:
                        if ours.lease and ours.lease.renewed not in (begun, *seen):
                            seen.append(ours.lease.renewed)
                        time.sleep(0.01)

            store.fail(until_renewed_twice)
            ours.push(["here"]) if transfer == "push" else ours.fetch(["there"])
            assert len(seen) == 2


def test_a_process_that_was_killed_is_waited_for_and_taken_over(bucket, machines, tmp_path, capsys):
    program = (
        f"from lm.storage import *\nmirror = mirror_of(copy_of(Url({str(bucket / 'run')!r})))\n"
        "with mirror.held():\n    (mirror.folder / 'a').write_text('1')\n    mirror.push(['a'])\n"
        "    print('ready', flush=True)\n    input()"
    )
    environment = os.environ | {"GRISTMILL_CACHE": str(tmp_path / "a"), "GRISTMILL_LEASE_SECONDS": "600"}
    command = [sys.executable, "-c", program]
    with subprocess.Popen(
        command, cwd=REPOSITORY, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout and process.stdout.readline() == "ready\n"
        process.kill()
    with machines("b"), (mirror := opened(bucket / "run")).held():
        assert "did not say that it has ended; looking for 0.5 s whether it lives" in capsys.readouterr().out
        assert mirror.fetch(["a"]) == ["a"]
    with machines("a"), opened(bucket / "run").held():  # and back, though its list of what it had was never so
        pass


def test_who_was_taken_over_writes_nothing_more(bucket, machines):
    with machines("a"):
        ours = opened(bucket / "run")
        with ours.held():
            assert ours.lease is not None
            _, said = ours.lease.read()
            objects.write(f"{bucket}/run/{LEASE}", json.dumps(said | {"holder": "another"}).encode())
            ours.lease.renewed = -1e9
            write(ours, a="1")
            with pytest.raises(InputError, match=r"is at work in|taken over by another"):
                ours.push(["a"])
        assert set((bucket / "run").files()) == {LEASE}
        assert json.loads((bucket / "run" / LEASE).read_bytes())["holder"] == "another"


def test_a_lease_whose_answer_was_lost_is_held(bucket, machines, store: Store):
    with machines("a"):
        store.fail_once("lost reply", "PUT .*lease")
        with opened(bucket / "run").held():
            pass


@pytest.mark.parametrize("lost", ["beat", "release"])
def test_a_lease_that_was_renewed_just_before_the_network_went_away_is_held(bucket, machines, store: Store, lost):
    """Its next note, whichever, is written in place of the one whose answer was lost."""
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


def test_a_copy_that_was_deleted_is_made_anew(bucket, machines):
    with machines("a"):
        mirror = opened(bucket / "run")
        with mirror.held():
            write(mirror, a="1")
            mirror.push(["a"])
        shutil.rmtree(mirror.folder)
        mirror = opened(bucket / "run")
        with mirror.held():
            mirror.fetch(["a"])
            assert (mirror.folder / "a").read_text() == "1"


def test_without_the_lease_nothing_is_written(bucket, machines):
    with machines("a"):
        mirror = opened(bucket / "run")
        write(mirror, a="1")
        with pytest.raises(StorageError, match="is only read here"):
            mirror.push(["a"])
        assert (bucket / "run").files() == {}


def test_a_copy_that_cannot_be_made_is_told_with_a_remedy(bucket, tmp_path):
    (tmp_path / "file").write_text("")
    with (
        variables({"GRISTMILL_CACHE": str(tmp_path / "file")}),
        pytest.raises(InputError, match=r"The working copy .* cannot be written: .*GRISTMILL_CACHE"),
    ):
        opened(bucket / "run").agree(sole=True)


def test_an_address_that_is_only_named_leaves_nothing_on_the_disk(bucket, machines, tmp_path):
    with machines("a"):
        opened(bucket / "run")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", ["0", "soon", "1e9"])
def test_seconds_of_a_lease_that_make_no_sense_are_refused(value):
    with (
        variables({"GRISTMILL_LEASE_SECONDS": value}),
        pytest.raises(UsageError, match=f"GRISTMILL_LEASE_SECONDS is '{value}'; give a number of seconds"),
    ):
        lease_seconds()


def test_processes_that_read_by_the_same_copy_leave_one_another_what_they_have_brought(bucket, machines, tmp_path):
    """As those that train from a checkpoint in a bucket do, on one machine."""
    for number in range(20):
        write_atomically(bucket / f"checkpoints/8/f{number}", str(number) * 100_000)
    program = (
        f"from lm.storage import *\ninput()\nfolder = fetched(Url({str(bucket / 'checkpoints/8')!r}))\n"
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
    assert not list((tmp_path / "a/reading").glob("*.aside*"))


def test_a_folder_like_any_other_stands_for_nothing(tmp_path):
    assert mirror_of(tmp_path) is None


@pytest.mark.parametrize("address", ["hf://datasets/a/b/run", "https://host/run"])
def test_a_run_folder_needs_a_store_that_refuses_a_second_writer(address):
    with pytest.raises(UsageError, match=r"cannot be a run folder: give one on a disk, or in s3:// or gs://"):
        copy_of(Url(address))


def rows(*numbers: int) -> str:
    return "".join(f'{{"step": {number}}}\n' for number in numbers)


def test_parts_of_a_log_are_its_lines_and_appending_changes_the_last_alone(monkeypatch):
    monkeypatch.setattr(mirror_module, "PART_BYTES", 40)
    log = rows(*range(50)).encode()
    ends = [end for end in range(len(log) + 1) if log[:end].endswith(b"\n")]
    before: list[bytes] = []
    for end in [0, *ends]:
        for torn in (b"", b'{"step'):
            parts = log_parts(log[:end] + torn)
            assert b"".join(parts) == log[:end] and parts[: len(before) - 1] == before[:-1]
            assert all(40 < len(part) <= 40 + len(rows(10)) and part.endswith(b"\n") for part in parts[:-1])
            before = parts
    assert len(before) > 10
    assert log_parts(b"x" * 200 + b"\n") == [b"x" * 200 + b"\n"]


def test_a_log_that_grows_is_pushed_by_its_last_part_and_fetched_whole(bucket, machines, store, monkeypatch):
    monkeypatch.setattr(mirror_module, "PART_BYTES", 200)
    log = bucket / "run" / "metrics.jsonl"
    with machines("a"):
        first = opened(bucket / "run")
        with first.held():
            for end in range(0, 200, 4):
                write(first, metrics_jsonl=rows(*range(end)))
                already = len(store.requests)
                first.push(["metrics.jsonl"])
                written = [one.path for one in store.requests[already:] if one.method == "PUT"]
                assert len([path for path in written if "metrics" in path]) <= 2
    names = {name for name in (bucket / "run").files() if name.startswith("metrics")}
    assert names == {"metrics.jsonl", *(f"metrics.jsonl.part-{number:05d}" for number in range(1, len(names)))}
    assert len(names) > 10 and log.found().size < 300
    ends = [*itertools.accumulate(one.count(b"\n") for one in log_parts(rows(*range(196)).encode()))]
    # Fetched; cut where a part ends; cut by a run that goes on, and grown; cut.
    for numbers in (range(196), range(ends[5]), [*range(60), 7, 8], range(1)):
        with machines("b"):
            second = opened(bucket / "run")
            with second.held():
                second.fetch(["metrics.jsonl"])
                assert second.there["metrics.jsonl"].size == second.size("metrics.jsonl")
                write(second, metrics_jsonl=rows(*numbers))
                second.push(["metrics.jsonl"])
        with machines("c"):
            third = opened(bucket / "run")
            third.agree(sole=False)
            assert third.fetch(["metrics.jsonl"]) == ["metrics.jsonl"] and third.fetch(["metrics.jsonl"]) == []
            assert (third.folder / "metrics.jsonl").read_text() == rows(*numbers)
            assert "metrics.jsonl.part-00001" not in third.there
    with machines("b"):
        second = opened(bucket / "run")
        with second.held():
            write(second, metrics_jsonl=rows(*range(100)))
            second.push(["metrics.jsonl"])
            second.delete(["metrics.jsonl"])
    assert not [name for name in (bucket / "run").files() if name.startswith("metrics")]


@pytest.mark.parametrize("restarted", [False, True])
def test_whatever_request_is_the_last_no_line_that_stays_is_lost(bucket, machines, store, monkeypatch, restarted):
    """A push of a log that was cut at step 30 and has grown again, killed at each of its requests."""
    monkeypatch.setattr(mirror_module, "PART_BYTES", 200)
    old, new = [*range(90)], [*range(30), *range(130, 170)]
    for last in range(20):
        url = bucket / f"run-{last}"
        with machines("a"), variables(HOPELESS):
            first = opened(url)
            with first.held():
                write(first, metrics_jsonl=rows(*old))
                first.push(["metrics.jsonl"])
                if restarted:
                    first.agree(sole=True)
                write(first, metrics_jsonl=rows(*new))
                left = [None] * last
                store.fail(
                    lambda request, left=left: None if "lease" in request.path else left.pop() if left else "500"
                )
                try:
                    first.push(["metrics.jsonl"])
                    whole = True
                except StorageError:
                    whole = False
                store.fail(lambda request: None)
        with machines("b"):
            second = opened(url)
            second.agree(sole=False)
            second.fetch(["metrics.jsonl"])
            found = (second.folder / "metrics.jsonl").read_text()
        assert found == rows(*new) if whole else any(rows(*one).startswith(found) for one in (old, new))
        assert found.startswith(rows(*range(29)))  # the part in which they begin to differ begins before 30
        if whole:
            break
    assert whole and last > 5


def test_a_part_that_a_failed_push_left_does_not_come_back(bucket, machines, store, monkeypatch):
    """The push fails as it would write the part that differs; then the log is cut to what comes before that part."""
    monkeypatch.setattr(mirror_module, "PART_BYTES", 200)
    with machines("a"), variables(HOPELESS):
        mirror = opened(bucket / "run")
        with mirror.held():
            write(mirror, metrics_jsonl=rows(*range(60)))
            mirror.push(["metrics.jsonl"])
            write(mirror, metrics_jsonl=rows(*range(20), *range(120, 160)))
            store.fail(lambda request: "500" if request.method == "PUT" and "metrics" in request.path else None)
            with pytest.raises(StorageError, match="part-00001 cannot be written"):
                mirror.push(["metrics.jsonl"])
            store.fail(lambda request: None)
            write(mirror, metrics_jsonl=rows(*range(5)))
            mirror.push(["metrics.jsonl"])
    with machines("b"):
        other = opened(bucket / "run")
        other.agree(sole=False)
        other.fetch(["metrics.jsonl"])
        assert (other.folder / "metrics.jsonl").read_text() == rows(*range(5))
