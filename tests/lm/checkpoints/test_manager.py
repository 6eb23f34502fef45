"""Checkpoints are complete or absent, every flipped bit is found, the last valid one is used, older ones are kept."""

import contextlib
import errno
import itertools
import json
import os
import shutil
import threading
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.checkpoints.manager import Checkpoints
from lm.checkpoints.manifest import (
    HALF_MANIFEST,
    MANIFEST,
    DamageError,
    RetentionPolicy,
    delete_step,
    find_parameters,
    read_manifest,
    render,
    steps_in,
    verify,
    write_manifest,
)
from lm.config import SpikeConfig
from lm.errors import InputError
from lm.model.param_names import named_leaves
from lm.training.anomaly_guard import make_guard
from lm.training.state import TrainState
from tests.damage import flips


def state_of(step: int) -> TrainState:
    """A state whose values depend on the step, with all dtypes, denormals and negative zeros."""
    odd = jnp.array([-0.0, 1e-42, jnp.inf, step], jnp.float32)
    model = {"w": jnp.full((3, 5), step, jnp.bfloat16), "odd": odd}
    moments = {"mu": jnp.full((3, 5), step / 7, jnp.float32), "count": jnp.array(step, jnp.int32)}
    return TrainState(jnp.array(step, jnp.int32), model, moments, make_guard(SpikeConfig(window=4)))  # ty: ignore[invalid-argument-type]


LIKE = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state_of(0))


def opened(folder: Path, retention: RetentionPolicy = RetentionPolicy(newest=99)) -> contextlib.closing[Checkpoints]:  # noqa: B008
    return contextlib.closing(Checkpoints(folder, retention))


def write(folder: Path, *steps: int, retention: RetentionPolicy = RetentionPolicy(newest=99), losses=None) -> None:  # noqa: B008
    with opened(folder, retention) as checkpoints:
        for step in steps:
            checkpoints.save(step, state_of(step), {"validation_loss": (losses or {}).get(step), "told": True})
            checkpoints.settled()


def before_manifest(monkeypatch, step: str, action) -> None:
    """Call `action` just before a manifest of that step ("" for any) is moved to its final name."""
    real = Path.replace

    def replace(path, target):
        if target.name == MANIFEST and step in ("", target.parent.name):
            action()
        return real(path, target)

    monkeypatch.setattr(Path, "replace", replace)


def full() -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def same_bits(a: TrainState, b: TrainState) -> bool:
    left, right = named_leaves(a), named_leaves(b)
    return left.keys() == right.keys() and all(
        np.asarray(left[k]).tobytes() == np.asarray(right[k]).tobytes() for k in left
    )


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> Path:
    """Checkpoints of steps 3 and 6."""
    folder = tmp_path_factory.mktemp("two") / "checkpoints"
    write(folder, 3, 6)
    return folder


def copy(folder: Path, to: Path) -> Path:
    shutil.copytree(folder, to / "checkpoints")
    return to / "checkpoints"


def restored(folder: Path) -> tuple[TrainState, dict]:
    with opened(folder) as checkpoints:
        found = checkpoints.restore_newest(LIKE)
        assert found is not None
        return found


def test_a_checkpoint_is_restored_bit_for_bit_with_its_metadata(two):
    state, about = restored(two)
    assert same_bits(state, state_of(6))
    assert about == {"step": 6, "told": True, "validation_loss": None}


def test_every_flipped_bit_is_found(two, tmp_path):
    folder = copy(two, tmp_path) / "6"
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)
    assert {"manifest.json", "_METADATA", "manifest.ocdbt"} <= {path.name for path in files}
    for path in flips(files, 150):
        with pytest.raises(DamageError, match=str(path)):
            verify(folder)
    assert verify(folder)["step"] == 6


