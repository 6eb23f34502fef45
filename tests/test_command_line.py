"""The command line: short help, tyro's messages for unknown options, and one sentence for an invalid config."""

import ast
import importlib
import inspect
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from configs.experiment import EXAMPLES, load_config, parse_command, parse_run
from configs.experiment.command_line import ALIASES, options_of
from configs.experiment.run_folder import RunFolder
from launch import pretrain
from launch.stages.command import cut_lines
from lm.errors import UsageError, shown
from tests.run_files import REPOSITORY

DEMO = str(REPOSITORY / "configs/demo.py")
FOLDERS = {"workdir", "from", "trust-code"}
OPTIONS = [*options_of(load_config(Path(DEMO))), *FOLDERS]
LONG = "x" * 51_000
CALLS = {
    ".".join(path.relative_to(REPOSITORY).with_suffix("").parts): textwrap.dedent(called)
    for path in sorted((REPOSITORY / "launch").rglob("*.py"))
    if (called := path.read_text().partition('if __name__ == "__main__":\n')[2])
}
"""{script: what `python -m` runs in it}."""


def ended(code: int, *words: str, reads: list[str] | None = None) -> None:
    with pytest.raises(SystemExit) as ended:
        parse_command("launch.x", "What it does.", [*words], reads)
    assert ended.value.code == code


def help_of(capsys, *words: str, reads: list[str] | None = None) -> str:
    ended(0, DEMO, *words, reads=reads)
    return capsys.readouterr().out


def refusal(*words: str, config: str = DEMO) -> str:
    with pytest.raises(UsageError) as refused:
        parse_command("launch.x", "What it does.", [config, *words])
    return str(refused.value)


def tyro_error(capsys, *words: str) -> str:
    ended(2, DEMO, *words)
    return " ".join(word for word in capsys.readouterr().err.split() if word != "│")


def listed(text: str) -> set[str]:
    """The options at the beginning of a line."""
    return set(re.findall(r"^\W{0,2}--([a-z]\S*)", text, re.MULTILINE))


def test_help_shows_the_sections_that_a_script_reads_and_help_all_the_rest(capsys):
    short = help_of(capsys, "--help", reads=["sample"])
    assert listed(short) == FOLDERS | {"sample.prompts", "sample.temperatures", "sample.tokens", "sample.seed"}
    assert listed(help_of(capsys, "--help-all", reads=["sample"])) == set(OPTIONS)
    assert listed(help_of(capsys, "--help", "train.mesh", reads=["sample"])) == FOLDERS | {
        "train.mesh.fsdp", "train.mesh.tensor", "train.mesh.context", "train.mesh.zero1"
    }  # fmt: skip
    assert len(short.splitlines()) < 40 and "What it does." in short


def test_long_sections_are_listed_without_explanations_by_default(capsys):
    short, long = help_of(capsys, "--help", reads=["model", "train"]), help_of(capsys, "--help", "train")
    assert listed(short) >= {"train.steps", "model.layers", "train.optimizer.learning-rate"}
    assert "Optimizer updates" in long and "Optimizer updates" not in short
    assert len(short.splitlines()) < 190


def test_a_script_that_reads_all_sections_gives_an_overview(capsys):
    overview = help_of(capsys, "-h")
    assert len(overview.splitlines()) < 40
    for section in ("pages", "documents", "tokenizer", "shards", "model", "train", "evaluate", "sample"):
        assert re.search(rf"^  {section} +\d+ options", overview, re.MULTILINE)


QUICK = (".finetune", ".sample", ".export", ".inspect_tokenizer", ".gke")
SCRIPTS = """sample chat evaluate extract_texts fetch_pages finetune index_corpus lm_eval prepare_documents pretrain
refilter report scaling search_corpus serve train train_tokenizer write_shards"""


