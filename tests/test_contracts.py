"""What docs/contracts.md names in "To add X, touch these files" is there, so that a stranger opens the right files."""

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
SECTION = (
    (REPOSITORY / "docs/contracts.md")
    .read_text(encoding="utf-8")
    .partition("## To add X, touch these files\n")[2]
    .partition("\n## ")[0]
)
FILES = sorted(set(re.findall(r"`((?:[\w.]+/)+(?:\w+\.py)?)`", SECTION)) - {"texts/", "dropped/"})
NAMES = sorted(set(re.findall(r"`(\w+)`\s+in\s+`([\w/]+\.py)`", SECTION)))
ADDED = ("quality filter", "extractor", "source", "stage", "kind of attention", "optimizer", "task", "evaluator")


@pytest.mark.parametrize("added", ADDED)
def test_the_section_tells_of_it_and_names_a_file(added):
    (told,) = re.findall(rf"^\*\*An? {added}\*\*: (.*?)(?=^\*\*|\Z)", SECTION, re.MULTILINE | re.DOTALL)
    assert [one for one in FILES if f"`{one}`" in told]


@pytest.mark.parametrize("path", FILES)
def test_its_files_are_there(path):
    found = REPOSITORY / path
    assert found.parent.is_dir() if found.stem == "NAME" else found.exists()


@pytest.mark.parametrize(("name", "path"), NAMES)
def test_its_names_are_defined_there(name, path):
    text = (REPOSITORY / path).read_text(encoding="utf-8")
    assert re.search(rf"^ *(?:class |def )?{name}\b(?=[:(\[]| =)", text, re.MULTILINE), f"{path} defines no {name}"
