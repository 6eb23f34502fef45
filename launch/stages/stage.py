"""Restartable stages: a finished stage is skipped, an interrupted one resumes, a changed one is refused.

A stage records its settings in `stages/<stage>.begun`, writes its outputs to their final paths, on a disk or in a
bucket, and then writes its marker, `stages/<stage>.json`. Other stages read the outputs only if there is a marker. It
holds a key, the hash of everything that determines the outputs (the stage's part of the config and the keys of the
stages before it), and the sizes of the outputs. A stage whose marker has the same key is up to date; with another key
it belongs to another experiment, and nothing is changed. launch/run_folder/outputs.py decides which files may be
deleted.
"""

import errno
import json
import pkgutil
import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.experiment import Experiment
from configs.experiment.run_folder import experiment_json
from launch.run_folder import bucket, outputs, reuse, user_inputs
from launch.run_folder.checks import refuse_link
from launch.run_folder.markers import (
    compare_versions,
    differences,
    key_of,
    read_note,
    refuse_trained,
    report_damage,
    settings_and_inputs,
)
from launch.stages.processes import process_index, require_one_process
from lm.checksums import checksums
from lm.errors import InputError, UsageError, print_untrusted
from lm.fields import flatten, identifying
from lm.run_paths import RunPaths
from lm.storage import local_copy_of, noting_writes, shown_place, write_atomically
from lm.terminal import listed
from lm.versions import installed

FROM_ANOTHER_RUN = ("launch.finetune", "launch.reinforce")
"""Scripts that begin with the model of another run; `--from` is not for them."""


@dataclass(frozen=True)
class Stage:
    """One step of the pipeline from pages to report: its function, and everything that determines its outputs."""

    name: str
    """Name in messages, and of the marker: stages/<name>.json."""
    script: str
    """The launch script that runs only this stage, for messages."""
    after: tuple["Stage | str", ...]
    """Earlier stages whose outputs it reads, in a run that is not finetuned; or their names, such as
    "launch.train:STAGE", which are imported when they are needed."""
    settings: Callable[[Experiment], dict[str, object]]
    """The part of the config that determines its outputs."""
    make: Callable[[Experiment, Any], None]
    """make(experiment, run): reads finished outputs in the run folder and writes its own there. It is called again
    after an interruption. `run` is a path, or an address if the stage is `direct` and the run is in a bucket."""
    outputs: tuple[str, ...]
    """Files and folders, relative to the run folder, that `make` writes."""
    after_finetuning: tuple["Stage | str", ...] | None = None
    """Stages whose outputs it reads in a finetuned run; None: it is not for finetuned runs."""
    after_reinforcement: tuple["Stage | str", ...] | None = None
    """The same for a reinforced run."""
    optional: tuple[str, ...] = ()
    """Outputs that only some configs produce."""
    grows: bool = False
    """Outputs are never deleted; `make` resumes from them (training)."""
    required_outputs: Callable[[Path], tuple[str, ...]] | None = None
    """required_outputs(workdir): outputs without which the stage is not finished; by default all."""
    by_products: tuple[str, ...] = ()
    """Logs of `make`, as shell patterns. Changing or deleting them does not make the stage unfinished."""
    checked: tuple[str, ...] = ()
    """Logs and small outputs whose checksums the marker records (lm/checksums.py), as shell patterns."""
    multi_process: bool = False
    """Whether several processes can run it together (launch/stages/processes.py)."""
    libraries: tuple[str, ...] | None = None
    """Python packages, and "python" itself, whose versions determine the bytes of the parts from which an interrupted
    stage resumes; None if it does not resume."""
    external_inputs: Callable[[Experiment], dict[str, object]] = lambda experiment: {}
    """Returns {name: hash or size} of inputs outside of the run folder that also determine the outputs."""
    units: tuple[str, ...] = ()
    """Steps of data_prep.engine whose markers of finished units `--from` copies."""
    direct: bool = False
    """Whether `make` accepts an address: for a run in a bucket, its units read and write there from any machine, and
    nothing is copied to this one."""
    intermediate: tuple[str, ...] = ()
    """Folders to delete when the stage is finished."""
    only_inputs_differ: Callable[[dict, dict], bool] = lambda old, new: False
    """only_inputs_differ(old, new), of settings and external inputs: whether only the list of input files differs. If
    so, the finished stage runs again, unless other stages than `remade_with` depend on it."""
    remade_with: tuple[str, ...] = ()
    """Names of later stages that do not prevent this: they are updated unit by unit."""
    holds_work: Callable[[Path], bool] | None = None
    """Whether an unfinished attempt left work to resume from; by default, whether a stage that resumes has any file."""
    can_continue: Callable[[dict, dict, Path], bool] = lambda old, new, workdir: False
    """can_continue(old settings, new settings, workdir): whether the new settings can continue outputs of the old ones.
    Raises UsageError if only the state of the run folder prevents it."""
    continued_from: Callable[[Path, dict], list] = lambda workdir, settings: []
    """continued_from(workdir, settings): earlier lengths of the continued training, for the marker and its key."""


