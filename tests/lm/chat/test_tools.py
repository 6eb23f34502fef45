"""The calculator, the search, and calls with wrong arguments."""

import math
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm.chat.tools import (
    MOST_DIGITS,
    MOST_EXPRESSION,
    MOST_QUERY,
    NOTHING,
    PASSAGE_CHARACTERS,
    Result,
    Search,
    Tools,
    calculator,
    cut_passage,
    tools_of,
)
from lm.errors import InputError
from lm.tokenizer import load
from tests.assistant_run import PAGES, write_index

NUMBERS = st.integers(0, 10**6).map(str) | st.decimals(0, 10**4, places=2).map(str)
EXPRESSIONS = st.recursive(
    NUMBERS,
    lambda inner: (
        st.tuples(inner, st.sampled_from("+-*/"), inner).map(lambda three: f"({' '.join(three)})")
        | inner.map("-{}".format)
    ),
    max_leaves=12,
)


@given(EXPRESSIONS)
def test_the_calculator_computes_what_python_does(expression):
    try:
        expected = eval(expression)
    except ZeroDivisionError:
        assert calculator(expression).startswith("Error: ")
        return
    found = calculator(expression)
    assert "(" not in found and " " not in found
    assert float(found) == pytest.approx(expected, rel=1e-11, abs=1e-300)
    if isinstance(expected, int):
        assert found == str(expected)


@given(st.integers(-(10**9), 10**9), st.integers(-(10**9), 10**9).filter(bool), st.sampled_from(["+", "-", "*", "/"]))
def test_results_of_whole_numbers_are_exact_to_twelve_digits(a, b, operator):
    wanted = {"+": a + b, "-": a - b, "*": a * b, "/": Fraction(a, b)}[operator]
    found = Fraction(calculator(f"{a} {operator} {b}"))
    assert abs(found - wanted) <= abs(wanted) * Fraction(1, 10**11)


@pytest.mark.parametrize(
    ("expression", "result"),
    [
        ("(3 + 4) * 12", "84"), ("7 // 2", "3"), ("-7 % 3", "2"), ("2^10", "1024"), ("2 ** -1", "0.5"), ("6 × 7", "42"),
        ("0.1 + 0.2", "0.3"), ("100 / 4", "25"), ("1/3", "0.333333333333"), (" 1 ", "1"), ("1 ** 999999999999", "1"),
        ("2 ** 0.5", "1.41421356237"), ("10 ** 299", "1" + "0" * 299),
    ],
)  # fmt: skip
def test_calculator(expression, result):
    assert calculator(expression) == result


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("9 ** 9 ** 9", "digits"), ("9 ** 9 ** 9 ** 9", "digits"), ("10 ** 300", "digits"),
        ("0.5 ** 10 ** 9", "digits"), ("1e999", "digits"),
        ("1e200 * 1e200", "digits"), ("9" * 900, "digits"), ("1 / 0", "zero"), ("1 % 0", "zero"),
        ("0 ** -1", "negative"), ("(-8) ** 0.5", "real"), ("1j * 1j", "real"), ("x", "not arithmetic"),
        ("f(1)", "not arithmetic"), ("__import__('os').system('ls')", "not arithmetic"), ("(1).real", "not arithmetic"),
        ("'a' * 9", "not arithmetic"), ("[0] * 9", "not arithmetic"), ("1 << 99999", "not arithmetic"),
        ("True + 1", "not arithmetic"), ("~5", "not arithmetic"), ("1 < 2", "not arithmetic"),
        ("None", "not arithmetic"), ("lambda: 0", "not arithmetic"),
        ("1 if 1 else 2", "not arithmetic"), ("", "invalid syntax"),
        ("1 +", "invalid syntax"), ("1; 2", "invalid syntax"), ("1\n2", "invalid syntax"), ("\0", "null"),
        ("(" * 900 + "1" + ")" * 99, ""), ("1" * (MOST_EXPRESSION + 1), f"at most {MOST_EXPRESSION}"),
        ("1+" * 600, f"at most {MOST_EXPRESSION}"), ("\ud800", ""),
    ],
    ids=lambda value: value[:20].encode("ascii", "backslashreplace").decode(),
)  # fmt: skip
def test_what_is_not_arithmetic_is_refused(expression, reason):
    found = calculator(expression)
    assert found.startswith("Error: ") and reason in found and len(found) < 300


