"""Mutants of a small tree are drawn, found by the test that reaches them, and found again when their lines move."""

from tests.mutants import draw, find_again, run_tests, try_mutant

SOURCE = """def smaller(a, b):
    return a < b


def larger(a, b):
    return a > b
"""
TEST = """from lm.size import smaller


def test_smaller():
    assert not smaller(1, 1)
"""


def test_a_mutant_is_found_by_the_test_that_reaches_it(tmp_path):
    root = tmp_path / "tree"
    source = root / "lm/size.py"
    source.parent.mkdir(parents=True)
    (source.parent / "__init__.py").touch()
    source.write_text(SOURCE)
    (root / "test_size.py").write_text(TEST)
    drawn = draw(root, [], 2, seed=0)
    assert drawn == draw(root, [], 2, seed=0)
    smaller, larger = sorted(drawn, key=lambda mutant: mutant["line"])
    assert [smaller["change"], larger["change"]] == ["a < b -> (a <= b)", "a > b -> (a >= b)"]

    code, tests = run_tests(root, "test_size.py", GRISTMILL_ROOT=f"{root}/")
    recorded = {test["test"]: test for test in tests}
    assert code == 0 and recorded["test_size.py::test_smaller"]["lines"] == {"lm/size.py": [2]}

    source.write_text("# A comment\n" + SOURCE)
    assert find_again(root, smaller) == smaller | {"line": 3}
    source.write_text(SOURCE.replace(smaller["old"], smaller["new"]))
    assert find_again(root, smaller) is None
    assert try_mutant(root, smaller, recorded, slow=False) == "found by test_size.py::test_smaller"
    assert try_mutant(root, larger, recorded, slow=False) == "no test reaches the line"