def stages_before(stage: Stage, experiment: Experiment) -> tuple[Stage, ...]:
    """Stages whose outputs `stage` reads. Raises UsageError if it is not for finetuned or reinforced runs, and this is
    one."""
    if experiment.reinforce.base:
        if stage.after_reinforcement is None:
            raise UsageError(
                f"This run is reinforced from {experiment.reinforce.base}, and {stage.script} is not for such runs. "
                "Use launch.reinforce, launch.report, launch.chat or launch.serve."
            )
        before = stage.after_reinforcement
    elif not experiment.chat.base:
        before = stage.after
    elif stage.after_finetuning is None:
        raise UsageError(
            f"This run is finetuned from {experiment.chat.base} (launch.finetune), and {stage.name} is not for such "
            "runs, which have no pages and documents. Give the run that it was finetuned from; or, for this one, use "
            "launch.finetune, launch.evaluate, launch.sample, launch.report, launch.chat or launch.serve."
        )
    else:
        before = stage.after_finetuning
    return tuple(pkgutil.resolve_name(one) if isinstance(one, str) else one for one in before)


def read_marker(stage: Stage, workdir: Path) -> dict | None:
    """Return the marker, the record of a finished stage; None if it is not finished, or an output is missing or
    damaged. Damaged logs of training are only reported. Raises InputError if the marker is damaged, or if a checkpoint
    is missing or has another size: training would restart from scratch."""
    path = RunPaths(workdir).marker(stage.name)
    marker = read_note(path)
    if marker is None:
        return None
    for name, size in marker["files"].items():
        file, found = workdir / name, bucket.size_in(workdir, name)
        if found != size and stage.grows:
            there = "missing" if found is None else f"{found} bytes"
            raise InputError(
                f"{shown_place(file)} is {there}; it should have {size} bytes. Restore the file; or, to train from "
                f"step 0 again: {outputs.remove_command(path)}"
            )
        if found != size:
            return None
    again = f" Or run it again: python -m {stage.script} {shlex.quote(str(workdir))}"
    damaged = report_damage(stage.name, workdir, marker, "" if stage.grows else again)
    return None if damaged and not stage.grows else marker


def by_products_in(stage: Stage, folder: Path) -> tuple[str, ...]:
    """Names in `folder` that match the stage's `by_products`, the patterns of its logs."""
    return tuple(sorted({path.name for pattern in stage.by_products for path in folder.glob(pattern)}))


def settings_of(stage: Stage, experiment: Experiment) -> dict[str, object]:
    """Fields of the config that determine the stage's outputs, as JSON values."""
    return json.loads(json.dumps(identifying(stage.settings(experiment))))


def finished(before: Stage, stage: Stage, experiment: Experiment, workdir: Path) -> dict:
    """Return the marker of the finished stage `before`, whose outputs `stage` reads. Raises InputError if `before` is
    not finished, UsageError if its outputs, or those that it read, belong to another experiment."""
    marker = read_marker(before, workdir)
    if marker is None:
        folder = shown_place(workdir)
        raise InputError(
            f"{stage.name} needs {', '.join(before.outputs)} in {folder}, which is missing or unfinished. First run: "
            f"python -m {before.script} CONFIG.py --workdir {shlex.quote(str(folder))}  (or python -m launch.pretrain "
            "…), with the same options."
        )
    wanted = settings_of(before, experiment)
    for earlier in stages_before(before, experiment):
        wanted[f"<{earlier.name}>"] = finished(earlier, before, experiment, workdir)["key"]
    if marker["settings"] != wanted:
        refuse_other(before, marker["settings"], wanted, workdir)
    return marker


