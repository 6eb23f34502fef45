"""The shard reader returns the written records, opens few files, and validates all sizes that it reads."""

import gc
import struct
from pathlib import Path

import numpy as np
import pytest
import zstandard
from array_record.python.array_record_module import ArrayRecordWriter  # ty: ignore[import-not-found]

from lm.data.array_record import BLOCK, offsets_of, record_of
from lm.data.batches import BatchSource
from lm.data.records import Shard
from lm.data.shards import OPEN_FILES, ShardRecords
from lm.errors import InputError
from tests.lm.shard_files import FINGERPRINT, random_stream, same, write_tokens

LIMIT = 200_000


def write(path: Path, records: list[bytes], options: str = "group_size:1") -> ShardRecords:
    writer = ArrayRecordWriter(str(path), options)
    for record in records:
        writer.write(record)
    writer.close()
    shard = Shard(path.name, len(records), path.stat().st_size, "", 0, 0, 0)
    found = ShardRecords(path.parent, [shard], 1)
    found.limit = LIMIT
    return found


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def contents(count: int, largest: int, seed: int = 0) -> list[bytes]:
    """Some are compressible, others are not."""
    generator = np.random.default_rng(seed)
    sizes = generator.integers(1, largest, count).tolist()
    return [generator.bytes(size) if i % 3 else bytes([i % 256]) * size for i, size in enumerate(sizes)]


@pytest.mark.parametrize(
    "options", ["group_size:1", "group_size:1,uncompressed", "group_size:1,pad_to_block_boundary:true"]
)
@pytest.mark.parametrize(("count", "largest"), [(1, 10), (500, 2000), (40, 150_000)])
def test_each_record_equals_the_written_one(tmp_path, options, count, largest):
    """Also if the header of a block is within the header of a chunk, or just before it."""
    written = contents(count, largest)
    records = write(tmp_path / "a", written, options)
    assert [records.read(index) for index in range(count)] == written
    run = records.read_run(count // 3, count)
    assert [run.record(index) for index in range(count // 3, count)] == written[count // 3 :]


def test_several_records_in_a_chunk_are_rejected(tmp_path):
    records = write(tmp_path / "a", contents(100, 100), "group_size:4")
    with pytest.raises(InputError, match="The shard has 25 chunks of records; 100 of one record each are expected"):
        records.read(0)


def test_a_damaged_file_is_an_input_error(tmp_path):
    written = contents(60, 3000)
    generator = np.random.default_rng(1)
    write(tmp_path / "a", written)
    whole, wrong = (tmp_path / "a").read_bytes(), 0
    used = np.flatnonzero(np.frombuffer(whole, np.uint8))
    for number in range(300):
        data = bytearray(whole)
        for place in generator.choice(used, 1 + number % 3).tolist():
            data[place] = int(generator.integers(256))
        (tmp_path / "a").write_bytes(data if number % 10 else data[: BLOCK * (len(data) // BLOCK - 1)])
        shard = Shard("a", 60, len(whole), "", 0, 0, 0)
        records = ShardRecords(tmp_path, [shard], 1)
        records.limit = LIMIT
        for index in range(60):
            try:
                assert len(records.read(index)) <= LIMIT
            except InputError:
                wrong += 1
    assert wrong > 1000


def test_an_invalid_footer_is_an_input_error():
    generator, found = np.random.default_rng(0), 0
    entry = bytes([8, 64, 16, 5, 24, 1])
    for number in range(2000):
        sizes, values = bytearray([3, 6, 6]), bytearray(b"abc" + entry + entry)
        values[10] = 90
        for part in (sizes, values) if number % 2 else (values,):
            for place in generator.integers(len(part), size=number % 4).tolist():
                part[place] = int(generator.choice([0, 1, 6, 24, 127, 128, 255]))
        data = b"\0" + bytes([len(sizes)]) + sizes + values
        chunk = struct.pack("<QQQQQ", 0, len(data), 0, ord("r") + 3 * 256, len(values)) + data
        try:
            offsets = offsets_of(chunk, 1000, 2)
            assert 64 <= offsets[0] < offsets[1] < offsets[2] == 1000
            found += 1
        except InputError:
            pass
    assert 500 < found < 1500


def test_memory_is_limited_to_the_maximum_of_a_record():
    """A small frame that expands to a gigabyte, and a wrong size."""
    for size, frame in [(2**30, zstandard.compress(bytes(2**30))), (100, zstandard.compress(bytes(2**20)))]:
        number = b""
        while size >= 128:
            number, size = number + bytes([size & 127 | 128]), size >> 7
        data = b"z\0" + number + bytes([size]) + frame
        chunk = struct.pack("<QQQQQ", 0, len(data), 0, ord("r") + 256, 100) + data
        with pytest.raises(InputError, match="A damaged chunk"):
            record_of(chunk[: BLOCK - 100], 100, LIMIT)


def test_few_files_are_open_for_any_number_of_shards(tmp_path):
    count = OPEN_FILES + 40
    streams = [random_stream(number, 25, 30 * number, 0) for number in range(count)]
    write_tokens(tmp_path, {"train": streams})
    before = open_files()
    source = BatchSource(tmp_path, "train", 24, 8, 0, 4, tokenizer_fingerprint=FINGERPRINT)
    batches = [batch for _, batch in zip(range(2 * count // 8), source.iterate(), strict=False)]
    assert open_files() <= before + OPEN_FILES + 8
    assert all(same(batch, source.batch(step)) for step, batch in enumerate(batches))
    del source, batches
    gc.collect()
    assert open_files() <= before + 8
