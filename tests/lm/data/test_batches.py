"""batch(step) is pure, an epoch has every window once, and each row equals the same slice of the stream. The shards are
written independently by shard_files.py: each stream is one array."""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lm.data.batches import BatchSource, document_stream
from lm.data.records import read_manifest
from lm.errors import InputError, UsageError
from tests.corpus import tiny_experiment
from tests.lm.shard_files import FINGERPRINT, LENGTH, STREAMS, naive_rows, random_stream, same, write_tokens
from tests.run_files import REPOSITORY

CONTEXT, BATCH = 8, 3  # three windows per record


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_tokens(tmp_path_factory.mktemp("tokens"), {"train": STREAMS, "val": STREAMS[:1]})


def source(folder: Path, split="train", context=CONTEXT, batch=BATCH, seed=0, threads=2) -> BatchSource:
    return BatchSource(folder, split, context, batch, seed, threads, tokenizer_fingerprint=FINGERPRINT)


@pytest.mark.parametrize("context", [1, CONTEXT, LENGTH, 7])
def test_heads_are_targets_at_the_beginning_of_documents(folder, context):
    begins = [
        int(tokens[i])
        for tokens, documents in STREAMS
        for i in range(1, len(tokens))
        if documents[i] != documents[i - 1]
    ]
    batches, found = source(folder, context=context, batch=1), []
    for step in range(batches.windows):
        found += batches.batch(step).targets_BT[batches.heads(step)].tolist()
    assert sorted(found) == begins  # the first tokens of documents are unique here


@settings(max_examples=30, deadline=None)
@given(length=st.integers(1, 40), sizes=st.lists(st.integers(2, 150), min_size=1, max_size=3), data=st.data())
def test_an_epoch_has_every_window_and_every_target_once_as_in_the_naive_reference(length, sizes, data):
    """Also if the context does not divide the record length, so that windows span two records."""
    context = data.draw(st.integers(1, length))
    streams = [random_stream(i, size, 1 + 1000 * i, 200 * i) for i, size in enumerate(sizes)]
    with tempfile.TemporaryDirectory() as name:
        batches = source(write_tokens(Path(name), {"train": streams}, length), context=context, batch=1)
        epoch = [batches.batch(step) for step in range(batches.windows)]
        documents = [batches.documents(step)[0].documents for step in range(batches.windows)]
    assert [(array.dtype.name, array.shape) for array in epoch[0]] == [
        (dtype, (1, context)) for dtype in ("int32", "int32", "int32", "float32")
    ]
    found = {
        int(batch.inputs_BT[0, 0]): (*(array[0].tolist() for array in batch), seen)
        for batch, seen in zip(epoch, documents, strict=True)
    }
    assert found == naive_rows(streams, context)
    targets = [token for batch in epoch for token in batch.targets_BT[batch.weights_BT == 1].tolist()]
    assert sorted(targets) == [token for tokens, _ in streams for token in tokens[1:].tolist()]


