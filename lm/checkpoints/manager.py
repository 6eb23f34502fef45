"""Checkpoints: the complete TrainState under plain names, written by Orbax atomically.

A checkpoint has two items: `model`, the parameters, and `training`, the step and the states of the optimizer and the
anomaly guard. Each is a flat {name: array}, for example "blocks.0.attention.query.weight". The names do not depend on
Python classes, so checkpoints survive refactoring and other programs can read them.

Every process writes its part directly to `checkpoints/<step>/`, on a shared disk or in a bucket. The manifest
(manifest.py) has the SHA-256 of every file and describes the run. Process 0 writes it last; without it there is no
checkpoint.
"""

import asyncio
import contextlib
import errno
import functools
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self, cast

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from lm.checkpoints.addresses import orbax_path
from lm.checkpoints.errors import FREE_SPACE, readable_errors
from lm.checkpoints.manifest import (
    DamageError,
    RetentionPolicy,
    amend,
    delete_step,
    delete_unfinished,
    files_of,
    is_link,
    mark_unfinished,
    read_manifest,
    steps_in,
    unlisted,
    unmark,
    verify,
    write_manifest,
)
from lm.checkpoints.reading import item_handler, restore_items, verify_together
from lm.errors import InputError
from lm.model.param_names import named_leaves
from lm.model.transformer import Transformer
from lm.resilience.multihost import fail_together, settle
from lm.run_paths import RunPaths
from lm.storage import Place, Url, move_folder, sync, unused


class State(Protocol):
    """A pytree that can be saved, as {item, such as "model": pytree}."""

    def checkpoint_items(self) -> dict[str, object]: ...

    def with_items(self, items: dict[str, object]) -> Self: ...


def named_items(state: State) -> dict[str, dict[str, Any]]:
    return {name: named_leaves(item) for name, item in state.checkpoint_items().items()}


@functools.partial(jax.jit, donate_argnums=1, keep_unused=True)
def copied[Tree](tree: Tree, over: Tree, zero: jax.Array) -> Tree:
    """Return an exact copy of `tree`, in the memory of `over`, which is donated. `zero` is the integer 0. Every bit is
    XORed with a zero that XLA cannot know to be zero. So XLA treats the copy as a computation, which a CPU runs
    asynchronously; a plain copy would block the caller."""

    def copy(x: jax.Array) -> jax.Array:
        bits = jnp.dtype(f"uint{8 * x.dtype.itemsize}")
        return jax.lax.bitcast_convert_type(jax.lax.bitcast_convert_type(x, bits) ^ zero.astype(bits), x.dtype)

    return jax.tree.map(copy, tree)


class SaveHooks(NamedTuple):
    """Functions that process 0 calls during a save; if one raises InputError, the save fails."""

    may_write: Callable[[], None]
    """Called before files are written or deleted. Raises InputError if another command has taken over the run."""
    before_manifest: Callable[[], None]
    """Called once a save, before the manifest is written: uploads the logs of a run in a bucket."""


NO_HOOKS = SaveHooks(lambda: None, lambda: None)


