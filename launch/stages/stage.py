"""What makes every stage restartable: done work is skipped, half-done work is invisible, changed work is refused.

A stage builds its outputs under `.partial/<stage>/` of the run folder; when all is there, they are moved into place and
`stages/<stage>.json` is written: the marker that the stage is done. It holds a key, the hash of everything that decides
the outputs (the stage's part of the config and the keys of the stages before it), and the outputs' sizes. A stage with
a marker of the same key is up to date; with another key it belongs to another experiment, and nothing is touched.

What may be deleted is decided in launch/folder/written.py; what becomes of parts that are done, in
launch/folder/unfinished.py.
"""

import fnmatch
import json
import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from configs.experiment import Experiment
from configs.experiment.run_folder import experiment_json
from data_prep.engine.run import noting
from data_prep.engine.units import delete_all
from launch.folder import in_bucket, links, own_files, taking, unfinished, units, written
from launch.folder.markers import differences, key_of, older_names, read_note, refuse_trained, report_damage
from launch.stages.processes import place
from lm.checkpoints.in_bucket import fetch_to_go_on
from lm.checksums import checksums
from lm.errors import InputError, UsageError
from lm.fields import flatten, identifying
from lm.run_paths import RunPaths
from lm.storage import Mirror, mirror_of, shown_place, stores, write_atomically


@dataclass(frozen=True)
class Stage:
    """One step from pages to report."""

    name: str
    """Names the marker."""
    script: str
    """The launch script that runs it alone, for messages."""
    after: tuple["Stage", ...]
    """Stages whose outputs it reads."""
    settings: Callable[[Experiment], dict[str, object]]
    """All of the config that decides its outputs."""
    make: Callable[[Experiment, Path, Path], None]
    """make(experiment, workdir, out): reads finished outputs in workdir, writes its own into out."""
    outputs: tuple[str, ...]
    """Files and folders, relative to the run folder, that `make` leaves in `out`."""
    optional: tuple[str, ...] = ()
    """Those of the outputs that some configs do not ask for."""
    in_place: bool = False
    """`out` is the run folder itself, and `make` resumes from what it finds there (training)."""
    required_outputs: Callable[[Path], tuple[str, ...]] | None = None
    """required_outputs(workdir): those of the outputs without which the finished stage is undone; all of them, if not
    given."""
    by_products: tuple[str, ...] = ()
    """What `make` leaves besides, in place, as shell patterns: logs that may be changed or deleted without making the
    stage undone."""
    checked: tuple[str, ...] = ()
    """Files whose checksums the marker keeps (lm/checksums.py), as shell patterns: logs, and small outputs that are
    only shown."""
    multi_process: bool = False
    """Several processes may make it together (launch/stages/processes.py)."""
    libraries: tuple[str, ...] | None = None
    """Python packages, and "python" itself, that decide the bytes of the parts from which an interrupted stage goes on;
    None where it makes its outputs in one go."""
    external_inputs: Callable[[Experiment], dict[str, object]] = lambda experiment: {}
    """What else decides the outputs: files outside of the run folder, which only this stage has to find."""
    units: tuple[str, ...] = ()
    """Steps of units (data_prep.engine) that `make` runs in `out`. Their markers stay in the run folder, and what still
    agrees is taken over when the stage is made again."""
    direct: bool = False
    """`make` takes addresses in place of folders: in a bucket its units read and write at the run's address, on
    whatever machines they run, and nothing is copied to this one."""
    handed_on: tuple[str, ...] = ()
    """Folders of what its units hand on to each other, where `make` does not delete them."""
    inputs_alone: Callable[[dict, dict], bool] = lambda old, new: False
    """inputs_alone(old, new), of settings with the external inputs: whether they differ in the list of inputs alone.
    Then the finished stage is made again unasked, unless others than `remade_with` were made from it."""
    parts_fit: Callable[[dict, dict], bool] | None = None
    """parts_fit(old, new), of settings with the external inputs: whether the parts that an attempt with the old ones
    left are checked one by one under the new ones. None: as `inputs_alone` if the stage has `units`, else never."""
    remade_with: tuple[str, ...] = ()
    """Names of the stages that may have been made from it nevertheless: they follow unit by unit."""
    holds_work: Callable[[Path], bool] = lambda workdir: True
    """Of a stage in place: whether an unfinished attempt has left work that other settings must not go on from."""
    goes_on: Callable[[dict, dict, Path], bool] = lambda old, new, workdir: False
    """goes_on(old settings, new settings, workdir): whether what was made in place with the old ones is gone on with
    under the new ones. Raises UsageError where it could be, but for what is there."""
    continued_from: Callable[[Path, dict], list] = lambda workdir, settings: []
    """continued_from(workdir, settings): what the outputs were gone on with from, for the marker and its key."""

    @property
    def kept(self) -> tuple[str, ...]:
        """What is pushed to a bucket besides the outputs, as shell patterns."""
        return (*self.by_products, *units.folders(self.units))


