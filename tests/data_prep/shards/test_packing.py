"""Best-fit packing splits no document that fits and loses no token; all readers of shards support it."""

import dataclasses
import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from data_prep.shards import tokenize
from data_prep.shards.sizes import most_bytes
from data_prep.shards.tokenize import cut_records, packed_records
from data_prep.shards.write import write_shards
from lm.corpus_index.build import build_index
from lm.corpus_index.index import CorpusIndex
from lm.data.batches import BatchSource, document_stream
from lm.data.records import from_bytes, read_manifest, to_bytes
from lm.data.seen import numbers_rise, windows_with
from lm.errors import UsageError
from tests.corpus import tiny_experiment
from tests.data_prep.shards.test_tokenize import write_documents
from tests.data_prep.shards.test_write import CONFIG, TEXTS, TOKENIZER
from viewer.window.batches import sequence_json

HEAD, LENGTH = 0, 32
PACKED = dataclasses.replace(CONFIG, packing="best_fit", record_length=LENGTH, shard_bytes=2**20)


def random_documents(seed: int, count: int) -> list[tuple[int, np.ndarray]]:
    """Documents of 1 to 3 records' tokens, head first; some numbers repeat, as for a repeated document."""
    generator = np.random.default_rng(seed)
    sizes = np.concatenate([generator.integers(1, 3 * LENGTH, count - 3), [LENGTH, 2 * LENGTH, 1]])
    texts = [np.append(HEAD, generator.integers(1, 999, size - 1)).astype(np.uint32) for size in sizes]
    return [(number % (count - 1), text) for number, text in enumerate(texts)]


@pytest.mark.parametrize("at_once", [40, 10**9])
@pytest.mark.parametrize("seed", range(6))
def test_documents_that_fit_are_not_split_and_no_token_is_lost(monkeypatch, seed, at_once):
    monkeypatch.setattr(tokenize, "PACKED_AT_ONCE", at_once)
    documents = random_documents(seed, 60)
    records = [from_bytes(to_bytes(one)) for one in packed_records(iter(documents), LENGTH, "uint16")]
    whole, parts = Counter(), []
    for record in records:
        filled = record.valid - 1  # the last valid token is only a target
        assert not record.tokens[record.valid :].any()
        ends = [*record.segment_starts[1:], filled]
        for place, (start, end) in enumerate(zip(record.segment_starts, ends, strict=True)):
            piece, target = record.tokens[start:end].tolist(), int(record.tokens[end])
            number = int(record.document_ids[place])
            if piece[0] == HEAD and target == HEAD:
                whole[number, tuple(piece)] += 1
            else:
                assert place == 0 and (target == HEAD or len(piece) == LENGTH)
                parts.append((number, piece, target))
    fit = [(number, tuple(text.tolist())) for number, text in documents if len(text) <= LENGTH]
    assert whole == Counter(fit)
    for number, text in (one for one in documents if len(one[1]) > LENGTH):
        for begin in range(0, len(text), LENGTH):
            piece, after = text[begin : begin + LENGTH].tolist(), [*text[begin + LENGTH :].tolist(), HEAD]
            parts.remove((number, piece, after[0]))
    assert not parts
    assert [to_bytes(one) for one in packed_records(iter(documents), LENGTH, "uint16")] == list(map(to_bytes, records))


def test_records_are_nearly_full_and_only_documents_longer_than_a_record_are_split():
    documents = [(number, text[:LENGTH]) for number, text in random_documents(7, 600)]
    packed, cut = (list(one(documents, LENGTH, "uint16")) for one in (packed_records, cut_records))
    split = lambda records: sum(int(one.tokens[0] != HEAD) for one in records)
    assert (split(packed), split(cut) > len(cut) / 2) == (0, True) and len(packed) <= 1.02 * len(cut)


