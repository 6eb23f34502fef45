"""Sequence records and the manifest survive a round trip; damage is reported by name."""

import json
import struct
import zlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm.data.records import HEADER, Manifest, SequenceRecord, Shard, Split, from_bytes, read_manifest, to_bytes
from lm.errors import InputError


@st.composite
def records(draw) -> SequenceRecord:
    dtype = draw(st.sampled_from(["uint16", "uint32"]))
    size = draw(st.integers(1, 40))
    valid = draw(st.integers(1, size))
    top = 2 ** (8 * np.dtype(dtype).itemsize) - 1
    tokens = np.array(draw(st.lists(st.integers(0, top), min_size=size, max_size=size)), dtype)
    tokens[valid:] = 0
    starts = sorted({0, *draw(st.lists(st.integers(0, valid - 1)))})
    ids = draw(st.lists(st.integers(0, 2**64 - 1), min_size=len(starts), max_size=len(starts)))
    trained = draw(st.none() | st.lists(st.booleans(), min_size=size, max_size=size).map(np.array))
    return SequenceRecord(tokens, valid, np.array(starts, np.uint32), np.array(ids, np.uint64), trained)


def example() -> SequenceRecord:
    tokens = np.array([7, 1, 2, 7, 3, 0, 0], np.uint16)
    return SequenceRecord(tokens, 5, np.array([0, 3], np.uint32), np.array([11, 2**40], np.uint64))


def masked() -> SequenceRecord:
    return replace(example(), trained=np.array([0, 0, 1, 0, 1, 0, 0], bool))


@given(records())
def test_records_survive_a_round_trip(record):
    found = from_bytes(to_bytes(record))
    assert (found.length, found.valid) == (record.length, record.valid)
    for field in ("tokens", "segment_starts", "document_ids"):
        expected = getattr(record, field)
        assert getattr(found, field).dtype == expected.dtype
        np.testing.assert_array_equal(getattr(found, field), expected)
    assert (found.trained is None) == (record.trained is None)
    if found.trained is not None:
        assert found.trained.dtype == bool
        np.testing.assert_array_equal(found.trained, record.trained)
    assert to_bytes(found) == to_bytes(record)


def test_the_layout_is_as_documented():
    parts = (
        b"GMR1", b"\x02\0\0\0", struct.pack("<III", 6, 5, 2), struct.pack("<7H", 7, 1, 2, 7, 3, 0, 0), b"\0\0",
        struct.pack("<2I", 0, 3), struct.pack("<2Q", 11, 2**40),
    )  # fmt: skip
    body = b"".join(parts)
    assert to_bytes(example()) == body + struct.pack("<I", zlib.crc32(body))
    body = body.replace(b"\x02\0\0\0", b"\x02\x01\0\0", 1) + b"\x28"
    assert to_bytes(masked()) == body + struct.pack("<I", zlib.crc32(body))


@pytest.mark.parametrize("record", [example(), masked()], ids=["plain", "masked"])
def test_every_flipped_bit_and_every_truncation_is_detected(record):
    data = to_bytes(record)
    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(InputError):
            from_bytes(bytes(damaged))
    for size in range(len(data)):
        with pytest.raises(InputError):
            from_bytes(data[:size])


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ((b"GMR1", 3, 0, 6, 5, 2), "tokens of 3 bytes"),
        ((b"GMR1", 2, 0, 6, 5, 3), "64 bytes and loss mask 0, but its header asks for 76"),
        ((b"GMR1", 2, 1, 6, 5, 2), "64 bytes and loss mask 1, but its header asks for 65"),
        ((b"GMR1", 2, 2, 6, 5, 2), "loss mask 2, but its header asks for .* 0 or 1"),
        ((b"GMR2", 2, 0, 6, 5, 2), "GMR2"),
    ],
)
def test_a_wrong_header_is_reported_despite_a_valid_checksum(header, message):
    body = HEADER.pack(*header) + to_bytes(example())[HEADER.size : -4]
    with pytest.raises(InputError, match=message):
        from_bytes(body + struct.pack("<I", zlib.crc32(body)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokens": np.zeros(7, np.int64)}, "tokens are int64"),
        ({"valid": 0}, "valid = 0"),
        ({"valid": 8}, "valid = 8, but the record has 7"),
        ({"valid": 3}, "starts at 3, after the 3 valid"),
        ({"segment_starts": np.array([1, 3])}, "must rise from 0"),
        ({"segment_starts": np.array([0, 0])}, "must rise from 0"),
        ({"segment_starts": np.array([0])}, "1 segment starts and 2 document ids"),
        ({"segment_starts": np.array([]), "document_ids": np.array([])}, "0 segment starts"),
        ({"trained": np.zeros(6, bool)}, "6 values for 7 tokens"),
    ],
)
def test_inconsistent_fields_are_rejected(change, message):
    with pytest.raises(ValueError, match=message):
        to_bytes(replace(example(), **change))


def manifest() -> Manifest:
    shard = Shard("val-00000-of-00001.array_record", 3, 1000, "ab" * 32, 5, 70, 300)
    split = Split(5, 70, 300, 3, (shard,))
    return Manifest("cd" * 32, 8192, 32, "uint16", {"train": split, "val": split}, ())


def test_the_manifest_survives_a_round_trip(tmp_path):
    (tmp_path / "manifest.json").write_text(manifest().to_json())
    assert read_manifest(tmp_path) == manifest()
    packed = replace(manifest(), packing="best_fit", repeats=3)
    (tmp_path / "manifest.json").write_text(packed.to_json())
    assert read_manifest(tmp_path) == packed


def test_a_missing_manifest_is_reported(tmp_path):
    with pytest.raises(InputError, match=r"manifest.json is missing.*launch.write_shards"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("damage", ["cut", "no splits", "no sha256", "a list"])
def test_a_damaged_manifest_is_an_input_error(tmp_path, damage):
    fields = json.loads(manifest().to_json())
    if damage == "no splits":
        del fields["splits"]
    elif damage == "no sha256":
        del fields["splits"]["val"]["shards"][0]["sha256"]
    text = json.dumps([fields] if damage == "a list" else fields)
    (tmp_path / "manifest.json").write_text(text[:-10] if damage == "cut" else text)
    with pytest.raises(InputError, match="is damaged"):
        read_manifest(tmp_path)
