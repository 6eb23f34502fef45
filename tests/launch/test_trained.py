"""A trained run is sampled and evaluated from only its folder, on the side and as stages, by one process and by two."""

import dataclasses
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from configs.experiment.run_folder import RunFolder
from launch import evaluate, sample
from launch.evaluate import Options, documents_of
from launch.run_folder.markers import key_of
from launch.stages.stage import Stage, settings_of, stages_before
from lm.checkpoints.manifest import steps_in
from lm.config import MeshConfig
from lm.errors import InputError, UsageError
from lm.evaluation.bits_per_byte import evaluate_texts
from lm.evaluation.log_likelihood import LogLikelihoods, Request
from lm.fields import with_values
from lm.parallel import make_mesh
from lm.run_paths import RunPaths
from lm.storage import write_json
from lm.tokenizer import save, train_bpe
from lm.training.loop import train
from tests.commands import call
from tests.corpus import texts, tiny_experiment, write_tokens
from tests.launch.run_folder import NO_OUTPUTS
from tests.launch.toy_stages import files_of
from tests.lm.evaluation.task_files import write_jsonl, write_parquet, write_tasks
from tests.run_files import QUICK, REPOSITORY, start_module
from tests.train_process import free_port, told_by

CUT = MeshConfig(fsdp=8)
SHORT = {"steps": 8, "mesh": CUT, "checkpoint_every": 4, "validate_every": 0, "sample_every": 0}
EXPERIMENT = with_values(tiny_experiment(), {"model.layers": 1} | {f"train.{name}": SHORT[name] for name in SHORT})
TEXT = texts(1, seed=9)[0]


def marker(run: RunPaths, stage: Stage) -> str:
    """Record that the stage, and all before it, is finished with the current outputs; return its key."""
    before = {f"<{one.name}>": marker(run, one) for one in stages_before(stage, EXPERIMENT)}
    settings = settings_of(stage, EXPERIMENT) | before
    key = key_of(stage.name, settings, {}, [])
    write_json(run.marker(stage.name), NO_OUTPUTS | {"key": key, "settings": settings})
    return key


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> RunFolder:
    """A run trained on eight devices with parameters sharded over all of them; checkpoints at 4 and 8."""
    run = RunFolder(tmp_path_factory.mktemp("trained") / "run")
    write_tokens(run.root, EXPERIMENT)
    train(EXPERIMENT.model, EXPERIMENT.train, run.root)
    write_json(run.config_json, dataclasses.asdict(EXPERIMENT))
    for stage in stages_before(sample.STAGE, EXPERIMENT):
        marker(run, stage)
    return run


@pytest.fixture
def run(trained, tmp_path) -> RunFolder:
    """A copy in another folder."""
    return RunFolder(Path(shutil.copytree(trained.root, tmp_path / "somewhere else")))