def check_outputs(stage: Stage, experiment: Experiment, workdir: Path) -> None:
    """Raise InputError if the stage is not finished, UsageError if its outputs were made with other settings. Earlier
    stages are not checked."""
    marker = read_marker(stage, workdir)
    if marker is None:
        folder = shown_place(workdir)
        raise InputError(
            f"{folder} has no finished {', '.join(stage.outputs)}/. Give a run folder as --workdir, or first run: "
            f"python -m {stage.script} CONFIG.py --workdir {shlex.quote(str(folder))}"
        )
    found = {name: value for name, value in marker["settings"].items() if not name.startswith("<")}
    if found != settings_of(stage, experiment):
        refuse_other(stage, found, settings_of(stage, experiment), workdir)


def refuse_other(stage: Stage, old: dict, new: dict, workdir: Path) -> None:
    """Raise UsageError: the outputs belong to another experiment. Lists where the settings `old` and `new` differ."""
    takes = not local_copy_of(workdir) and stage.script not in FROM_ANOTHER_RUN
    other = f" (--from {shlex.quote(str(workdir))} reuses what is the same)" if takes else ""
    raise UsageError(
        f"{shown_place(workdir)} has {', '.join(stage.outputs)} of another experiment:\n"
        + "\n".join(differences(old, new))
        + f"\nNothing was changed. Choose another --workdir{other}; or, to replace these outputs and later ones: "
        + outputs.remove_command(*what_follows(stage, workdir))
    )


def what_follows(stage: Stage, workdir: Path) -> list[Path]:
    """Return the markers to delete so that the stage, finished or not, and all stages that depend on it run again."""
    notes = {path: read_note(path) or {} for path in RunPaths(workdir).stages.glob("*.json")}
    found = [RunPaths(workdir).marker(stage.name)]
    for path in found:  # grows during the loop
        found += [one for one in sorted(notes) if f"<{path.stem}>" in notes[one]["settings"] and one not in found]
    return [path for path in (RunPaths(workdir).begun(stage.name), *found) if path.exists()]


def run_stage(stage: Stage, experiment: Experiment, workdir: Path, source: Path | None = None) -> bool:
    """Run or resume a stage; return False if it is up to date. If the run in `source` has finished it with the same
    settings and inputs, its outputs are copied or linked instead. Raises UsageError if the stage's outputs or inputs
    belong to another experiment; then nothing is changed."""
    before = {f"<{one.name}>": finished(one, stage, experiment, workdir) for one in stages_before(stage, experiment)}
    settings = settings_of(stage, experiment) | {name: marker["key"] for name, marker in before.items()}
    external = json.loads(json.dumps(stage.external_inputs(experiment)))
    external_inputs, seen = user_inputs.recognised(workdir, external)
    marker = read_marker(stage, workdir)
    same = marker and marker["key"] == key_of(stage.name, settings, external_inputs, marker["continued_from"])
    retried = experiment.engine.retry_failed and marker and any("without" in one for one in marker["continued_from"])
    if marker and same and not retried:
        user_inputs.remember(workdir, seen)
        tidy(stage, workdir)  # a kill may have come before
        return False
    if stage.grows:
        bucket.fetch(workdir, (), stage.by_products)
    note = {
        "key": key_of(stage.name, settings, external_inputs, []),
        "settings": settings,
        "external_inputs": external_inputs,
        "replaces": [],
    }
    earlier = marker or read_note(RunPaths(workdir).marker(stage.name))  # a marker of damaged outputs counts here
    replaced = earlier and may_replace(stage, earlier, note, before, workdir)
    if same and not replaced:  # failed units are tried again
        refuse_trained(workdir, stage.name)
    if earlier and (replaced or same):
        note["replaces"] = [*earlier["replaces"], earlier["key"]]  # later stages made from it are updated too
    elif marker:
        old, new = settings_and_inputs(marker), settings_and_inputs(note)
        only_inputs = stage.only_inputs_differ(old, new)
        followers = {path.stem for path in what_follows(stage, workdir) if path.suffix == ".json"}
        if not only_inputs or not followers <= {stage.name, *stage.remade_with}:
            if experiment.fitted_to and only_inputs and marker["settings"] == settings:
                tell_kept(stage, flatten(old), flatten(new), workdir)
                return False
            refuse_other(stage, old, new, workdir)
    if not stage.multi_process:
        others = ", and only launch.train, launch.evaluate and launch.sample in all"
        others = "" if stage.script in FROM_ANOTHER_RUN else others
        require_one_process(stage.name, f"Run {stage.script} in one, with NUM_PROCESSES=1{others}.")
    index = process_index()
    if index == 0 and source and not marker and take(stage, experiment, source, workdir, note, external):
        return True
    if not (stage.direct and local_copy_of(workdir)):
        logs = [pattern for one in stages_before(stage, experiment) for pattern in one.by_products]
        shards = (RunPaths.tokens,) if stage.multi_process else ()
        bucket.fetch_inputs(workdir, before.values(), logs, shards)
    if index > 0:  # process 0 writes the records
        stage.make(experiment, workdir)
    else:
        make(stage, experiment, workdir, note, marker, seen)
    return True


