"""All inspections of the window, and the export of the page with recorded answers."""

import dataclasses
import json
from collections.abc import Sequence
from types import ModuleType

from lm.errors import UsageError
from lm.serving.answers import to_json
from lm.serving.fields import ApiError, Fields
from lm.serving.inspections import Inspection
from viewer.page import key_of, window_html
from viewer.window import batches, chat, documents, model, model_views, report, tokens, trace, training
from viewer.window.window_run import OUT_OF_MEMORY, WindowRun

ROOMS = (model, report, chat, model_views, tokens, training, documents, batches, trace)
"""Modules with `inspections(run)`, and `to_record(run)`: (name, fields) of the answers in an exported page."""


MESSAGES = ("message", "missing", "why")
"""Fields in which an answer explains why something is missing."""


def inspections_of(run: WindowRun) -> list[Inspection]:
    """Return all inspections, the requests that the window can make. Every inspection with the field "step" also gets
    the field "run", to query other served runs."""
    found = [one for room in ROOMS for one in room.inspections(run)]
    return [
        dataclasses.replace(one, known=(*one.known, "run")) if "step" in one.known and "run" not in one.known else one
        for one in found
    ]


def export_html(run: WindowRun) -> str:
    """Return the HTML of the exported page. For a finetuned or reinforced run, which has no documents, it has only the
    recorded conversations, if there are any, and the curves."""
    if not run.experiment.is_assistant:
        return window_html(record(run))
    answers = record(run, (model, chat, training))
    return window_html(answers, ("chat", "training") if key_of("chat", {}) in answers else ("training",))


def record(run: WindowRun, rooms: Sequence[ModuleType] = ROOMS) -> dict[str, object]:
    """Return {key: answer} of everything that the pages of `rooms` show in an exported page."""
    known = {one.name: one for one in inspections_of(run)}
    answers = {}
    for room in rooms:
        for name, fields in room.to_record(run):
            try:
                answer = known[name].answer(Fields(fields, known[name].known))
            except ApiError as error:
                if error.code != OUT_OF_MEMORY:
                    raise
                continue  # the page reports that this step was not recorded
            except UsageError:
                if run.experiment.model.block == "pre_norm":
                    raise
                continue  # a block of the user's own need not have the values that these pages show
            answers[key_of(name, fields)] = json.loads(to_json(without_place(answer, run)))
    return answers


def without_place(answer: object, run: WindowRun) -> object:
    """Replace the path of the run folder by the run's name in messages and folder names of an answer, since exported
    pages are shared. Other texts stay unchanged."""
    here = str(run.paths.root.absolute())
    if isinstance(answer, list):
        return [without_place(one, run) for one in answer]
    if not isinstance(answer, dict):
        return answer
    shown = {}
    for key, value in answer.items():
        if isinstance(value, str) and (key in MESSAGES or (key == "name" and value.startswith(f"{here}/"))):
            shown[key] = value.replace(here, run.name)
        else:
            shown[key] = without_place(value, run)
    return shown