def test_a_document_of_exactly_the_size_of_a_gap_fills_it():
    documents = [(number, np.full(size, 7, np.uint32)) for number, size in enumerate([12, 20, 8, 24])]
    records = list(packed_records(iter(documents), LENGTH, "uint16"))
    assert [sorted(one.document_ids.tolist()) for one in records] == [[0, 1], [2, 3]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("run")
    short = [" ".join(text.split()[: 3 + number % 40]) + f" {number}" for number, text in enumerate(TEXTS)]
    for part in range(2):
        write_documents(run / f"documents/{part}.parquet", [(f"<{i}>", short[i]) for i in range(part, len(short), 2)])
    write_shards(run / "documents", TOKENIZER, run / "tokens", PACKED)
    return run


def test_only_the_training_split_is_packed_and_the_manifest_records_it(folder, tmp_path):
    manifest = read_manifest(folder / "tokens")
    assert manifest.packing == "best_fit" and manifest.is_packed("train") and not manifest.is_packed("val")
    plain = dataclasses.replace(PACKED, packing="concatenate")
    write_shards(folder / "documents", TOKENIZER, tmp_path / "tokens", plain)
    other = read_manifest(tmp_path / "tokens")
    assert "packing" not in json.loads((tmp_path / "tokens/manifest.json").read_text())
    assert manifest.splits["val"] == other.splits["val"]
    by_split = lambda one: [(shard.documents, shard.text_bytes) for shard in one.splits["train"].shards]
    assert by_split(manifest) == by_split(other)
    for shard in manifest.splits["train"].shards:
        assert shard.bytes <= most_bytes(shard.tokens, shard.documents, PACKED)
    tokens, _ = document_stream(folder / "tokens", "val")
    assert len(tokens) == manifest.splits["val"].tokens
    with pytest.raises(UsageError, match=r"is packed .*, not one stream"):
        document_stream(folder / "tokens", "train")


@pytest.mark.parametrize("context", [8, LENGTH])
def test_an_epoch_has_every_token_once(folder, context):
    source = BatchSource(folder / "tokens", "train", context, 4, 0, 1)
    manifest = read_manifest(folder / "tokens")
    inputs, targets = Counter(), 0
    for number in range(source.windows):
        tokens, after, segments, weights = source.sources[0].windows[number]
        inputs.update(tokens[weights > 0].tolist())
        targets += int(weights.sum())
        assert (segments[weights > 0] > 0).all() and (after[weights == 0] == 0).all()
    assert targets == source.sources[0].tokens_per_epoch == sum(s.tokens - 1 for s in manifest.splits["train"].shards)
    assert inputs[TOKENIZER.bos_id] == manifest.splits["train"].documents


def test_the_steps_with_a_document_are_found(folder):
    windows = BatchSource(folder / "tokens", "train", 8, 4, 0, 1).sources[0].windows
    assert not numbers_rise(windows)
    there = [set(windows.segments(number)) for number in range(len(windows))]
    for document in range(0, len(TEXTS), 7):
        found, _ = windows_with(windows, document, rising=False)
        assert found.tolist() == [number for number, documents in enumerate(there) if document in documents]


def test_the_corpus_index_finds_every_document_once(folder):
    build_index(folder / "tokens", folder / "corpus_index")
    index = CorpusIndex(folder)
    windows = BatchSource(folder / "tokens", "train", LENGTH, 4, 0, 1).sources[0].windows
    for number in range(0, len(windows), 5):
        record = windows.record(number)
        ends = [*record.segment_starts[1:].tolist(), record.valid - 1]
        for place, (start, end) in enumerate(zip(record.segment_starts.tolist(), ends, strict=True)):
            passage = record.tokens[start + (record.tokens[start] == TOKENIZER.bos_id) : end].tolist()
            if len(passage) > 2:
                found = {index.document_at(spot).number for spot in index.find(passage).spots(1000)}
                assert int(record.document_ids[place]) in found


def test_a_context_that_does_not_divide_the_records_is_rejected(folder):
    with pytest.raises(UsageError, match=r"A context of 7 tokens does not divide the packed records of 32"):
        BatchSource(folder / "tokens", "train", 7, 4, 0, 1)
    tiny = tiny_experiment()
    shards = dataclasses.replace(tiny.shards, packing="best_fit", record_length=72)
    with pytest.raises(
        UsageError, match=r"model\.context_length = 32 does not divide shards\.record_length = 72, as shards\.packing"
    ):
        dataclasses.replace(tiny, shards=shards)


def test_the_window_shows_sequences_of_padding_alone(folder):
    source = BatchSource(folder / "tokens", "train", 8, 1, seed=0, loader_threads=1)
    batches = SimpleNamespace(source=source)
    found = [sequence_json(batches, 0, 0, number, until=0.0) for number in range(source.windows)]  # ty: ignore[invalid-argument-type]
    assert all(sum(part["tokens"] for part in one["documents"]) + one["padding"] == 8 for one in found)
    assert any(one["padding"] == 8 and not one["documents"] for one in found)
