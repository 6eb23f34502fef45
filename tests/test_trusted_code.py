"""A run folder runs no code unless the user requests it; code named by a config file is trusted and remembered."""

import ast
import dataclasses
import hashlib
import json
import os
import py_compile
import re
import subprocess
import sys
import threading
import typing
from pathlib import Path
from typing import Any

import pytest

from configs.experiment.definition import SECTIONS, section_class
from configs.experiment.named_code import CODE_FIELDS, ENGINE_OPTIONS
from configs.experiment.run_folder import RunFolder, experiment_json, part_in
from configs.recipes import gristmill as recipe
from data_prep.config.engine import EXECUTORS
from data_prep.config.pages import TfdsPages
from data_prep.quality.fasttext import FastTextFilter
from data_prep.quality.function import filter_class
from data_prep.sources import tfds
from lm import trusted_code
from lm.errors import InputError, UsageError
from lm.fields import may_name_code
from lm.trusted_code import Code, is_known, module_code, remember, remembered, text_code
from tests.commands import run_command
from tests.corpus import tiny_experiment
from tests.data_prep.quality.test_outside_filter import MODULE
from tests.test_house import FILES, REPOSITORY, tree_of

MARK = "from pathlib import Path\nPath({mark!r}).write_text('run')\n"
EVALUATOR = """
class Own:
    def __init__(self, config):
        pass

    def run(self, model, mesh):
        return {"own_figure": 1.0}
"""


CONFIG = """
import dataclasses
from configs.recipes import gristmill as recipe
from shouting import UpperCaseFilter
from tests.corpus import tiny_experiment

def get_config():
    documents = recipe.documents("demo", recipe.URL_FILTER_WITHOUT_LISTS, UpperCaseFilter(max_share=0.3))
    return dataclasses.replace(tiny_experiment(), documents=documents)
"""


