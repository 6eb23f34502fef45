"""The exported page has the same answers as the served one."""

import json
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.slow
OF_THE_MOMENT = {"seconds", "seconds_since"}
"""Fields of answers with times and durations."""
ASK = """([name, fields]) => fetch("/v1/inspect/" + name, {
  method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(fields),
}).then((answer) => answer.json())"""


def alike(one: Any, other: Any, where: str) -> None:
    """Raise AssertionError, with the place, unless both are equal up to rounding errors."""
    if isinstance(one, dict) and isinstance(other, dict):
        assert one.keys() == other.keys(), where
        for key in one.keys() - OF_THE_MOMENT:
            alike(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list) and isinstance(other, list):
        assert len(one) == len(other), where
        for number, pair in enumerate(zip(one, other, strict=True)):
            alike(*pair, f"{where}[{number}]")
    elif isinstance(one, float) and isinstance(other, float):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6, err_msg=where)
    else:
        assert one == other, where


def questions(page: Any) -> dict[str, Any]:
    """{request: answer} of an exported page."""
    return json.loads(page.evaluate("() => document.querySelector('#recorded').textContent"))


@pytest.mark.parametrize("run", ("hostile", "stories", "demo"))
def test_the_server_gives_the_recorded_answers(looked_at, open_page, run):
    recorded = questions(open_page(looked_at(run).exported))
    assert len(recorded) > 10
    live, folder = open_page(looked_at(run).window), looked_at(run).folder
    # The path of the run is not exported.
    here, name_of_run = (json.dumps(one)[1:-1] for one in (str(folder), folder.name))
    for key, answer in recorded.items():
        name, _, fields = key.partition("{")
        found = json.dumps(live.evaluate(ASK, [name, json.loads("{" + fields)]))
        alike(answer, json.loads(found.replace(here, name_of_run)), key)
