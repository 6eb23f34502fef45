"""Names in the run folder are defined only in lm/run_paths.py, and data_prep uses the same names."""

import ast
import fnmatch
from pathlib import Path

from data_prep.common_crawl.files import LISTS
from data_prep.engine.units import QUARANTINE, SCRATCH, UNITS
from data_prep.funnel.report import FUNNEL
from data_prep.shards.encode import PARTS
from data_prep.sources.manifest import MANIFEST
from launch import write_shards
from lm.run_paths import TRAINING_LOGS, Part, RunPaths
from tests.test_house import FILES, REPOSITORY

NAMES = {value.name for value in vars(RunPaths).values() if isinstance(value, Part)} - {"config.json"}
"""Without config.json, which is also a file of Hugging Face's checkpoints."""
ELSEWHERE = ("data_prep",)
"""data_prep may not import lm.run_paths."""


def test_an_attribute_is_a_name_of_the_class_and_a_path_of_a_run():
    run = RunPaths(Path("runs/demo"))
    assert (RunPaths.tokens, run.tokens) == ("tokens", Path("runs/demo/tokens"))
    assert run.heartbeat() == Path("runs/demo/heartbeat.json")
    assert run.heartbeat(1) == Path("runs/demo/heartbeat-1.json")
    assert run.sample(6) == Path("runs/demo/samples/step-00000006.json")


def test_the_data_pipeline_uses_the_same_names():
    assert (RunPaths.funnel, RunPaths.pages_manifest) == (FUNNEL, MANIFEST)
    assert (RunPaths.units, RunPaths.quarantine, RunPaths.scratch) == (UNITS, QUARANTINE, SCRATCH)
    assert LISTS.startswith(f"{RunPaths.parts}/")
    assert write_shards.STAGE.intermediate == tuple(f"{RunPaths.tokens}/{name}" for name in (PARTS, UNITS, SCRATCH))


def joined_names(path: Path) -> set[str]:
    """Names that a file joins to a path by `... / "name"`."""
    joins = (node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.BinOp))
    return {
        str(join.right.value) for join in joins if isinstance(join.op, ast.Div) and isinstance(join.right, ast.Constant)
    }


def test_only_run_paths_has_paths_of_the_run_folder():
    for path in FILES:
        name = path.relative_to(REPOSITORY).as_posix()
        if not name.startswith(ELSEWHERE) and name != "lm/run_paths.py":
            assert not joined_names(path) & NAMES, f"{name} spells names of lm/run_paths.py"


def parts_used(path: Path) -> set[str]:
    """X of every `RunPaths(...).X` in a file."""
    return {
        node.attr
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Call)
        and getattr(node.value.func, "id", "") == "RunPaths"
    }


def test_training_logs_are_listed():
    read, run = {"tokens", "tokenizer", "checkpoints", "snapshots"}, RunPaths(Path())
    rooms = ("lm/training", "lm/metrics", "lm/resilience")
    files = [path for path in FILES if path.relative_to(REPOSITORY).as_posix().startswith(rooms)]
    used = set().union(*map(parts_used, files))
    assert {"metrics", "goodput", "samples"} <= used
    for name in used - read:
        written = str(getattr(run, name)() if callable(getattr(run, name)) else getattr(run, name))
        assert any(fnmatch.fnmatch(written, pattern) for pattern in TRAINING_LOGS), name
