"""launch.export and launch.import_model round-trip byte for byte, write atomically, and keep files of others."""

import dataclasses
import json
import shutil
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import tensorstore as ts

from configs import demo, own_text
from configs.experiment.run_folder import RunFolder
from launch import export as formats
from launch.export import export
from launch.import_model import open_source
from launch.release.imported import write_run
from launch.release.model_card import model_card, pages
from lm.checkpoints.from_parameters import array_spec
from lm.checkpoints.manifest import read_manifest, write_manifest
from lm.checksums import checksums
from lm.config import ChatConfig, TokenizerConfig
from lm.errors import InputError, UsageError
from lm.formats.source import SourceModel
from lm.formats.tensors import parameter_shapes
from lm.model.cost import flops_per_token
from lm.tokenizer import train_tokenizer
from lm.training.restore_or_init import check_start
from tests.commands import call
from tests.launch.toy_stages import files_of
from tests.lm.hugging_face_files import REPOSITORY, tensors_of, write_tensors
from tests.lm.model_configs import GPT2, LLAMA, MODERN

LICENSE = (REPOSITORY / "LICENSE").read_text()
CONFIGS = {
    name: dataclasses.replace(config, vocab_size=300)
    for name, config in {"gpt2": GPT2, "llama": LLAMA, "modern": MODERN}.items()
}


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer([LICENSE], TokenizerConfig(300, "gpt2", 100_000))


def source_of(config, tokenizer):
    source = np.random.default_rng(0)
    dtype = jnp.dtype(config.parameter_dtype)
    parameters = {name: source.normal(0, 0.2, shape).astype(dtype) for name, shape in parameter_shapes(config).items()}
    return SourceModel(config, tokenizer, parameters)


# tests/lm/formats/test_hugging_face.py writes and reads GPT-2's files, too.
@pytest.fixture(scope="module", params=[pytest.param("gpt2", marks=pytest.mark.slow), "llama", "modern"])
def exported(request, tokenizer, tmp_path_factory):
    """(a run folder, its export by launch.export)."""
    place = tmp_path_factory.mktemp(request.param)
    write_run(source_of(CONFIGS[request.param], tokenizer), place / "run", "numbers")
    export(RunFolder(place / "run").open_to_publish(), place / "out", "hugging_face")
    return place / "run", place / "out"


