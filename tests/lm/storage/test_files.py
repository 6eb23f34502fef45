"""Writes are atomic, under a temporary name that no other process uses."""

import hashlib
import os
import subprocess
import sys

import pytest

from lm.errors import InputError
from lm.storage import appearing, file_sha256, write_atomically, writing


def test_a_file_appears_when_the_block_succeeds(tmp_path):
    path = tmp_path / "out/a"
    path.parent.mkdir()
    with appearing(path, tmp_path) as partial:
        partial.write_bytes(b"new")
        assert not path.exists()
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path.parent]


def test_a_file_may_be_moved_to_another_disk(tmp_path, other_disk):
    """A folder of outputs may be a link to a larger disk."""
    write_atomically(other_disk / "a", b"before")
    with appearing(other_disk / "a", tmp_path) as partial:
        partial.write_bytes(b"new")
        assert (other_disk / "a").read_bytes() == b"before"
    assert (other_disk / "a").read_bytes() == b"new"
    assert [path.name for path in other_disk.iterdir()] == ["a"] and not list(tmp_path.iterdir())


def test_a_failed_block_keeps_the_old_file_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "a"
    write_atomically(path, b"before", tmp_path)
    with pytest.raises(KeyError), appearing(path, tmp_path) as partial:
        partial.write_bytes(b"half")
        raise KeyError
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_the_data_is_on_disk_before_the_name(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino))
    write_atomically(tmp_path / "a", b"x", tmp_path)
    assert synced == [(tmp_path / "a").stat().st_ino]


def test_two_processes_and_two_folders_use_different_names(tmp_path):
    with appearing(tmp_path / "x/a", tmp_path) as ours, appearing(tmp_path / "y/a", tmp_path) as beside:
        program = "import sys, pathlib; from lm.storage import appearing\nfolder = pathlib.Path(sys.argv[1])\n"
        program += "with appearing(folder / 'x/a', folder) as partial: print(partial); sys.exit()"
        result = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True)
        assert len({str(ours), str(beside), result.stdout.strip()}) == 3
        for path, partial in (("x", ours), ("y", beside)):
            (tmp_path / path).mkdir()
            partial.touch()


def test_an_error_has_path_cause_and_remedy(tmp_path):
    message = r"that cannot be written: No such file or directory\. Free space on the disk"
    with pytest.raises(InputError, match=message), writing("that"):
        write_atomically(tmp_path / "missing/a", b"", tmp_path / "missing")


def test_sha256(tmp_path):
    (tmp_path / "a").write_bytes(b"mill" * 10**6)
    assert file_sha256(tmp_path / "a") == hashlib.sha256(b"mill" * 10**6).hexdigest()


@pytest.mark.parametrize("error", [BrokenPipeError(32, "Broken pipe"), ConnectionResetError(104, "reset")])
def test_other_errors_are_not_reported_as_file_errors(error):
    with pytest.raises(type(error)) as raised, writing("a file"):
        raise error
    assert raised.value is error
