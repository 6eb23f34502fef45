"""The run folder's names stand in one file, and what other rooms call the same files agrees."""

import ast
from pathlib import Path

from data_prep.funnel.report import FUNNEL
from data_prep.sources.manifest import MANIFEST
from lm.run_paths import Part, RunPaths
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


def test_nobody_else_spells_a_path_of_the_run_folder():
    for path in FILES:
        name = path.relative_to(REPOSITORY).as_posix()
        if name.startswith(ELSEWHERE) or name == "lm/run_paths.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            joins = isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div)
            if joins and isinstance(node.right, ast.Constant) and node.right.value in NAMES:
                raise AssertionError(f"{name}, line {node.lineno}: {node.right.value!r} is a name of lm/run_paths.py")
