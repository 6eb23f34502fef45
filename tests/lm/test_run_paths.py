"""The run folder's names stand in one file, and what other rooms call the same files agrees."""

import ast
from pathlib import Path

from data_prep.funnel.report import FUNNEL
from data_prep.sources.manifest import MANIFEST
from lm.run_paths import TRAINING_LOGS, Part, RunPaths
from tests.test_house import FILES, REPOSITORY

NAMES = {value.name for value in vars(RunPaths).values() if isinstance(value, Part)} - {"config.json"}
"""Without config.json, which Hugging Face's checkpoints have too."""
ELSEWHERE = ("data_prep", "lm/training")
"""data_prep may not import lm.run_paths. The loop is given its run folder."""


def test_a_part_is_a_name_of_the_class_and_a_path_of_a_run():
    run = RunPaths(Path("runs/demo"))
    assert (RunPaths.tokens, run.tokens) == ("tokens", Path("runs/demo/tokens"))
    assert run.heartbeat() == Path("runs/demo/heartbeat.json")
    assert run.heartbeat(1) == Path("runs/demo/heartbeat-1.json")
    assert run.sample(6) == Path("runs/demo/samples/step-00000006.json")


def test_the_data_pipeline_calls_its_files_the_same():
    assert (RunPaths.funnel, RunPaths.pages_manifest) == (FUNNEL, MANIFEST)


def joined_names(path: Path, to: str = "") -> set[str]:
    """What a file joins to a path by `... / "name"`; with `to`, to that variable or attribute alone."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div) and isinstance(node.right, ast.Constant):
            joined_to = getattr(node.left, "id", getattr(node.left, "attr", ""))
            found |= {str(node.right.value)} if to in ("", joined_to) else set()
    return found


def test_nobody_else_spells_a_path_of_the_run_folder():
    for path in FILES:
        name = path.relative_to(REPOSITORY).as_posix()
        if not name.startswith(ELSEWHERE) and name != "lm/run_paths.py":
            assert not joined_names(path) & NAMES, f"{name} spells names of lm/run_paths.py"


def test_what_training_joins_to_its_run_folder_is_listed():
    read = {RunPaths.tokens, RunPaths.tokenizer, RunPaths.checkpoints}
    for path in FILES:
        if path.relative_to(REPOSITORY).as_posix().startswith("lm/training"):
            assert joined_names(path, "run") <= {*read, *TRAINING_LOGS}, path