@pytest.mark.fast_rows(len(QUICK))
@pytest.mark.parametrize("script", sorted(CALLS, key=lambda script: not script.endswith(QUICK)))
def test_the_help_of_every_script_is_short_and_explains_its_own_options(script, capsys, monkeypatch):
    module = importlib.import_module(script)
    monkeypatch.setattr(sys, "argv", [script, "--help"])
    monkeypatch.setitem(sys.modules, "__main__", module)
    with pytest.raises(SystemExit) as ended:
        exec(CALLS[script], vars(module))
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert 5 < len(text.splitlines()) < 290  # of 1,100 lines of --help-all
    own = {name: words for name, words in explanations(text).items() if "." not in name}
    if re.search(r"(?m)^\W*options\b", text):  # not in the overview of a script that reads all sections
        assert own
    assert {name: words for name, words in own.items() if len(words) < 2} == {}
    assert set(re.findall(r"--(\S+) (?!-)[^-]*\(repeatable", text)) <= {"message", "prompt"}  # flags are given once
    from_run = any(f"{script} {example}" in text for example in EXAMPLES.values())  # a run, then a config
    assert f"usage:    python -m {script} {'[RUN] ' if from_run else ''}CONFIG.py" in text or "usage:    " not in text
    assert from_run == (script in ("launch.finetune", "launch.reinforce"))


def test_help_all_explains_every_option_of_a_config(capsys):
    explained = explanations(help_of(capsys, "--help-all"))
    assert explained.keys() == set(OPTIONS)
    assert {name: words for name, words in explained.items() if len(words) < 2} == {}


def explanations(text: str) -> dict[str, list[str]]:
    """Return {option: words that explain it} of a --help, without its metavariable and default."""
    plain = re.sub(r"[^\x00-\x7f]", " ", text)
    found = {}
    for part in re.split(r"(?m)^ {0,4}(?=--?[a-z])", plain)[1:]:
        option = part.partition("\n\n")[0]
        name = re.match(r"(?:-\w, )?--([a-z][\w.-]*)", option)
        value = r"\[.*?\]+|\{[^}]*\}\S*|[A-Z_|.:/{}]+"  # metavariable
        words = re.sub(rf"^\S+(?: (?:{value}))?(?= |$)|\((default|repeatable|required).*", "", option, flags=re.DOTALL)
        if name:
            found[name[1]] = re.findall(r"[A-Za-z]{2,}", words)
    return found


def attributes(module: Any, tree: ast.AST, found: dict[str, set[str]]) -> set[str]:
    """Names of the attributes in `tree`, a part of a module, and in the functions of launch/ that it refers to."""
    names = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        value = getattr(module, node.id, None) if isinstance(node, ast.Name) else None
        if inspect.isfunction(value) and value.__module__.startswith("launch.") and value.__qualname__ not in found:
            found[value.__qualname__] = names
            source = ast.parse(inspect.getsource(value))
            names |= attributes(sys.modules[value.__module__], source, found)
    return names


@pytest.mark.parametrize("script", [script for script, called in CALLS.items() if "command(" in called])
def test_help_lists_no_section_that_the_script_does_not_read(script, monkeypatch):
    """It reads a section if one of its functions, or a function of launch/ that it calls, has an attribute of that
    name."""
    module, listed = importlib.import_module(script), list[str]()
    keep = lambda program, run, reads=(), *_, **__: listed.extend(reads)
    monkeypatch.setattr(module, "run_command", keep, raising=False)
    monkeypatch.setattr(module, "run_stage_command", lambda stage, *reads, **_: listed.extend(reads), raising=False)
    monkeypatch.setattr(module, "run_without_config", lambda *_: None, raising=False)
    exec(CALLS[script], vars(module))
    found = attributes(module, ast.parse(inspect.getsource(module)), {})
    assert {name.partition(".")[0] for name in listed} <= found


def test_help_before_the_config_is_the_demos(capsys):
    ended(0, "--help", reads=["sample"])
    assert "--sample.tokens" in capsys.readouterr().out


def test_help_is_printed_in_an_ascii_terminal():
    run = [sys.executable, "-m", "launch.sample", DEMO, "--help"]
    environment = {"PYTHONIOENCODING": "ascii", "PATH": ""}
    done = subprocess.run(run, cwd=REPOSITORY, capture_output=True, text=True, env=environment)
    assert done.returncode == 0 and "--sample.tokens" in done.stdout and done.stdout.isascii()


def test_an_unknown_option_is_reported_with_similar_ones_before_invalid_values(capsys):
    message = tyro_error(capsys, "--model.width", "100", "--train.batch-sise", "4")
    assert "Unrecognized options: --train.batch-sise, 4" in message and "--train.batch-size INT" in message
    assert "Unrecognized options: foo" in tyro_error(capsys, "foo")


