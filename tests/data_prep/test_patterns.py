"""A path that exists is that path, whatever its characters, for every option that takes a shell pattern."""

import re
from pathlib import Path

import pytest

from configs.own_text import get_config
from data_prep.decontamination.examples import example_files
from data_prep.url_filter.lists import user_lists
from launch.finetune import conversation_files
from launch.run_folder.checks import inside
from lm.errors import InputError
from lm.fields import with_values
from tests.data_prep.pages import named_files

ROOT = Path(__file__).parents[2]
IMPORT = re.compile(r"^(?:import glob|from glob import)\b", re.MULTILINE)
NAMES = ["notes[1]", "a[b", "what?", "*", "[!x]", "plain"]
READERS = {
    "pages.tables": lambda path: [str(one) for one in named_files("pages.tables", [path])],
    "documents.decontamination.sets": lambda path: [str(one.path) for one in example_files([path])],
    "documents.url_filter.folders": lambda path: [str(one) for one in user_lists([path])],
    "chat.conversations": lambda path: [str(one) for one in conversation_files(with_conversations(path))],
}


def with_conversations(path: str):
    experiment = get_config()
    return with_values(experiment, {"chat.conversations": (path,)})


@pytest.mark.parametrize("option", READERS)
@pytest.mark.parametrize("name", NAMES)
def test_an_existing_path_is_that_path(tmp_path, monkeypatch, option, name):
    monkeypatch.chdir(tmp_path)
    file = "domains" if option.endswith("folders") else "x.jsonl"
    for folder in (tmp_path / name, tmp_path / "n", tmp_path / "notes1"):
        folder.mkdir(exist_ok=True)
        (folder / file).write_text('{"text": "a"}')
    for pattern in (f"{name}/{file}", f"{name}/{file[:3]}*", str(tmp_path / name / file)):
        found = READERS[option](pattern)
        assert [Path(one).absolute() for one in found] == [tmp_path / name / file], pattern
    if option != "chat.conversations" and not option.endswith("sets"):
        assert [Path(one).absolute() for one in READERS[option](name)] == [tmp_path / name / file]
        with pytest.raises(InputError, match="matches no"):
            READERS[option]("none[1]")
    assert inside(f"{name}/{file}", tmp_path / name) == Path(name, file)


@pytest.mark.parametrize("name", ["notes[1].jsonl", "what?.jsonl", "*.jsonl"])
def test_files_that_the_shell_expanded_keep_their_names(tmp_path, name):
    for one in (name, "other.jsonl"):
        (tmp_path / one).write_text("{}")
    assert list(named_files("pages.tables", [str(tmp_path / name)]).values()) == [name]


def test_no_other_code_expands_patterns_of_users():
    """`Path.glob` is only for patterns in the code, below a folder; the one function for users is in lm/storage."""
    paths = [one for room in ("configs", "data_prep", "launch", "lm", "viewer") for one in (ROOT / room).rglob("*.py")]
    found = [path.relative_to(ROOT).as_posix() for path in paths if IMPORT.search(path.read_text())]
    assert sorted(found) == ["launch/run_folder/bucket.py", "lm/storage/places.py"]  # the first one escapes names