def test_lost_data_is_damage_and_an_unreadable_manifest_is_an_error(two, tmp_path, capsys):
    folder = copy(two, tmp_path)
    lost = folder / "6/model/lost"
    lost.touch()
    about = read_manifest(folder / "6")["about"]
    (folder / "6" / MANIFEST).unlink()
    write_manifest(folder / "6", about)
    lost.unlink()
    lost.symlink_to("/proc/self/mem")  # of size 0; reading it gives EIO, as a bad sector does
    state, _ = restored(folder)
    assert same_bits(state, state_of(3))
    assert f"step 6 is damaged: {lost} cannot be read: Input/output error" in capsys.readouterr().out
    (folder / "3" / MANIFEST).unlink()
    (folder / "3" / MANIFEST).mkdir()
    with pytest.raises(InputError, match=f"{folder}/3/{MANIFEST} cannot be read: Is a directory"):
        restored(folder)
    assert (folder / "3").exists()


def test_a_read_only_disk_is_reported_as_such(two, tmp_path, capsys, monkeypatch):
    folder = copy(two, tmp_path)

    def refuse(*paths, **_):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(paths[0]))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(InputError, match="checkpoints cannot be written: Read-only file system"):
        write(folder, 9)
    monkeypatch.undo()
    shutil.rmtree(folder / "6/model")
    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(InputError, match="6 cannot be written: Read-only file system"):
        restored(folder)


