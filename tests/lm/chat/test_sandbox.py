"""Templates that try to take the machine are refused at once, in processes with limits of memory and CPU time."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lm.chat.attacks import ATTACKS, HARMLESS, REVIEWED

ROOT = Path(__file__).parents[3]


def outcomes(*options: str) -> list[dict]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.lm.chat.attacks", *options], stdout=subprocess.PIPE, text=True, check=True,
        cwd=ROOT, env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
    )  # fmt: skip
    return list(map(json.loads, done.stdout.splitlines()))


@pytest.mark.parametrize(("options", "attacks"), [
    (("--quick",), REVIEWED), pytest.param((), ATTACKS, marks=pytest.mark.slow)
])  # fmt: skip
def test_attacks_are_refused_and_harmless_templates_rendered(options, attacks):
    found = {one["template"]: one for one in outcomes(*options)}
    assert not {jinja: one for jinja in attacks if "refused" not in (one := found[jinja])}
    assert {jinja: found[jinja].get("text") for jinja in HARMLESS} == HARMLESS


def test_the_number_of_attacks():
    assert len(ATTACKS) == len(set(ATTACKS)) == 246
