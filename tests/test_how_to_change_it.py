"""Each example of docs/how_to_change_it.md trains, resumes bit for bit, is in config.json by name, and is rejected in a
run folder whose code is not trusted."""

import ast
import json
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.experiment import load_config
from configs.experiment.definition import Experiment
from configs.experiment.named_code import trust_named
from configs.experiment.run_folder import RunFolder, experiment_json
from configs.recipes.gristmill import EXTRACT
from data_prep.documents import WebPage
from data_prep.extract import extract_text
from data_prep.quality.function import FunctionFilter
from data_prep.text.passage import Passage
from launch import evaluate as launch_evaluate
from launch import extract_texts
from launch import sample as launch_sample
from launch import train as launch_train
from launch.stages.agreement import facts
from lm import trusted_code
from lm.errors import InputError, UsageError
from lm.fields import code_names
from lm.model.attention.mask import AttentionMask
from lm.model.transformer import Transformer, empty_cache
from lm.storage import file_sha256
from lm.training.loop import train
from tests.corpus import tiny_experiment, write_tokens
from tests.test_house import REPOSITORY
from tests.train_runs import bits, steps_there, told

PAGE = (REPOSITORY / "docs/how_to_change_it.md").read_text()
FILES: dict[str, str] = dict(re.findall(r"^```python (\w+\.py)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
SETTINGS: list[dict[str, object]] = [
    ast.literal_eval(text) for text in re.findall(r"^Set `(\{.*\})`\.$", PAGE, re.MULTILINE)
]
IN_TREE = PAGE.partition("## Inside the tree\n")[2]
MODULES = [
    re.findall(r"my_\w+(?=\.)", str(settings))[0] for settings in SETTINGS if "documents.extract.engine" not in settings
]
"""Modules of the examples that training uses."""


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Iterator[Path]:
    """A user's folder with the files of all examples, trusted only in this process."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    (folder := tmp_path / "mine").mkdir()
    for name, text in FILES.items():
        (folder / name).write_text(text)
    yield folder
    for name in FILES:
        sys.modules.pop(name.removesuffix(".py"), None)


@pytest.fixture(scope="module")
def tokens(tmp_path_factory) -> Path:
    write_tokens(run := tmp_path_factory.mktemp("tokens") / "run", tiny_experiment())
    return run


def settings_of(module: str) -> dict[str, object]:
    return next(settings for settings in SETTINGS if f"{module}." in str(settings))


def experiment_of(folder: Path, settings: Mapping[str, object]) -> Experiment:
    """The experiment of the page's config file with these settings and the tiny experiment instead of the demo. Like a
    command, this trusts the code that it names."""
    text = FILES["my_config.py"].replace("configs.demo import get_config", "tests.corpus import tiny_experiment")
    changed = {"model.layers": 1, "train.sample_every": 0, **settings}
    (path := folder / "my_config.py").write_text(re.sub(r"\{.*\}", lambda _: repr(changed), text))
    experiment = load_config(path)
    trust_named(json.loads(experiment_json(experiment)), {})
    return experiment


def test_the_page_has_ten_extensions_of_at_most_thirty_lines_and_counts_them():
    rows = re.findall(r"^\| ([\w ]+) \| `([\w.]+)` \| (\d+) \|", PAGE, re.MULTILINE)
    counted = {name: sum(bool(line.strip()) for line in text.splitlines()) for name, text in FILES.items()}
    assert len(rows) == 10 and all(len(text.splitlines()) <= 30 for text in FILES.values())
    modules = {option: re.findall(r"my_\w+(?=\.)", str(value))[0] for one in SETTINGS for option, value in one.items()
               if "my_" in str(value)} | {"documents": "my_filter"}  # fmt: skip
    for extension, option, lines in rows:
        assert counted[f"{modules[option]}.py"] == int(lines), extension


@pytest.mark.fast_rows
@pytest.mark.parametrize("module", MODULES[::-1])
def test_an_example_trains_resumes_and_is_rejected_if_not_trusted(folder, tokens, module):
    experiment = experiment_of(folder, settings_of(module))
    run = folder / "run"
    shutil.copytree(tokens, run)
    train(experiment.model, experiment.train, run)
    whole, rows = bits(run), told(run)
    for step in steps_there(run):
        if step > 4:
            shutil.rmtree(run / f"checkpoints/{step}")
    train(experiment.model, experiment.train, run)
    assert bits(run) == whole and told(run) == rows

    saved = json.loads(experiment_json(experiment))
    assert f"{module}." in json.dumps(saved)
    assert RunFolder(run).experiment_of(saved, "refuse")[0] == experiment  # known from the config file
    with (folder / f"{module}.py").open("a") as file:
        file.write("# changed\n")
    trusted_code.TRUSTED.clear()
    with pytest.raises(UsageError, match=rf"{module}, file .*SHA-256 .*; you trust another version, SHA-256"):
        RunFolder(run).experiment_of(saved, "refuse")
    for option, names in code_names(experiment).items():
        for name in names:
            with pytest.raises(UsageError, match=f"{option} is {name}, code that you have not run"):
                trusted_code.load_named(name, option)


@pytest.mark.slow
@pytest.mark.parametrize("forms", [1, 2])
def test_the_rows_of_hooks_metrics_and_evaluators_are_logged(folder, tokens, forms):
    """All at once, with the block whose scalar is logged; scanned and rematerialized layers log the same values."""
    names = ("my_hook", "my_metric", "my_evaluator", "my_block")
    together = {option: value for name in names for option, value in settings_of(name).items()}
    together |= {"model.layers": 2, "train.batch_size": 16}
    together["train.activation_metrics"] = ("blocks.*.mlp_size", "embedding", "norm")
    found = []
    scanned = {"model.scan_layers": True, "train.remat": "full", "train.micro_batches": 2}
    for changes in ({}, scanned)[:forms]:
        experiment = experiment_of(folder, together | changes)
        run = folder / f"run-{len(found)}"
        shutil.copytree(tokens, run)
        train(experiment.model, experiment.train, run)
        found.append({row["step"]: row for row in merged(told(run))})
    logged = {"update_ratio", "blocks.0.mlp_size", "blocks.1.mlp_size", "embedding", "norm"}
    for step, row in found[0].items():
        assert (logged <= row.keys()) == (step % 2 == 0)
        assert ("largest_matrix_norm" in row) == (step % 4 == 0)
        assert row.get("evaluated_step", step) == step and ("moments_ratio" in row) == (step % 6 == 0)
        for name in logged & row.keys():
            assert found[-1][step][name] == pytest.approx(row[name], rel=0.02), name
    assert len((folder / "run-0/largest_matrix.txt").read_text().splitlines()) == 3


def merged(rows: list[dict]) -> list[dict]:
    """The rows, merged by step."""
    steps: dict[int, dict] = {}
    for row in rows:
        steps.setdefault(row["step"], {}).update(row)
    return [*steps.values()]


@pytest.mark.slow
def test_a_model_of_custom_components_computes_the_same_with_a_cache(folder):
    parts = settings_of("my_block") | settings_of("my_norm") | settings_of("my_activation")
    config = experiment_of(folder, parts).model
    model = jax.jit(Transformer, static_argnums=0)(config, jax.random.key(0))
    tokens = jax.random.randint(jax.random.key(1), (2, 16), 0, config.vocab_size)
    ones, positions = jnp.ones_like(tokens), jnp.broadcast_to(jnp.arange(16), tokens.shape)
    cache, found = empty_cache(config, 2), []
    for part in (slice(0, 10), slice(10, 16)):
        mask = AttentionMask(ones[:, part])
        x_BTD, cache = jax.jit(Transformer.__call__)(model, tokens[:, part], positions[:, part], mask, cache)
        found.append(x_BTD)
    np.testing.assert_allclose(
        jnp.concatenate(found, axis=1), jax.jit(Transformer.read)(model, tokens, ones), atol=1e-5
    )


def test_the_hash_of_code_that_determines_the_outputs_is_an_input_of_the_stage(folder):
    for module, script in (("my_norm", launch_train), ("my_schedule", launch_train), ("my_extractor", extract_texts)):
        experiment = experiment_of(folder, settings_of(module))
        before = script.external_inputs(experiment)
        (name,) = [name for name in before if module in name]
        assert script is extract_texts or facts(experiment, folder)[name] == before[name]  # all processes have the same
        with (folder / f"{module}.py").open("a") as file:
            file.write("# changed\n")
        assert script.external_inputs(experiment) == before | {name: script.external_inputs(experiment)[name]} != before
    hooked = experiment_of(folder, settings_of("my_hook"))
    assert not [name for name in launch_train.external_inputs(hooked) if "my_hook" in name]


def test_changed_code_makes_an_evaluation_and_samples_out_of_date(folder):
    own = {"evaluate.evaluators": ("bits_per_byte", "my_evaluator.Moments")}
    experiment = experiment_of(folder, settings_of("my_norm") | own)
    inputs = lambda: [script.STAGE.external_inputs(experiment) for script in (launch_evaluate, launch_sample)]
    hashes = lambda *names: {f"SHA-256 of the module {name}": file_sha256(folder / f"{name}.py") for name in names}
    assert inputs() == [hashes("my_norm", "my_evaluator"), hashes("my_norm")]
    (folder / "my_evaluator.py").write_text("# changed\n")
    assert inputs() == [hashes("my_norm", "my_evaluator"), hashes("my_norm")]


@pytest.mark.slow
def test_a_model_is_not_loaded_with_other_code_than_it_was_trained_with(folder, tokens):
    settings = settings_of("my_norm") | {"train.steps": 4}
    experiment = experiment_of(folder, settings)
    run, file = RunFolder(folder / "run"), folder / "my_norm.py"
    shutil.copytree(tokens, run.root)
    run.config_json.write_text(experiment_json(experiment))
    train(experiment.model, experiment.train, run.root)
    before = file_sha256(file)
    assert run.load(experiment=experiment).step == run.open_to_publish().step == 4
    file.write_text(file.read_text() + "# changed\n")
    experiment_of(folder, settings)  # trusts the new version
    for load in (lambda: run.load(experiment=experiment), lambda: run.open_to_publish()):
        with pytest.raises(InputError, match=f"{before}.*{file_sha256(file)}.* Restore the module .*, or train again"):
            load()


def test_a_custom_filter_and_extractor(folder):
    (path := folder / "my_filter_config.py").write_text(FILES["my_filter_config.py"])
    (own,) = [one for one in load_config(path).documents.filters if isinstance(one, FunctionFilter)]
    assert (own.limit, own.measure(Passage("LOUD words"))) == (0.3, [0.5])

    sentence = "The miller carried two sacks of grain to the village and the baker paid him on the same day. " * 4
    body = f"<html><body><nav><a href=/>Home</a></nav><article><p>{sentence}</p></article></body></html>"
    page = WebPage("http://a.example/", "<1>", "", "text/html; charset=utf-8", body.encode(), "x")
    experiment = experiment_of(folder, settings_of("my_extractor"))
    text, reason = extract_text(page, experiment.documents.extract)
    assert reason is None and "Home" in text and sentence.strip() in text
    assert "Home" not in extract_text(page, EXTRACT)[0]


def test_invalid_extensions_are_rejected(folder, tokens):
    (folder / "my_bad.py").write_text(
        "import jax.numpy as jnp\n"
        "class NoInterval:\n    def __init__(self, config): pass\n    def run(self, state, step): pass\n"
        "def taken(values): return {'loss': 1.0}\n"
        "def vector(values): return {'v': jnp.zeros(2)}\n"
        "def number(values): return 1.0\n"
    )
    for settings, words in (
        ({"train.hooks": ("my_bad.NoInterval",)}, "every = None"),
        ({"train.hooks": ("my_bad.Missing",)}, "has no attribute"),
        ({"train.step_metrics": ("my_bad.taken",)}, "'loss', but another metric has that name"),
        ({"train.step_metrics": ("my_bad.vector",)}, r"of shape \(2,\)\. Return scalars"),
        ({"train.step_metrics": ("my_bad.number",)}, "Return {name: scalar}"),
        ({"train.activation_metrics": ("blocks.7.mlp.out",)}, "train.activation_metrics has blocks.7.mlp.out"),
        ({"model.norm": "no_such_module.Norm"}, "No module named 'no_such_module'.*next to the config file"),
        ({"model.norm": "rmsnrm"}, "Choose one of 'rmsnorm', 'layernorm', or name your own"),
    ):
        with pytest.raises(UsageError, match=words):
            experiment = experiment_of(folder, settings)
            run = folder / "bad"
            shutil.rmtree(run, ignore_errors=True)
            shutil.copytree(tokens, run)
            train(experiment.model, experiment.train, run)


TREE_FILES = sorted(set(re.findall(r"`((?:[\w.]+/)+(?:\w+\.py)?)`", IN_TREE)))
TREE_NAMES = sorted(set(re.findall(r"`(\w+)`\s+in\s+`([\w/]+\.py)`", IN_TREE)))


@pytest.mark.parametrize("path", TREE_FILES)
def test_files_named_by_the_page_exist(path):
    found = REPOSITORY / path
    assert found.parent.is_dir() if found.stem == "NAME" else found.exists()


@pytest.mark.parametrize(("name", "path"), TREE_NAMES)
def test_names_of_the_tree_on_the_page_are_defined_there(name, path):
    text = (REPOSITORY / path).read_text()
    assert re.search(rf"^ *(?:class |def )?{name}\b(?=[:(\[]| =)", text, re.MULTILINE), f"{path} defines no {name}"
