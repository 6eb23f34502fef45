"""Checkpoints in a bucket follow the laws of checkpoints on disk (test_manager.py), also if requests fail."""

import re
import threading
from collections.abc import Generator
from typing import Any
from urllib.parse import unquote

import pytest

from lm.checkpoints import manager
from lm.checkpoints.manager import Checkpoints, SaveHooks, Snapshots
from lm.checkpoints.manifest import RetentionPolicy, steps_in
from lm.errors import InputError
from lm.storage import Url, write_atomically
from tests.lm.checkpoints.test_manager import LIKE, opened, restored, same_bits, state_of, write
from tests.object_store import FAULTS, Request, Store, serving, variables


@pytest.fixture(scope="module")
def server() -> Generator[Store]:
    with serving() as store, variables(store.environment()):
        yield store


@pytest.fixture(params=["s3", pytest.param("gs", marks=pytest.mark.slow)])
def folder(server: Store, request) -> Generator[Url]:
    server.bucket("checkpoints")
    yield Url(f"{request.param}://checkpoints/run/checkpoints")
    server.fail(lambda request: None)


@pytest.mark.slow
def test_checkpoints_saved_while_requests_fail_are_restored_bit_for_bit_also_from_a_copy(folder, server, tmp_path):
    faults = [fault for fault in FAULTS if fault != "stall"]
    server.fail(lambda request: faults[request.number % 5] if request.number % 11 == 0 else None)
    write(folder, 3, 6, 9, retention=RetentionPolicy(newest=2))
    assert steps_in(folder) == [6, 9]
    state, about = restored(folder)
    assert same_bits(state, state_of(9)) and about["step"] == 9
    assert not [name for name in folder.files() if name.startswith("3")]
    for name in folder.files():
        write_atomically(tmp_path / name, (folder / name).read_bytes())
    assert same_bits(restored(tmp_path)[0], state_of(9))


def test_a_checkpoint_at_another_store_is_restored_bit_for_bit(server):
    server.bucket("checkpoints")
    folder: Any = Url("gs://checkpoints/run/checkpoints")
    write(folder, 3)
    assert same_bits(restored(folder)[0], state_of(3))


@pytest.mark.slow
def test_a_corrupt_object_is_named_and_the_previous_checkpoint_is_used(folder, capsys):
    write(folder, 3, 6)
    flipped = folder / next(name for name in folder.files() if re.match("6/model/ocdbt.*/d/", name))
    data = flipped.read_bytes()
    write_atomically(flipped, data[:-1] + bytes([data[-1] ^ 1]))
    state, _ = restored(folder)
    assert same_bits(state, state_of(3)) and steps_in(folder) == [3]
    assert f"step 6 is damaged: {flipped} has the SHA-256 " in capsys.readouterr().out
    assert any(name.startswith("checkpoints.damaged/6/model/") for name in folder.parent.files())


def test_a_save_without_a_manifest_is_no_checkpoint_and_is_deleted_by_the_next_save(folder, server, capsys):
    write(folder, 3)

    def refuse(request: Request) -> str | None:
        return "500" if request.method == "PUT" and unquote(request.path).endswith("6/manifest.json") else None

    with variables({"GRISTMILL_STORAGE_TIMEOUT": "6", "GRISTMILL_STORAGE_RETRIES": "0"}), opened(folder) as checkpoints:
        server.fail(refuse)
        checkpoints.save(6, state_of(6), {})
        checkpoints.settled()
        assert "step 6 is not saved" in capsys.readouterr().out
        server.fail(lambda request: None)
        checkpoints.failure = None
    assert steps_in(folder) == [3] and {name.split("/")[0] for name in folder.files()} == {"3"}


def test_a_command_that_lost_the_run_writes_and_deletes_nothing(folder):
    write(folder, 3)
    write_atomically(folder / "6/model/array", "the other command's")
    write_atomically(folder / "6.unfinished", "")
    before = folder.files()

    def taken_over() -> None:
        raise InputError("taken over")

    checkpoints = Checkpoints(folder, RetentionPolicy(newest=1), hooks=SaveHooks(taken_over, lambda: None))
    checkpoints.save(6, state_of(6), {})
    checkpoints.amend(3, {"evaluated": True})
    asks = (checkpoints.close, checkpoints.prune, checkpoints.tidied, lambda: checkpoints.set_aside([folder / "3"], 6))
    for ask in (*asks, lambda: Snapshots(folder, hooks=SaveHooks(taken_over, lambda: None)).look(0, {})):
        with pytest.raises(InputError, match="taken over"):
            ask()
    assert folder.files() == before


@pytest.mark.slow
def test_a_command_that_lost_the_run_after_its_arrays_keeps_its_successors_objects(folder, monkeypatch):
    """Both write to checkpoints/3. Orbax finalizes files under the same names in both, so the first checks the lease
    before that."""
    taken_over, real = threading.Event(), manager.wait_for_all

    def may_write() -> None:
        if taken_over.is_set():
            raise InputError("taken over")

    def written_and_taken_over(commits) -> None:
        real(commits)
        monkeypatch.setattr(manager, "wait_for_all", real)
        write(folder, 3)
        taken_over.set()

    monkeypatch.setattr(manager, "wait_for_all", written_and_taken_over)
    checkpoints = Checkpoints(folder, RetentionPolicy(newest=1), hooks=SaveHooks(may_write, lambda: None))
    checkpoints.save(3, state_of(4), {})
    with pytest.raises(InputError, match="taken over"):
        checkpoints.close()
    assert same_bits(restored(folder)[0], state_of(3))


def test_user_objects_at_the_path_of_a_checkpoint_are_moved_aside(folder, capsys):
    for name in ("6/notes.txt", "6/model/mine.npy"):
        write_atomically(folder / name, name)
    write(folder, 6, 9, retention=RetentionPolicy(newest=1))
    aside = folder.parent / "replaced-1/checkpoints"
    assert {name: (aside / name).read_text() for name in aside.files()} == {
        name: name for name in ("6/model/mine.npy", "6/notes.txt")
    }
    assert steps_in(folder) == [9] and f"Moved to {aside}/6" in capsys.readouterr().out


def test_an_empty_url_has_no_checkpoint(folder):
    with opened(folder) as checkpoints:
        assert checkpoints.restore_newest(LIKE) is None