def may_replace(stage: Stage, marker: dict, note: dict, before: dict[str, dict], workdir: Path) -> bool:
    """Whether finished outputs may be replaced without asking: training continues with another train.steps, or the
    stage's inputs changed only because training continued. `marker` is the record of the finished outputs, `note` that
    of the new ones; `before` has the earlier stages' markers."""
    old, new = marker["settings"], note["settings"]
    if marker["external_inputs"] != note["external_inputs"]:
        return False
    changed = [name for name in old.keys() | new.keys() if old.get(name) != new.get(name)]
    if changed and all(name in before and old.get(name) in before[name]["replaces"] for name in changed):
        return not stage.grows
    return stage.can_continue(old, new, workdir)


def tell_kept(stage: Stage, old: dict, new: dict, workdir: Path) -> None:
    """Print that the run keeps its outputs, made from the `old` input files of the user, such as notes, although these
    have changed."""
    kinds = {
        "new": new.keys() - old.keys(), "gone": old.keys() - new.keys(),
        "changed": {name for name in old.keys() & new.keys() if old[name] != new[name]},
    }  # fmt: skip
    some = {kind: sorted(Path(name).name for name in names) for kind, names in kinds.items() if names}
    told = [f"{len(names):,} {kind} ({listed(names)})" for kind, names in some.items()]
    other = shlex.quote(f"{shown_place(workdir)}-2")
    print_untrusted(
        f"{stage.name}: files have changed since this run read them: {', '.join(told)}. The run keeps what it has "
        f"read. To use the new files, start another run: --workdir {other}"
    )


def make(stage: Stage, experiment: Experiment, workdir: Path, note: dict, marker: dict | None, seen: dict) -> None:
    """Run or resume the stage, then write its marker. `note` is the record of the new outputs, `marker` that of the
    outputs to be replaced (None: there are none); `seen` are the input files for user_inputs.remember. Raises
    FileNotFoundError unless the stage wrote each output that is not optional."""
    from data_prep.engine.run import noting  # imports the engine, which commands that only read do not need

    copy = local_copy_of(workdir)
    direct = copy if stage.direct else None
    run = direct.url if direct else workdir.absolute()
    user_inputs.remember(workdir, seen)  # while the manifest that they were compared with exists
    begin(stage, experiment, workdir, note, marker)
    start = time.perf_counter()
    with noting(direct.may_write if direct else lambda: None) as notes, noting_writes() as written_here:
        stage.make(experiment, run)
        user_inputs.note_replaced(workdir, note["external_inputs"])
    if stage.grows:
        required_outputs = stage.required_outputs(workdir) if stage.required_outputs else stage.outputs
        files = bucket.there(copy, required_outputs) if copy else outputs.files_in(workdir, required_outputs)
    else:
        there = bucket.there(direct, stage.outputs) if direct else outputs.files_in(workdir, stage.outputs)
        ours = notes.outputs | written_here  # all other files belong to the user or to an earlier attempt
        is_output = lambda name: str(run / name) in ours and not outputs.is_not_output(name)
        files = {name: size for name, size in there.items() if is_output(name)}
        made = lambda output: any(outputs.below(file, output) for file in files) or (workdir / output).is_dir()
        for output in stage.outputs:
            if output not in stage.optional and not made(output):
                raise FileNotFoundError(errno.ENOENT, f"the stage {stage.name} did not write it", str(workdir / output))
        if direct:
            others = {name for name in there.keys() - files.keys() if not outputs.is_not_output(name)}
            bucket.move_aside(direct, stage.name, others)
        outputs.keep_only(stage.name, workdir, stage.outputs, files)
    continued = stage.continued_from(workdir, note["settings"])
    if notes.failed:
        continued = [*continued, {"without": sorted(notes.failed)}]
    done = note | {"key": key_of(stage.name, note["settings"], note["external_inputs"], continued)}
    done["replaces"] = [key for key in note["replaces"] if key != done["key"]]
    done |= {"continued_from": continued, "seconds": round(time.perf_counter() - start, 3)}  # of this attempt
    done |= {"files": files, "checksums": checksums(workdir, stage.checked)}
    write_atomically(RunPaths(workdir).marker(stage.name), json.dumps(done, indent=1))
    tidy(stage, workdir, made_here=direct is None)


