"""What docs/contracts.md says in "To add X, touch these files" is true: its files and names exist, and each recipe,
carried out in a copy of the tree, adds something that works."""

import dataclasses
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import contract_uses

REPOSITORY = Path(__file__).parents[1]
SECTION = (
    (REPOSITORY / "docs/contracts.md")
    .read_text(encoding="utf-8")
    .partition("## To add X, touch these files\n")[2]
    .partition("\n## ")[0]
)
FILES = sorted(set(re.findall(r"`((?:[\w.]+/)+(?:\w+\.py)?)`", SECTION)) - {"texts/", "dropped/"})
NAMES = sorted(set(re.findall(r"`(\w+)`\s+in\s+`([\w/]+\.py)`", SECTION)))
ADDED = (
    "quality filter", "extractor", "URL list", "source", "stage", "kind of attention", "optimizer", "schedule",
    "activation", "norm", "field of the model", "task", "evaluator", "format of tables",
)  # fmt: skip


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


@dataclasses.dataclass(frozen=True)
class Block:
    """A named block of code of a recipe."""

    kind: str
    """"python", a new file, or "diff", an edit of one."""
    file: str
    text: str

    def carry_out(self, root: Path) -> None:
        path = root / self.file
        if self.kind == "python":
            assert not path.exists(), f"{self.file} is there already"
            path.write_text(self.text, encoding="utf-8")
            return
        lines = self.text.splitlines(keepends=True)
        assert all(line[0] in " +-\n" for line in lines), self.text
        side = lambda sign: "".join(line[1:] or line for line in lines if line[0] != sign)
        before, text = side("+"), path.read_text(encoding="utf-8")
        assert text.count(before) == 1, f"{self.file} has this {text.count(before)} times, not once:\n{before}"
        path.write_text(text.replace(before, side("-")), encoding="utf-8")


def recipes() -> dict[str, list[Block]]:
    """{what is added: the blocks of its recipe}, of the recipes with code."""
    found: dict[str, list[Block]] = {}
    for added, told in re.findall(r"^\*\*An? ([\w ]+)\*\*: (.*?)(?=^\*\*|\Z)", SECTION, re.MULTILINE | re.DOTALL):
        for kind, file, text in re.findall(r"^```(python|diff) (\S+)\n(.*?)^```$", told, re.MULTILINE | re.DOTALL):
            found.setdefault(added, []).append(Block(kind, file, text))
    return found


RECIPES = recipes()


def copied_tree(to: Path) -> Path:
    """A copy of the files that git knows, and of new ones that it does not ignore."""
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(listing, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        if (REPOSITORY / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / name, to / name)
    return to


def run_in(tree: Path, *words: str) -> None:
    """Runs Python there, with the copy's modules and no others of ours."""
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    command = [sys.executable, *words]
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]


def test_every_recipe_with_code_is_used():
    assert {*RECIPES} | {"URL list"} == {*contract_uses.USES}


def test_all_recipes_together_work_in_a_copy(tmp_path):
    """One process, so that it takes seconds."""
    tree = copied_tree(tmp_path / "tree")
    for blocks in RECIPES.values():
        for block in blocks:
            block.carry_out(tree)
    run_in(tree, "-m", "tests.contract_uses", *contract_uses.USES)


TESTS = {
    "activation": ["tests/lm/config", "tests/lm/formats/test_every_field.py", "-k", "config or mlp or table"],
    "norm": ["tests/lm/config", "tests/lm/formats/test_every_field.py", "-k", "config or norm or table"],
    "optimizer": ["tests/lm/config", "tests/lm/planning/test_memory.py"],
    "schedule": ["tests/lm/config"],
    "evaluator": ["tests/lm/config"],
}
"""{what is added: tests that know its table}; of the data half those of all of it."""


@pytest.mark.slow
@pytest.mark.parametrize("added", [*RECIPES])
def test_each_recipe_works_alone_and_breaks_no_test(tmp_path, added):
    tree = copied_tree(tmp_path / "tree")
    for block in RECIPES[added]:
        block.carry_out(tree)
    run_in(tree, "-m", "tests.contract_uses", added)
    run_in(tree, "-m", "ruff", "check", ".")
    tests = TESTS.get(added, ["tests/data_prep/config", "tests/data_prep/test_recipes.py"])
    run_in(tree, "-m", "pytest", "-n", "0", "-q", "-m", "not slow", "tests/test_house.py", *tests)
