"""Checks before a command starts: the folder is a run or empty, without links, and no input is in a folder of outputs.

A run folder may come from a stranger, with links to your files, so a run refuses links. The run folder itself may be a
link, and links under names that no run uses are allowed. Hard links look like the run's own files: those that a run
would write to are replaced by copies.
"""

import contextlib
import os
import shlex
import stat
from collections.abc import Iterator
from pathlib import Path

from configs.experiment import Experiment
from lm.config.evaluation import HUB
from lm.errors import UsageError
from lm.run_paths import HEARTBEATS, SUPERVISORS, Part, RunPaths
from lm.storage import break_hard_links, local_copy_of, matching_paths, split_pattern
from lm.terminal import listed

PARTS = [part.name for part in vars(RunPaths).values() if isinstance(part, Part)]
NAMES = {part.split("/")[0] for part in PARTS} - {RunPaths.replaced}
"""Files and folders at the top of a run folder that a run writes, besides names that begin with PREFIXES."""
PREFIXES = ("heartbeat", "supervisor")


def refuse_links(workdir: Path) -> None:
    """Raise UsageError if a file or folder of the run at the top of `workdir` is a link, or if its folders contain a
    link that leads out of `workdir`, a pipe or a device."""
    if not workdir.is_dir():
        return
    names = sorted(path.name for path in workdir.iterdir() if path.name in NAMES or path.name.startswith(PREFIXES))
    for name in names:
        refuse_link(workdir / name)
    home, folders = Path(os.path.realpath(workdir)), [workdir / name for name in names if (workdir / name).is_dir()]
    for folder in folders:  # grows during the loop
        with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:  # another process may delete it
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(Path(entry.path))
                elif not entry.is_symlink() or not Path(os.path.realpath(entry.path)).is_relative_to(home):
                    refuse_link(Path(entry.path))


def refuse_link(path: Path) -> None:
    """Raise UsageError if `path` is a symbolic link, or a pipe, socket or device, which could block forever."""
    try:
        mode = path.lstat().st_mode
    except OSError:  # another process may have deleted it
        return
    remove = shlex.join(["rm", str(path)])
    if stat.S_ISLNK(mode):
        raise UsageError(
            f"{path} is a link to {path.readlink()}, but a run follows no link in its folder. Nothing was changed. "
            f"Use a run folder on that disk, or delete the link (the files that it leads to stay): {remove}"
        )
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise UsageError(
            f"{path} is a pipe, socket or device instead of a file. Nothing was changed. To delete it: {remove}"
        )


def break_links(workdir: Path) -> None:
    """Replace files with several hard links by copies, if a run writes to them in place. Only for the process that
    holds the lock of the run: another one may have these files open."""
    paths, names = RunPaths(workdir), NAMES - {RunPaths.lock}
    logs = [path for path in workdir.iterdir() if path.name in names or path.name.startswith(PREFIXES)]
    for folder in (paths.hangs, paths.tensorboard):
        logs += folder.rglob("*")
    logs += paths.pages.glob("*.part")  # a download that is continued
    for path in logs:
        break_hard_links(path)


MARKS = [f"{RunPaths.stages}/*.{kind}" for kind in ("json", "begun", "files", "seen")]
"""Files that mark a folder as a run. A stage writes one of them before anything else."""
PASSED_OVER = {RunPaths.lock, "lost+found", ".DS_Store"}
LOGS = (SUPERVISORS, HEARTBEATS, "*.log", "*.out", "*.err")
"""Files of a supervisor, scheduler or shell, which may exist in a folder before a run begins there."""
OUTPUTS = tuple(sorted(NAMES - {RunPaths.config_json, RunPaths.lock, RunPaths.imported}))
"""Outputs that are never a user's input."""
WORK = (RunPaths.parts, RunPaths.sampling, RunPaths.scratch)


def is_run(folder: Path) -> bool:
    """Whether the folder is a run: stages/ has the record of a stage that has begun or is finished."""
    return any(path.match(mark) for path in folder.glob(f"{RunPaths.stages}/*") for mark in MARKS)