def tidy(stage: Stage, workdir: Path, made_here: bool = True) -> None:
    """Clean up after a stage whose marker is written: delete files that only an unfinished stage needs, and upload a
    run in a bucket. `made_here`: whether the stage's outputs are on this disk, to be uploaded too."""
    RunPaths(workdir).begun(stage.name).unlink(missing_ok=True)
    kept = (*stage.by_products, *(f"{RunPaths.units}/{step}" for step in stage.units))
    bucket.publish(stage.name, workdir, kept, made_here)
    delete_intermediate(stage, workdir)


def delete_intermediate(stage: Stage, workdir: Path) -> None:
    """Delete the stage's `intermediate` folders; with parts/, also the markers of the joins that wrote parts/."""
    if RunPaths.parts in stage.intermediate:
        bucket.delete_joins(workdir)
    if stage.direct and (copy := local_copy_of(workdir)):
        copy.delete(copy.matching(stage.intermediate))
    for name in stage.intermediate:
        outputs.delete_folder(workdir / name)


def begin(stage: Stage, experiment: Experiment, workdir: Path, note: dict, marker: dict | None) -> None:
    """Prepare the outputs for a new or a resumed attempt, write `.begun`, and delete the marker. Adds to `note` the
    replaced keys and damaged files of earlier records.

    Raises UsageError if an earlier attempt left work with other settings or libraries, or if an output is a link.
    """
    begun = RunPaths(workdir).begun(stage.name)
    found = None if marker else read_note(begun)
    for name in (*stage.outputs, *stage.intermediate, RunPaths.scratch):
        refuse_link(workdir / name.split("/")[0])
    if found is None:
        delete_intermediate(stage, workdir)  # a kill may have come during its deletion
        if not stage.grows:
            outputs.make_room(stage.name, workdir, stage.outputs)
        elif marker is None:
            names = (*stage.outputs, *by_products_in(stage, workdir))
            outputs.move_aside(
                workdir, map(workdir.joinpath, names), "belongs to a run without its marker, and is replaced"
            )
            bucket.set_aside(workdir, stage.name, stage.outputs)
        if marker and stage.grows:
            note["damaged"] = [*marker.get("damaged", []), *report_damage(stage.name, workdir, marker, "")]
    elif same_work(stage, found, note, workdir):
        note |= {"replaces": list(dict.fromkeys([*found["replaces"], *note["replaces"]]))}
        note |= {"damaged": found["damaged"]} if "damaged" in found else {}
        if stage.libraries and holds_work(stage, workdir):
            compare_versions(stage.name, begun, found, stage.libraries, warn_only=stage.direct)
    elif holds_work(stage, workdir):
        refuse_other(stage, settings_and_inputs(found), settings_and_inputs(note), workdir)
    elif stage.grows:
        names = (*stage.optional, *by_products_in(stage, workdir))
        logs = [workdir / name for name in names if outputs.files_in(workdir, (name,))]
        outputs.move_aside(workdir, logs, "belongs to an attempt with other settings that wrote no checkpoint")
        bucket.set_aside(workdir, stage.name, stage.optional)
    versions = {"versions": {one: installed(one) for one in stage.libraries}} if stage.libraries else {}
    write_atomically(begun, json.dumps(note | versions))
    RunPaths(workdir).marker(stage.name).unlink(missing_ok=True)
    write_atomically(RunPaths(workdir).config_json, experiment_json(experiment))
    bucket.announce(stage.name, workdir)