@pytest.mark.parametrize(
    "damage", ["a bit flipped", "a file cut", "a file gone", "no manifest", "a manifest of another", "nothing in it"]
)
def test_a_damaged_checkpoint_is_named_and_moved_aside_and_the_previous_one_used(two, tmp_path, capsys, damage):
    folder = copy(two, tmp_path)
    largest = max((folder / "6").rglob("*"), key=lambda path: path.stat().st_size if path.is_file() else 0)
    if damage == "a bit flipped":
        data = bytearray(largest.read_bytes())
        data[len(data) // 2] ^= 4
        largest.write_bytes(data)
    elif damage == "a file cut":
        largest.write_bytes(largest.read_bytes()[:-1])
    elif damage == "a file gone":
        largest.unlink()
    elif damage == "no manifest":
        (folder / "6" / MANIFEST).unlink()
    elif damage == "a manifest of another":
        shutil.copy(folder / "3" / MANIFEST, folder / "6" / MANIFEST)
    else:
        shutil.rmtree(folder / "6")
        (folder / "6").mkdir()
    state, about = restored(folder)
    assert same_bits(state, state_of(3))
    assert about["step"] == 3
    out = capsys.readouterr().out
    assert "step 6 is damaged: " in out
    assert f"moved to {tmp_path}/checkpoints.damaged/6; resuming from step 3" in out
    assert not (folder / "6").exists()
    assert (tmp_path / "checkpoints.damaged/6").is_dir()


def test_without_a_valid_checkpoint_training_does_not_restart_and_nothing_is_moved(two, tmp_path):
    folder = copy(two, tmp_path)
    for step in (3, 6):
        (folder / str(step) / MANIFEST).unlink()
    with pytest.raises(InputError, match=r"is intact: 6, 3 are damaged\. The newest: .*/6/manifest\.json is missing\."):
        restored(folder)
    assert {path.name for path in folder.iterdir()} >= {"3", "6"}


def test_an_interrupted_save_is_no_checkpoint(two, tmp_path):
    folder = copy(two, tmp_path)
    shutil.copytree(folder / "6", folder / "9")  # complete except for its manifest
    (folder / "9" / MANIFEST).unlink()
    shutil.copytree(folder / "3/model", folder / "1/model")  # half deleted
    (folder / "12").mkdir()  # just started
    for step in (1, 9, 12, 15):
        (folder / f"{step}.unfinished").touch()
    (folder / "6.unfinished").touch()  # its manifest was written just before the kill
    assert steps_in(folder) == [3, 6]
    assert restored(folder)[1]["step"] == 6
    assert {path.name for path in folder.iterdir()} == {"3", "6"}


def test_a_partial_manifest_after_a_kill_belongs_to_training(two, tmp_path, capsys):
    folder = copy(two, tmp_path)
    for step in ("3", "9"):  # of `amend`, and of a save
        (folder / step).mkdir(exist_ok=True)
        (folder / step / HALF_MANIFEST).write_text("{")
    (folder / "9.unfinished").touch()
    write(folder, 9, retention=RetentionPolicy(newest=1))
    assert {path.name for path in folder.iterdir()} == {"9"} and [*tmp_path.iterdir()] == [folder]
    assert verify(folder / "9") and not capsys.readouterr().out


@pytest.mark.parametrize("marked", [False, True])
def test_link_targets_are_neither_deleted_nor_checkpoints(two, tmp_path, marked):
    """A run folder from a stranger may contain links."""
    folder = copy(two, tmp_path)
    notes = shutil.copytree(folder / "3", tmp_path / "notes")
    (folder / "1").symlink_to("../notes")
    (folder / "9").symlink_to("6")
    if marked:
        for step in (1, 9):
            (folder / f"{step}.unfinished").touch()
    before = {
        str(path): path.read_bytes() for root in (notes, folder / "6") for path in root.rglob("*") if path.is_file()
    }
    assert steps_in(folder) == [3, 6]
    assert restored(folder)[1]["step"] == 6
    write(folder, 9, retention=RetentionPolicy(newest=2))
    assert {path: Path(path).read_bytes() for path in before} == before
    assert steps_in(folder) == [6, 9] and not (folder / "9").is_symlink()


def test_a_manifest_name_that_leads_through_a_link_deletes_nothing(two, tmp_path):
    folder = copy(two, tmp_path)
    notes = tmp_path / "notes"
    (folder / "3/model").rename(notes)
    (folder / "3/model").symlink_to(notes)
    before = sorted(notes.rglob("*"))
    with pytest.raises(InputError, match=r"leads through a link to .*notes"):
        delete_step(folder, 3)
    assert sorted(notes.rglob("*")) == before


def test_files_that_process_0_does_not_see_make_no_checkpoint(tmp_path):
    """For example, if each process has its own run folder."""
    name = "model/ocdbt.process_1/d/a"
    with pytest.raises(
        InputError, match=rf"process 1 wrote {name}, 3 bytes, but in .* it is missing\. Give a run folder"
    ):
        write_manifest(tmp_path, {"step": 5}, {name: {"bytes": 3, "sha256": ""}})
    (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / name).write_text("cut")
    with pytest.raises(InputError, match=rf"process 1 wrote {name}, 4 bytes, but in .* it has 3 bytes"):
        write_manifest(tmp_path, {"step": 5}, {name: {"bytes": 4, "sha256": ""}})
    assert not (tmp_path / MANIFEST).exists()


def test_older_checkpoints_are_deleted_also_if_no_name_fits_on_the_disk(two, tmp_path, monkeypatch):
    folder = copy(two, tmp_path)

    def no_inode(path, *_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    with opened(folder, RetentionPolicy(newest=1)) as checkpoints:
        monkeypatch.setattr(Path, "touch", no_inode)
        checkpoints.prune()
        assert checkpoints.steps() == [6]
        checkpoints.save(9, state_of(9), {})
        checkpoints.settled()
        monkeypatch.undo()
        checkpoints.failure = None
    assert restored(folder)[1]["step"] == 6


@pytest.mark.parametrize(
    "changed",
    [
        {"about": []}, {"about": {}}, {"about": {"step": 7}}, {"about": {"step": "../../6"}}, {"files": {"a": 5}},
        {"files": {"a": {"bytes": "1", "sha256": ""}}}, {"files": {"../3/manifest.json": {"bytes": 1, "sha256": ""}}},
        {"about": {"step": 6, "validation_loss": 10**400}}, {"about": {"step": 6, "validation_loss": "x"}},
        {"about": {"step": 6, "best": [6]}}, {"about": {"step": 6, "best": {"step": "../6", "loss": 1.0}}},
    ],
)  # fmt: skip
def test_a_manifest_with_wrong_types_is_damage(two, tmp_path, changed):
    folder = copy(two, tmp_path)
    read = json.loads((folder / "6" / MANIFEST).read_text()) | changed
    (folder / "6" / MANIFEST).write_text(render(read["about"], read["files"]))
    with pytest.raises(DamageError, match=r"is damaged: |is not a plain relative path"):
        read_manifest(folder / "6")
    assert restored(folder)[1]["step"] == 3


def test_a_missing_checkpoint_is_none(tmp_path):
    with opened(tmp_path / "checkpoints") as checkpoints:
        assert checkpoints.restore_newest(LIKE) is None


def test_a_checkpoint_of_other_dtypes_is_rejected_or_cast_on_request(two):
    wide = LIKE._replace(
        model=jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, "float32", sharding=x.sharding), LIKE.model)
    )
    with opened(two) as checkpoints:
        with pytest.raises(InputError, match=r"first w: \(3, 5\) bfloat16 in the checkpoint, \(3, 5\) float32 in"):
            checkpoints.restore(two / "6", wide)
        state = checkpoints.restore(two / "6", wide, cast_types=True)
    w = named_leaves(state)["model.w"]
    assert w.dtype == jnp.float32
    assert (np.asarray(w) == 6).all()


