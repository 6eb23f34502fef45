"""Documents in the batch of a training step, and the steps at which a document was in a batch."""

import contextlib
import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from lm.data.batches import BatchSource, training_batches
from lm.data.document_rows import DocumentRows
from lm.data.mixture import mixture_of
from lm.data.records import MANIFEST, document_tables
from lm.data.seen import StepOrder, numbers_rise, windows_with
from lm.errors import InputError, UsageError
from lm.serving.fields import Fields, wrong
from lm.serving.inspections import Inspection
from viewer.training_data import changed_at, short, visible
from viewer.window.corpus.run_data import or_missing
from viewer.window.window_run import WindowRun

MOST_SEQUENCES, MOST_SEGMENTS, MOST_TOKENS = 64, 24, 1024
"""Maximum sequences of an answer, listed documents of each, and tokens of one."""
MOST_PLACES = 1000
SECONDS = 0.5
URL_SECONDS = 0.1
"""Time for looking up the URLs of a batch's documents; the others are listed by number only."""
COLUMNS = ("url", "split", "tokens")


class Batches:
    """Batches that the run trains on. The shards are opened on first use."""

    def __init__(self, run: WindowRun):
        self.run, self.config = run, run.experiment.train
        self._stamp: tuple[int, int] | str | None = "not opened"

    def open(self) -> BatchSource:
        """Open the shards, again if they changed. Raises InputError or UsageError if no shards of this run exist."""
        manifest = self.run.paths.tokens / MANIFEST
        if not manifest.is_file() and self.config.reads_own_shards:
            raise InputError(self.run.data.missing(self.run.paths.tokens, "launch.write_shards"))
        stamp = changed_at(manifest)
        if stamp != self._stamp:
            for folder in mixture_of(self.config, self.run.paths.tokens):
                if not isinstance(folder, Path):
                    raise InputError(f"The run reads {folder}, which is not on this machine: no batch can be shown.")
            self.source = training_batches(
                self.run.experiment.model, self.config, self.run.paths.tokens, self.run.tokenizer.fingerprint, 1
            )
            self.order = StepOrder(self.source, self.config.steps)
            self.tables = [DocumentRows(document_tables(one.folder), COLUMNS) for one in self.source.sources]
            self._stamp = stamp
        return self.source

    def about(self) -> dict[str, Any]:
        """Return the fields of answers that are the same for all steps: "batch_size", "folders" of shards, ..."""
        own, read = self.run.paths.tokens.resolve(), self.source.windows_read(self.config.steps)
        return {
            "steps": self.config.steps, "trained": self.run.steps()[-1], "batch_size": self.config.batch_size,
            "context_length": self.run.experiment.model.context_length, "windows": self.source.windows,
            "folders": [
                {"name": str(one.folder)[:2000], "own": one.folder.resolve() == own, "share": read[index] / sum(read),
                 "windows": len(one.windows)}
                for index, one in enumerate(self.source.sources)
            ],
        }  # fmt: skip


def inspections(run: WindowRun) -> list[Inspection]:
    batches = Batches(run)
    asked = [
        Inspection(
            "batch", ("step", "sequence", "offset", "token"), lambda fields: batch(batches, fields),
            "the documents in the batch of a training step, and the tokens of one of its sequences",
            "batches",
        ),
        Inspection(
            "seen", ("document", "folder", "step"), lambda fields: seen(batches, fields),
            "training steps whose batch has a document",
            "batches",
        ),
    ]  # fmt: skip
    return or_missing(asked)


def to_record(run: WindowRun) -> Iterator[tuple[str, dict]]:
    yield "batch", {}
    try:
        Batches(run).open()
    except (InputError, UsageError):
        return
    for step in sorted({1, run.experiment.train.steps}):
        yield "batch", {"step": step, "sequence": 0}