def read_marker(stage: Stage, workdir: Path) -> dict | None:
    """The stage's marker, or None when it has not finished, or its outputs are no longer all there or are damaged.
    Damaged logs of training are only reported.

    Raises InputError when the marker is damaged, and where None would mean to train anew over checkpoints that are
    left.
    """
    path = RunPaths(workdir).marker(stage.name)
    marker = read_note(path, "key", "settings", "files")
    if marker is None:
        return None
    for output in stage.outputs:
        links.refuse_broken_link(workdir / output)
    for name, size in marker["files"].items():
        file, found = workdir / name, in_bucket.size_in(workdir, name)
        if found != size and stage.in_place:
            raise InputError(
                f"{file} is {'missing' if found is None else f'{found} bytes'}, but {size} bytes were written. "
                f"Bring it back; or, to train again from step 0: {written.remove_command(path)}"
            )
        if found != size:
            return None
    again = f" Or make it again: python -m {stage.script} {shlex.quote(str(workdir))}"
    damaged = report_damage(stage.name, workdir, marker, "" if stage.in_place else again)
    return None if damaged and not stage.in_place else marker


def made_by(stage: Stage, workdir: Path) -> list[str]:
    """The outputs of the finished stage: all, but for those optional ones that the config did not ask for."""
    files = (read_note(RunPaths(workdir).marker(stage.name), "files") or {"files": {}})["files"]
    asked = {file.split("/", 1)[0] for file in files}
    return [name for name in stage.outputs if name not in stage.optional or name in asked]


def names_of(stage: Stage) -> tuple[str, ...]:
    """Files and folders of a run folder in which the stage may put what it made."""
    return (*stage.outputs, *units.folders(stage.units), RunPaths.quarantine)


def by_products_in(stage: Stage, folder: Path) -> tuple[str, ...]:
    """Names of the stage's by-products that are in the folder, links to what is not there among them."""
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    return tuple(name for name in names if any(fnmatch.fnmatchcase(name, pattern) for pattern in stage.by_products))


def settings_of(stage: Stage, experiment: Experiment) -> dict[str, object]:
    """The stage's own part of the config, as JSON gives it back."""
    return json.loads(json.dumps(identifying(stage.settings(experiment))))


def finished(before: Stage, stage: Stage, experiment: Experiment, workdir: Path) -> dict:
    """The marker of `before`, whose outputs `stage` is about to read.

    Raises InputError when it has not finished, UsageError when its outputs, or what they were made from, are another
    experiment's.
    """
    marker = read_marker(before, workdir)
    if marker is None:
        folder = shown_place(workdir)
        raise InputError(
            f"{stage.name} needs {', '.join(before.outputs)} in {folder}, and that is missing or unfinished. "
            f"First run: python -m {before.script} CONFIG.py --workdir {shlex.quote(str(folder))}  "
            "(or python -m launch.pretrain …), with the same options."
        )
    wanted = settings_of(before, experiment)
    for earlier in before.after:
        wanted[f"<{earlier.name}>"] = finished(earlier, before, experiment, workdir)["key"]
    if marker["settings"] != wanted:
        refuse_other(before, marker["settings"], wanted, workdir)
    return marker


