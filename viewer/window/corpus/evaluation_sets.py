"""Evaluation sets in the config whose files are on this machine, and their first examples."""

import itertools
from pathlib import Path
from typing import Any, NamedTuple

from configs.experiment import Experiment
from data_prep.decontamination.examples import OPTION, ExampleFile, example_files, read_examples
from lm.config.evaluation import HUB
from lm.errors import UsageError
from lm.evaluation.tasks.sources import SOURCES, local_files
from lm.serving.fields import Fields, wrong
from lm.serving.inspections import Inspection
from lm.storage import is_url
from viewer.window.window_run import WindowRun

MOST_EXAMPLES, AT_ONCE = 200, 20
"""Maximum examples of a set, and of one answer."""
MOST_TEXTS, MOST_CHARACTERS = 5, 2000
"""Maximum texts of an example, and characters of each."""


class EvaluationSet(NamedTuple):
    """An evaluation set in the config, with its files of examples."""

    name: str
    option: str
    """Option of the config that names it."""
    files: list[ExampleFile]
    fields: tuple[str, ...]
    """Fields of an example that contain its text; (): those of known sets."""


def named_sets(experiment: Experiment) -> tuple[list[EvaluationSet], list[str]]:
    """Return (evaluation sets in the config with files on this machine, messages on the others). Downloads nothing."""
    found = []
    left_out = []
    decontamination = experiment.documents.decontamination
    for one in decontamination.sets:
        if any(is_url(part) for part in (one, one.partition("=")[2])):
            left_out.append(f"{OPTION}: {one} is not on this machine.")
            continue
        try:
            files = example_files([one])
        except UsageError as error:
            left_out.append(str(error))
            continue
        for name in dict.fromkeys(file.set for file in files):
            own = [file for file in files if file.set == name]
            found.append(EvaluationSet(name, OPTION, own, decontamination.fields))
    for option, section in (("train", experiment.train), ("evaluate", experiment.evaluate)):
        for task in (name for name in section.evaluators if name in SOURCES and section.tasks.data):
            if section.tasks.data == HUB:
                left_out.append(f"{option}.tasks.data: {task} is on the hub, and not on this machine.")
                continue
            try:
                paths = local_files(SOURCES[task], Path(section.tasks.data), f"{option}.tasks.data")
            except UsageError as error:
                left_out.append(str(error))
                continue
            found.append(EvaluationSet(task, f"{option}.tasks.data", [ExampleFile(task, path) for path in paths], ()))
    return list({(one.name, *(file.path for file in one.files)): one for one in found}.values()), left_out


def inspection(run: WindowRun) -> Inspection:
    return Inspection(
        "evaluation_sets", ("set", "offset"), lambda fields: evaluation_sets(run, fields),
        "the evaluation sets that the run's config names, and the first examples of one",
    )  # fmt: skip


def evaluation_sets(run: WindowRun, fields: Fields) -> dict[str, Any]:
    """Answer /v1/inspect/evaluation_sets: without "set", a list of the sets; else examples of that set from "offset"
    on, each as a list of texts: the prompt followed by each answer. Raises ApiError for wrong fields."""
    sets, left_out = named_sets(run.experiment)
    offset = fields.integer("offset", 0, 0, MOST_EXAMPLES - 1)
    if fields.get("set") is None:
        shown = [{"set": number, "name": one.name, "option": one.option} for number, one in enumerate(sets)]
        return {"sets": shown, "left_out": [one[:2000] for one in left_out]}
    if not sets:
        raise wrong(
            "set", fields.get("set"), "left out, because the run's config has no evaluation set on this machine"
        )
    chosen = sets[fields.integer("set", 0, 0, len(sets) - 1)]
    end = min(offset + AT_ONCE, MOST_EXAMPLES)
    examples = []
    for one in itertools.islice(read_examples(chosen.files, chosen.fields), offset, end):
        fields.check_cancelled()
        texts = [text[:MOST_CHARACTERS] for text in one.texts[:MOST_TEXTS]]
        examples.append({"number": one.number, "id": one.id[:200], "texts": texts})
    return {
        "name": chosen.name, "offset": offset, "examples": examples,
        "next": end if len(examples) == end - offset and end < MOST_EXAMPLES else None,
    }  # fmt: skip
