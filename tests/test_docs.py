"""Commands in README and docs work: every code block is run here on a small run, or at least parsed as the scripts do.

A block that this suite cannot run says so, with the reason, in a comment before it: <!-- not run: REASON -->
"""

import contextlib
import importlib
import importlib.util
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import tyro

from configs.experiment import load_config, parse_run
from configs.experiment.command_line import options_of, parts_of
from data_prep.warc import write_pages
from launch.export import Command as ExportCommand
from launch.export_documents import Command as ExportDocumentsCommand
from launch.import_model import Command as ImportCommand
from launch.inspect_tokenizer import Command as InspectCommand
from launch.verify_shards import Command as VerifyCommand
from tests.commands import call
from tests.corpus import web_pages
from tests.docs_figures import PICTURES, marked, picture_figures
from tests.run_files import REPOSITORY

FILES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
NAMES = "make cp rm mv python pip uv gzip diff .venv/bin/python .venv/bin/pip .venv/bin/dask"
COMMANDS = NAMES.split()
MARK = re.compile(r"<!-- not run: (.+) -->")
READ_ONLY = {
    "launch.pretrain": "trains a model",
    "launch.train": "trains a model",
    "launch.finetune": "trains a model",
    "launch.reinforce": "trains a model",
    "launch.chat": "needs a trained model",
    "launch.evaluate": "needs a trained model",
    "launch.lm_eval": "needs a trained model",
    "launch.sample": "needs a trained model",
    "launch.serve": "needs a trained model, and does not end",
    "launch.supervise": "trains a model",
    "launch.export": "needs a trained model",
    "launch.verify_shards": "needs the shards of a run",
    "launch.import_model": "needs a model's files",
    "launch.index_corpus": "needs the shards of a run",
    "launch.search_corpus": "needs the index of a run",
    "launch.scaling": "trains a ladder of models",
}
"""{script: why its commands are only parsed}: tests/test_end_to_end.py and others run them all."""
ALONE = {
    "launch.inspect_tokenizer": InspectCommand,
    "launch.export": ExportCommand,
    "launch.export_documents": ExportDocumentsCommand,
    "launch.import_model": ImportCommand,
    "launch.verify_shards": VerifyCommand,
}
"""{script without a config: its command}."""
OF_SMALL = """--documents.steps gopher_quality exact_dedup --tokenizer.vocab-size 400
--shards.validation-fraction 0.2"""
SMALL = OF_SMALL.split()
"""Options that make the demo's stages quick on a few pages."""


@dataclass(frozen=True)
class Block:
    place: str
    """File and line."""
    language: str
    """Language of a fence; "" for an indented block."""
    text: str
    not_run: str
    """The reason in the comment before a block; "" if it is run."""

    @property
    def is_shell(self) -> bool:
        first = self.text.split()[0]
        return (
            self.language == "sh" or first in COMMANDS or first.startswith("--") or bool(re.match(r"[A-Z_]+=", first))
        )


def blocks_of(path: Path) -> list[Block]:
    found: list[Block] = []
    lines = path.read_text().splitlines()
    number = 0
    while number < len(lines):
        line, first, language = lines[number], number, ""
        body: list[str] = []
        if line.startswith("```"):
            language = line[3:].strip()
            number += 1
            while not lines[number].startswith("```"):
                body.append(lines[number])
                number += 1
        elif line.startswith("    ") and (number == 0 or not lines[number - 1].strip()):
            while number < len(lines) and (lines[number].startswith("    ") or not lines[number].strip()):
                body.append(lines[number][4:])
                number += 1
        number += 1
        if body:
            before = " ".join(lines[max(0, first - 2) : first])  # the line before, or one blank line between
            mark = MARK.search(before)
            text = "\n".join(body).strip("\n")
            place = f"{path.relative_to(REPOSITORY)}:{first + 1}"
            found.append(Block(place, language, text, mark[1] if mark else ""))
    return found


BLOCKS = [block for path in FILES for block in blocks_of(path)]
SHELL = [block for block in BLOCKS if block.is_shell]
PYTHON = [block for block in BLOCKS if block.language == "python"]