def check_outputs(stage: Stage, experiment: Experiment, workdir: Path) -> None:
    """Raises InputError or UsageError unless the stage's outputs are there, made with these settings; what they were
    made from is not looked at."""
    marker = read_marker(stage, workdir)
    if marker is None:
        folder = shown_place(workdir)
        raise InputError(
            f"{folder} holds no finished {', '.join(stage.outputs)}/. Give the folder of a run with --workdir; or "
            f"first run: python -m {stage.script} CONFIG.py --workdir {shlex.quote(str(folder))}"
        )
    found = {name: value for name, value in marker["settings"].items() if not name.startswith("<")}
    if found != settings_of(stage, experiment):
        refuse_other(stage, found, settings_of(stage, experiment), workdir)


def refuse_other(stage: Stage, old: dict, new: dict, workdir: Path) -> None:
    """Raises UsageError that shows every setting in which `old` and `new` differ."""
    other = f" (--from {shlex.quote(str(workdir))} begins it from what is the same)" if not mirror_of(workdir) else ""
    raise UsageError(
        f"What {shown_place(workdir)} holds as {', '.join(stage.outputs)} is of another experiment:\n"
        + "\n".join(differences(old, new))
        + older_names(old)
        + f"\nNothing was changed. Choose another --workdir{other}; or, to make them and all that follows from them "
        + "again: "
        + written.remove_command(*what_follows(stage, workdir))
    )


def what_follows(stage: Stage, workdir: Path) -> list[Path]:
    """What to delete so that the stage, finished or half done, and all that was made from its outputs is made again."""
    notes = {path: read_note(path, "settings") or {} for path in RunPaths(workdir).stages.glob("*.json")}
    found = [RunPaths(workdir).marker(stage.name)]
    for path in found:  # grows while it is walked
        found += [one for one in sorted(notes) if f"<{path.stem}>" in notes[one]["settings"] and one not in found]
    return [path for path in (RunPaths(workdir).begun(stage.name), *found) if path.exists()]


def run_stage(stage: Stage, experiment: Experiment, workdir: Path, source: Path | None = None) -> bool:
    """Brings one stage up to date; False when it already was. Outputs that another run, in `source`, has finished with
    the same key are taken from there.

    Raises UsageError when the outputs, or those that it reads, are another experiment's; then nothing is changed.
    """
    before = {f"<{one.name}>": finished(one, stage, experiment, workdir) for one in stage.after}
    settings = settings_of(stage, experiment) | {name: marker["key"] for name, marker in before.items()}
    external = json.loads(json.dumps(stage.external_inputs(experiment)))
    external_inputs, seen = own_files.recognised(workdir, external)
    marker = read_marker(stage, workdir)
    same = marker and marker["key"] == key_of(stage.name, settings, external_inputs, marker["continued_from"])
    retried = experiment.engine.retry_failed and marker and any("without" in one for one in marker["continued_from"])
    if marker and same and not retried:
        clean_up(stage, workdir, marker["key"])  # a kill may have come before
        own_files.remember(workdir, seen)
        in_bucket.publish(stage.name, workdir, stage.in_place, stage.kept)
        return False
    if stage.in_place:
        fetch_to_go_on(workdir)
    note = {
        "key": key_of(stage.name, settings, external_inputs, []),
        "settings": settings,
        "external_inputs": external_inputs,
        "replaces": [],
    }
    if marker:
        if may_replace(stage, marker, note, before, workdir):
            note["replaces"] = [*marker["replaces"], marker["key"]]
        elif same and retried:
            refuse_trained(workdir, stage.name)
            note["replaces"] = [*marker["replaces"], marker["key"]]  # what was made from it follows
        elif not inputs_changed(stage, marker, note, workdir):
            if experiment.fitted_to and inputs_kept(stage, marker, note, workdir):
                return False
            refuse_other(stage, marker["settings"] | marker["external_inputs"], settings | external_inputs, workdir)
    index, processes = place()
    if processes > 1 and not stage.multi_process:
        raise UsageError(
            f"{stage.name} is the work of one process, but there are {processes} here. Run {stage.script} in one, with "
            "NUM_PROCESSES=1 before it, and only launch.train, launch.evaluate and launch.sample in all of them."
        )
    if index > 0:  # process 0 keeps the books
        stage.make(experiment, workdir, workdir)
        return True
    if source and not marker and take(stage, experiment, source, workdir, settings, external):
        in_bucket.publish(stage.name, workdir, stage.in_place, stage.kept)
        return True
    if stage.direct and (mirror := mirror_of(workdir)):
        make_in_bucket(stage, experiment, workdir, mirror, note, seen)
        return True
    logs = [pattern for one in stage.after for pattern in one.by_products]
    in_bucket.fetch_inputs(workdir, before.values(), logs)
    make(stage, experiment, workdir, note, marker, seen)
    return True