@pytest.mark.fast_rows
@pytest.mark.parametrize("scan_layers", [False, True], ids=["one by one", "a stack"])
def test_export_import_export_is_the_same(exported, tmp_path, scan_layers):
    _, out = exported
    write_run(open_source(out, None), tmp_path / "run", "out", scan_layers)
    run = RunFolder(tmp_path / "run")
    assert run.experiment().model.scan_layers == scan_layers
    export(run.open_to_publish(), tmp_path / "again", "hugging_face")
    assert tensors_of(tmp_path / "again") == tensors_of(out)
    first, again = files_of(out), files_of(tmp_path / "again")
    same = {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"}
    assert {name: again[name] for name in same} == {name: first[name] for name in same}
    assert first.keys() == again.keys()


def test_a_model_card_has_no_figures_from_damaged_logs(exported, tmp_path, capsys):
    run = RunFolder(shutil.copytree(exported[0], tmp_path / "run"))
    steps = {"step": 0, "validation_loss": 3.25, "validation_bits_per_byte": 1.5}
    run.metrics.write_text("".join(json.dumps(steps | {"step": step}) + "\n" for step in (0, 5)))
    marker = json.loads(run.marker("imported").read_text())
    checked = checksums(run.root, ("metrics.jsonl",))
    run.marker("imported").write_text(json.dumps(marker | {"checksums": checked}))
    assert "3.2500" in model_card(run.open_to_publish()) and capsys.readouterr().out == ""
    run.metrics.write_text(run.metrics.read_text().replace("3.25", "3.35"))
    assert "3.3500" not in model_card(run.open_to_publish())
    assert f"export: {run.metrics}, line 1: not what was written" in capsys.readouterr().out


def test_a_model_card_counts_all_tokens_of_a_run_with_growing_batches(exported):
    run = RunFolder(exported[0]).open_to_publish()
    train = dataclasses.replace(
        run.experiment.train, steps=20, batch_size=2, micro_batches=1, batch_schedule=((3, 5), (9, 7), (15, 8)),
    )  # fmt: skip
    experiment = dataclasses.replace(run.experiment, train=train)
    run = dataclasses.replace(run, checkpoint=run.checkpoint.with_name("11"), experiment=experiment)
    tokens, text = (3 * 2 + 6 * 5 + 2 * 7) * run.config.context_length, model_card(run)
    assert f"| tokens in all | {tokens:,} |" in text
    assert f"| arithmetic | {flops_per_token(run.config) * tokens:.3g} FLOP |" in text
    assert "| from step 9 on | batches of 7 sequences" in text and "from step 15" not in text


@pytest.mark.fast_rows
@pytest.mark.parametrize("dtype", ["BF16", "F16", "mixed"])
def test_dtypes_of_tensors_are_kept(exported, tmp_path, dtype):
    _, out = exported
    tensors = {}
    for number, (name, (_, shape, raw)) in enumerate(tensors_of(out).items()):
        kind = dtype if dtype != "mixed" else ("BF16", "F16", "F32")[number % 3]
        cast = {"BF16": jnp.bfloat16, "F16": np.float16, "F32": np.float32}[kind]
        tensors[name] = (kind, shape, np.frombuffer(raw, np.float32).astype(cast).tobytes())
    folder = Path(shutil.copytree(out, tmp_path / "source"))
    write_tensors(folder / "model.safetensors", tensors)
    write_run(open_source(folder, None), tmp_path / "run", "source")
    run = RunFolder(tmp_path / "run").open_to_publish()
    assert run.config.parameter_dtype == ("bfloat16" if dtype == "BF16" else "float32")
    export(run, tmp_path / "again", "hugging_face")
    assert tensors_of(tmp_path / "again") == tensors
    export(run, tmp_path / "wide", "hugging_face", "float32")
    assert {kind for kind, *_ in tensors_of(tmp_path / "wide").values()} == {"F32"}


def test_another_run_continues_training_from_an_imported_one(exported):
    """Its config names the imported parameters and tokenizer, and training accepts them."""
    run = RunFolder(exported[0])
    experiment, fingerprint = run.experiment(), run.open_to_publish().tokenizer.fingerprint
    assert experiment.train.start.checkpoint == str(run.checkpoint(0))
    assert experiment.tokenizer.load == str(run.tokenizer)
    check_start(experiment.model, experiment.train, fingerprint, files=True)


def test_the_card_describes_the_model_and_how_to_load_it(exported):
    run, out = exported
    card = (out / "README.md").read_text()
    _, head, text = card.split("---\n", 2)
    assert "library_name: transformers" in head and "language" not in head
    parameters = sum(np.prod(shape) for shape in parameter_shapes(RunFolder(run).experiment().model).values())
    assert f"{parameters:,.0f} parameters" in text and "imported from numbers" in text and "## Limits" in text
    own_code = (out / "modeling_gristmill.py").is_file()  # fields that transformers needs, also for the tokenizer
    assert text.count('from_pretrained(".", trust_remote_code=True)') == (2 if own_code else 0)
    assert str(run.parent) not in card


def test_files_that_are_not_an_export_are_never_replaced(exported, tmp_path):
    run = RunFolder(exported[0]).open_to_publish()
    for name in ("foreign", "mixed"):
        (tmp_path / name).mkdir()
    export(run, tmp_path / "mixed", "hugging_face")
    for name in ("foreign", "mixed"):
        (tmp_path / name / "notes.txt").write_text("mine")
        before = files_of(tmp_path / name)
        with pytest.raises(UsageError, match=r"already exists, and has files that launch\.export did not write"):
            export(run, tmp_path / name, "hugging_face")
        assert files_of(tmp_path / name) == before
    (tmp_path / "mixed/notes.txt").unlink()
    export(run, tmp_path / "mixed", "hugging_face", "bfloat16")
    assert {kind for kind, *_ in tensors_of(tmp_path / "mixed").values()} == {"BF16"}


def test_a_failed_export_keeps_the_old_files(exported, tmp_path, monkeypatch):
    run = RunFolder(exported[0]).open_to_publish()
    export(run, tmp_path / "out", "hugging_face")
    before = files_of(tmp_path / "out")

    def broken(run, out, options):
        (out / "half").write_bytes(b"half")
        raise UsageError("no more")

    monkeypatch.setitem(formats.FORMATS, "broken", broken)
    for name in ("out", "new"):
        with pytest.raises(UsageError, match="no more"):
            export(run, tmp_path / name, "broken")
    assert files_of(tmp_path / "out") == before and [path.name for path in tmp_path.iterdir()] == ["out"]
    rename = Path.rename

    def refused(path, target):
        if ".partial" in path.name:
            raise PermissionError(13, "Permission denied", str(target))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refused)
    with pytest.raises(InputError, match="Permission denied"):
        export(run, tmp_path / "out", "hugging_face", "bfloat16")
    assert files_of(tmp_path / "out") == before and [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_model_with_nan_is_rejected_with_the_name_of_the_parameter(tmp_path, tokenizer):
    source = source_of(CONFIGS["llama"], tokenizer)
    source.parameters["norm.scale"][3] = np.nan
    with pytest.raises(InputError, match=r"1 of the 32 values of norm\.scale are NaN or infinite in float32"):
        write_run(source, tmp_path / "run", "numbers")
    assert not list(tmp_path.iterdir())
    write_run(source_of(CONFIGS["llama"], tokenizer), tmp_path / "run", "numbers")
    checkpoint = tmp_path / "run/checkpoints/0"
    ts.open(array_spec(checkpoint / "model", "norm.scale")).result()[3].write(np.nan).result()
    about = read_manifest(checkpoint)["about"]
    (checkpoint / "manifest.json").unlink()
    write_manifest(checkpoint, about)
    with pytest.raises(InputError, match=r"norm\.scale has NaN or infinite values.* --step"):
        RunFolder(tmp_path / "run").load()


def test_a_failed_import_leaves_nothing_and_replaces_nothing(exported, tmp_path, tokenizer):
    source = source_of(CONFIGS["llama"], tokenizer)
    del source.parameters["norm.scale"]
    with pytest.raises(Exception, match=r"norm\.scale is absent"):
        write_run(source, tmp_path / "run", "numbers")
    assert not list(tmp_path.iterdir())
    before = sorted(exported[0].rglob("*"))
    with pytest.raises(UsageError, match="already exists"):
        write_run(source_of(CONFIGS["llama"], tokenizer), exported[0], "numbers")
    assert sorted(exported[0].rglob("*")) == before
    small = source_of(dataclasses.replace(CONFIGS["llama"], vocab_size=200), tokenizer)
    with pytest.raises(UsageError, match=r"numbers: the tokenizer has 300 symbols, but the model has 200 rows"):
        write_run(small, tmp_path / "run", "numbers")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("script", "words", "said"),
    [
        ("launch.export", [], "Required options"),
        ("launch.export", ["nowhere", "out"], "There is no run folder nowhere"),
        ("launch.export", ["{run}", "out", "--format", "onnx"], "--format is 'onnx'; choose one of hugging_face"),
        ("launch.export", ["{run}", "out", "--dtype", "int4"], "--dtype is 'int4'; a Hugging Face folder supports"),
        ("launch.export", ["{run}", "out", "--step", "7"], "There is no checkpoint of step 7"),
        ("launch.import_model", ["{out}"], "Required options"),
        ("launch.import_model", ["nowhere", "new"], "SOURCE nowhere is not there"),
        ("launch.import_model", ["{run}/tokenizer", "new"], "holds no config.json"),
    ],
)  # fmt: skip
def test_impossible_requests_are_reported_in_a_sentence(exported, tmp_path, monkeypatch, capsys, script, words, said):
    monkeypatch.chdir(tmp_path)
    run, out = exported
    assert call(script, *(word.format(run=run, out=out) for word in words)) in (1, 2)
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_both_commands(exported, tmp_path, capsys):
    run, _ = exported
    assert call("launch.export", run, tmp_path / "out", "--dtype", "float16") == 0
    assert call("launch.import_model", tmp_path / "out", tmp_path / "run", "--scan-layers") == 0
    said = capsys.readouterr().out
    assert f"python -m launch.sample {tmp_path / 'run'} --prompt" in said
    loaded = RunFolder(tmp_path / "run").load()
    assert loaded.step == 0 and loaded.experiment.model.scan_layers
    record = json.loads((tmp_path / "out/gristmill_export.json").read_text())
    assert record["format"] == "hugging_face" and record["run"] == run.name


def test_the_card_of_a_finetuned_run_lists_the_sources_and_licenses_of_its_base(tmp_path):
    """It has the config of its base, and no pages of its own. An imported base names no source."""
    base = demo.get_config()
    finetuned = lambda one: dataclasses.replace(one, chat=ChatConfig(base="runs/base"))
    lines = "\n".join(pages(RunFolder(tmp_path), finetuned(base)))
    assert len(base.pages.packages) > 5
    for one in base.pages.packages:
        assert f"| {one.file.project} {one.file.version} | {one.credit} | {one.licence} |" in lines
    assert [*pages(RunFolder(tmp_path), base)] == [*pages(RunFolder(tmp_path), finetuned(own_text.get_config()))] == []
