"""A run folder restores the experiment of its config.json, including every field."""

import dataclasses
import importlib
import json
import subprocess
import sys

import pytest

from configs.experiment import load_config, parse_run
from configs.experiment.definition import Experiment
from configs.experiment.run_folder import OWN_FILTERS, RunFolder, experiment_json
from configs.recipes import gristmill as recipe
from data_prep.config.filters import KNOWN
from lm import trusted_code
from lm.config import MixtureSource, MuonConfig
from lm.errors import InputError, UsageError
from lm.fields import with_values
from tests.corpus import tiny_experiment
from tests.data_prep.quality.test_outside_filter import MODULE
from tests.test_house import CONFIGS


def saved(experiment: Experiment) -> dict:
    """The config.json that a stage writes (launch/stages/stage.py)."""
    return json.loads(experiment_json(experiment))


@pytest.fixture
def config() -> dict:
    return saved(tiny_experiment())


def write(folder, config: object) -> RunFolder:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    return RunFolder(folder)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_config_is_restored(path, tmp_path):
    experiment = load_config(path)
    assert write(tmp_path, saved(experiment)).experiment() == experiment


def test_a_folder_may_be_given_as_a_string(tmp_path):
    assert RunFolder(str(tmp_path)) == RunFolder(tmp_path) and RunFolder(str(tmp_path)).tokens == tmp_path / "tokens"


def test_optional_parts_and_sources_of_a_mixture_are_restored(tmp_path):
    tiny = tiny_experiment()
    muon = next(load_config(path).train.optimizer.muon for path in CONFIGS if path.stem == "modern_124m")
    assert isinstance(muon, MuonConfig)
    mixture = (MixtureSource("runs/a/tokens", 0.25), MixtureSource("runs/b/tokens", 2.0))
    experiment = with_values(tiny, {"train.optimizer.muon": muon, "train.mixture": mixture})
    assert write(tmp_path, saved(experiment)).experiment() == experiment


def test_fields_of_another_version_are_named_with_the_remedy(tmp_path, config):
    config["model"]["depth"] = 3
    del config["train"]["mesh"]["fsdp"], config["sample"]
    with pytest.raises(InputError) as error:
        write(tmp_path, config).experiment()
    message = str(error.value)
    assert "it has model.depth, which is unknown to this version; it lacks sample, train.mesh.fsdp." in message
    assert f"CONFIG.py --workdir {tmp_path}" in message and "git commit" in message


def test_filters_named_only_by_a_folder_are_used_in_counts_and_pages(tmp_path, config, monkeypatch):
    folder = write(tmp_path, config)
    for filter_ in recipe.FILTERS:
        monkeypatch.delitem(KNOWN, filter_.name)
    folder.experiment()
    assert all(KNOWN[filter_.name] is type(filter_) for filter_ in recipe.FILTERS)