def may_replace(stage: Stage, marker: dict, note: dict, before: dict[str, dict], workdir: Path) -> bool:
    """Whether what is finished may give way unasked: it is gone on with in place, or all that has changed is that what
    it was made from was gone on with."""
    old, new = marker["settings"], note["settings"]
    if marker["external_inputs"] != note["external_inputs"]:
        return False
    changed = [name for name in old.keys() | new.keys() if old.get(name) != new.get(name)]
    if changed and all(name in before and old.get(name) in before[name]["replaces"] for name in changed):
        return not stage.in_place
    return stage.goes_on(old, new, workdir)


def inputs_changed(stage: Stage, marker: dict, note: dict, workdir: Path) -> bool:
    """Whether the finished stage is made again since its list of inputs has changed, and that alone. What was made from
    it is another's then, for its key is not among those that it replaces."""
    old, new = (one["settings"] | one["external_inputs"] for one in (marker, note))
    followers = {path.stem for path in what_follows(stage, workdir) if path.suffix == ".json"}
    return stage.inputs_alone(old, new) and followers <= {stage.name, *stage.remade_with}


def inputs_kept(stage: Stage, marker: dict, note: dict, workdir: Path) -> bool:
    """Whether only the user's files differ from those that the run has read, while the config names the same ones: a
    folder of notes that somebody writes in. Then the run keeps what it has read, and this says so."""
    old, new = (one["settings"] | one["external_inputs"] for one in (marker, note))
    if marker["settings"] != note["settings"] or not stage.inputs_alone(old, new):
        return False
    old, new = flatten(old), flatten(new)
    kinds = {
        "new": new.keys() - old.keys(), "gone": old.keys() - new.keys(),
        "changed": {name for name in old.keys() & new.keys() if old[name] != new[name]},
    }  # fmt: skip
    some = lambda names: ", ".join(sorted(Path(name).name for name in names)[:3]) + (", …" if len(names) > 3 else "")
    told = [f"{len(names):,} {kind} ({some(names)})" for kind, names in kinds.items() if names]
    other = shlex.quote(f"{shown_place(workdir)}-2")
    print(
        f"{stage.name}: files have changed since this run read them: {', '.join(told)}. The run keeps what it "
        f"has read. To train on the files as they are now, begin another run: --workdir {other}",
        flush=True,
    )
    return True


