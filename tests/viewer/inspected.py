"""Answers of a run, as the page gets them."""

import json
from typing import Any

from lm.serving.answers import to_json
from lm.serving.fields import Fields
from viewer.window.inspections import inspections_of
from viewer.window.window_run import WindowRun


def ask(run: WindowRun, name: str, /, **fields: object) -> Any:
    (one,) = [one for one in inspections_of(run) if one.name == name]
    return json.loads(to_json(one.answer(Fields(fields, one.known))))
