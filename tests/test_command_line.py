"""What the command line says back: short help, the nearest option to a typo, and a sentence for a file that is no
config."""

import importlib
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from configs.experiment import load_config, parse_command
from configs.experiment.command_line import nearest, options_of
from launch import pretrain
from launch.stages.command import cut_lines
from lm.errors import UsageError, shown

REPOSITORY = Path(__file__).parents[1]
DEMO = str(REPOSITORY / "configs/demo.py")
FOLDERS = {"workdir", "from", "trust-code"}
OPTIONS = [*options_of(load_config(Path(DEMO))), *FOLDERS]
LONG = "x" * 51_000


def help_of(capsys, *words: str, reads: list[str] | None = None) -> str:
    with pytest.raises(SystemExit) as ended:
        parse_command("launch.x", "What it does.", [DEMO, *words], reads)
    assert ended.value.code == 0
    return capsys.readouterr().out


def refusal(*words: str, config: str = DEMO) -> str:
    with pytest.raises(UsageError) as refused:
        parse_command("launch.x", "What it does.", [config, *words])
    return str(refused.value)


def listed(text: str) -> set[str]:
    """The options that stand at the beginning of a line."""
    return set(re.findall(r"^\W{0,2}--([a-z]\S*)", text, re.MULTILINE))


def test_help_shows_the_sections_that_a_script_reads_and_help_all_the_rest(capsys):
    short = help_of(capsys, "--help", reads=["sample"])
    assert listed(short) == FOLDERS | {"sample.prompts", "sample.temperatures", "sample.tokens", "sample.seed"}
    assert listed(help_of(capsys, "--help-all", reads=["sample"])) == set(OPTIONS)
    assert listed(help_of(capsys, "--help", "train.mesh", reads=["sample"])) == FOLDERS | {
        "train.mesh.fsdp", "train.mesh.tensor", "train.mesh.context", "train.mesh.zero1"
    }  # fmt: skip
    assert len(short.splitlines()) < 40 and "What it does." in short


def test_the_top_of_help_says_usage_an_example_and_where_the_config_is(capsys):
    usage, example, config = help_of(capsys, "--help", reads=["sample"]).splitlines()[:3]
    assert usage.startswith("usage: ") and "CONFIG.py" in usage
    assert example.startswith("example: ") and DEMO in example
    assert config.startswith("config: ") and DEMO in config
    words = example.partition("launch.x ")[2].split()
    parse_command("launch.x", "", words)  # the example is a command that works


def test_long_sections_are_listed_without_explanations_unless_they_are_asked_for(capsys):
    short, long = (help_of(capsys, flag, reads=["model", "train"]) for flag in ("--help", "-H"))
    assert listed(short) == listed(long) >= {"train.steps", "model.layers", "train.optimizer.learning-rate"}
    assert "Optimizer updates" in long and "Optimizer updates" not in short
    assert len(short.splitlines()) < 170


def test_a_script_that_reads_all_sections_gives_an_overview(capsys):
    overview = help_of(capsys, "-h")
    assert len(overview.splitlines()) < 40
    for section in ("pages", "documents", "tokenizer", "shards", "model", "train", "evaluate", "sample"):
        assert re.search(rf"^  {section} +\d+ options", overview, re.MULTILINE)


SCRIPTS = """evaluate extract_texts fetch_pages index_corpus lm_eval prepare_documents pretrain refilter report sample
scaling search_corpus serve train train_quality_classifier train_tokenizer write_shards"""


@pytest.mark.parametrize("script", [*SCRIPTS.split(), "export_documents"])
def test_the_help_of_every_script_is_short(script, capsys, monkeypatch):
    module = importlib.import_module(f"launch.{script}")
    source = Path(str(module.__file__)).read_text(encoding="utf-8")
    called = source.partition('if __name__ == "__main__":\n')[2].strip()
    monkeypatch.setattr(sys, "argv", [script, DEMO, "--help"])
    with pytest.raises(SystemExit) as ended:
        exec(called, vars(module))
    assert ended.value.code == 0
    assert len(capsys.readouterr().out.splitlines()) < 290  # of 1,100 lines of --help-all


def test_help_before_the_config_is_that_of_the_demo(capsys):
    with pytest.raises(SystemExit) as ended:
        parse_command("launch.x", "What it does.", ["--help"], ["sample"])
    assert ended.value.code == 0 and "--sample.tokens" in capsys.readouterr().out