class Checkpoints:
    """Folder checkpoints/<step>/ of a run. Saves run in the background of training; `close` waits for them."""

    kind = "checkpoint"
    """Name of a saved step in messages."""

    def __init__(
        self,
        folder: Place,
        retention: RetentionPolicy | None,
        timeout: float = 10.0,
        sidecars: Sequence[Path] = (),
        hooks: SaveHooks = NO_HOOKS,
    ):
        """`retention=None` keeps all checkpoints. A save is skipped if the previous one still runs after `timeout`
        seconds. `sidecars` are logs, which are forced to disk before the manifest of a checkpoint."""
        # If the folder is a link, checkpoints are moved aside on the disk that it leads to.
        self.place, self.folder = folder, folder.resolve()
        self.retention, self.timeout, self.sidecars = retention, timeout, tuple(sidecars)
        self.may_write, self.before_manifest = hooks
        self.orbax = item_handler()
        self.writer = ThreadPoolExecutor(1, "checkpoints")
        self.pending: Future[None] | None = None
        self.failure: InputError | None = None
        self.slow = False
        """A save was skipped and the previous one is still running: do not wait for it again."""
        self.primary = jax.process_index() == 0
        self.copies_state = jax.process_count() == 1 and jax.default_backend() == "cpu"
        self.snapshot: dict[str, dict[str, Any]] | None = None
        """Copy of the state that Orbax writes from on a CPU: without it, the next step would wait for the write."""

    @property
    def linked(self) -> bool:
        """Whether the folder is a link to another disk, where the files next to it do not belong to the run."""
        return isinstance(self.place, Path) and self.place.is_symlink()

    def steps(self) -> list[int]:
        """Return the steps of the existing checkpoints, ascending, without verifying files."""
        return steps_in(self.folder)

    def save(self, step: int, state: State, about: Mapping[str, Any], certain: bool = False) -> bool:
        """Start a save; return False if it is skipped because the previous save still runs. With `certain`, wait until
        that one ends, however long. `about` is metadata (JSON types) for the manifest, which `restore_newest` returns.

        A failed save is reported on stdout and leaves older checkpoints intact; `close` raises it unless a later save
        succeeds.
        """
        # All processes must save, or none.
        if not self.settled(None if certain or jax.process_count() > 1 else 0.0 if self.slow else self.timeout):
            if not self.slow:
                print(
                    f"{self.kind}: step {step:,} is left out: after waiting {self.timeout:.0f} s, the previous "
                    "checkpoint is still not on disk. If the disk is always that slow, raise train.checkpoint_every.",
                    flush=True,
                )
            self.slow = True
            return False
        self.slow = False
        items = self.snap(state) if self.copies_state else named_items(state)
        begun = self.writer.submit(self.begin, step, items)
        if not self.copies_state:
            wait([begun])  # until all is copied to the host's memory
        self.pending = self.writer.submit(self.finish, step, [*items], begun, about)
        return True

    def snap(self, state: State) -> dict[str, dict[str, Any]]:
        """Start copying the state into `self.snapshot`, and return that. No save may be running."""
        items = named_items(state)
        over = jax.tree.map(jnp.zeros_like, items) if self.snapshot is None else self.snapshot
        self.snapshot = copied(items, over, jnp.zeros((), jnp.uint8))
        return self.snapshot

    def prepare(self, state: State) -> None:
        """Allocate the memory and compile the program that the first save needs."""
        if self.copies_state:
            self.snap(state)

    def held_up(self) -> bool:
        """Return whether a save was skipped and the previous one still runs, so that another would be skipped too."""
        return self.slow and self.pending is not None and not self.pending.done()

    def settled(self, timeout: float | None = None) -> bool:
        """Wait for the running save, at most `timeout` seconds (None: without limit); return False if it still runs."""
        if self.pending is not None:
            try:
                self.pending.result(timeout)
            except TimeoutError:
                return False
            self.pending = None
        return True

    def begin(self, step: int, items: Mapping[str, dict[str, Any]]) -> list[Any]:
        """Start Orbax's writes of a checkpoint; return its futures."""
        folder = self.folder / str(step)
        error = self.make_room(step, items) if self.primary else None
        fail_together(f"room for a {self.kind}", error)
        arguments = {
            name: ocp.args.PyTreeSave(item, ocdbt_target_data_file_size=FILE_BYTES) for name, item in items.items()
        }
        commits = [
            asyncio.run(self.orbax.async_save(orbax_path(folder / name), args=item)) for name, item in arguments.items()
        ]
        return [commit for one in commits for commit in one or []]

    def make_room(self, step: int, items: Mapping[str, dict[str, Any]]) -> OSError | InputError | None:
        """Delete leftovers of killed saves and create the folders. Return None, or an error, such as for a disk with
        less space than the checkpoint needs, which Orbax would find out halfway."""
        try:
            self.may_write()
            delete_unfinished(self.folder)
            self.clear(step)
            mark_unfinished(self.folder, step)
            if isinstance(self.folder, Url):
                return None
            for name in items:
                (self.folder / str(step) / name).mkdir(parents=True)
        except (OSError, InputError) as error:
            return error
        needed = MARGIN + sum(array.nbytes for item in items.values() for array in item.values())
        free = shutil.disk_usage(self.folder).free
        if free >= needed:
            return None
        return OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)} ({needed:,} bytes needed, {free:,} free)")

    def finish(self, step: int, items: Sequence[str], begun: Future[list[Any]], about: Mapping[str, Any]) -> None:
        """Wait until all processes have written, then write the manifest and delete checkpoints that are not kept. Each
        process reports the files it wrote or why it failed, so all processes know of a failure."""
        mine: dict[str, Any] = {}
        own: InputError | None = None
        try:
            with readable_errors(self.folder, "written", FREE_SPACE):
                wait_for_all(begun.result())
                # Process 0 lists its files after Orbax has merged those of all processes.
                mine["files"] = {} if self.primary else files_of(self.folder / str(step), items, jax.process_index())
        except InputError as error:
            own, mine["error"] = error, str(error)
        try:
            settle(f"save a {self.kind}", mine, lambda parts: self.commit(step, items, about, parts))
        except InputError as error:
            self.failure = own or error
            if self.primary or own is not None:
                print(f"{self.kind}: step {step:,} is not saved; training continues. {self.failure}", flush=True)
        else:
            self.failure = None
            if self.primary:
                try:
                    self.prune()
                except (OSError, InputError) as error:
                    print(f"{self.kind}: older steps could not be deleted: {error}", flush=True)

    def commit(
        self, step: int, items: Sequence[str], about: Mapping[str, Any], parts: Sequence[dict[str, Any]]
    ) -> None:
        """In process 0: write a checkpoint's manifest. `parts` has {"files": {name: size and hash}} or {"error":
        message} of each process. On any error, delete the checkpoint and raise InputError."""
        folder = self.folder / str(step)
        try:
            for process, one in enumerate(parts):
                if "error" in one:
                    raise InputError(one["error"] if process == 0 else f"process {process}: {one['error']}")
            with readable_errors(self.folder, "written", FREE_SPACE):
                for name in items:
                    self.may_write()
                    self.orbax.finalize(orbax_path(folder / name))
                self.sync_sidecars()
                self.before_manifest()
                others = {name: listed for one in parts for name, listed in one["files"].items()}
                self.may_write()
                write_manifest(folder, {**about, "step": step}, others)
                unmark(self.folder, step)
                if isinstance(self.folder, Path):
                    sync(self.folder)
        except InputError:
            with contextlib.suppress(OSError, InputError):
                self.may_write()  # else these files may belong to another command
                delete_unfinished(self.folder)  # to free the space
            raise

    def clear(self, step: int) -> None:
        """Delete an existing checkpoint of that step. If it contains files that training did not write, move all of it
        aside, or raise InputError if the folder of checkpoints is a link: files outside of the run folder are not
        moved."""
        place, files = self.folder / str(step), {}
        with contextlib.suppress(DamageError, InputError):
            files = {} if is_link(place) else read_manifest(place)["files"]
        others = [] if is_link(place) else unlisted(place, files)
        if files and not others:
            delete_step(self.folder, step)
            return
        if not others and not (isinstance(place, Path) and os.path.lexists(place)):
            return
        if self.linked:
            raise InputError(f"{place} was not written by training. Move it to another folder.")
        aside = unused(place.parent.with_name(RunPaths.replaced)) / place.parent.name / place.name
        move_folder(place, aside)
        print(f"{self.kind}: {place} was not written by training. Moved to {aside}", flush=True)

    def sync_sidecars(self) -> None:
        """Force the logs `sidecars` to disk, ignoring missing files and errors."""
        for path in {*self.sidecars, *(path.parent for path in self.sidecars)}:
            with contextlib.suppress(OSError):
                sync(path)

    def prune(self) -> None:
        """Delete the checkpoints that `retention` does not keep."""
        if self.retention is None:
            return
        self.may_write()
        losses, files, best = {}, {}, None
        for step in self.steps():
            with contextlib.suppress(DamageError, InputError):
                manifest = read_manifest(self.folder / str(step))
                losses[step], files[step] = manifest["about"].get("validation_loss"), manifest["files"]
                best = manifest["about"].get("best")  # of the newest, which knows the best before it (train.patience)
        kept = self.retention.of(losses) | ({best["step"]} if best else set())
        for step in losses.keys() - kept:
            if others := unlisted(self.folder / str(step), files[step]):
                other = self.folder / str(step) / others[0]
                print(f"checkpoint: step {step:,} is kept, because training did not write {other} in it", flush=True)
                continue
            self.delete(step)

    def delete(self, step: int) -> None:
        """Delete a checkpoint. I/O errors are printed, not raised."""
        try:
            self.may_write()
            delete_step(self.folder, step)
        except (OSError, InputError) as error:
            print(f"checkpoint: step {step:,} could not be deleted: {error}", flush=True)

    def delete_after(self, step: int) -> None:
        """Delete the checkpoints of later steps than `step`, if that one exists. I/O errors are printed, not raised."""
        if self.primary and step in (steps := self.steps()):
            for later in [one for one in steps if one > step]:
                self.delete(later)

    def amend(self, step: int, about: Mapping[str, Any]) -> None:
        """Update the metadata of an existing checkpoint with `about`. I/O errors are printed, not raised."""
        if self.primary:
            self.sync_sidecars()
            try:
                self.may_write()
                amend(self.folder / str(step), about)
            except (OSError, DamageError, InputError) as error:
                print(f"checkpoint: step {step:,}: {', '.join(about)} could not be added: {error}", flush=True)

    def restore_newest[S: State](self, like: S) -> tuple[S, dict[str, Any]] | None:
        """Return (the state in the newest undamaged checkpoint, with the shardings of `like`; its metadata), or None if
        there is no checkpoint. Damaged checkpoints are reported and moved away. Raises InputError if all are damaged,
        or that one is of another model."""
        about = self.newest_whole()
        if about is None:
            return None
        return self.restore(self.folder / str(about["step"]), like), about

    def restore[S: State](self, folder: Place, like: S, cast_types: bool = False) -> S:
        """Return the state in the checkpoint `folder`, without verifying files. Raises the errors of
        `restore_items`."""
        return like.with_items(restore_items(folder, like.checkpoint_items(), cast_types))

    def newest_whole(self) -> dict[str, Any] | None:
        """Return the metadata of the newest undamaged checkpoint, or None if there is no checkpoint. Moves newer,
        damaged ones away; raises InputError if all are damaged."""
        damaged: dict[Place, DamageError] = {}
        for step in settle("steps", None, lambda _: self.tidied()):
            folder = self.folder / str(step)
            try:
                about = verify_together(folder)
            except DamageError as damage:
                damaged[folder] = damage
                if self.primary:
                    print(f"checkpoint: step {step:,} is damaged: {damage}", flush=True)
            else:
                settle("aside", None, lambda _, step=step: self.set_aside([*damaged], step))
                return about
        if damaged:
            raise InputError(
                f"No checkpoint in {self.folder} is intact: {', '.join(path.name for path in damaged)} are damaged. "
                f"The newest: {next(iter(damaged.values()))}. Restore one from a copy, or delete {self.folder} to "
                "train again from step 0."
            )
        return None

    def tidied(self) -> list[int]:
        """Delete leftovers of killed saves, and return the existing steps, newest first."""
        self.may_write()
        delete_unfinished(self.folder)
        return self.steps()[::-1]

    def set_aside(self, damaged: Sequence[Place], step: int) -> None:
        """Move damaged checkpoints away; `step`, for the message, is the one that training resumes from."""
        for folder in damaged:
            self.may_write()
            if self.linked and isinstance(folder, Path):
                aside: Place = unused(folder.with_name(f"{folder.name}.damaged"))
            else:
                aside = self.folder.with_name(RunPaths.damaged_checkpoints) / folder.name
                if isinstance(aside, Url) and aside.children():  # of a move that was killed
                    aside = unused(aside)
            with readable_errors(aside, "written", FREE_SPACE):
                move_folder(folder, aside)
            print(f"checkpoint: moved to {aside}; resuming from step {step:,}", flush=True)

    def close(self, raising: bool = True) -> None:
        """Wait for all saves. With `raising`, raises InputError if the last save failed."""
        self.settled()
        self.writer.shutdown()
        self.orbax.close()
        if self.failure is not None and raising:
            raise self.failure