@pytest.mark.slow
def test_a_run_loads_experiment_tokenizer_and_model_of_every_step_on_every_mesh(trained):
    mesh = make_mesh(MeshConfig(), EXPERIMENT.model, 4, jax.devices()[:4])
    newest, first, whole = trained.load(), trained.load(step=4), trained.load(mesh)
    assert steps_in(trained.checkpoints) == [4, 8]
    assert (newest.step, first.step, newest.experiment, newest.one_device) == (8, 4, EXPERIMENT, "")
    assert dict(newest.mesh.shape) == {"data": 1, "fsdp": 8, "context": 1, "tensor": 1} and whole.mesh == mesh
    config, losses = EXPERIMENT.evaluate, []
    for one in (newest, whole, first):
        found = evaluate_texts(one.model, EXPERIMENT.model, config, one.tokenizer, [TEXT], one.mesh)
        losses.append(found["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5) and losses[0] < losses[2] - 0.01


def test_a_tokenizer_other_than_the_training_one_is_rejected(run):
    save(train_bpe(texts(9, seed=5), EXPERIMENT.tokenizer), run.tokenizer)
    with pytest.raises(InputError, match=r"checkpoints/8 was trained with tokenizer [0-9a-f]+, but"):
        run.load()


@pytest.mark.slow
def test_prompts_are_continued_on_the_side_without_changing_the_run(run, capsys):
    """On one device if the mesh does not fit, which is printed."""
    before = files_of(run.root)
    words = ("--prompt", "The miller", "A farmer", "--prompt", "", "--sample.temperatures", "0")
    assert call("launch.sample", run.root, *words) == 0
    newest = capsys.readouterr().out
    assert re.findall(r"--- '(.*)' at temperature 0\n\1", newest) == ["The miller", "A farmer", ""]
    assert call("launch.sample", run.root, "--step", "4", *words[-2:], "--train.mesh.fsdp", "16") == 0
    older = capsys.readouterr().out
    assert "Using one device, because the mesh of the config does not fit" in older and "fsdp = 16" in older
    assert older.count("--- ") == len(EXPERIMENT.sample.prompts)
    title = "'The miller' at temperature 0"
    assert titled(older)[title] != titled(newest)[title]
    assert files_of(run.root) == before


@pytest.mark.slow
def test_a_prompt_is_continued_with_at_most_120_of_our_modules(run):
    """Also without the rest of the config: no stage of the data is imported."""
    program = (
        "import atexit, runpy, sys; sys.argv = ['launch.sample', *sys.argv[1:]]\n"
        "atexit.register(lambda: print(*sys.modules, file=sys.stderr)); runpy.run_module(sys.argv[0], None, '__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(run.root), "--prompt", TEXT[:10], "--max-tokens", "1"], cwd=REPOSITORY,
        text=True, capture_output=True, check=True, env=os.environ | QUICK,
    )  # fmt: skip
    names = done.stderr.splitlines()[-1].split()
    ours = [name for name in names if name.partition(".")[0] in ("configs", "data_prep", "launch", "lm", "viewer")]
    assert 60 < len(ours) <= 120 and not [name for name in ours if name.startswith("data_prep")], ours


def test_a_text_is_evaluated_on_the_side_without_changing_the_run(run, tmp_path, capsys):
    file, before = tmp_path / "a text.txt", files_of(run.root)
    file.write_text(TEXT)
    assert call("launch.evaluate", run.root, "--text", file, "--step", "4") == 0
    said = capsys.readouterr().out
    loaded = run.load(step=4)
    found = evaluate_texts(loaded.model, EXPERIMENT.model, EXPERIMENT.evaluate, loaded.tokenizer, [TEXT], loaded.mesh)
    assert "The model at step 4, bits per byte" in said
    bits = "  ".join(f"{found[f'{name}bits_per_byte']:.3f}" for name in ("", "gzip_", "zstd_", "xz_")).split()
    told = [f"{len(TEXT.encode()):,}", f"{found['tokens']:,}", f"{found['loss']:.4f}", *bits]
    assert said.splitlines()[-1].removeprefix(str(file)).split() == ["1", *told]
    file.write_bytes(b"\xef\xbb\xbf" + TEXT.encode())  # a byte order mark is no text
    assert call("launch.evaluate", run.root, "--text", file, "--step", "4") == 0
    assert capsys.readouterr().out.splitlines()[-1].split()[-8:] == ["1", f"{len(TEXT.encode()):,}", *told[1:]]
    assert call("launch.evaluate", run.root, "--step", "8") == 0
    assert "evaluate: bits per byte: validation" in capsys.readouterr().out
    assert files_of(run.root) == before


@pytest.mark.slow
def test_tasks_and_files_are_evaluated_on_the_side_as_tables_and_as_json(run, tmp_path, capsys):
    data, before = write_tasks(tmp_path / "data", 6), files_of(run.root)
    write_parquet(tmp_path / "many.parquet", [{"body": text} for text in (TEXT, *texts(2, seed=4))])
    (tmp_path / "one.txt").write_text(TEXT)
    words = ("--text", tmp_path / "one.txt", tmp_path / "many.parquet", "--column", "body", "--limit", "2")
    words += ("--tasks", "piqa", "lambada_openai", "--task-data", data, "--step", "4")
    assert call("launch.evaluate", run.root, *words, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    loaded = run.load(step=4)
    of = lambda *documents: evaluate_texts(
        loaded.model, EXPERIMENT.model, EXPERIMENT.evaluate, loaded.tokenizer, documents, loaded.mesh
    )
    one, many = found["texts"].values()
    pair = (TEXT, texts(2, seed=4)[0])
    assert found["step"] == 4 and one == pytest.approx(of(TEXT)) and many == pytest.approx(of(*pair))
    assert many["documents"] == 2 and many["bytes"] == sum(len(text.encode()) for text in pair)
    assert list(found["tasks"]) == ["piqa", "lambada_openai"]
    assert found["tasks"]["piqa"].keys() == {"examples", "acc", "acc_norm", "acc_stderr", "acc_norm_stderr"}
    assert found["tasks"]["piqa"]["examples"] == 2
    assert call("launch.evaluate", run.root, *words) == 0
    said = capsys.readouterr().out
    rows = [line.split() for line in said.splitlines()]
    assert ["piqa", "2", "acc", f"{found['tasks']['piqa']['acc']:.4g}"] in [row[:4] for row in rows]
    assert [row[-1] for row in rows if row[:1] == ["piqa"]] == ["0.5", "0.5"]
    assert any(row[:1] == [str(tmp_path / "many.parquet")] and f"{many['bits_per_byte']:.3f}" in row for row in rows)
    assert call("launch.evaluate", run.root, "--json") == 0
    assert json.loads(capsys.readouterr().out)["parameters"] > 0
    assert files_of(run.root) == before


def test_the_loss_of_packed_documents_is_the_sum_of_each_and_of_the_bos_tokens_between_them(trained):
    """A document does not attend to the previous one, and the next BOS costs the same as at the end of a text."""
    loaded, config = trained.load(), dataclasses.replace(EXPERIMENT.evaluate, stride=EXPERIMENT.model.context_length)
    of = lambda *documents: evaluate_texts(
        loaded.model, EXPERIMENT.model, config, loaded.tokenizer, documents, loaded.mesh
    )
    short = ["The miller found it.", "A farmer sold two horses."]
    both, alone = of(*short), [of(one) for one in short]
    nats = both["loss"] * (both["tokens"] + 1)
    own = sum(one["loss"] * one["tokens"] for one in alone)
    assert both["documents"] == 2 and both["tokens"] == sum(one["tokens"] for one in alone) and nats > own
    model, head = loaded.model, loaded.tokenizer.bos_id
    ids = [head, *loaded.tokenizer.encode(short[0]), head]
    (score,) = LogLikelihoods(EXPERIMENT.model, 8).score(model, loaded.mesh, [Request(ids[:-1], ids[-1:])])
    assert nats == pytest.approx(own - score.log_likelihood, rel=1e-4)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of other packages
def test_lm_eval_runs_its_tasks_and_adds_its_results_to_the_run(run, tmp_path, capsys, monkeypatch):
    import datasets.config

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    data, before = write_tasks(tmp_path / "data", 6), files_of(run.root)
    assert call("launch.lm_eval", run.root, "--tasks", "piqa", "--data", data, "--step", "4") == 0
    assert re.search(r"task +few-shot +figure +value +\+-\npiqa +0 +acc +0?\.?\d+", capsys.readouterr().out)
    own = tmp_path / "own"
    own.mkdir()
    write_jsonl(own / "rows.jsonl", [{"text": text} for text in texts(2)])
    (own / "own_writing.yaml").write_text(
        f"task: own_writing\ndataset_path: json\ndataset_kwargs: {{data_files: {{test: {own}/rows.jsonl}}}}\n"
        "test_split: test\noutput_type: generate_until\ndoc_to_text: '{{text[:40]}}'\n"
        "doc_to_target: '{{text[40:60]}}'\n"
        "generation_kwargs: {until: ['.'], max_gen_toks: 9}\nmetric_list: [{metric: exact_match}]\n"
    )
    (own / "own_reading.yaml").write_text(
        f"task: own_reading\ndataset_path: json\ndataset_kwargs: {{data_files: {{test: {own}/rows.jsonl}}}}\n"
        "test_split: test\noutput_type: loglikelihood_rolling\ndoc_to_text: ''\ndoc_to_target: '{{text}}'\n"
        "metric_list: [{metric: bits_per_byte}]\n"
    )
    words = ("--include-path", own, "--step", "4")
    assert call("launch.lm_eval", run.root, "--tasks", "own_writing", "own_reading", *words) == 0
    results = json.loads(run.harness_results(4).read_text())
    assert results["step"] == 4 and results["results"].keys() == {"piqa", "own_writing", "own_reading"}
    assert call("launch.evaluate", run.root, "--tasks", "piqa", "--task-data", data, "--step", "4", "--json") == 0
    in_tree = json.loads("{" + capsys.readouterr().out.rpartition("\n{\n")[2])["tasks"]["piqa"]
    assert in_tree["acc_norm"] == pytest.approx(results["results"]["piqa"]["acc_norm,none"])
    made = str(run.harness_results(4).relative_to(run.root))
    assert {name: data for name, data in files_of(run.root).items() if name != made} == before
    assert call("launch.lm_eval", run.root, "--tasks", "no_such_task") == 2


@pytest.mark.parametrize(
    ("script", "words", "code", "message"),
    [
        ("evaluate", ("--text", "empty.txt"), 1, "empty.txt is empty"),
        ("evaluate", ("--text", "latin.txt"), 1, "latin.txt is not UTF-8 text: byte 5 is 0xfc"),
        ("evaluate", ("--text", "nothing.txt"), 1, "nothing.txt cannot be read: No such file"),
        ("evaluate", ("--text", "."), 1, "cannot be read: Is a directory"),
        ("evaluate", ("--tasks", "piqa"), 2, "piqa needs its examples, but --task-data is empty"),
        ("evaluate", ("--tasks", "pika"), 2, "--tasks names 'pika', but the evaluators are validation"),
        ("evaluate", ("--limit", "-1", "--text", "x"), 2, "--limit is -1; it must be at least 0"),
        ("evaluate", ("--text", "no.parquet"), 1, "no.parquet is not a file"),
        (
            "evaluate",
            ("--text", "bad.parquet"),
            1,
            r"bad\.parquet is not a complete Parquet file: .* Get it again, or leave it out",
        ),
        ("lm_eval", (), 2, "--tasks is empty"),
        ("evaluate", ("--step", "5"), 2, "no checkpoint of step 5 in .*The steps there are 4, 8"),
        ("evaluate", ("--txt", "empty.txt"), 2, "Unrecognized options: --txt, empty.txt"),
        ("sample", ("--prompt", "x" * 20_000), 2, "20,000 bytes, at least 79 tokens, but sample.tokens = 24"),
        ("sample", ("--prompt", "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15"), 2, "that leaves no room within 24"),
        ("sample", ("--max-tokens", "1", "--prompt", "1 " * 40), 2, "the model's context: shorten the prompt"),
        ("sample", ("--prompt", "x", "--temperature", "1e31"), 2, r"temperature is 1e\+31; .* from 0 to 1e\+30"),
        ("sample", ("--prompt", "x", "--repetition-penalty", "1e39"), 2, "it must be from 0.01 to 100"),
        ("sample", ("--step", "5"), 2, "no checkpoint of step 5"),
        ("sample", ("--from", ".", "--step", "4"), 2, "only prints. Remove --from; to query"),
        ("sample", ("--sample.temperature", "0"), 2, "--sample.temperatures"),
    ],
)
def test_user_errors_are_reported(trained, tmp_path, monkeypatch, capsys, script, words, code, message):
    monkeypatch.chdir(tmp_path)
    Path("empty.txt").touch()
    Path("latin.txt").write_bytes("und für".encode("latin-1"))
    Path("bad.parquet").write_text("not Parquet")
    before = files_of(trained.root)
    assert call(f"launch.{script}", trained.root, *words) == code
    assert re.search(message, capsys.readouterr().err)
    assert files_of(trained.root) == before


def test_unreadable_rows_are_reported(tmp_path, capsys):
    (tmp_path / "cut.jsonl").write_text('{"text": "whole"}\n{"text": 5}\n{"text": "cu')
    assert documents_of(tmp_path / "cut.jsonl", Options()) == ["whole"]
    said = capsys.readouterr().err
    assert "2 rows skipped, which cannot be read; the first: line 2, text_not_a_string" in said


def test_without_a_checkpoint_the_command_that_makes_one_is_named(run, capsys):
    shutil.rmtree(run.checkpoints)
    assert call("launch.sample", run.root, "--prompt", "The miller") == 1
    assert re.search(f"no checkpoint in .* python -m launch.train .* --workdir {run.root}", capsys.readouterr().err)


def start(script: str, run: RunPaths, devices: int, **variables: str) -> subprocess.Popen[str]:
    flags = f"{QUICK['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"
    return start_module(script, run.root, XLA_FLAGS=flags, **variables)


@pytest.mark.slow
@pytest.mark.parametrize("script", ["launch.evaluate", "launch.sample"])
def test_two_processes_with_sharded_parameters_write_the_same_files_as_one(run, script):
    """Each of the two has four devices, and so half of every parameter; the one has a single device."""
    made = run.evaluation if script == "launch.evaluate" else run.final_samples
    port = free_port()
    pair = [start(script, run, 4, **told_by("hand", index, 2, port)) for index in range(2)]
    outputs = [process.communicate(timeout=600)[0] for process in pair]
    assert [process.returncode for process in pair] == [0, 0], outputs
    assert "Traceback" not in "".join(outputs) and "One device" not in "".join(outputs)
    of_two = json.loads(made.read_text())
    assert call(script, run.root) == 0  # up to date
    run.marker(script.partition(".")[2]).unlink()
    alone = start(script, run, 1)
    output, _ = alone.communicate(timeout=600)
    assert alone.returncode == 0 and "Using one device" in output, output
    of_one = json.loads(made.read_text())
    assert of_two == (pytest.approx(of_one, rel=1e-5) if script == "launch.evaluate" else of_one)


def test_a_text_without_a_name_is_rejected_and_no_stage_is_run(tmp_path):
    with pytest.raises(UsageError, match=r"--text has an empty name: \[''\]"):
        evaluate.on_the_side(EXPERIMENT, tmp_path, evaluate.Options(text=("",)))


def titled(printed: str) -> dict[str, str]:
    """{title: its text} of the output for prompts."""
    parts = printed.split("\n--- ")[1:]
    return {title: text.strip() for title, _, text in (part.partition("\n") for part in parts)}


@pytest.mark.slow
def test_sampling_options_change_the_texts_and_a_seed_reproduces_them(trained, capsys):
    def printed(*words: object) -> dict[str, str]:
        assert call("launch.sample", trained.root, "--prompt", "The miller", "", *words) == 0
        return titled(capsys.readouterr().out)

    # Always four texts of at most twelve new tokens: compiled once.
    two = printed("--temperature", 0.9, "--max-tokens", 12, "--n", 2, "--seed", 7)
    assert list(two) == [f"{prompt!r} at temperature 0.9, seed {n}" for prompt in ("The miller", "") for n in (7, 8)]
    assert len(set(two.values())) == 4
    later = printed("--temperature", 0.9, "--max-tokens", 12, "--n", 2, "--seed", 8)
    assert later["'' at temperature 0.9, seed 8"] == two["'' at temperature 0.9, seed 8"]
    greedy = printed("--temperature", 0, "--max-tokens", 12, "--n", 2)
    assert [*printed("--temperature", 5, "--max-tokens", 12, "--n", 2, "--top-k", 1).values()] == [*greedy.values()]
    title = "'The miller' at temperature 0, seed 0"
    stop = greedy[title][15:18]
    cut = printed("--temperature", 0, "--max-tokens", 12, "--n", 2, "--stop", stop)[title]
    assert cut == greedy[title][: greedy[title].index(stop, len("The miller"))].strip()
    told = printed("--temperature", 0, "--max-tokens", 12, "--n", 2, "--logprobs", 1)[title]
    figures = re.findall(
        r"^ *(-\d+\.\d{3})  ('.*') +\2 \1$", told, re.MULTILINE
    )  # greedy: it is the most likely one itself
    assert len(figures) == 12
    laid_out = printed("--temperature", 0, "--max-tokens", 12, "--n", 2, "--weights", "float32")
    assert laid_out == greedy


def test_typed_text_is_continued_and_settings_can_be_changed(trained, capsys, monkeypatch):
    typed = (
        "The miller\n/temperature 0\n/max-tokens 4\nA farmer\n/top-k five\n/nothing\n\n/settings\nA farmer\n/quit\n."
    )
    monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
    assert call("launch.sample", trained.root, "--interactive", "--temperature", 0.7, "--max-tokens", 9) == 0
    said = capsys.readouterr().out
    assert said.startswith("The miller") and not said.endswith(".\n\n")
    assert "/top-k needs a number; it got 'five'." in said and "There is no command '/nothing'." in said
    assert re.search(r"temperature +0\.0\n", said) and re.search(r"max-tokens +4\n", said)
    once, twice = re.findall(r"^A farmer.*\n", said, re.MULTILINE)
    assert once == twice and len(once) > len("A farmer\n")


def test_ctrl_c_ends_a_text_and_not_the_program(trained, monkeypatch):
    class Pressing(io.StringIO):
        def write(self, text: str) -> int:
            if text == "The miller":
                signal.raise_signal(signal.SIGINT)
            return super().write(text)

    monkeypatch.setattr(sys, "stdout", out := Pressing())
    monkeypatch.setattr(sys, "stdin", io.StringIO("The miller\nA farmer\n"))
    before = signal.getsignal(signal.SIGINT)
    assert call("launch.sample", trained.root, "--interactive", "--temperature", 0) == 0
    first, second, _ = re.split(r"(?=A farmer)|\Z", out.getvalue())
    assert first == "The miller\n\n" and len(second) > len("A farmer\n\n")
    assert signal.getsignal(signal.SIGINT) == before
