"""The lookup of the steps of a document is the exact inverse of the documents of a step."""

from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from lm.data.batches import BatchSource
from lm.data.seen import StepOrder, windows_with
from tests.lm.shard_files import FINGERPRINT, LENGTH, STREAMS, random_stream, write_tokens

STEPS, BATCH = 24, 3


def again(stream):
    """A stream with two copies of each document, far apart."""
    tokens, documents = stream
    return np.concatenate([tokens, tokens]), np.concatenate([documents, documents])


OTHERS = [random_stream(3, 130, 3000, 0), again(random_stream(4, 61, 3500, 50))]


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> list[Path]:
    made = []
    for number, streams in enumerate((STREAMS, OTHERS)):
        folder = tmp_path_factory.mktemp(f"tokens{number}")
        made.append(write_tokens(folder, {"train": streams, "val": streams[:1]}))
    return made


@pytest.mark.parametrize("context", [7, LENGTH])
def test_the_steps_of_a_document_are_the_inverse_of_the_documents_of_a_step(folders, context):
    source = BatchSource(
        {folders[0]: 1.0, folders[1]: 2.5}, "train", context, BATCH, 7, 1, tokenizer_fingerprint=FINGERPRINT
    )
    there = defaultdict(list)
    for step in range(STEPS):
        for sequence, origin in enumerate(source.documents(step)):
            for document in origin.documents:
                there[folders.index(Path(str(origin.folder))), document].append((step, sequence))
    order, never_seen = StepOrder(source, STEPS), 0
    for folder, streams in enumerate((STREAMS, OTHERS)):
        windows = source.sources[folder].windows
        for document in sorted({number for _, documents in streams for number in documents.tolist()} | {10**6}):
            numbers, whole = windows_with(windows, document, rising=False)
            assert whole
            if folder == 0:  # it has no copies of documents
                assert numbers.tolist() == windows_with(windows, document, rising=True)[0].tolist()
            assert numbers.tolist() == [one for one in range(len(windows)) if document in set(windows.segments(one))]
            seen = order.places(source.numbered(folder, numbers), 0, lambda: False)
            assert (seen.places, seen.next) == (there[folder, document], None)
            never_seen += not seen.places
    assert never_seen  # at least the unused number
    assert len(there) > 20


def test_an_interrupted_lookup_continues_at_its_end(folders):
    source = BatchSource(folders[0], "train", 7, BATCH, 0, 1, tokenizer_fingerprint=FINGERPRINT)
    numbers, _ = windows_with(source.sources[0].windows, 3, rising=True)
    whole = StepOrder(source, 150).places(numbers, 0, lambda: False)
    order, found, step = StepOrder(source, 150), [], 0
    while step is not None:
        part = order.places(numbers, step, lambda: True)
        found, step = found + part.places, part.next
    assert found == whole.places
    assert len(found) > 3
    stopped, complete = windows_with(source.sources[0].windows, 3, rising=False, stop=lambda: True)
    assert (stopped.tolist(), complete) == ([], False)


def test_places_and_numbers_identify_the_windows_of_a_batch(folders):
    source = BatchSource({folders[0]: 1.0, folders[1]: 2.5}, "train", 7, BATCH, 7, 1, tokenizer_fingerprint=FINGERPRINT)
    for step in range(6):
        batch, numbers = source.batch(step), source.numbers(step).tolist()
        for row, (place, number) in enumerate(zip(source.places(step), numbers, strict=True)):
            windows = source.sources[place[0]].windows
            assert np.array_equal(windows[place[1]][0], batch.inputs_BT[row])
            assert source.numbered(place[0], np.array([place[1]])).tolist() == [number]
            segments = batch.segment_ids_BT[row]
            assert len(windows.segments(place[1])) == segments.max()