def test_fields_within_lists_are_named_too(tmp_path, config):
    config["train"]["mixture"] = [{"tokens": "a", "weight": 1.0}, {"tokens": "b", "share": 1.0}]
    with pytest.raises(
        InputError, match=r"it has train\.mixture\[1\]\.share, .*; it lacks train\.mixture\[1\]\.weight"
    ):
        write(tmp_path, config).experiment()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"attention": "flash9"}, "this version refuses it: .*attention.*'flash9'"),
        ({"layers": -1}, r"must be from 1 to 2147483647\. Give"),
        ({"layers": "six"}, "this version refuses it: ModelConfig.layers must be int; it is 'six'"),
        ({"context_length": 10**6}, "this version refuses it: model.context_length = 1000000 is more than"),
    ],
)
def test_values_rejected_by_this_version_are_named(tmp_path, config, change, expected):
    config["model"] |= change
    with pytest.raises(InputError, match=expected):
        write(tmp_path, config).experiment()


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", '"text"', "null", '{"model": 3}', "[" * 100_000, "\x00"])
def test_a_damaged_config_is_an_input_error(tmp_path, text):
    with pytest.raises(
        InputError,
        match=r"config\.json (is damaged.*writes config\.json again|was written by another version.*git commit)",
    ):
        write(tmp_path, text).experiment()


def test_a_run_folder_replaces_a_config_argument(tmp_path):
    experiment = tiny_experiment()
    write(tmp_path / "run", saved(experiment))
    command = parse_run("launch.x", "", [str(tmp_path / "run")])
    assert (command.experiment, command.workdir) == (experiment, tmp_path / "run")
    longer = parse_run("launch.x", "", [str(tmp_path / "run"), "--train.steps", "99", "--workdir", "elsewhere"])
    assert (longer.experiment.train.steps, str(longer.workdir)) == (99, "elsewhere")
    assert longer.experiment.model == experiment.model


def test_a_command_reads_a_section_at_its_first_use_and_as_strictly(tmp_path, config):
    config["documents"]["depth"] = 3
    run = str(write(tmp_path, config).root)
    experiment = parse_run("launch.x", "", [run]).experiment
    assert experiment.model == tiny_experiment().model
    with pytest.raises(InputError, match=r"it has documents\.depth, which is unknown .* git commit"):
        _ = experiment.documents
    with pytest.raises(InputError, match=r"documents\.depth"):
        dataclasses.replace(experiment)
    with pytest.raises(InputError, match=r"documents\.depth"):
        parse_run("launch.x", "", [run, "--documents.dump", "b"])
    with pytest.raises(UsageError, match=r"sample\.tokens = 999999 is more than"):
        parse_run("launch.x", "", [run, "--sample.tokens", "999999"])
    shorter = parse_run("launch.x", "", [run, "--sample.tokens", "9"]).experiment
    assert (shorter.sample.tokens, shorter.train) == (9, tiny_experiment().train)
    del config["chat"]
    with pytest.raises(InputError, match="it lacks chat"):
        parse_run("launch.x", "", [str(write(tmp_path, config).root)])


@pytest.mark.parametrize(
    ("section", "field"), [("evaluate", "stride"), ("sample", "tokens"), ("train", "sample_tokens")]
)
def test_a_section_is_compared_with_the_model_and_no_other_section_is_needed(tmp_path, config, section, field):
    config[section][field] = 10**6
    for names in [("model", section), (section, "model")]:
        experiment = write(tmp_path, config).unread(config, "refuse")
        with pytest.raises(InputError, match=rf"this version refuses it: {section}\.{field} = 1000000 is more than"):
            _ = [getattr(experiment, name) for name in names]


def test_a_command_imports_no_config_that_it_does_not_read(tmp_path, config):
    run = write(tmp_path, config).root
    program = (
        "import sys, launch.sample; from configs.experiment import parse_run\n"
        f"experiment = parse_run('launch.sample', '', [{str(run)!r}, '--sample.tokens', '9']).experiment\n"
        "experiment.model, experiment.train, experiment.sample; print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    unread = ("data_prep", "configs.recipes", "configs.layouts", "lm.planner", "lm.evaluation", "lm.training")
    assert not [name for name in done.stdout.split() if name.startswith(unread)]


def test_a_folder_without_a_run_is_reported(tmp_path):
    with pytest.raises(UsageError, match=r"is not a run.* no config\.json.*configs/demo\.py"):
        parse_run("launch.x", "", [str(tmp_path)])


def test_a_recipe_with_a_custom_filter_is_restored(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/shouting.py").write_text(MODULE)
    with monkeypatch.context() as patch:
        patch.syspath_prepend(str(tmp_path / "outside"))
        own = importlib.import_module("shouting").UpperCaseFilter(max_share=0.25)
        documents = recipe.documents("demo", recipe.URL_FILTER_WITHOUT_LISTS, own)
        experiment = dataclasses.replace(tiny_experiment(), documents=documents)
        config = saved(experiment)
        assert config[OWN_FILTERS] == {"upper_case": "shouting.UpperCaseFilter"}
        assert write(tmp_path / "run", config).experiment("trust") == experiment
        monkeypatch.delitem(sys.modules, "shouting")
    importlib.invalidate_caches()
    monkeypatch.delenv(trusted_code.VARIABLE)
    trusted_code.TRUSTED.clear()
    with pytest.raises(InputError, match=r"upper_case, your class shouting\.UpperCaseFilter, .* PYTHONPATH"):
        write(tmp_path / "run", config).experiment("refuse")