@dataclasses.dataclass(frozen=True)
class Place:
    """A user's working directory, with its own state folder, and code that leaves a mark when it is run."""

    root: Path

    @property
    def mark(self) -> Path:
        return self.root / "mark"

    @property
    def run(self) -> Path:
        return self.root / "run"

    @property
    def state(self) -> Path:
        return self.root / "state"

    def module(self, name: str, text: str = MODULE) -> Path:
        path = self.root.joinpath(*name.split(".")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(MARK.format(mark=str(self.mark)) + text)
        return path

    def config(self) -> Path:
        """A config file with the filter of `shouting`, next to the modules."""
        (path := self.root / "mine.py").write_text(CONFIG)
        return path

    def write_run(self, **changes) -> None:
        """The config.json of a stranger: the tiny experiment with changes."""
        saved = json.loads(experiment_json(tiny_experiment()))
        for name, change in changes.items():
            saved[name] = {**saved.get(name, {}), **change}
        (self.run / "stages").mkdir(parents=True, exist_ok=True)
        (self.run / "stages/other.json").write_text(json.dumps({"key": "", "settings": {}, "files": {}}))
        (self.run / "config.json").write_text(json.dumps(saved))

    def pages(self) -> tuple[object, ...]:
        """Options for a small input."""
        (file := self.root / "pages.jsonl").write_text('{"text": "Some words of a page that is long enough."}\n' * 3)
        return "--pages.tables", file

    def export(self, *words: str) -> str:
        """Output of an export, which fails only because there are no checkpoints and runs no code."""
        told = self.call("export", self.run, self.root / "out", *words, code=1)
        assert "checkpoint" in told and not self.mark.exists()
        return told

    def call(self, script: str, *words: object, code: int = 0, **environment: str) -> str:
        """Output of the command, from the working directory."""
        paths = os.pathsep.join([str(self.root), str(REPOSITORY)])
        environment = os.environ | {"PYTHONPATH": paths, "XDG_STATE_HOME": str(self.state)} | environment
        done = run_command(f"launch.{script}", *words, cwd=self.root, environment=environment)
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr, done.stderr
        return done.stdout + done.stderr


@pytest.fixture
def place(tmp_path) -> Place:
    return Place(tmp_path)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


OWN_FILTER = {"documents": {"upper_case": {"max_share": 0.3}}, "own_filters": {"upper_case": "x.evil.UpperCaseFilter"}}
SOURCE = MARK + "def f(text):\n    return True\n"


def attack(place: Place, kind: str) -> str:
    """A run folder that names code in one of the possible ways; returns the field that names it."""
    if kind == "own filter":
        place.module("x.evil")
        place.write_run(**OWN_FILTER)
        return "x.evil"
    if kind == "function":
        section = {"limit": 1.0, "function": "f", "source": SOURCE.format(mark=str(place.mark))}
        place.write_run(documents={"f": section}, own_filters={"f": "data_prep.quality.function.below_f"})
        return "documents.f.source"
    if kind == "beam options":
        command = json.dumps({"command": f"touch {place.mark}"})
        options = f"--runner=PortableRunner --environment_type=PROCESS --environment_config='{command}'"
        place.write_run(engine={"runner": "beam", "beam_options": options})
        return "engine.beam_options"
    if kind == "slurm options":
        place.write_run(engine={"runner": "slurm", "slurm_options": f"--export=ALL,LD_PRELOAD={place.mark}"})
        return "engine.slurm_options"
    if kind == "address":
        place.write_run(engine={"runner": "ray", "address": "attacker.example:6379"})
        return "engine.address"
    place.module("x.evil", EVALUATOR)
    section, *inner = kind.split(".")
    names_before = {"train.evaluators": ["validation"], "evaluate.evaluators": ["bits_per_byte"]}.get(kind, [])
    many = kind in ("train.evaluators", "evaluate.evaluators", "train.hooks", "train.step_metrics")
    value: Any = [*names_before, "x.evil.Own"] if many else "x.evil.Own"
    if inner[1:]:
        saved = json.loads(experiment_json(tiny_experiment()))[section][inner[0]]
        value = {**saved, inner[1]: value}
    place.write_run(**{section: {inner[0]: value}})
    return "x.evil"


KINDS = ("own filter", "function", "beam options", "slurm options", "address", *CODE_FIELDS)


def marked(kind: Any, path: str) -> list[str]:
    """Dotted names of the fields of a config class and its parts that are marked NAMES_CODE."""
    found, hints = [], typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        inner, name = part_in(hints[field.name]), f"{path}.{field.name}"
        found += [name] if may_name_code(field) else marked(inner, name) if inner else []
    return found


def test_the_table_of_code_has_every_field_that_may_name_code():
    """config.json is checked by this table before any config class is imported."""
    assert tuple(name for section in SECTIONS for name in marked(section_class(section), section)) == CODE_FIELDS
    assert tuple(option for executor in EXECUTORS.values() for option in executor.options) == ENGINE_OPTIONS


@pytest.mark.parametrize("name", ["lm.own_process.main", "os.system", "builtins.exec"])
def test_only_the_users_trusted_objects_are_loaded_by_name(name):
    with pytest.raises(UsageError, match=f"train.hooks is {name}"):
        trusted_code.load_named(name, "train.hooks")


@pytest.mark.parametrize("kind", ["own filter", "train.hooks"])
def test_a_strangers_run_folder_runs_nothing_not_even_for_help(place, kind):
    name = attack(place, kind)
    told = place.call("sample", place.run, code=2)
    assert f"  {name}" in told and "SHA-256" in told and "--trust-code" in told and "It was not run" in told
    help_text = place.call("sample", place.run, "--help")
    assert "--sample.tokens" in help_text
    assert ("options of upper_case; --help does not run the code" in help_text) == (kind == "own filter")
    place.call("extract_texts", place.run, "--workdir", place.root / "new", code=2)
    assert not place.mark.exists() and not place.state.exists()


def test_code_that_a_strangers_run_folder_names_in_any_way_is_refused_and_not_run(place, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(place.state))
    monkeypatch.syspath_prepend(str(place.root))
    for kind in KINDS:
        name = re.escape(attack(place, kind))
        saved = json.loads((place.run / "config.json").read_text())
        with pytest.raises(UsageError, match=rf"(?s)It was not run:.*  {name}.*SHA-256"):
            RunFolder(place.run).experiment_of(saved, "refuse")
        assert not place.mark.exists(), kind


def test_commands_that_need_no_code_read_the_folder_without_it(place):
    """launch.export and others only load the needed parts of a run, without filters and evaluators."""
    attack(place, "own filter")
    saved = json.loads((place.run / "config.json").read_text())
    saved["evaluate"]["evaluators"].append("tests.lm.evaluation.outside_evaluator.LargestParameter")
    saved["engine"]["beam_options"] = "--runner=DirectRunner"
    assert RunFolder(place.run).experiment_of(saved) == (tiny_experiment(), [])
    place.export()


def test_a_run_whose_only_evaluator_is_left_out_gets_the_shipped_one(place, monkeypatch):
    monkeypatch.syspath_prepend(str(place.root))
    place.module("own_figures", EVALUATOR)
    place.write_run(train={"validate_every": 4, "evaluators": ["own_figures.Own"]})
    assert RunFolder(place.run).experiment().train.evaluators == ("validation",)
    place.export()


def test_code_of_the_model_is_imported_only_if_it_is_trusted(place, monkeypatch):
    place.module("own_norm", "from lm.model.layers import RMSNorm as Own\n")
    place.write_run(model={"norm": "own_norm.Own"})
    assert f"--trust-code: own_norm, file {place.root / 'own_norm.py'}, SHA-256" in place.export("--trust-code")
    monkeypatch.syspath_prepend(str(place.root))
    with pytest.raises(UsageError, match="add --trust-code, or run launch"):
        trusted_code.load_named("own_norm.Own", "model.norm")
    assert not place.mark.exists()
    trusted_code.trust(module_code("own_norm"))
    trusted_code.load_named("own_norm.Own", "model.norm")
    assert place.mark.exists()


def test_trust_code_prints_module_file_and_hash_and_then_runs(place):
    attack(place, "own filter")
    file = place.root / "x/evil.py"
    told = place.call("fetch_pages", place.run, "--trust-code", *place.pages())
    assert f"--trust-code: x.evil, file {file}, SHA-256 {sha256(file)}" in told
    assert place.mark.read_text() == "run"
    place.call("fetch_pages", place.run, code=2)  # it was trusted for one command
    assert not place.state.exists()


def test_a_filter_of_a_config_file_is_known_to_later_commands_on_the_run_folder_until_it_changes(place):
    file = place.module("shouting")
    config = place.config()
    place.call("fetch_pages", config, "--workdir", place.run, *place.pages())
    (row,) = json.loads((place.state / "gristmill/trusted_code.json").read_text())
    assert row == ["shouting", str(file), sha256(file)]
    assert not [path for path in place.run.rglob("*") if "trusted" in path.name]

    place.mark.unlink()
    # In another folder, the module is not on the path of Python: it is found at the path of the config file, also by
    # workers.
    elsewhere = {"PYTHONPATH": str(REPOSITORY)}
    told = subprocess.run(
        [sys.executable, "-m", "launch.extract_texts", str(place.run), "--engine.workers", "2"], cwd=REPOSITORY,
        env=os.environ | elsewhere | {"XDG_STATE_HOME": str(place.state)}, capture_output=True, text=True,
    )  # fmt: skip
    assert told.returncode == 0 and place.mark.read_text() == "run", told.stderr

    before, size = sha256(file), file.stat()
    file.write_bytes(file.read_bytes().replace(b"mostly", b"nearly"))
    os.utime(file, (size.st_atime, size.st_mtime))
    place.mark.unlink()
    told = place.call("extract_texts", place.run, code=2)
    for words in ("shouting", str(file), before, sha256(file), "--trust-code"):
        assert words in told
    assert not place.mark.exists()


def test_a_cached_pyc_next_to_trusted_code_is_not_run_here_or_in_workers(place):
    file = place.module("known")
    stat = file.stat()
    good = file.read_bytes()
    evil = good.replace(str(place.mark).encode(), str(place.mark).replace("mark", "evil").encode())
    assert len(evil) == len(good) and evil != good
    file.write_bytes(evil)
    os.utime(file, (stat.st_atime, stat.st_mtime))
    py_compile.compile(str(file), doraise=True)
    file.write_bytes(good)
    os.utime(file, (stat.st_atime, stat.st_mtime))
    place.write_run(**OWN_FILTER | {"own_filters": {"upper_case": "known.UpperCaseFilter"}})
    place.call("fetch_pages", place.run, "--trust-code", *place.pages())
    place.call("extract_texts", place.run, "--trust-code", *place.pages(), "--engine.workers", "2")
    assert place.mark.exists() and not (place.root / "evil").exists()


def test_package_files_above_a_module_are_code_too(place):
    file = place.module("pack.inner.filters")
    for package in ("pack/__init__.py", "pack/inner/__init__.py"):
        (place.root / package).write_text(MARK.format(mark=str(place.mark)))
    place.write_run(**OWN_FILTER | {"own_filters": {"upper_case": "pack.inner.filters.UpperCaseFilter"}})
    told = place.call("sample", place.run, code=2)
    for name, path in (("pack", "pack/__init__.py"), ("pack.inner", "pack/inner/__init__.py")):
        assert f"  {name}, file {place.root / path}, SHA-256 {sha256(place.root / path)}" in told
    assert f"  pack.inner.filters, file {file}" in told and not place.mark.exists()


def test_a_user_package_named_like_one_of_ours_is_code(place, monkeypatch):
    """viewer is not imported yet when config.json is read, so an import would find the other one."""
    file = place.module("viewer.evil")
    (place.root / "viewer/__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(place.root))
    for name in [name for name in sys.modules if name.partition(".")[0] == "viewer"]:
        monkeypatch.delitem(sys.modules, name)
    assert [code.name for code in module_code("viewer.evil")] == ["viewer", "viewer.evil"]
    assert module_code("viewer.evil")[1] == Code("viewer.evil", str(file), sha256(file)) and not place.mark.exists()
    assert module_code("data_prep.quality.c4") == []


def test_folders_of_the_working_directory_named_like_ours_are_not_run(place):
    """Python searches the working directory first; neither a command nor its workers import our packages from there."""
    for name in ("lm", "data_prep", "configs", "viewer"):
        (place.root / name).mkdir()
        (place.root / name / "__init__.py").write_text(MARK.format(mark=str(place.mark)))
    place.write_run()
    place.call("fetch_pages", place.run, *place.pages())
    place.call("extract_texts", place.run, *place.pages(), "--engine.workers", "2")
    assert not place.mark.exists()


def test_a_name_of_another_class_than_a_filter_is_rejected(place):
    for path in ("lm.own_process.main", "os.system", "builtins.exec", "json", "", ".", "a..b"):
        place.write_run(documents={"f": {}}, own_filters={"f": path})
        with pytest.raises(InputError):
            RunFolder(place.run).experiment("refuse")


def test_changes_after_the_check_are_rejected_with_both_hashes(place, monkeypatch):
    monkeypatch.syspath_prepend(str(place.root))
    file = place.module("late_change")
    codes = module_code("late_change")
    trusted_code.trust(codes)
    file.write_bytes(file.read_bytes() + b"#")
    with pytest.raises(UsageError, match=f"{file} of the module late_change .*{sha256(file)}.*{codes[0].sha256}"):
        __import__("late_change")
    assert not place.mark.exists()


def test_a_run_started_from_a_config_file_works_without_a_writable_state_folder(place):
    place.module("shouting")
    config = place.config()
    words = (config, "--workdir", place.run, *place.pages())
    (place.root / "file").touch()
    for homes in ({"HOME": "", "XDG_STATE_HOME": ""}, {"XDG_STATE_HOME": str(place.root / "file")}):
        told = place.call("fetch_pages", *words, **homes)
        assert "shouting cannot be remembered as trusted in" in told and "--trust-code" in told
    (place.state / "gristmill").mkdir(parents=True)
    (place.state / "gristmill/trusted_code.json").write_text("{")
    assert "is damaged" in place.call("fetch_pages", *words) and "is damaged" in place.call("sample", place.run, code=1)


def test_evaluators_and_beam_options_of_the_command_line_are_trusted_and_remembered(place):
    place.module("figures", EVALUATOR)
    place.write_run()
    given = ("--evaluate.evaluators", "bits_per_byte", "figures.Own", "--engine.runner", "beam",
             "--engine.beam-options=--runner=FnApiRunner")  # fmt: skip
    place.call("fetch_pages", place.run, *given, *place.pages())
    rows = json.loads((place.state / "gristmill/trusted_code.json").read_text())
    assert [row[0] for row in rows] == ["figures", "engine.beam_options"]
    place.write_run(evaluate={"evaluators": ["bits_per_byte", "figures.Own"]})
    place.call("fetch_pages", place.run, *place.pages())


@pytest.mark.parametrize("option", [False, True], ids=["known code in config.json", "known code in an option"])
def test_code_found_only_in_the_folder_of_known_code_is_not_trusted(place, option):
    """It is not on the path of Python when config.json is first read."""
    users = Place(place.root / "users")
    users.module("evil", EVALUATOR)
    known = users.module("figures", EVALUATOR)
    (place.state / "gristmill").mkdir(parents=True)
    (listed := place.state / "gristmill/trusted_code.json").write_text(
        before := json.dumps([["figures", str(known), sha256(known)]])
    )
    evaluators = {} if option else {"evaluators": ["bits_per_byte", "figures.Own"]}
    place.write_run(train={"hooks": ["evil.Own"]}, evaluate=evaluators)
    words = ("--train.evaluators", "validation", "figures.Own") if option else ()
    told = place.call("fetch_pages", place.run, *words, *place.pages(), code=0 if option else 2)
    assert option or ("  evil, file" in told and "It was not run" in told)
    assert listed.read_text() == before and not users.mark.exists()


@pytest.mark.slow
def test_supervised_restarts_inherit_the_decision_and_nothing_more(place):
    """A supervised process, also restarted, trusts the code as printed; changed code is rejected."""
    attack(place, "own filter")
    file = place.root / "x/evil.py"
    file.write_text(file.read_text().replace(".write_text('run')", ".open('a').write('run ')"))
    told = place.call("supervise", "--same-step", "2", "launch.train", place.run, "--trust-code", code=1)
    assert told.count(f"SHA-256 {sha256(file)}") == 1 and "train needs tokenizer" in told
    assert place.mark.read_text() == "run run "  # by two starts; the supervisor reads no filters

    before = sha256(file)
    trusted = json.dumps([Code("x.evil", str(file), before)])
    file.write_text(file.read_text() + "# changed\n")
    told = place.call("train", place.run, code=2, **{trusted_code.VARIABLE: trusted})
    assert before in told and sha256(file) in told


def test_concurrent_commands_lose_nothing_of_the_list(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    codes = [Code(f"m{n}", f"/m{n}.py", f"{n:064x}") for n in range(24)]
    threads = [threading.Thread(target=remember, args=([code],)) for code in codes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(remembered()) == sorted(codes)
    assert is_known(codes[3]) and not is_known(codes[3]._replace(name="other.m3"))


def test_a_function_of_a_config_file_is_identified_by_its_source(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    one = filter_class("f", "below")(1.0, "f", "def f(text): return True\n")
    documents = recipe.documents("demo", recipe.URL_FILTER_WITHOUT_LISTS, one)
    experiment = dataclasses.replace(tiny_experiment(), documents=documents)
    saved = json.loads(experiment_json(experiment))
    folder = RunFolder(tmp_path)
    with pytest.raises(UsageError, match=r"documents\.f\.source, SHA-256"):
        folder.experiment_of(saved, "refuse")
    with pytest.raises(UsageError):  # no class is named: a filter of this process by that name would be taken
        folder.experiment_of({key: value for key, value in saved.items() if key != "own_filters"}, "refuse")
    remember([text_code("documents.f.source", one.source)])
    assert folder.experiment_of(saved, "refuse")[0] == experiment


def test_a_hash_in_a_strangers_config_does_not_allow_its_model(tmp_path, monkeypatch):
    """fastText does not validate its files: the stranger who wrote the file can also write its hash."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    base, sha256 = tiny_experiment(), "ab" * 32
    language = dataclasses.replace(base.documents.language, model_sha256=sha256)
    model = FastTextFilter(min_score=0.5, model="m.bin", label="good", sha256=sha256)
    documents = recipe.documents("demo", recipe.URL_FILTER_WITHOUT_LISTS, model)
    documents = dataclasses.replace(documents, language=language)
    saved = json.loads(experiment_json(dataclasses.replace(base, documents=documents)))
    hashes = lambda policy: [
        (read.documents.language.model_sha256, read.documents.get(FastTextFilter).sha256)
        for read, _ in [RunFolder(tmp_path).experiment_of(saved, policy)]
    ]
    assert hashes("refuse") == hashes("leave out") == [("", "")]
    remember([text_code(f"documents.{name}", sha256) for name in ("language.model_sha256", "fasttext.sha256")])
    assert hashes("refuse") == [(sha256, sha256)]


def test_a_damaged_variable_is_reported(monkeypatch):
    monkeypatch.setenv(trusted_code.VARIABLE, "[[1]]")
    with pytest.raises(InputError, match=trusted_code.VARIABLE):
        is_known(Code("a", "", ""))


def test_a_dataset_with_feature_classes_of_others_is_rejected(tmp_path, monkeypatch):
    """tensorflow-datasets imports the module of each class that features.json names."""
    pytest.importorskip("tensorflow_datasets")
    place = Place(tmp_path)
    place.module("tfds_features")
    monkeypatch.syspath_prepend(str(tmp_path))
    (folder := tmp_path / "own/1.0.0").mkdir(parents=True)
    inner = {"pythonClassName": "tfds_features.Text", "text": {}}
    outer = "tensorflow_datasets.core.features.features_dict.FeaturesDict"
    features = {"pythonClassName": outer, "featuresDict": {"features": {"text": inner}}}
    (folder / "features.json").write_text(json.dumps(features))
    with pytest.raises(InputError, match=r"names the class 'tfds_features\.Text'"):
        tfds.builder_in(folder)
    named = TfdsPages(dataset="own:1.0.0", data_dir=str(tmp_path), split="train", rows_per_file=1)
    with pytest.raises(InputError, match=r"names the class 'tfds_features\.Text'"):
        tfds.opened(named, print)
    assert not place.mark.exists()


# Every place that runs code by a name, a text or a pickle


RUNS = {
    **dict.fromkeys(("import_module", "__import__", "exec", "eval", "spec_from_file_location", "run_path", "run_module",
                     "Popen", "system", "PipelineOptions", "builder_from_directory", "check_output", "check_call",
                     "resolve_name")),
    "load": "pickle", "loads": "pickle", "run": "subprocess", "builder": "tfds", "compile": "", "find_spec": "util",
}  # fmt: skip
"""{function that may run code named by a value: the module that it is called from; None for any}."""
SETTLED = "settle_code has refused what config.json names and is not known"
GUARDED = {
    "configs/experiment/__init__.py: load_config_and_fit spec_from_file_location": "the user's own config file",
    "configs/experiment/__init__.py: load_config_and_fit compile": "the user's own config file",
    "configs/experiment/__init__.py: load_config_and_fit exec": "the user's own config file",
    "configs/experiment/run_folder.py: import_filters import_module": SETTLED,
    "data_prep/quality/function.py: loaded compile": SETTLED,
    "data_prep/quality/function.py: loaded exec": SETTLED,
    "lm/trusted_code.py: load_named import_module": "refuses code that is_known does not list",
    "lm/evaluation/evaluators.py: class_of import_module": "the table EVALUATORS",
    **dict.fromkeys(
        [f"lm/evaluation/programs.py: {one}" for one in ("passes run", "main compile", "main exec")],
        "a program of the model, only with --run-code, in a process restricted by seccomp",
    ),
    "data_prep/engine/beam.py: beam_options PipelineOptions": SETTLED,
    "data_prep/sources/tfds.py: builder_in builder_from_directory": "refuse_foreign_features",
    "data_prep/sources/tfds.py: opened builder": "refuse_foreign_features",
    "data_prep/engine/beam.py: load_list loads": "a file that the command writes before its workers start",
    "data_prep/engine/beam.py: run_units loads": "a file that the command deletes before its workers start",
    "data_prep/engine/slurm.py: main loads": "a file whose SHA-256 is in the command of the job that reads it",
    "data_prep/engine/slurm.py: ask run": "Slurm's commands; settle_code has refused options that are not known",
    "data_prep/engine/worker.py: load loads": "a pipe of the parent process",
    "data_prep/engine/worker.py: attempt loads": "a pipe of the parent process",
    "data_prep/engine/units.py: picklable loads": "what it pickled itself",
    "lm/own_process.py: in_own_process loads": "a pipe of the child process",
    "lm/own_process.py: main load": "a pipe of the parent process",
    "lm/trusted_code.py: find_spec spec_from_file_location": "checks the file's hash",
    "data_prep/by_language/splitters.py: check_splitters find_spec": "the table PACKAGES",
    "data_prep/extract/__init__.py: load_engine import_module": "the table ENGINES",
    "data_prep/sources/__init__.py: module_of_source import_module": "the table SOURCES",
    "data_prep/sources/manifest.py: module_of import_module": "the table KINDS",
    "lm/tokenizer/files.py: class_of import_module": "the table KINDS",
    "data_prep/sources/formats.py: reader import_module": "the table FORMATS",
    "launch/stages/stage.py: stages_before resolve_name": "fixed names",
    "launch/supervise.py: main import_module": "one of SCRIPTS",
    "lm/metrics/writers.py: import_wandb import_module": "a fixed name",
    "data_prep/language.py: model find_spec": "a fixed name",
    "lm/planner/compilers.py: has_cuda find_spec": "a fixed name",
    "lm/planner/compilers.py: find_libtpu find_spec": "a fixed name",
    "lm/tokenizer/fast.py: fast_encoder find_spec": "a fixed name",
    "lm/training/preflight.py: check_training find_spec": "a fixed name",
    "data_prep/engine/run.py: run_step import_module": "one of EXECUTORS",
    "data_prep/engine/processes.py: __init__ Popen": "this program's own module",
    "lm/own_process.py: in_own_process run": "this program's own module",
    "launch/stages/parent.py: run_in_child Popen": "the command that is running, with its own options",
    "launch/supervise.py: attempt Popen": "a script of this program, with the user's own options",
}


def code_runners(path: Path) -> list[str]:
    """`file: function call` of each call of RUNS."""
    found = []

    def visit(node: ast.AST, function: str) -> None:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            function = node.name
        if isinstance(node, ast.Call):
            called = node.func
            name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
            value = called.value if isinstance(called, ast.Attribute) else None
            of = "" if value is None else getattr(value, "attr", getattr(value, "id", "?"))
            if name in RUNS and RUNS[name] in (None, of):
                found.append(f"{path.relative_to(REPOSITORY)}: {function} {name}")
        for child in ast.iter_child_nodes(node):
            visit(child, function)

    visit(tree_of(path), "")
    return found


def test_every_call_that_runs_code_by_name_has_a_known_check():
    found = {one for path in FILES for one in code_runners(path)}
    assert found == set(GUARDED), "add a new place to GUARDED with what keeps a stranger's config.json from it"
