"""The work of every function of text grows linearly with its length (tests/growth.py).

The entries of tests/untrusted.py, of all packages, are tested here: the steps of whole functions, over texts for which
a loop may be quadratic, and the list of regular expressions. tests/bench/linear_time.py measures the time of both.
"""

import ast
import importlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from configs.recipes.gristmill import EXTRACT
from data_prep.extract import extract_text
from data_prep.warc.byte_sources import Pattern
from tests.adversarial import GENERATORS
from tests.bench.extraction import config_for
from tests.data_prep.pages import page
from tests.data_prep.untrusted import Anywhere, AtPlace, Bounded, Within, forget
from tests.growth import superlinear
from tests.hostile_pages import HOSTILE
from tests.test_house import tree_of
from tests.untrusted import FUNCTIONS, PATTERNS

ROOT = Path(__file__).parents[1]
ROOMS = ("configs", "data_prep", "launch", "lm", "viewer")
TEXT, PAGE = 500, 2_000
"""Number of characters, and four times as many."""
MAKERS = {"compile", "match", "fullmatch", "search", "split", "sub", "subn", "findall", "finditer"}
ONE_PLACE = {"match", "fullmatch"}
LIBRARIES = ("re", "regex", "re2")
BLANKS = (" ", "\n", "\t ")


@pytest.mark.parametrize("kinds", [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_steps_of_a_function_grow_linearly(name, kinds):
    """Each of three tests has a third of the kinds of texts, and each function begins with another."""
    function, found = FUNCTIONS[name], {}
    for kind in [*GENERATORS][([*FUNCTIONS].index(name) + kinds) % 3 :: 3]:
        found[kind] = superlinear(function, GENERATORS[kind], TEXT, forget)
    assert not {kind: said for kind, said in found.items() if said}


def test_the_steps_of_extraction_grow_linearly():
    config, found = config_for("gristmill", EXTRACT.min_probability), {}
    walk = lambda page: extract_text(page, config)
    for kind, make in HOSTILE.items():
        found[kind] = superlinear(walk, lambda size, make=make: page(make(size).encode()), PAGE, forget)
    assert not {kind: said for kind, said in found.items() if said}


@pytest.mark.parametrize(
    "quadratic",
    [
        lambda text: [one for start in range(len(text)) for one in text[start:]],
        lambda text: [text.find("b", start) for _ in text for start in range(len(text))],
        lambda text: sum(1 for one in text for other in text if one == other),
    ],
)
def test_quadratic_loops_are_found(quadratic):
    assert superlinear(quadratic, GENERATORS["letters"], 100)
    assert not superlinear(lambda text: [one for one in text if one], GENERATORS["letters"], 100)


def calls() -> Iterator[tuple[str, str]]:
    """(name of the module, name of the enclosing constant, function or class) of each regular expression that is
    compiled in any package, or used without being compiled first."""
    for path in sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py")):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for top in tree_of(path).body:
            for node in ast.walk(top):
                if isinstance(node, ast.ImportFrom):
                    assert node.module not in LIBRARIES, f"{path}: import {node.module} as a whole"
                if isinstance(node, ast.Import):
                    renamed = [one.name for one in node.names if one.name in LIBRARIES and one.asname]
                    assert not renamed, f"{path}: import {renamed} by that name"
                if isinstance(node, ast.Call) and is_maker(node.func):
                    target = top.targets[0] if isinstance(top, ast.Assign) else top
                    yield module, getattr(target, "id", None) or getattr(target, "name", "?")


def is_maker(function: ast.expr) -> bool:
    if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name):
        return function.value.id in LIBRARIES and function.attr in MAKERS
    return isinstance(function, ast.Name) and function.id == Pattern.__name__


def test_every_pattern_is_on_the_list():
    made = {f"{module}.{name}" for module, name in calls()}
    assert not made - set(PATTERNS), "add them to PATTERNS in tests/untrusted.py or tests/data_prep/untrusted.py"
    assert not set(PATTERNS) - made, "they are gone: take them out of PATTERNS"
    assert not {how.function for how in PATTERNS.values() if isinstance(how, Within)} - set(FUNCTIONS)


def patterns_of(value: object) -> list[re.Pattern]:
    """The compiled patterns in the value of a constant."""
    if isinstance(value, Pattern):
        return [value.regex]
    if isinstance(value, dict):
        return patterns_of(list(value.values()))
    if isinstance(value, (list, tuple)):
        return [pattern for item in value for pattern in patterns_of(item)]
    return [value] if hasattr(value, "finditer") else []  # ty: ignore[invalid-explicit-return]


def constant(name: str) -> list[re.Pattern]:
    module, _, name = name.rpartition(".")
    return patterns_of(getattr(importlib.import_module(module), name))


def uses(module: str, name: str) -> set[str]:
    """The methods of a pattern that its module calls."""
    path = ROOT / f"{module.replace('.', '/')}.py"
    path = path if path.exists() else path.parent / path.stem / "__init__.py"
    return {
        node.attr
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == name
    } & MAKERS


def pumped(example: str) -> Iterator[Callable[[int], str]]:
    """Texts of any length that start like the example, and then repeat a part of it, or blanks, to the end."""
    parts = {(start, example[start : start + size]) for start in range(len(example)) for size in (1, 2, 3)}
    parts |= {(0, example[:size]) for size in range(4, len(example) + 1)}
    parts |= {(start, blank) for start in range(len(example) + 1) for blank in BLANKS}
    for start, part in sorted(parts):
        yield lambda size, start=start, part=part: example[:start] + part * (size // len(part)) + "\x01"


WALKED = {name: how for name, how in PATTERNS.items() if isinstance(how, Anywhere)}


@pytest.mark.parametrize("name", WALKED)
def test_a_pattern_matches_its_examples_and_is_used_at_its_places(name):
    how, (module, _, constant_name) = WALKED[name], name.rpartition(".")
    patterns = constant(name)
    assert patterns, f"{name} holds no pattern"
    if isinstance(how, AtPlace):
        assert uses(module, constant_name) <= ONE_PLACE, f"{name} is looked for in all of a text: list it as Anywhere"
    for example in how.examples:
        found = [pattern.search(fitting(pattern, example)) for pattern in patterns]
        assert any(found), f"{name} does not match its example {example!r}"


def fitting(pattern: re.Pattern, text: str) -> str | bytes:
    """The text in bytes for a pattern of bytes, one byte each as long as the text has no other characters."""
    if isinstance(pattern.pattern, str):
        return text
    return text.encode("latin-1") if max(text) < "\u0100" else text.encode("utf-8", "surrogatepass")


def test_bounds_are_small():
    """So small that even quadratic time is short."""
    assert max(how.characters for how in PATTERNS.values() if isinstance(how, Bounded)) <= 1024