def test_help_is_written_where_the_terminal_knows_ascii_alone():
    run = [sys.executable, "-m", "launch.sample", DEMO, "--help"]
    environment = {"PYTHONIOENCODING": "ascii", "PATH": ""}
    done = subprocess.run(run, cwd=REPOSITORY, capture_output=True, text=True, env=environment)
    assert done.returncode == 0 and "--sample.tokens" in done.stdout and done.stdout.isascii()


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("--train.step", "train.steps"),
        ("--model.layer", "model.layers"),
        ("--workdri", "workdir"),
        ("-workdir", "workdir"),
        ("--tokenizer.vocabulary-size", "tokenizer.vocab-size"),
        ("--train.optimizer.lr", "train.optimizer.learning-rate"),
        ("--lr", "train.optimizer.learning-rate"),
        ("--batch_size", "train.batch-size"),
        ("--steps", "train.steps"),
        ("--model.n_layers", "model.layers"),
        ("--model.d_model", "model.width"),
        ("--evaluate.strid", "evaluate.stride"),
        ("--documents.gopher-quality.min-word", "documents.gopher-quality.min-words"),
        ("--pages.table", "pages.tables"),
    ],
)
def test_the_nearest_option_to_a_typo(given, meant):
    assert nearest(given, OPTIONS)[0] == meant


def test_a_typo_names_its_nearest_option_first():
    for words in (["--train.step", "5"], ["--train.step=5", "--train.batch-size", "4"]):
        assert refusal(*words).startswith("There is no option --train.step. Did you mean --train.steps?")


def test_a_typo_comes_before_what_does_not_fit_without_it():
    assert "Did you mean --model.heads?" in refusal("--model.width", "100", "--model.head", "4")


def test_what_is_like_no_option_names_where_all_are_listed():
    message = refusal("--zzzzzzzz", "4")
    assert "Did you mean" not in message and "--help-all" in message
    assert "'foo' belongs to no option" in refusal("foo")


def test_underscores_are_dashes():
    experiment, _ = parse_command("launch.x", "", [DEMO, "--tokenizer.vocab_size", "300"])
    assert experiment.tokenizer.vocab_size == 300


def test_a_number_that_is_none_is_named_without_the_options_help():
    assert refusal("--model.ngram-rows", "1e3") == "--model.ngram-rows is no whole number in digits: '1e3'"


def test_fields_of_a_part_that_is_none_say_so():
    for part, field in (("model.rope_scaling", "factor"), ("train.optimizer.muon", "momentum")):
        message = refusal(f"--{part}.{field}".replace("_", "-"), "2", config="configs/gpt2_124m.py")
        assert f"{part} is None" in message and "config file of your own" in message


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--train.steps", "x"], "--train.steps is no whole number in digits: 'x'"),
        (["--train.steps", "1e3"], "--train.steps is no whole number in digits: '1e3'"),
        (["--train.z-loss", "x"], "--train.z-loss is no number: 'x'"),
        (["--train.steps"], "--train.steps has no value"),
        (["--model.norm", "foo"], "model.norm is 'foo'. Choose one of 'rmsnorm', 'layernorm', or name your own"),
        (["--model.attention", "foo"], "--model.attention is 'foo'. Choose one of 'auto', 'xla', 'cudnn', 'splash'."),
        (
            ["--train.optimizer.name", "muon"],
            "Choose one of 'adamw', 'adafactor', 'lion', or name your own as my_module.my_name "
            "(docs/how_to_change_it.md). train.optimizer.muon is a section of its own: give it in a config file.",
        ),
        (["--model.biases", "true"], "--model.biases is 'true'. Choose one of 'True', 'False'."),
        (["--train.mixture", "a"], "--train.mixture cannot be made of ['a']"),
        (["--engine.beam-options", "--runner=x"], "--engine.beam-options=VALUE"),
        (["--train.steps", "9" * 5000], "--train.steps: Exceeds the limit"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_a_value_that_cannot_be_read_is_named_with_what_it_should_be(words, expected):
    assert expected in refusal(*words)


def test_a_long_value_is_cut_in_messages():
    for words in (["--train.steps", LONG], ["--model.norm", LONG], [LONG], [f"--{LONG}"], ["--train.mixture", LONG]):
        assert len(refusal(*words)) < 1000


def test_shown_tells_the_length_of_what_it_cuts():
    assert shown("a") == "'a'" and shown(LONG).endswith("(51,000 characters)") and len(shown(LONG)) < 250


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("configs/demoo.py", "configs/demo.py"),
        ("demo", "configs/demo.py"),
        ("demo.py", "configs/demo.py"),
        ("configs/fineweb", "configs/fineweb.py"),
        ("configs/lama3_8b.py", "configs/llama3_8b.py"),
    ],
)
def test_a_config_that_is_not_there_names_the_nearest(name, near):
    assert f"There is no config file or run folder {name}. Did you mean {near}?" in refusal(config=name)


def test_a_config_of_ones_own_is_named_too(tmp_path):
    (tmp_path / "small_web.py").touch()
    assert f"Did you mean {tmp_path}/small_web.py?" in refusal(config=str(tmp_path / "small_wep.py"))