def make(stage: Stage, experiment: Experiment, workdir: Path, note: dict, marker: dict | None, seen: dict) -> None:
    """Makes the outputs, or goes on with them; then the marker. `note` says what they are; `marker` is that of outputs
    which they replace; `seen` is to be remembered of the inputs."""
    links.claim_links(workdir, (RunPaths.unfinished, *stage.outputs))
    partial = RunPaths(workdir).partial(stage.name)
    if stage.in_place:
        made = False
        begin_in_place(stage, workdir, note, marker)
    else:
        keep_record(stage, workdir)
        written.sorted_out(stage.name, workdir, stage.outputs)  # refused before hours of work, not after them
        parts_fit, told = stage.parts_fit or (stage.inputs_alone if stage.units else None), bool(stage.units)
        made = unfinished.begin(stage.name, workdir, note, names_of(stage), stage.libraries, parts_fit, told)
        if stage.units and not made:
            units.take_over(stage.units, workdir, partial / "out")
    RunPaths(workdir).marker(stage.name).unlink(missing_ok=True)
    write_atomically(RunPaths(workdir).config_json, experiment_json(experiment))
    if stage.in_place:
        in_bucket.announce(stage.name, workdir)
    start = time.perf_counter()
    out = workdir if stage.in_place else partial / "out"
    out.mkdir(parents=True, exist_ok=True)
    if not made or place()[1] > 1:  # others wait for this one in there
        stage.make(experiment, workdir, out)
        own_files.note_replaced(out, note["external_inputs"])
    if not stage.in_place:
        records = tuple(one for one in units.records(stage.name, workdir, out) if one not in units.folders(stage.units))
        outputs = (*stage.outputs, *units.folders(stage.units), *records)
        written.put_in_place(stage.name, workdir, outputs, partial, (*stage.optional, *records))
    continued = stage.continued_from(workdir, note["settings"])
    if without := units.set_aside(written.read_record(stage.name, workdir)):
        continued = [*continued, {"without": without}]
    required_outputs = stage.required_outputs(workdir) if stage.required_outputs else stage.outputs
    finish(stage, workdir, note, continued, start, written.files_in(workdir, required_outputs), seen)
    clean_up(stage, workdir, note["key"])
    in_bucket.publish(stage.name, workdir, stage.in_place, stage.kept)


def finish(
    stage: Stage, workdir: Path, note: dict, continued: list, start: float, files: dict[str, int], seen: dict
) -> None:
    """Writes the marker of the stage, which has made these files, {name: bytes}."""
    done = note | {"key": key_of(stage.name, note["settings"], note["external_inputs"], continued)}
    done["replaces"] = [key for key in note["replaces"] if key != done["key"]]
    done |= {"continued_from": continued, "seconds": round(time.perf_counter() - start, 3)}  # of this attempt
    done["files"] = files
    done["checksums"] = checksums(workdir, stage.checked)
    own_files.remember(workdir, seen)
    write_atomically(RunPaths(workdir).marker(stage.name), json.dumps(done, indent=1))


def make_in_bucket(stage: Stage, experiment: Experiment, workdir: Path, mirror: Mirror, note: dict, seen: dict) -> None:
    """Make or continue the outputs at the run's address, and write the marker last. Units whose identity is the same
    stay; the marker of an earlier result is deleted before any other unit is made."""
    RunPaths(workdir).marker(stage.name).unlink(missing_ok=True)
    write_atomically(RunPaths(workdir).config_json, experiment_json(experiment))
    in_bucket.announce(stage.name, workdir)
    start = time.perf_counter()
    with noting(mirror.may_write) as notes, stores.noting_writes() as written_here:
        stage.make(experiment, mirror.url, mirror.url)  # ty: ignore[invalid-argument-type]
    for name in stage.handed_on:
        delete_all(mirror.url / name)
    there = in_bucket.there(mirror, stage.outputs)
    in_bucket.delete_other_joins(mirror, notes.steps)
    ours = notes.outputs | written_here  # all other files are the user's
    files = {name: one.size for name, one in there.items() if f"{mirror.url}/{name}" in ours}
    without = [{"without": sorted(notes.failed)}] if notes.failed else []
    finish(stage, workdir, note, without, start, files, seen)
    written.write_record(stage.name, workdir, files)
    in_bucket.publish(stage.name, workdir, stage.in_place, (), made_here=False)