def wait_for_all(commits: Sequence[Any]) -> None:
    """Wait for all writes, then raise the first of their errors."""
    errors = []
    for commit in commits:
        try:
            commit.result()
        except Exception as error:
            errors.append(error)
    if errors:
        raise errors[0]


FILE_BYTES = 2**28
"""Target size of the files that Orbax stores arrays in; several files are hashed in parallel."""
MARGIN = 500_000
"""Estimated size of a checkpoint besides its arrays, in bytes."""


class Parameters(NamedTuple):
    """The state that is saved in a snapshot: only the model."""

    model: Transformer

    def checkpoint_items(self) -> dict[str, object]:
        return {"model": self.model}

    def with_items(self, items: dict[str, object]) -> "Parameters":
        return Parameters(cast(Transformer, items["model"]))


class Snapshots(Checkpoints):
    """Folder snapshots/<step>/ of a run: only the parameters at chosen steps, kept for good, in their own types.
    Training does not resume from them; those of steps 0, 1, 2, 4, 8, ... show how a model learns (Pythia, Biderman et
    al. 2023, arXiv:2304.01373). A failed save is reported and does not end the run."""

    kind = "snapshot"

    def __init__(self, folder: Place, hooks: SaveHooks = NO_HOOKS):
        super().__init__(folder, retention=None, hooks=hooks)

    def of_run(self, first: int, about: Mapping[str, Any]) -> set[int]:
        """For a run that resumes at step `first` with the metadata `about`, delete the snapshots that do not fit;
        return the steps of the others. Snapshots of an earlier attempt after that step are kept only if they are
        undamaged and have the same metadata, since otherwise this run will have other parameters at these steps."""
        return {*settle("snapshots", None, lambda _: self.look(first, about))}

    def look(self, first: int, about: Mapping[str, Any]) -> list[int]:
        for step in self.tidied():
            if step < first:
                continue
            wanted = {**about, "step": step} if step > first or not first else {}
            try:
                fits = wanted.items() <= verify(self.folder / str(step)).items()
            except DamageError:
                fits = False
            if not fits:
                self.clear(step)
        return self.steps()