@pytest.mark.parametrize(
    ("name", "contents", "expected"),
    [
        ("a.json", b"{}", "is no Python file (.py)"),
        ("a.yaml", b"a: 1", "is no Python file (.py)"),
        ("empty.py", b"", "has no function get_config"),
        ("syntax.py", b"a = 1\nx = (\n", "syntax.py, line 2: '(' was never closed"),
        ("binary.py", b"\x7fELF\x00\x01", "cannot be read as Python"),
        ("no_text.py", b"x = '\xff\xfe'", "no_text.py"),
        ("missing.py", b"\nimport no_such_module_here", "missing.py, line 2, gives no config: ModuleNotFoundError"),
        ("number.py", b"def get_config(): return 3", "returned int"),
        ("exit.py", b"raise SystemExit(4)", "exit.py, line 1, gives no config: SystemExit"),
        ("arguments.py", b"def get_config(size): ...", "gives no config: TypeError"),
    ],
)
def test_a_file_that_is_no_config_gets_a_message_with_its_place(tmp_path, name, contents, expected):
    (tmp_path / name).write_bytes(contents)
    message = refusal(config=str(tmp_path / name))
    assert expected in message and str(tmp_path) in message


def test_a_config_may_import_a_file_beside_it(tmp_path):
    (tmp_path / "steps_beside_it.py").write_text("STEPS = 777\n")
    config = tmp_path / "mine.py"
    config.write_text(
        "import dataclasses\nfrom configs.demo import get_config as demo\nfrom steps_beside_it import STEPS\n"
        "def get_config():\n    base = demo()\n"
        "    return dataclasses.replace(base, train=dataclasses.replace(base.train, steps=STEPS))\n"
    )
    assert load_config(config).train.steps == 777


def test_a_folder_a_helper_and_a_name_that_is_too_long_are_no_configs(tmp_path):
    (tmp_path / "folder.py").mkdir()
    assert "is not the folder of a run" in refusal(config=str(tmp_path / "folder.py"))
    assert "has no function get_config" in refusal(config=str(REPOSITORY / "configs/recipes/families.py"))
    assert len(refusal(config=LONG)) < 1000


@pytest.mark.parametrize("script", SCRIPTS.split())
def test_a_run_folder_whose_path_is_too_long_is_refused_in_a_line(script, monkeypatch, capsys, tmp_path):
    module = importlib.import_module(f"launch.{script}")
    called = Path(str(module.__file__)).read_text(encoding="utf-8").partition('if __name__ == "__main__":\n')[2].strip()
    monkeypatch.setattr(sys, "argv", [script, DEMO, "--workdir", str(tmp_path / LONG[:300])])
    with pytest.raises(SystemExit) as ended:
        exec(textwrap.dedent(called), vars(module))
    (line,) = capsys.readouterr().err.splitlines()
    assert ended.value.code == 1 and line.endswith("Give a shorter --workdir, or files with shorter names.")


@pytest.mark.parametrize("options", ["'", '"--a', "--a \\"])
def test_options_of_beam_that_no_shell_would_take_are_refused_at_once(options):
    assert "engine.beam_options is " in refusal("--engine.runner", "beam", f"--engine.beam-options={options}")


def test_a_prompt_that_cannot_fit_is_refused_before_there_is_a_tokenizer_and_is_cut_in_the_message():
    for option in ("sample.prompts", "train.sample-prompt"):
        message = refusal(f"--{option}", LONG)
        assert len(message) < 1000 and option.replace("-", "_") in message and "51,000 bytes" in message
        assert "tokens = " in message
        assert "is no text" in refusal(f"--{option}", "a\udcff")
    characters = str(REPOSITORY / "configs/shakespeare_char.py")
    model_context = load_config(Path(characters)).sample.tokens
    assert f"at least {model_context:,} tokens" in refusal("--sample.prompts", "x" * model_context, config=characters)
    parse_command("launch.x", "", [characters, "--sample.prompts", "x" * (model_context - 1)])
    parse_command("launch.x", "", [DEMO, "--sample.prompts", "", "\x1b[2J", "--train.sample-prompt", ""])


def test_a_line_of_a_message_is_cut_in_its_middle():
    long = f"It is {LONG}. Shorten it."
    assert cut_lines("short\nlines") == "short\nlines"
    shown_first, shown_last = cut_lines(f"{long}\nlast").split("\n")
    assert shown_first.startswith("It is xxx") and shown_first.endswith(". Shorten it.") and shown_last == "last"
    assert len(shown_first) < 1500 and re.search(r"\[\.\.\. 49,\d\d\d characters \.\.\.\]", shown_first)


@pytest.mark.parametrize("script", pretrain.SCRIPTS, ids=pretrain.STAGES)
def test_a_stage_is_announced_by_a_whole_sentence_on_one_line(script):
    line = pretrain.headline(script)
    assert line.endswith(".") and "\n" not in line and len(line) < 130