@pytest.mark.parametrize("batch_size", [1, 3, 7, 64])
def test_every_epoch_has_every_target_once_in_its_own_order(folder, batch_size):
    """Also if batches span several epochs."""
    batches = source(folder, batch=batch_size)
    targets = sorted(token for tokens, _ in STREAMS for token in tokens[1:].tolist())
    assert batches.sources[0].tokens_per_epoch == len(targets)
    rows = []
    for step in range(-(-3 * batches.windows // batch_size)):
        batch = batches.batch(step)
        rows += [t[w == 1].tolist() for t, w in zip(batch.targets_BT, batch.weights_BT, strict=True)]
    epochs = [rows[i * batches.windows : (i + 1) * batches.windows] for i in range(3)]
    for epoch in epochs:
        assert sorted(token for row in epoch for token in row) == targets
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]  # their orders differ


def test_the_seed_determines_the_order(folder):
    assert same(source(folder, seed=5).batch(2), source(folder, seed=5).batch(2))
    assert not same(source(folder, seed=5).batch(2), source(folder, seed=6).batch(2))


@pytest.mark.fast_rows(2)
@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize(("start", "batch_size"), [(0, 3), (13, 3), (13, 1)])
def test_iterate_yields_the_batch_of_each_step(folder, threads, start, batch_size):
    reference = source(folder, batch=batch_size)
    iterator = source(folder, batch=batch_size, threads=threads).iterate(start)
    for step in range(start, start + 40):
        assert same(next(iterator), reference.batch(step))


@pytest.mark.slow
def test_another_process_gives_the_same_batches(folder):
    program = (
        "import hashlib, sys; from pathlib import Path; from lm.data.batches import BatchSource\n"
        "source = BatchSource(Path(sys.argv[1]), 'train', 8, 3, 0, int(sys.argv[2]))\n"
        "for step in (9, 0, 30): print(hashlib.sha256(b''.join(a.tobytes() for a in source.batch(step))).hexdigest())"
    )
    expected = [hashlib.sha256(b"".join(a.tobytes() for a in source(folder).batch(s))).hexdigest() for s in (9, 0, 30)]
    command = [sys.executable, "-W", "error", "-c", program, str(folder), "7"]
    environment = {**os.environ, "PYTHONHASHSEED": "1"}
    run = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
    assert (run.stderr, run.stdout.split()) == ("", expected)


def test_document_stream_equals_the_stream(folder):
    tokens, documents = document_stream(folder, "train", FINGERPRINT)
    np.testing.assert_array_equal(tokens, np.concatenate([tokens for tokens, _ in STREAMS]))
    np.testing.assert_array_equal(documents, np.concatenate([documents for _, documents in STREAMS]))


def test_wide_tokens_are_not_truncated(tmp_path):
    tokens = 2**31 - 1 - np.arange(LENGTH + 1)
    write_tokens(tmp_path, {"train": [(tokens, np.zeros(LENGTH + 1, np.int64))]}, dtype="uint32")
    batch = source(tmp_path, context=LENGTH, batch=1).batch(0)
    assert batch.inputs_BT[0].tolist() == tokens[:-1].tolist()
    assert batch.targets_BT[0].tolist() == tokens[1:].tolist()


@pytest.fixture
def copy(folder, tmp_path) -> Path:
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def test_invalid_arguments_are_usage_errors_with_both_values(folder):
    with pytest.raises(UsageError, match=r"no split 'test' in .* Choose one of train, val"):
        source(folder, "test")
    with pytest.raises(UsageError, match=r"context of 25 tokens is longer than the records of 24 in .* at most 24"):
        source(folder, context=25)
    with pytest.raises(UsageError, match=rf"tokenizer {FINGERPRINT}, but this experiment's is {'cd' * 32}"):
        BatchSource(folder, "train", CONTEXT, BATCH, 0, 1, tokenizer_fingerprint="cd" * 32)
    with pytest.raises(UsageError, match="cdcd"):
        document_stream(folder, "val", "cd" * 32)


def test_a_config_may_have_any_context_up_to_the_record_length():
    experiment = tiny_experiment()
    assert experiment.shards.record_length == 64
    for context in (36, 64):
        replace(experiment, model=replace(experiment.model, context_length=context))
    with pytest.raises(UsageError, match=r"context_length = 65 is more than shards\.record_length = 64.* at most 64"):
        replace(experiment, model=replace(experiment.model, context_length=65))


def test_missing_and_truncated_shards_are_input_errors(copy):
    name = "train-00001-of-00004.array_record"
    size = (copy / name).stat().st_size
    (copy / name).write_bytes((copy / name).read_bytes()[:-1])
    with pytest.raises(InputError, match=rf"{name} has {size - 1} bytes, but manifest\.json says {size} bytes"):
        source(copy)
    (copy / name).unlink()
    with pytest.raises(InputError, match=rf"{name} is missing"):
        source(copy)
    source(copy, "val")  # the validation shard is complete


def test_a_shard_in_another_format_is_an_input_error(copy):
    name = "val-00000-of-00001.array_record"
    (copy / name).write_bytes(bytes((copy / name).stat().st_size))
    with pytest.raises(InputError, match=rf"Record \d+ of .*{name} cannot be read.*not an Array.*launch\.write_shards"):
        source(copy, "val").batch(0)


def test_a_manifest_with_wrong_counts_is_an_input_error(copy):
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["splits"]["train"]["shards"][0]["records"] += 1
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=r"train-00000.*has 6 chunks of records; 7 of one record each"):
        batches = source(copy)
        list(map(batches.batch, range(batches.windows)))


def test_an_empty_split_is_an_input_error(copy):
    manifest = read_manifest(copy)
    empty = replace(manifest.splits["train"], shards=manifest.splits["train"].shards[2:3])
    (copy / "manifest.json").write_text(replace(manifest, splits={"train": empty}).to_json())
    with pytest.raises(InputError, match="hold no records"):
        source(copy)