def refuse_no_run(workdir: Path) -> None:
    """Raise UsageError unless `workdir` is a run folder without links, is empty, or does not exist. The local copy of a
    run in a bucket is not checked, since it is cleared when a command begins."""
    if local_copy_of(workdir):
        return
    if workdir.is_symlink() and not workdir.exists():
        raise UsageError(
            f"--workdir {workdir} is a link to {workdir.readlink()}, which does not exist. Mount its disk, or "
            "create that folder."
        )
    if found := set("*?[") & set(str(workdir.absolute())):
        raise UsageError(
            f"--workdir {workdir} has {' and '.join(sorted(found))} in its path, which Orbax reads as a pattern, so "
            "checkpoints could not be read. Give a path without *, ? and [."
        )
    if workdir.exists() and not workdir.is_dir():
        raise UsageError(f"--workdir {workdir} is a file. Give a folder that is empty or does not exist yet.")
    if not workdir.is_dir():
        return
    refuse_links(workdir)
    if is_run(workdir):
        return
    others = sorted(path.name for path in workdir.iterdir() if not may_be_there(path))
    if others and not is_run(workdir):  # another process may have started one since
        raise UsageError(
            f"--workdir {workdir} is not empty ({listed(others)}), and is not a run folder. Nothing was changed. Give "
            "a folder that is empty or does not exist yet."
        )


def may_be_there(path: Path) -> bool:
    """Whether a run may begin in a folder that contains `path`, such as a log or an empty folder."""
    if path.name == RunPaths.stages:  # a kill may have come before its first file was complete
        return path.is_dir() and all(entry.suffix == ".partial" for entry in path.iterdir())
    if path.is_dir() and not any(path.iterdir()):
        return True
    return path.name in PASSED_OVER or (path.is_file() and any(path.match(log) for log in LOGS))


def refuse_inputs_in_outputs(experiment: Experiment, workdir: Path) -> None:
    """Raise UsageError if an input file that the config names is in a folder that the run writes to."""
    for option, path, names in inputs_of(experiment):
        for name in names:
            output = (workdir / name).resolve()
            if found := inside(path, output):
                raise UsageError(
                    f"{option} = {path!r} has {found}, but this run writes to {workdir / name}. Nothing was changed. "
                    "Move your files out of the run folder, or give another --workdir."
                )


def inputs_of(experiment: Experiment) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Yield (option, path or shell pattern, outputs of the run that must not contain it) of each input."""
    pages, train = experiment.pages, experiment.train
    if pages.source == "warc":
        yield from (("pages.warc", pattern, OUTPUTS) for pattern in pages.warc)
    if pages.source == "tables":
        yield from (("pages.tables", pattern, OUTPUTS) for pattern in pages.tables)
    if pages.source == "tfds":
        yield "pages.tfds.dataset", pages.tfds.dataset, OUTPUTS
        yield "pages.tfds.data_dir", pages.tfds.data_dir, OUTPUTS
    yield "tokenizer.load", experiment.tokenizer.load, OUTPUTS
    yield from (("shards.held_out_index", name, (RunPaths.tokens, *WORK)) for name in experiment.shards.held_out_index)
    yield from (("train.mixture", source.tokens, (RunPaths.tokens, *WORK)) for source in train.mixture)
    tasks = {"train.tasks.data": train.tasks.data, "evaluate.tasks.data": experiment.evaluate.tasks.data}
    yield from ((option, data, OUTPUTS) for option, data in tasks.items() if data and data != HUB)
    yield "train.start.checkpoint", train.start.checkpoint, (RunPaths.checkpoints, *WORK)


def inside(pattern: str, output: Path) -> Path | None:
    """Return a path that matches the shell pattern and is `output` or inside it; None if there is none."""
    try:
        fixed, rest = split_pattern(pattern)
    except UsageError:  # of an unknown user: reported when it is read
        return None
    if not pattern:
        return None
    if not rest:
        return fixed if fixed.resolve().is_relative_to(output) else None
    # Only where its fixed beginning is above or below the output can the pattern match anything there.
    begin = fixed.resolve()
    if not begin.is_relative_to(output) and not output.is_relative_to(begin):
        return None
    return next(
        (path for path in matching_paths(pattern) if path.is_file() and path.resolve().is_relative_to(output)), None
    )