def test_the_newest_every_nth_and_the_best_are_kept(tmp_path):
    losses = {1: 5.0, 2: 1.0, 3: 4.0, 4: 3.0, 5: 2.0}  # the others were not validated
    write(tmp_path / "checkpoints", *range(1, 9), retention=RetentionPolicy(newest=2, every=4, best=1), losses=losses)
    assert {int(path.name) for path in (tmp_path / "checkpoints").iterdir()} == {2, 4, 7, 8}


def test_retention_equals_a_naive_implementation():
    losses = {1: None, 2: 3.0, 3: 2.0, 4: 2.0, 5: float("nan"), 6: 9.0}
    known = {step for step, loss in losses.items() if loss is not None and loss == loss}
    for newest, every, best in itertools.product((1, 2, 5), (0, 2, 3), (0, 1, 3)):
        naive = {s for s in losses if sum(t > s for t in losses) < newest}
        naive |= {s for s in losses if every and not s % every}
        better = lambda a, b: (losses[a] or 0, -a) < (losses[b] or 0, -b)
        naive |= {
            s for s in losses
            if s in known and sum(t in known and better(t, s) for t in losses) < best
        }  # fmt: skip
        assert RetentionPolicy(newest, every, best).of(losses) == naive


def test_the_first_checkpoint_after_a_skipped_nth_is_kept_instead():
    steps = dict.fromkeys([4, 8, 13, 16, 20, 24, 28, 50], None)
    assert RetentionPolicy(newest=1, every=12).of(steps) == {13, 24, 50}


def test_metadata_amended_later_counts_for_retention(tmp_path):
    folder = tmp_path / "checkpoints"
    with opened(folder, RetentionPolicy(newest=1, best=1)) as checkpoints:
        checkpoints.save(1, state_of(1), {"told": False})
        checkpoints.settled()
        checkpoints.amend(1, {"told": True, "validation_loss": 2.0})
        for step in (2, 3):
            checkpoints.save(step, state_of(step), {"validation_loss": 5.0})
            checkpoints.settled()
        assert checkpoints.steps() == [1, 3]
    assert verify(folder / "1") == {"told": True, "validation_loss": 2.0, "step": 1}


def test_names_that_are_not_steps_are_no_checkpoints(two, tmp_path):
    folder = copy(two, tmp_path)
    for name in ("0014", "12.bak", "tmp", "٧"):
        (folder / name).mkdir()
    (folder / "40").touch()
    state, about = restored(folder)
    assert about["step"] == 6
    assert same_bits(state, state_of(6))


def test_files_that_training_did_not_write_are_kept(tmp_path, capsys):
    folder = tmp_path / "checkpoints"
    write(folder, 1, 2, retention=RetentionPolicy(newest=2))
    (folder / "1/notes.txt").write_text("the user's")
    (folder / "7").mkdir()
    (folder / "7/own.txt").write_text("the user's too")
    write(folder, 3, 4, retention=RetentionPolicy(newest=1))
    assert {path.name for path in folder.iterdir()} == {"1", "4", "7"}
    assert (folder / "1/notes.txt").exists() and (folder / "7/own.txt").exists()
    assert steps_in(folder) == [1, 4]
    assert "step 1 is kept, because training did not write" in capsys.readouterr().out