def batch(batches: Batches, fields: Fields) -> dict[str, Any]:
    """Answer /v1/inspect/batch: the documents in the batch of the training step "step", which counts from 1, and the
    tokens of one of its sequences. Without "step": the first step and the batch size of each stage of the training."""
    source = batches.open()
    if fields.get("step") is None:
        stages = source.stages.between(0, batches.config.steps)
        shown = [{"step": one.first_step + 1, "batch_size": one.windows, "parts": one.parts} for one in stages]
        return batches.about() | {"stages": shown}
    step = fields.integer("step", 1, 1, batches.config.steps)
    stage, first = source.stages.at(step - 1), source.stages.windows_before(step - 1)
    sequence = fields.integer("sequence", 0, 0, stage.windows - 1)
    offset = fields.integer("offset", 0, 0, stage.windows - 1)
    token = fields.integer("token", 0, 0, source.context_length - 1)
    places = source.places(step - 1)
    folder, number = places[sequence]
    windows = source.sources[folder].windows
    arrays = windows[number]
    inputs, targets, segments, weights = (array[token : token + MOST_TOKENS].tolist() for array in arrays)
    special = batches.run.tokenizer.special_names
    text_of = lambda id: special.get(id) or short(visible(batches.run.tokenizer.token_bytes(id)))
    until = time.monotonic() + URL_SECONDS
    sequences = [
        sequence_json(batches, index, *places[index], until)
        for index in range(offset, min(offset + MOST_SEQUENCES, len(places)))
    ]
    return batches.about() | {
        "step": step, "offset": offset, "sequences": sequences, "batch_size": stage.windows, "parts": stage.parts,
        "epochs": [1 + first // source.windows, 1 + (first + stage.windows - 1) // source.windows],
        "sequence": {
            "sequence": sequence, "folder": folder, "window": number, "first": token, "tokens": len(arrays[0]),
            "ids": inputs, "targets": targets, "segments": segments, "weights": [int(one) for one in weights],
            "texts": {str(id): text_of(id) for id in {*inputs, *targets}}, "documents": windows.segments(number),
        },
    }  # fmt: skip


def sequence_json(batches: Batches, index: int, source: int, number: int, until: float) -> dict[str, Any]:
    """Return the documents of sequence `index` of a batch: number, position and token count of each, and its URL if
    found before the time `until`. The sequence is number `number` in the shards of the folder with index `source`."""
    windows = batches.source.sources[source].windows
    _, _, segments, weights = windows[number]
    starts = np.flatnonzero(np.diff(segments, prepend=0) > 0)
    used = int(np.count_nonzero(segments))
    ends = [*starts[1:].tolist(), used][: len(starts)]  # a packed record may have a window of padding alone
    documents = []
    for document, begin, end in itertools.islice(
        zip(windows.segments(number), starts.tolist(), ends, strict=True), MOST_SEGMENTS
    ):
        documents.append({"document": document, "begin": begin, "tokens": end - begin})
        with contextlib.suppress(InputError):  # the table of documents is damaged
            found = batches.tables[source].at(document) if time.monotonic() < until else None
            documents[-1] |= {"url": found["url"][:2000]} if found and found["url"] else {}
    return {
        "sequence": index, "folder": source, "window": number, "documents": documents, "count": len(starts),
        "padding": len(segments) - used, "targets": int(weights.sum()),
    }  # fmt: skip


def seen(batches: Batches, fields: Fields) -> dict[str, Any]:
    """Answer /v1/inspect/seen: the training steps whose batch has a document; "next" is "step" of the next request.
    Raises ApiError for wrong fields."""
    source = batches.open()
    own = batches.run.paths.tokens.resolve()
    folders = [index for index, one in enumerate(source.sources) if one.folder.resolve() == own]
    if fields.get("folder") is None and not folders:
        return {"missing": "The run was not trained on its own documents: train.own_weight is 0."}
    folder = fields.integer("folder", *folders[:1] or (0,), 0, len(source.sources) - 1)
    document, first = fields.integer("document", 0, 0, 2**53), fields.integer("step", 1, 1, batches.config.steps)
    known = batches.tables[folder].at(document)
    if known is None:
        raise wrong("document", document, "the number of a document of that folder")
    until = time.monotonic() + SECONDS
    stop = lambda: time.monotonic() > until
    windows = source.sources[folder].windows
    numbers, whole = (
        windows_with(windows, document, numbers_rise(windows), lambda: time.monotonic() > until + 10 * SECONDS)
        if known["split"] == "train"
        else (np.zeros(0, np.int64), True)
    )
    found, next_step = [], None
    if len(numbers):
        found, next_step = batches.order.places(source.numbered(folder, numbers), first - 1, stop)
    return batches.about() | {
        "document": document, "folder": folder, "split": known["split"], "tokens": known["tokens"],
        "url": (known["url"] or "")[:2000], "in_windows": len(numbers), "whole": whole, "from": first,
        "next": None if next_step is None else next_step + 1, "count": len(found),
        "places": [[step + 1, sequence] for step, sequence in found[:MOST_PLACES]],
    }  # fmt: skip