def test_underscores_are_dashes():
    experiment, _ = parse_command("launch.x", "", [DEMO, "--tokenizer.vocab_size", "300"])
    assert experiment.tokenizer.vocab_size == 300


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--train.steps", "1e3"], "Error parsing --train.steps: invalid literal for int() with base 10: '1e3'"),
        (["--train.z-loss", "x"], "Error parsing --train.z-loss: could not convert string to float: 'x'"),
        (["--train.steps"], "Missing value for argument '--train.steps'"),
        (["--model.attention", "foo"], "invalid choice 'foo' for argument '--model.attention'"),
        (["--model.biases", "true"], "invalid choice 'true' for argument '--model.biases'"),
        (["--train.mixture", "a"], "Error parsing --train.mixture"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_an_invalid_value_is_named_with_the_expected_type(words, expected, capsys):
    assert expected in tyro_error(capsys, *words)


def test_shown_reports_the_length_of_truncated_values():
    assert shown("a") == "'a'" and shown(LONG).endswith("(51,000 characters)") and len(shown(LONG)) < 250


def test_a_missing_config_is_reported_with_the_shipped_ones():
    message = refusal(config="configs/no_such.py")
    assert message.startswith("There is no config file or run folder configs/no_such.py. Shipped in configs/: ")
    assert "demo.py" in message


def test_a_misspelt_run_folder_or_config_is_suggested(tmp_path):
    (run := tmp_path / "assistant").mkdir()
    assert "Did you mean" not in refusal(config=f"{tmp_path}/asistant")  # no run yet
    (run / "config.json").write_text("{}")
    wrong = tmp_path / "asistant"
    assert refusal(config=str(wrong)) == f"There is no config file or run folder {wrong}. Did you mean {run}?"
    for misspelt in ("configs/demoo.py", "config/demo.py", "demo.py"):
        assert refusal(config=misspelt).endswith(f"{misspelt}. Did you mean configs/demo.py?")
    assert refusal(config=f"{tmp_path}/other").endswith(f"other. Runs in {tmp_path}: assistant.")
    with pytest.raises(UsageError, match=rf"is not a run folder: .* Did you mean {run}\? "):
        RunFolder(wrong).experiment()
    with pytest.raises(UsageError, match=rf"is not a run folder on a disk\. Did you mean {run}\? "):
        parse_run("launch.x", "", [str(wrong), "configs/finetune.py"], from_run="chat")


@pytest.mark.fast_rows(4)
@pytest.mark.parametrize(
    ("option", "meant"),
    [
        ("train.lr", "train.optimizer.learning-rate or --train.optimizer.muon.learning-rate"),
        ("train.optimizer.muon.lr", "train.optimizer.muon.learning-rate"),
        ("lr", "train.optimizer.learning-rate or --train.optimizer.muon.learning-rate"),
        ("train.bs", "train.batch-size"),
        ("batch", "train.batch-size or --evaluate.batch-size"),
        ("ctx", "model.context-length"),
        ("train.context_length", "model.context-length"),
        ("model.n_layer", "model.layers"),
        ("train.stpes", "train.steps"),
        ("output-dir", "workdir"),
    ],
)
def test_an_unknown_option_is_reported_with_the_one_that_is_meant(option, meant, capsys):
    assert f"there is no --{option.partition('=')[0].replace('_', '-')}. Did you mean --{meant}" in tyro_error(
        capsys, f"--{option}", "3"
    )


def test_every_alias_names_an_option_and_is_none():
    lasts = {one.rpartition(".")[2] for one in OPTIONS}
    assert {*ALIASES.values()} <= lasts and not lasts & {*ALIASES}


@pytest.mark.parametrize(
    ("name", "contents", "expected"),
    [
        ("a.json", b"{}", "is not a Python file. A config is a .py"),
        ("a.yaml", b"a: 1", "is not a Python file. A config is a .py"),
        ("empty.py", b"", "has no function get_config"),
        ("syntax.py", b"a = 1\nx = (\n", "syntax.py, line 2: '(' was never closed"),
        ("binary.py", b"\x7fELF\x00\x01", "is not valid Python"),
        ("no_text.py", b"x = '\xff\xfe'", "no_text.py"),
        ("missing.py", b"\nimport no_such_module_here", "missing.py, line 2, gives no config: ModuleNotFoundError"),
        ("number.py", b"def get_config(): return 3", "returned int"),
        ("exit.py", b"raise SystemExit(4)", "exit.py, line 1, gives no config: SystemExit"),
        (
            "arguments.py",
            b"def get_config(size): ...",
            "missing a required argument: 'size'. get_config() is for a new run",
        ),
    ],
)
def test_an_invalid_config_file_is_reported_with_its_line(tmp_path, name, contents, expected):
    (tmp_path / name).write_bytes(contents)
    message = refusal(config=str(tmp_path / name))
    assert expected in message and str(tmp_path) in message


def test_a_config_may_import_a_file_next_to_it(tmp_path):
    (tmp_path / "steps_beside_it.py").write_text("STEPS = 777\n")
    config = tmp_path / "mine.py"
    config.write_text(
        "import dataclasses\nfrom configs.demo import get_config as demo\nfrom steps_beside_it import STEPS\n"
        "def get_config():\n    base = demo()\n"
        "    return dataclasses.replace(base, train=dataclasses.replace(base.train, steps=STEPS))\n"
    )
    assert load_config(config).train.steps == 777


def test_a_config_changed_within_a_second_is_read_again(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    config = tmp_path / "mine.py"
    for steps in (111, 222):  # equal lengths and times: Python's bytecode cache would not notice the change
        config.write_text(
            "import dataclasses\nfrom configs.demo import get_config as demo\ndef get_config():\n    base = demo()\n"
            f"    return dataclasses.replace(base, train=dataclasses.replace(base.train, steps={steps}))\n"
        )
        os.utime(config, (1, 1))
        assert load_config(config).train.steps == steps


def test_a_folder_a_helper_and_a_too_long_name_are_not_configs(tmp_path):
    (tmp_path / "folder.py").mkdir()
    assert "is not a run" in refusal(config=str(tmp_path / "folder.py"))
    assert "has no function get_config" in refusal(config=str(REPOSITORY / "configs/recipes/families.py"))
    assert len(refusal(config=LONG)) < 1000


@pytest.mark.fast_rows
@pytest.mark.parametrize("script", SCRIPTS.split())
def test_a_run_folder_with_a_too_long_path_is_rejected_in_a_line(script, monkeypatch, capsys, tmp_path):
    module = importlib.import_module(f"launch.{script}")
    monkeypatch.setattr(sys, "argv", [script, DEMO, "--workdir", str(tmp_path / LONG[:300])])
    with pytest.raises(SystemExit) as ended:
        exec(CALLS[f"launch.{script}"], vars(module))
    (line,) = capsys.readouterr().err.splitlines()
    assert ended.value.code == 1 and line.endswith("Give a shorter --workdir, or files with shorter names.")


@pytest.mark.parametrize("options", ["'", '"--a', "--a \\"])
def test_options_of_beam_that_no_shell_would_accept_are_rejected_at_once(options):
    assert "engine.beam_options is " in refusal("--engine.runner", "beam", f"--engine.beam-options={options}")


def test_a_prompt_that_cannot_fit_is_rejected_before_there_is_a_tokenizer_and_truncated_in_the_message():
    for option in ("sample.prompts", "train.sample-prompt"):
        message = refusal(f"--{option}", LONG)
        assert len(message) < 1000 and option.replace("-", "_") in message and "51,000 bytes" in message
        assert "tokens = " in message
        assert "is not valid text" in refusal(f"--{option}", "a\udcff")
    characters = str(REPOSITORY / "configs/shakespeare_char.py")
    model_context = load_config(Path(characters)).sample.tokens
    assert f"at least {model_context:,} tokens" in refusal("--sample.prompts", "x" * model_context, config=characters)
    parse_command("launch.x", "", [characters, "--sample.prompts", "x" * (model_context - 1)])
    parse_command("launch.x", "", [DEMO, "--sample.prompts", "", "\x1b[2J", "--train.sample-prompt", ""])


def test_a_long_line_of_a_message_is_truncated_in_the_middle():
    long = f"It is {LONG}. Shorten it."
    assert cut_lines("short\nlines") == "short\nlines"
    shown_first, shown_last = cut_lines(f"{long}\nlast").split("\n")
    assert shown_first.startswith("It is xxx") and shown_first.endswith(". Shorten it.") and shown_last == "last"
    assert len(shown_first) < 1500 and re.search(r"\[\.\.\. 49,\d\d\d characters \.\.\.\]", shown_first)


@pytest.mark.parametrize("script", pretrain.SCRIPTS, ids=pretrain.STAGES)
def test_a_stage_is_announced_by_a_whole_sentence_on_one_line(script):
    line = pretrain.headline(script)
    assert line.endswith(".") and "\n" not in line and len(line) < 130