def same_work(stage: Stage, found: dict, note: dict, workdir: Path) -> bool:
    """Whether the interrupted attempt, recorded in `found`, can resume. Only the list of input files or the outputs of
    earlier stages may have changed, since the stage checks each part; for training, only train.steps."""
    same_inputs = found["external_inputs"] == note["external_inputs"]
    if stage.grows:
        old, new = found["settings"], note["settings"]
        return same_inputs and (old == new or stage.can_continue(old, new, workdir))
    own = lambda one: {name: value for name, value in one["settings"].items() if not name.startswith("<")}
    return (same_inputs and own(found) == own(note)) or stage.only_inputs_differ(
        settings_and_inputs(found), settings_and_inputs(note)
    )


def holds_work(stage: Stage, workdir: Path) -> bool:
    """Whether an unfinished attempt of the stage left work to resume from."""
    if stage.holds_work:
        return stage.holds_work(workdir)
    if stage.libraries is None and not stage.grows:
        return False
    names = (*stage.outputs, *stage.intermediate)
    copy = local_copy_of(workdir) if stage.direct else None
    return bool(copy.matching(names) if copy else outputs.files_in(workdir, names))


def take(stage: Stage, experiment: Experiment, source: Path, workdir: Path, note: dict, external: dict | None) -> bool:
    """Copy or link the stage's outputs from the run `source`; return False if this is not possible: `source` has other
    settings or inputs, its training was continued or its units failed, or this run has partial work. `external` are
    this run's external inputs; None: do not compare external inputs."""
    marker = read_note(RunPaths(source).marker(stage.name))
    if marker is None or marker.get("continued_from") or marker["settings"] != note["settings"]:
        return False
    if external is not None and marker["external_inputs"] != user_inputs.recognised(source, external)[0]:
        return False
    taken_from = {"taken_from": str(shown_place(source))}
    note = note | {"key": marker["key"], "external_inputs": marker["external_inputs"]} | taken_from
    begun = read_note(RunPaths(workdir).begun(stage.name))
    if begun and begun.get("taken_from") != note["taken_from"] and holds_work(stage, workdir):
        return False
    units = tuple(f"{RunPaths.units}/{step}" for step in stage.units)
    bucket.fetch_inputs(source, [marker], (*stage.by_products, *units))
    with reuse.held(source):
        reuse.refuse_damaged(source, marker)
        begin(stage, experiment, workdir, note, None)
        besides = (*by_products_in(stage, source), *units)
        reuse.take(stage.outputs, besides, source, workdir, marker)
    if copy := local_copy_of(workdir):
        copy.listed = None  # the upload of checkpoints has begun
    if not stage.grows:
        outputs.keep_only(stage.name, workdir, stage.outputs, marker["files"])
    if user_inputs.SIZES in marker["external_inputs"]:
        user_inputs.remember(workdir, user_inputs.read_seen(source))
    write_atomically(RunPaths(workdir).marker(stage.name), json.dumps(marker | taken_from, indent=1))
    tidy(stage, workdir)
    print(f"{stage.name}: taken from {shown_place(source)}", flush=True)
    return True


def take_before(stage: Stage, experiment: Experiment, workdir: Path, source: Path) -> None:
    """Copy or link missing inputs of the stage, and the inputs of these, from the run `source`."""
    for before in stages_before(stage, experiment):
        take_before(before, experiment, workdir, source)
        earlier = {one: read_marker(one, workdir) for one in stages_before(before, experiment)}
        if read_marker(before, workdir) is None and all(earlier.values()):
            keys = {f"<{one.name}>": marker["key"] for one, marker in earlier.items() if marker}
            note = {"settings": settings_of(before, experiment) | keys, "replaces": []}
            take(before, experiment, source, workdir, note, None)
