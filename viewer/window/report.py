"""The report of a finished run: figures, settings, sources, and one document followed from its HTML to its loss."""

import contextlib
import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

from lm.errors import InputError, UsageError
from lm.fields import flatten
from lm.resilience.goodput import PHASES, share_of_steps
from lm.serving.inspections import Inspection
from viewer.run_folder import FinishedRun, read_run, summarize
from viewer.training_data import finite
from viewer.window.corpus.run_data import or_missing
from viewer.window.followed import FollowedDocument, read_followed
from viewer.window.window_run import WindowRun

SUMMARY = (
    "pages_read", "documents_kept", "clean_text_bytes", "vocab_size", "parameters", "steps", "validation_loss",
    "seconds", "versions",
)  # fmt: skip
"""Fields of summary.json that are also in the report."""
DTYPE_BYTES = {"float32": 4, "bfloat16": 2}
MOST_FILES = 20
"""Maximum input files to list."""


def inspections(run: WindowRun) -> list[Inspection]:
    work = run.experiment.train.stages(run.experiment.model.context_length).windows_before
    asked = [
        Inspection(
            "report", (), lambda fields: report_answer(read_run(run.paths.root, run.experiment.documents, work)),
            "figures of the run: data, training, scores, time, settings, sources",
        ),
        Inspection(
            "followed", (), lambda fields: dataclasses.asdict(followed_document(run)),
            "one document, from its HTML to its tokens",
        ),
    ]  # fmt: skip
    return or_missing(asked)


def to_record(run: WindowRun) -> Iterator[tuple[str, dict]]:
    yield "report", {}
    yield "followed", {}
    with contextlib.suppress(InputError, UsageError):  # the page says why there is no document
        yield "score", {"tokens": followed_document(run).ids}


@functools.lru_cache(maxsize=1)  # asked for twice for an exported page, and may read whole archives
def followed_document(run: WindowRun) -> FollowedDocument:
    thresholds, most = run.data.thresholds(), run.experiment.model.context_length - 1
    return read_followed(run.paths.root, run.experiment, run.tokenizer, thresholds, most)


def report_answer(run: FinishedRun) -> dict[str, Any]:
    """Answer /v1/inspect/report: figures, settings and sources of a run. Numbers that are not finite are null."""
    summary, config, files = summarize(run), run.config, run.pages["files"]
    last = run.curves.train[-1] if run.curves.train else {}
    return {
        **{name: summary[name] for name in SUMMARY},
        **{name: summary[f"train_{name}"] for name in ("tokens_per_second", "mfu", "cpu_matmul_share")},
        "name": run.name, "damage": run.damage, "splits": run.splits, "fingerprint": run.tokenizer.fingerprint,
        "model": {name: config["model"][name] for name in ("layers", "width", "heads", "context_length")},
        "tokens_read": finite(last.get("tokens")), "validation_bytes": run.compression["validation_bytes"],
        **compression(run),
        "scores": [
            {"task": one.task, "figure": one.figure, "ends": [one.points[0], one.points[-1]] if one.points else [],
             "final": one.final, "by_harness": one.by_harness, "guessing": one.guessing}
            for one in run.scores
        ],
        "attempts": run.attempts, "goodput": finite(share_of_steps(run.phases)),
        "phases": {PHASES.get(phase, phase): seconds for phase, seconds in run.phases.items() if seconds >= 0.1},
        "settings": settings(config),
        "files": [{name: one.get(name) for name in ("path", "pages", "bytes")} for one in files[:MOST_FILES]],
        "files_in_all": len(files), "files_bytes": sum(one["bytes"] for one in files),
        "packages": run.pages.get("packages", []),
    }  # fmt: skip


def compression(run: FinishedRun) -> dict[str, Any]:
    """Return bits per byte of each compressor ("rates"), the size of the model's parameters, and the bytes of text from
    which the model with its parameters takes less space than gzip ("breaks_even"; None: never)."""
    rates, dtype = run.compression["rates"], run.config["model"]["parameter_dtype"]
    parameter_bytes = run.compression["parameters"] * DTYPE_BYTES[dtype]
    saved = rates["gzip -9"] - rates["this model"]
    return {
        "rates": {name: finite(rate) for name, rate in rates.items()},
        "parameter_bytes": parameter_bytes,
        "parameter_dtype": dtype,
        "breaks_even": 8 * parameter_bytes / saved if saved > 0 else None,
    }


def settings(config: dict) -> dict[str, dict[str, object]]:
    """Return {section: {field: value}} of a config.json, without pages.packages, which the report lists separately."""
    sections = {name: dict(values) for name, values in config.items() if isinstance(values, dict)}
    sections.get("pages", {}).pop("packages", None)
    return {
        name: {k: ", ".join(map(str, v)) if isinstance(v, list) else v for k, v in flatten(values).items()}
        for name, values in sections.items()
    }