def clean_up(stage: Stage, workdir: Path, key: str) -> None:
    """Deletes what was noted and kept until the stage was finished with this key; parts with another stay."""
    partial = RunPaths(workdir).partial(stage.name)
    if stage.in_place:
        RunPaths(workdir).begun(stage.name).unlink(missing_ok=True)
    elif (begun := unfinished.read_begun(partial)) is None or begun["key"] == key:
        written.remove_parts(partial)
    written.remove_parts(RunPaths(workdir).partial(f"{stage.name}.taken"))


def keep_record(stage: Stage, workdir: Path) -> None:
    """Notes what a run wrote that knew of no such record, before its marker goes."""
    marker = read_note(RunPaths(workdir).marker(stage.name), "files")
    if marker and not RunPaths(workdir).written(stage.name).exists():
        written.write_record(stage.name, workdir, marker["files"])


def begin_in_place(stage: Stage, workdir: Path, note: dict, marker: dict | None) -> None:
    """Notes what is being made in the run folder itself, or that it is gone on with.

    Raises UsageError when an unfinished attempt with other settings has left work there.
    """
    begun = RunPaths(workdir).begun(stage.name)
    found = read_note(begun, "key", "settings")
    if marker:
        note["damaged"] = [*marker.get("damaged", []), *report_damage(stage.name, workdir, marker, "")]
    if marker is None and found is None:
        set_aside = (*stage.outputs, *by_products_in(stage, workdir))
        written.set_aside(workdir, set_aside, "are of a run whose marker is gone, and are made anew")
    if marker is None and found is not None:
        same = (found["settings"], found["external_inputs"]) == (note["settings"], note["external_inputs"])
        goes_on = found["external_inputs"] == note["external_inputs"] and stage.goes_on(
            found["settings"], note["settings"], workdir
        )
        if same or goes_on:
            note |= {"replaces": found["replaces"], "damaged": found.get("damaged", [])}
        elif stage.holds_work(workdir):
            refuse_other(
                stage, found["settings"] | found["external_inputs"], note["settings"] | note["external_inputs"], workdir
            )
        else:
            names = (*stage.optional, *by_products_in(stage, workdir))
            logs = tuple(name for name in names if written.files_in(workdir, (name,)))
            written.set_aside(workdir, logs, "are of an attempt with other settings that came to no checkpoint")
    write_atomically(begun, json.dumps(note))


def take(
    stage: Stage, experiment: Experiment, source: Path, workdir: Path, settings: dict, external: dict | None
) -> bool:
    """Takes the stage's outputs from the run in `source`; False when it has not made the same, or work on them has
    begun here. `external` inputs of None: whatever they were there. Training that was made longer on the way is not the
    same."""
    marker = taking.finished_in(source, stage.name)
    if marker is None or marker.get("continued_from") or marker["settings"] != settings:
        return False
    if external is not None and marker["external_inputs"] != own_files.recognised(source, external)[0]:
        return False
    if stage.in_place and RunPaths(workdir).begun(stage.name).exists() and stage.holds_work(workdir):
        return False
    keep_record(stage, workdir)
    besides = (*by_products_in(stage, source), *(one for one in units.folders(stage.units) if (source / one).is_dir()))
    taking.take(stage.name, stage.outputs, besides, source, workdir, marker)
    if own_files.SIZES in marker["external_inputs"]:
        own_files.remember(workdir, own_files.read_seen(source))
    write_atomically(RunPaths(workdir).config_json, experiment_json(experiment))
    clean_up(stage, workdir, marker["key"])
    return True


def take_before(stage: Stage, experiment: Experiment, workdir: Path, source: Path) -> None:
    """Takes what the stage is to read, as far as it is not here, from the run in `source`."""
    for before in stage.after:
        take_before(before, experiment, workdir, source)
        earlier = {one: read_marker(one, workdir) for one in before.after}
        if read_marker(before, workdir) is None and all(earlier.values()):
            keys = {f"<{one.name}>": marker["key"] for one, marker in earlier.items() if marker}
            take(before, experiment, source, workdir, settings_of(before, experiment) | keys, None)