def calls_in(text: str, folder: Path) -> list[list[str]]:
    """The commands of a block with their words, as bash parses them; none is run."""
    stubs, record = folder / "stubs", folder / "record"
    within = lambda name: folder / name if "/" in name else stubs / name
    (folder / ".venv/bin").mkdir(parents=True)
    stubs.mkdir()
    for place in map(within, COMMANDS):
        place.write_text(f"#!/bin/bash\n{{ printf '%s\\0' \"${{0##*/}}\" \"$@\"; printf '\\n\\0'; }} >> {record}\n")
        place.chmod(0o755)
    (stubs / "nproc").write_text("#!/bin/bash\necho 2\n")
    (stubs / "head").write_text("#!/bin/bash\nexit 0\n")
    for name in ("nproc", "head"):
        (stubs / name).chmod(0o755)
    if text.startswith("--"):  # only options
        text = f"python -m launch.train configs/demo.py {text}"
    environment = {"PATH": str(stubs), "PWD": str(folder)}
    done = subprocess.run(["/bin/bash", "-euc", text], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [list(filter(None, call.split("\0"))) for call in record.read_text().split("\n\0") if call]


@pytest.fixture
def calls(tmp_path) -> Callable[[Block], list[list[str]]]:
    return lambda block: calls_in(block.text, tmp_path / "read")


def check_call(words: list[str]) -> None:
    """Raise the error of the script for such a command."""
    program, *words = words
    if program == "make":
        target = words[0]
        assert re.search(rf"^{target}:", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    elif program != "python":
        return
    elif words[0] == "-c":
        compile(words[1], "block", "exec")
    else:
        assert words[0] == "-m"
        check_script(words[1], words[2:])


def check_script(script: str, words: list[str]) -> None:
    assert importlib.util.find_spec(script), script
    if script.startswith("tests."):
        return
    if script in ALONE:
        tyro.cli(ALONE[script], args=words)
        return
    if script == "launch.supervise":
        script, *words = words
        assert script in ("launch.pretrain", "launch.train")
    assert script.startswith("launch.")
    if script.startswith("launch.cloud."):
        importlib.import_module(script).main([*words, "--dry-run"])
        return
    words = [str(REPOSITORY / "configs/demo.py") if word == "CONFIG.py" else word for word in words]
    if "--help" in words:
        words.remove("--help")
    of_a_run = script in ("launch.finetune", "launch.reinforce")
    if of_a_run and words[1:] and words[1].endswith(".py"):  # the config of another run's experiment
        assert (REPOSITORY / words.pop(1)).is_file()
    if words[0].startswith("runs/"):  # a run's own config
        words[0] = str(REPOSITORY / "configs/demo.py")
    options = getattr(importlib.import_module(script), "Options", None)
    parse_run(script, "", words, options=options)


@pytest.mark.parametrize("block", SHELL, ids=lambda block: block.place)
def test_scripts_accept_every_command(block, calls, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    if "launch.NAME" in block.text:  # the general form of commands
        return
    found = calls(block)
    assert found
    for words in found:
        check_call(words)


@pytest.mark.parametrize("block", PYTHON, ids=lambda block: block.place)
def test_python_blocks_are_valid(block):
    compile(block.text, block.place, "exec")
    if not block.not_run:
        exec(compile(block.text, block.place, "exec"), {})


def test_every_option_in_the_text_exists():
    demo = load_config(REPOSITORY / "configs/demo.py")
    known = {*options_of(demo), *(part.replace("_", "-") for part in parts_of(demo))}
    known |= {"model.rope-scaling", "train.optimizer.muon"}  # None in the demo
    for path in FILES:
        for option in re.findall(r"--([a-z]+\.[a-z][a-z.-]*[a-z])", path.read_text()):
            parents = [option.rsplit(".", count)[0] for count in range(option.count(".") + 1)]
            assert option == "section.field" or any(one in known for one in parents[:2]), f"{path.name}: --{option}"


def test_every_linked_file_exists():
    for path in FILES:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text()):
            assert (path.parent / target).exists(), f"{path.name}: {target}"


BRITISH = r"(?i)\b\w*(?:neighbour|behaviour|licence|colour|labelled|learnt|centre|normalis|recognis|initialis)\w*"


def test_the_docs_have_american_spelling():
    for path in FILES:
        text = re.sub(r"```.*?```|`[^`]*`|https?://\S+", "", path.read_text(), flags=re.DOTALL)
        assert not re.findall(BRITISH, text), path.name


def test_commands_write_only_into_folders_that_git_ignores():
    text = "\n".join(path.read_text() for path in FILES)
    written = re.findall(r"(?:launch\.(?:export|import_model) \S+|--(?:out|workdir|local-dir)) (\w[\w-]*)/", text)
    assert {"release", "downloads", "runs"} == set(written)
    ignored = (REPOSITORY / ".gitignore").read_text().splitlines()
    assert {f"/{folder}" for folder in written} <= set(ignored)


def test_the_readme_is_short_and_each_entry_has_at_most_three_pages():
    assert len((REPOSITORY / "README.md").read_text().split()) <= 1200
    index = (REPOSITORY / "docs/README.md").read_text()
    doors = re.findall(r"^\| \*\*(.+?)\*\* \| (.+) \|$", index, re.MULTILINE)
    assert [name for name, _ in doors] == ["see it learn", "train a baseline", "clean a crawl", "rent a cluster"]
    assert all(1 <= len(re.findall(r"\]\(", pages)) <= 3 for _, pages in doors)


def test_every_page_is_in_the_index_and_links_back_to_it():
    index = (REPOSITORY / "docs/README.md").read_text()
    assert "(docs/README.md)" in (REPOSITORY / "README.md").read_text()
    for path in FILES[1:]:
        if path.name != "README.md":
            assert f"]({path.name})" in index, f"docs/README.md does not link {path.name}"
            assert "[All docs](README.md)" in path.read_text().splitlines()[2], path.name


def test_figures_and_pictures_of_the_demo_come_from_one_run():
    """tests/test_demo.py compares them with a run; `python -m tests.docs_figures runs/demo` writes them."""
    found: dict[str, set[str]] = {}
    for path in FILES:
        for name, figure in marked(path.read_text()):
            found.setdefault(name, set()).add(figure)
    assert set(found) >= {"documents", "bits_per_byte", "gzip", "xz"}
    for path in PICTURES:
        of_picture = picture_figures(path)
        assert all({of_picture[name]} == figures for name, figures in found.items()), path.name


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> Path:
    """A folder in which runs/demo has the demo's stages up to the shards, of 60 pages."""
    folder = tmp_path_factory.mktemp("docs")
    (folder / "configs").symlink_to(REPOSITORY / "configs")
    write_pages(folder / "pages.warc.gz", web_pages(60))
    with contextlib.chdir(folder):
        for script in ("fetch_pages", "extract_texts", "prepare_documents", "train_tokenizer", "write_shards"):
            start(f"launch.{script}", ["configs/demo.py"], folder)
    return folder


def start(script: str, words: list[str], folder: Path) -> None:
    """Run a script in this process on a few pages. Of repeated options the last one counts."""
    small = [] if script in ALONE else ["--pages.warc", str(folder / "pages.warc.gz"), *SMALL]
    assert call(script, *words, *small) == 0, words


RUN = [block for block in SHELL if not block.not_run and "launch.NAME" not in block.text]


def why_not(words: list[str]) -> str:
    """Why a command is only parsed; "" if it is run."""
    if words[0] in ("make", "diff", "dask", "pip", "uv", "gzip"):
        return "has tests of its own, or needs the demo's own pages"
    if any(word.startswith("configs/") and word != "configs/demo.py" for word in words):
        return "its pages are not here"
    if "runs/assistant" in words:
        return "needs a finetuned run"
    if words[:2] == ["python", "-m"] and words[2].startswith("launch.cloud."):
        return "writes into runs/cloud of the repository: its dry run is above"
    if words[:2] == ["python", "-m"] and words[2].startswith("tests."):
        return "a benchmark"
    return READ_ONLY.get(words[2], "") if words[:2] == ["python", "-m"] else ""


@pytest.mark.parametrize("block", RUN, ids=lambda block: block.place)
def test_the_blocks_work_on_a_small_run(block, calls, demo, monkeypatch, tmp_path, capsys):
    found = calls(block)
    if all(why_not(words) or words[0] in ("cp", "rm") for words in found):
        return
    monkeypatch.chdir(demo)
    before = set((demo / "runs").iterdir())
    for words in found:
        if why_not(words) or "--help" in words:
            continue
        run_call(words, demo)
    for made in set((demo / "runs").iterdir()) - before:
        shutil.rmtree(made) if made.is_dir() else made.unlink()


def run_call(words: list[str], folder: Path) -> None:
    program, *words = words
    if program == "cp":
        assert words[0] == "-r"
        shutil.copytree(words[1], words[2])
    elif program == "rm":
        for name in words:
            Path(name).unlink(missing_ok="report" in name or "sample" in name or "evaluate" in name or "train" in name)
    elif words[0] == "-c":
        exec(compile(words[1], "block", "exec"), {"__name__": "block"})
    else:
        start(words[1], words[2:], folder)