@pytest.mark.parametrize("linked", [False, True])
def test_a_user_folder_named_like_a_checkpoint_is_moved_aside_or_rejected_behind_a_link(tmp_path, capsys, linked):
    folder = tmp_path / "run/checkpoints"
    folder.parent.mkdir()
    if linked:
        (tmp_path / "disk/checkpoints").mkdir(parents=True)
        folder.symlink_to(tmp_path / "disk/checkpoints")
    write(folder, 2)
    (folder / "2/notes.txt").write_text("about the checkpoint")
    (folder / "3").mkdir()
    (folder / "3/own.txt").write_text("the user's")
    (folder / "4").write_text("a file of the user's")
    if linked:  # nothing outside the run folder is moved
        for step in (2, 3, 4):
            with pytest.raises(InputError, match=rf"checkpoints/{step} was not written by training\. Move it"):
                write(folder, step)
        assert sorted(path.name for path in folder.iterdir()) == ["2", "3", "4"]
        assert (folder / "2/notes.txt").exists() and (folder / "3/own.txt").exists() and (folder / "4").is_file()
        return
    write(folder, 2, 3, 4)
    assert steps_in(folder) == [2, 3, 4] and all(verify(folder / str(step)) for step in (2, 3, 4))
    place = "run/replaced-{}/checkpoints"
    aside = {"2/notes.txt": "about the checkpoint", "3/own.txt": "the user's", "4": "a file of the user's"}
    for number, (name, text) in enumerate(aside.items(), 1):
        assert (tmp_path / place.format(number) / name).read_text() == text
    assert capsys.readouterr().out.count("was not written by training. Moved to") == 3


def test_damaged_checkpoints_stay_in_the_target_of_a_linked_folder(two, tmp_path):
    place = tmp_path / "elsewhere"
    place.mkdir()
    folder = copy(two, place)
    link = tmp_path / "run/checkpoints"
    link.parent.mkdir()
    link.symlink_to(folder)
    (folder / "6" / MANIFEST).unlink()
    assert restored(link)[1]["step"] == 3
    assert (folder / "6.damaged-1").is_dir() and [*place.iterdir()] == [folder]


def test_all_files_of_a_checkpoint_are_on_disk_before_its_manifest(tmp_path, monkeypatch):
    events = []
    fsync = os.fsync

    def synced(handle):
        events.append(str(Path(f"/proc/self/fd/{handle}").readlink()))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", synced)
    before_manifest(monkeypatch, "5", lambda: events.append("manifest"))
    log = tmp_path / "metrics.jsonl"
    log.touch()
    with contextlib.closing(
        Checkpoints(tmp_path / "c", RetentionPolicy(1), sidecars=(log, tmp_path / "absent"))
    ) as checkpoints:
        checkpoints.save(5, state_of(5), {})
        checkpoints.settled()
    whole, written = tmp_path / "c/5", events.index("manifest")
    inside = {str(path) for path in whole.rglob("*")} - {str(whole / MANIFEST)}
    assert inside | {str(whole), str(log), f"{whole / MANIFEST}.partial"} <= {*events[:written]}
    assert str(whole) in events[written:]  # the manifest's name is on disk, too


def test_a_failed_save_is_logged_and_harms_nothing(two, tmp_path, capsys, monkeypatch):
    folder = copy(two, tmp_path)
    with opened(folder, RetentionPolicy(newest=2)) as checkpoints:
        before_manifest(monkeypatch, "9", full)
        checkpoints.save(9, state_of(9), {})
        checkpoints.settled()
        monkeypatch.undo()
        assert "step 9 is not saved; training continues. " in (out := capsys.readouterr().out)
        assert "No space left on device. Free space there" in out
        assert checkpoints.steps() == [3, 6]
        assert verify(folder / "3") and verify(folder / "6")
        assert {path.name for path in folder.iterdir()} == {"3", "6"}, "what was written of it takes space"
        checkpoints.save(12, state_of(12), {})  # there is space again
    assert same_bits(restored(folder)[0], state_of(12))


def test_a_slow_disk_skips_a_checkpoint_but_does_not_stop_training(tmp_path, capsys, monkeypatch):
    let_go = threading.Event()
    before_manifest(monkeypatch, "", lambda: let_go.wait(60))
    checkpoints = Checkpoints(tmp_path / "checkpoints", RetentionPolicy(newest=9), timeout=0.3)
    assert checkpoints.save(1, state_of(1), {})
    assert not checkpoints.save(2, state_of(2), {})
    assert "step 2 is left out" in capsys.readouterr().out
    checkpoints.timeout = 3600
    assert not checkpoints.save(3, state_of(3), {})  # one wait is enough, and one message
    assert not capsys.readouterr().out
    let_go.set()
    checkpoints.settled()
    assert checkpoints.save(3, state_of(3), {})
    checkpoints.close()
    assert checkpoints.steps() == [1, 3]