@given(st.text("0123456789.()+-*/%^eE_ ", max_size=60))
def test_any_text_gives_a_number_or_an_error(text):
    found = calculator(text)
    if not found.startswith("Error: "):
        assert math.isfinite(float(found)) and len(found) <= MOST_DIGITS + 1


TEXTS = {
    "https://a.example/Brem": PAGES["Brem"],
    "https://a.example/long": "The river Brem is cold.\nA brem is a small boat. " + "It floats. " * 60,
    "https://a.example/later": "Here, Brem is a word in a text about Tolva.\nTolva.",
    "https://a.example/Tolva": "Tolva (a name of old) is a town by the sea. It has two mills.",
    "https://a.example/other": "Some say that Tolva lies far away. Quistian is not Quist, as one says here.",
}


@pytest.fixture(scope="module")
def search(tmp_path_factory) -> Search:
    run = tmp_path_factory.mktemp("indexed")
    write_index(run, TEXTS)
    return Search(run, load(run / "tokenizer"))


@pytest.mark.parametrize(
    ("query", "passage", "page"),
    [
        ("Brem", PAGES["Brem"], "Brem"),  # not the text that mentions it first
        ("brem", None, "long"),  # in this spelling, another paragraph begins with it
        ("Tolva", "Tolva (a name of old) is a town by the sea. It has two mills.", "Tolva"),
        ("tolva", "Tolva (a name of old) is a town by the sea. It has two mills.", "Tolva"),
        (" Tolva ", "Tolva (a name of old) is a town by the sea. It has two mills.", "Tolva"),
        ("Quist", "Some say that Tolva lies far away. Quistian is not Quist, as one says here.", "other"),
    ],
)
def test_search_prefers_the_paragraph_that_begins_with_the_name(search, query, passage, page):
    found = search(query)
    (source,) = found.sources
    assert source.url == f"https://a.example/{page}" and source.passage == found.text
    assert passage is None or found.text == passage
    assert source.split in ("train", "val") and source.document >= 0


@pytest.mark.parametrize(
    "query", ["", "  ", "Quis", "zebra", "Brem Brem", "x" * (MOST_QUERY + 1), "\ud800", "\0", "\n"]
)
def test_nothing_is_found(search, query):
    assert search(query) == Result(NOTHING)


def test_a_passage_is_whole_sentences(search):
    found = search("brem").text
    assert found.startswith("A brem is a small boat. It floats.") and found.endswith("It floats.")
    assert len(found) <= PASSAGE_CHARACTERS
    assert cut_passage("x" * 5000) == "x" * (2 * PASSAGE_CHARACTERS)
    assert cut_passage("It cost 3.50 in 1999. Then more.") == "It cost 3.50 in 1999. Then more."


def test_the_tools_of_a_run_without_an_index(tmp_path, search):
    assert list(tools_of("", search.tokenizer).functions) == ["calculator"]
    assert list(tools_of(str(tmp_path), search.tokenizer).functions) == ["calculator"]
    with pytest.raises(InputError):
        Search(Path(tmp_path), search.tokenizer)


def own(count: int, scale: float = 1.0) -> str:
    """Multiply two
    numbers."""
    if count < 0:
        raise ValueError("count is negative")
    return str(count * scale)


@pytest.mark.parametrize(
    ("name", "arguments", "text"),
    [
        ("own", {"count": 3}, "3.0"),
        ("own", {"count": 3, "scale": 2}, "6"),
        ("own", {}, "Error: own: missing a required argument: 'count'."),
        ("own", {"count": 1, "other": 2}, "Error: own: got an unexpected keyword argument 'other'."),
        ("own", {"count": "3"}, "Error: own: count is '3', but it must be of the type integer."),
        ("own", {"count": -1}, "Error: own: count is negative"),
        ("nothing", {}, "Error: there is no function 'nothing', only own, calculator, search."),
        ("calculator", {"expression": 5}, "Error: calculator: expression is 5, but it must be of the type string."),
        ("search", {"query": None}, "Error: search: query is None, but it must be of the type string."),
        ("search", {"query": ["Brem"]}, "Error: search: query is ['Brem'], but it must be of the type string."),
        ("search", {"self": 1, "query": "Brem"}, "Error: search: got an unexpected keyword argument 'self'."),
    ],
)
def test_wrong_arguments_are_told_to_the_model(search, name, arguments, text):
    tools = Tools({"own": own, "calculator": calculator, "search": search})
    assert tools.call(name, arguments) == Result(text)