def test_a_required_save_waits_for_a_slow_disk(tmp_path, monkeypatch):
    """The last save: a run must not report success without it."""
    let_go = threading.Event()
    before_manifest(monkeypatch, "", lambda: let_go.wait(60))
    with contextlib.closing(
        Checkpoints(tmp_path / "checkpoints", RetentionPolicy(newest=9), timeout=0.05)
    ) as checkpoints:
        checkpoints.save(1, state_of(1), {})
        threading.Timer(0.5, let_go.set).start()
        assert checkpoints.save(2, state_of(2), {}, certain=True)
    assert checkpoints.steps() == [1, 2]


def test_a_full_disk_is_reported_before_anything_is_written(two, tmp_path, capsys, monkeypatch):
    folder = copy(two, tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 8, 1))
    checkpoints = Checkpoints(folder, RetentionPolicy(newest=2))
    checkpoints.save(9, state_of(9), {})
    with pytest.raises(InputError, match=r"No space left on device \(\d{3},\d+ bytes needed, 1 free\)"):
        checkpoints.close()
    assert checkpoints.steps() == [3, 6]


def test_a_checkpoint_that_cannot_be_deleted_fails_no_save(two, tmp_path, capsys, monkeypatch):
    folder = copy(two, tmp_path)
    real = Path.unlink

    def refuse(path, **options):
        if path.name == MANIFEST and path.parent.name in ("3", "6"):
            raise OSError("busy")
        real(path, **options)

    monkeypatch.setattr(Path, "unlink", refuse)
    with opened(folder, RetentionPolicy(newest=1)) as checkpoints:
        checkpoints.save(9, state_of(9), {})
    assert checkpoints.steps() == [3, 6, 9]
    assert "step 3 could not be deleted: busy" in (out := capsys.readouterr().out)
    assert "is not saved" not in out


def test_a_save_stores_the_state_at_the_time_of_the_call(tmp_path):
    """The next step overwrites the state's memory while the checkpoint is still being written."""
    big = state_of(1)._replace(model={"w": jnp.arange(3_000_000.0)})  # ty: ignore[invalid-argument-type]
    step = jax.jit(lambda s: jax.tree.map(lambda x: x + jnp.ones((), x.dtype), s), donate_argnums=0)
    with opened(tmp_path / "checkpoints") as checkpoints:
        for number in (1, 2, 3):
            checkpoints.save(number, big, {})
            big = step(step(big))
    for number in (1, 2, 3):
        with opened(tmp_path / "checkpoints") as checkpoints:
            like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), big)
            found = checkpoints.restore(tmp_path / f"checkpoints/{number}", like)
        np.testing.assert_array_equal(named_leaves(found)["model.w"], np.arange(3_000_000.0) + 2 * (number - 1))


@pytest.mark.parametrize(
    ("config", "first"),
    [
        ({"chat": {"base": "runs/a"}, "reinforce": {"base": ""}}, "launch.finetune RUN"),
        ({"chat": {"base": "runs/a"}, "reinforce": {"base": "runs/b"}}, "launch.reinforce RUN"),
        ({"chat": {"base": ""}}, "launch.train CONFIG.py --workdir RUN"),
        ({"chat": [1]}, "launch.train CONFIG.py --workdir RUN"), ([], "launch.train CONFIG.py --workdir RUN"),
        (None, "launch.train CONFIG.py --workdir RUN"),
    ],
)  # fmt: skip
def test_a_run_without_checkpoints_names_the_command_that_trains_it(tmp_path, config, first):
    if config is not None:
        (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError) as raised:
        find_parameters([tmp_path / "checkpoints", tmp_path / "snapshots"])
    assert str(raised.value).endswith(f"First run: python -m {first.replace('RUN', str(tmp_path))}")
