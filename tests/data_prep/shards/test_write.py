"""Shards: the same bytes for any workers, batches or interruption; every rejection is specific."""

import dataclasses
import errno
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from data_prep.config import EngineConfig, ShardsConfig
from data_prep.engine.units import SCRATCH, UNITS, ends_run
from data_prep.shards import encode as encode_module
from data_prep.shards import write as shards_module
from data_prep.shards.encode import PARTS, Entry
from data_prep.shards.held_out import is_drawn
from data_prep.shards.sizes import estimated_tokens, most_bytes, shard_count
from data_prep.shards.tokenize import document_files
from data_prep.shards.write import os_errors, write_records, write_shards, write_stream
from lm.config import TokenizerConfig
from lm.data.records import SequenceRecord, from_bytes, read_manifest
from lm.errors import InputError, UsageError
from lm.storage import writing
from lm.tokenizer import load, save, train_bpe
from tests.data_prep.shards.test_tokenize import write_documents
from tests.run_files import REPOSITORY

PARAGRAPHS = (REPOSITORY / "LICENSE").read_text().split("\n\n")
SHUFFLED = [random.Random(i).sample(words := text.split(" "), len(words)) for i, text in enumerate(PARAGRAPHS * 4)]
TEXTS = [f"{' '.join(words)} – {i}" for i, words in enumerate(SHUFFLED)]  # all have different texts
TOKENIZER = train_bpe(TEXTS, TokenizerConfig(400, "cl100k", 10**7))
CONFIG = ShardsConfig(record_length=64, token_dtype="uint16", train_shards=2, validation_fraction=0.2)

NOTHING_DRAWN = dataclasses.replace(CONFIG, validation_fraction=1e-9)


@pytest.fixture(scope="module")
def documents(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "documents"
    third = -(-len(TEXTS) // 3)
    for part in range(3):
        rows = [(f"<{i}>", TEXTS[i]) for i in range(part * third, min(len(TEXTS), (part + 1) * third))]
        write_documents(folder / f"{part:05d}.parquet", rows, row_group_size=10)
    return folder


@pytest.fixture(scope="module")
def tokens(documents) -> Path:
    write_shards(documents, TOKENIZER, documents.parent / "tokens", CONFIG)
    return documents.parent / "tokens"


def held_out(number: int, fraction: float = 0.2) -> bool:
    return is_drawn(f"http://example.com/<{number}>", TEXTS[number], fraction)


def contents(folder: Path) -> dict[str, bytes]:
    """{name: bytes} of all files except those used only while writing."""
    names = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    return {str(name): (folder / name).read_bytes() for name in names if name.parts[0] not in (PARTS, UNITS, SCRATCH)}


def stream(path: Path) -> tuple[list[int], list[int]]:
    """Return (tokens, document of each token) of a shard, read record by record."""
    from array_record.python.array_record_module import ArrayRecordReader  # ty: ignore[import-not-found]

    tokens, numbers = [], []
    for data in ArrayRecordReader(str(path)).read_all():
        record = from_bytes(data)
        owners = np.repeat(record.document_ids, np.diff([*record.segment_starts, record.valid])).tolist()
        overlap = 1 if tokens else 0
        assert tokens[-overlap:] == record.tokens[:1].tolist() or not overlap
        tokens += record.tokens[overlap : record.valid].tolist()
        numbers += owners[overlap:]
    return tokens, numbers


def test_every_document_is_complete_in_its_shard(tokens):
    first_of_second_group = -(-len(TEXTS) // 3)  # files 0 | 1, 2
    seen = set()
    for name in ("val-00000-of-00001", "train-00000-of-00002", "train-00001-of-00002"):
        ids, numbers = stream(tokens / f"{name}.array_record")
        assert numbers == sorted(numbers)
        expected = []
        for number in sorted(set(numbers)):
            assert held_out(number) == name.startswith("val")
            if name.startswith("train"):
                assert (number >= first_of_second_group) == name.startswith("train-00001")
            expected += [TOKENIZER.bos_id, *TOKENIZER.encode(TEXTS[number])]
        assert ids == expected
        seen |= set(numbers)
    assert seen == set(range(len(TEXTS)))


def test_the_table_of_documents_has_the_position_of_each(tokens, documents):
    table = pq.read_table(tokens / "documents").to_pylist()
    assert [row["id"] for row in table] == [f"<{i}>" for i in range(len(TEXTS))]
    files = [
        row["id"] for path in sorted(documents.iterdir()) for row in pq.read_table(path, columns=["id"]).to_pylist()
    ]
    assert files == [row["id"] for row in table]
    for number, row in enumerate(table):
        assert row["url"] == f"http://example.com/<{number}>"
        assert row["file"] == f"{number // -(-len(TEXTS) // 3):05d}.parquet"
        assert row["split"] == ("val" if held_out(number) else "train")
        assert row["tokens"] == 1 + len(TOKENIZER.encode(TEXTS[number]))
        assert row["text_bytes"] == len(TEXTS[number].encode())


def test_manifest_counts_and_hashes(tokens):
    manifest = read_manifest(tokens)
    assert manifest.tokenizer_fingerprint == TOKENIZER.fingerprint
    assert (manifest.vocab_size, manifest.record_length, manifest.token_dtype) == (400, 64, "uint16")
    table = pq.read_table(tokens / "documents").to_pylist()
    assert list(manifest.splits) == ["train", "val"]
    for name, split in manifest.splits.items():
        rows = [row for row in table if row["split"] == name]
        assert (split.documents, split.tokens) == (len(rows), sum(row["tokens"] for row in rows))
        assert split.text_bytes == sum(row["text_bytes"] for row in rows)
        for shard in split.shards:
            data = (tokens / shard.file).read_bytes()
            assert (shard.bytes, shard.sha256) == (len(data), hashlib.sha256(data).hexdigest())
            assert shard.tokens == len(stream(tokens / shard.file)[0])
            assert shard.records == -(-(shard.tokens - 1) // 64)
        for field in ("documents", "tokens", "text_bytes", "records"):
            assert getattr(split, field) == sum(getattr(shard, field) for shard in split.shards)


def test_bytes_are_reproducible_for_any_batches(tokens, documents, tmp_path, monkeypatch):
    from data_prep.shards import tokenize

    monkeypatch.setattr(tokenize, "DOCUMENTS_AT_ONCE", 7)
    monkeypatch.setattr(encode_module, "ROWS_AT_ONCE", 3)
    monkeypatch.setattr(encode_module, "TOKENS_AT_ONCE", 100)
    write_shards(documents, TOKENIZER, tmp_path / "tokens", CONFIG)
    again = contents(tmp_path / "tokens")
    first = contents(tokens)
    for name in list(again):
        if name.startswith("documents/"):
            del again[name], first[name]  # same rows; compared in the next line
    shas = re.compile(r'"(bytes|sha256)": .*')
    for one in (again, first):
        one["manifest.json"] = shas.sub("", one["manifest.json"].decode()).encode()
    assert again == first
    assert pq.read_table(tmp_path / "tokens/documents") == pq.read_table(tokens / "documents")


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_gigatoken_writes_the_same_bytes(tokens, documents, tmp_path, workers):
    pytest.importorskip("gigatoken", reason="gigatoken is not installed")
    config = dataclasses.replace(CONFIG, encoder="gigatoken")
    write_shards(documents, TOKENIZER, tmp_path / "tokens", config, EngineConfig(workers=workers))
    assert contents(tmp_path / "tokens") == contents(tokens)


def run_program(
    documents: Path, folder: Path, config: ShardsConfig, before: str = "", workers: int = 1
) -> tuple[int, str]:
    """Run write_shards in a separate process into folder/tokens; return its exit code and its last line of stderr."""
    program = (
        "import os, signal; from pathlib import Path; from data_prep.config import EngineConfig, ShardsConfig\n"
        "from data_prep.shards import write as shards; from lm.tokenizer import load\n"
        f"{before}\n"
        "if __name__ == '__main__':\n"
        f"    folder = Path({str(folder)!r})\n"
        f"    shards.write_shards(Path({str(documents)!r}), load(folder / 'tokenizer'), folder / 'tokens', \n"
        f"        {config!r}, EngineConfig(workers={workers}))\n"
    )
    save(TOKENIZER, folder / "tokenizer")
    path = folder / "program.py"
    path.write_text(program)
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([sys.executable, str(path)], env=environment, capture_output=True, text=True)
    return done.returncode, (done.stderr.splitlines() or [""])[-1]


@pytest.mark.fast_rows
@pytest.mark.parametrize(
    ("call", "nth", "finished"),
    [
        ("units.write_atomically", 9, 8),
        ("units.write_atomically", 6, 5),  # keys of 3 files, their index, 1 encoded file
        ("shards.file_sha256", 2, 8),
        ("shards.check_splits", 1, 10),
    ],
)
def test_a_killed_run_resumes_to_the_same_bytes(tokens, documents, tmp_path, call, nth, finished):
    kill = (
        f"from data_prep.engine import units\nreal, calls = {call}, []\n"
        "def killing(*arguments, **options):\n"
        "    calls.append(1)\n"
        f"    if len(calls) == {nth}: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return real(*arguments, **options)\n"
        f"{call} = killing\n"
    )
    assert run_program(documents, tmp_path, CONFIG, kill)[0] == -signal.SIGKILL
    out = tmp_path / "tokens"
    assert not (out / "manifest.json").exists()
    markers = [json.loads(path.read_text()) for path in out.glob("units/*/*.json")]
    assert len(markers) == finished
    made = {name: (out / name).stat().st_mtime_ns for marker in markers for name in marker["outputs"]}
    write_shards(documents, load(tmp_path / "tokenizer"), out, CONFIG)
    assert contents(out) == contents(tokens)
    kept = {name for name in made if not name.startswith("parts")}
    assert {name: (out / name).stat().st_mtime_ns for name in kept} == {name: made[name] for name in kept}


def interrupted(documents: Path, out: Path, config: ShardsConfig) -> Path:
    """Write all shards without the manifest."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards_module, "check_splits", lambda *_: sys.exit("interrupted"))
        with pytest.raises(SystemExit):
            write_shards(documents, TOKENIZER, out, config)
    return out


def test_an_added_file_is_the_only_one_encoded(documents, tmp_path, monkeypatch):
    encoded, real = [], encode_module.tokenize_file
    monkeypatch.setattr(
        encode_module, "tokenize_file", lambda file, *rest: encoded.append(file.path.name) or real(file, *rest)
    )
    first, *others = (path.name for path in sorted(documents.iterdir()))
    folder = shutil.copytree(documents, tmp_path / "documents", ignore=shutil.ignore_patterns(first))
    interrupted(folder, tmp_path / "tokens", NOTHING_DRAWN)
    assert encoded == others
    shutil.copy(documents / first, folder)
    interrupted(folder, tmp_path / "tokens", NOTHING_DRAWN)
    assert encoded == [*others, first]


@pytest.fixture(scope="module")
def unfinished(documents, large, tmp_path_factory) -> dict[str, tuple[Path, Path]]:
    """{name: (documents, shards without their manifest)}"""
    folder = tmp_path_factory.mktemp("unfinished")
    return {
        "small": (documents, interrupted(documents, folder / "small", CONFIG)),
        "large": (large / "documents", interrupted(large / "documents", folder / "large", SMALL)),
    }


@pytest.mark.fast_rows
@pytest.mark.parametrize(
    ("corpus", "name"),
    [
        ("small", "train-00001-of-00002.array_record"), ("small", "documents/00001-of-00002.parquet"),
        ("small", "parts/encoded/00001.val"), ("small", "parts/encoded/00001.table"),
        ("small", "parts/held_out_keys.parquet"), ("large", "train-00001-of-00002-part-00001.array_record"),
    ],
)  # fmt: skip
def test_a_truncated_file_is_written_again(tokens, large, unfinished, tmp_path, corpus, name):
    """As after a power failure that lost a file of a finished unit."""
    documents, found = unfinished[corpus]
    out = shutil.copytree(found, tmp_path / "tokens")
    os.truncate(out / name, (out / name).stat().st_size // 2)
    write_shards(documents, TOKENIZER, out, CONFIG if corpus == "small" else SMALL)
    assert contents(out) == contents(tokens if corpus == "small" else large / "tokens")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("train_shards", "largest"),
    [(2, 400), (2, 1), (2, 20_000), (1, 300_000)],
)
def test_a_full_disk_is_an_input_error_and_the_same_call_continues(documents, tmp_path, train_shards, largest):
    """A limit on file sizes simulates the full disk. At the last limit one shard fits and another does not."""
    length = 8 if train_shards == 1 else CONFIG.record_length  # many records of few tokens take more space
    config = dataclasses.replace(CONFIG, train_shards=train_shards, record_length=length)
    write_shards(documents, TOKENIZER, tmp_path / "undisturbed", config)
    sizes = [path.stat().st_size for path in (tmp_path / "undisturbed").glob("*.array_record")]
    assert (min(sizes) <= largest < max(sizes)) == (train_shards == 1)
    limit = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({largest}, {largest}))"
    code, last = run_program(documents, tmp_path, config, limit)
    assert code == 1
    assert re.fullmatch(
        r"lm\.errors\.InputError: \S+ cannot be written: .*File too large.* Free space on the disk.*", last
    )
    out = tmp_path / "tokens"
    assert not [path for path in out.rglob("*") if path.name.endswith(".partial")]  # they would fill the disk
    assert not list(out.glob("quarantine/*/*"))
    write_shards(documents, TOKENIZER, out, config)
    assert contents(out) == contents(tmp_path / "undisturbed")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG])
def test_disk_errors_of_array_record_get_their_errno_and_stop_the_run(tmp_path, code):
    path = tmp_path / "a.array_record"
    told = re.escape(f"{path} cannot be written: {os.strerror(code)}.")
    with pytest.raises(InputError, match=told) as error, writing(path), os_errors(path):
        raise RuntimeError(f"write() failed: {os.strerror(code)}; writing {path}; at byte 0; Failed to close")
    assert isinstance(error.value.__cause__, OSError) and error.value.__cause__.errno == code
    assert ends_run(error.value)
    with pytest.raises(RuntimeError, match="of another kind"), os_errors(path):
        raise RuntimeError("of another kind: No space left on device")


def test_array_record_reports_a_full_device_and_a_missing_folder_with_an_errno(tmp_path):
    """Uses ArrayRecord's real messages, to detect changes in new versions."""
    record = SequenceRecord(np.zeros(8, np.uint16), 7, *(np.zeros(1, np.int32) for _ in range(2)))
    for path, code in ((Path("/dev/full"), errno.ENOSPC), (tmp_path / "gone/a", errno.ENOENT)):
        with pytest.raises(OSError, match=os.strerror(code)) as error:
            write_records(path, [record])
        assert error.value.errno == code


def test_a_shard_without_documents_is_empty(tmp_path):
    aside = [is_drawn(f"http://example.com/<{i}>", f"some text {i}", 0.2) for i in range(100)]
    for name, drawn in (("a", False), ("b", True)):
        rows = [(f"<{i}>", f"some text {i}") for i in range(100) if aside[i] == drawn]
        write_documents(tmp_path / f"documents/{name}.parquet", rows)
    manifest = write_shards(tmp_path / "documents", TOKENIZER, tmp_path / "tokens", CONFIG)
    assert [shard.records > 0 for shard in manifest.splits["train"].shards] == [True, False]


@pytest.mark.parametrize(("fraction", "train", "val"), [(1e-9, len(TEXTS), 0), (1 - 1e-9, 0, len(TEXTS))])
def test_an_empty_split_is_an_input_error(documents, tmp_path, fraction, train, val):
    config = dataclasses.replace(CONFIG, validation_fraction=fraction)
    message = f"validation_fraction = {fraction} gives {train} to train, {val} to val: nothing to predict in "
    with pytest.raises(InputError, match=message + ("train" if val else "val")) as refused:
        write_shards(documents, TOKENIZER, tmp_path, config)
    assert "--shards.held-out ends" in str(refused.value) and "--shards.validation-fraction" in str(refused.value)
    assert not (tmp_path / "manifest.json").exists()


@pytest.mark.parametrize(
    ("special", "change", "told"),
    [
        (65_935, {}, r"has 65936 symbols, but shards.token_dtype = uint16 holds ids below 65536"),
        (399, {"record_length": 2**20, "shard_bytes": 2**21},
         r"shard_bytes = 2,097,152 is too small.* 1,048,576 tokens needs 2,361,\d+ bytes"),
    ],
)  # fmt: skip
def test_a_vocabulary_or_record_that_does_not_fit_is_rejected_with_both_sizes(
    documents, tmp_path, special, change, told
):
    tokenizer = dataclasses.replace(TOKENIZER, special_tokens={"<|endoftext|>": special})
    with pytest.raises(UsageError, match=told):
        write_shards(documents, tokenizer, tmp_path, dataclasses.replace(CONFIG, **change))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "change",
    [
        {"validation_fraction": 0.0},
        {"validation_fraction": 1.0},
        {"record_length": 0},
        {"shard_bytes": 2**20 - 1},
        {"validation_tokens": 0},
    ],
)
def test_invalid_configs_are_rejected(change):
    with pytest.raises(UsageError, match=next(iter(change))):
        dataclasses.replace(CONFIG, **change)


# Repeated documents


def with_repeats(documents: Path, folder: Path, times: Callable[[int], int]) -> Path:
    """The same documents with the column repeat: `times` of the number in the id."""
    folder.mkdir(parents=True)
    for path in documents.iterdir():
        table = pq.read_table(path)
        wanted = [times(int(one[1:-1])) for one in table["id"].to_pylist()]
        pq.write_table(table.append_column("repeat", [wanted]), folder / path.name)
    return folder


def in_order(numbers: list[int], heads: list[bool]) -> list[int]:
    return [number for number, head in zip(numbers, heads, strict=True) if head]


@pytest.mark.slow
@pytest.mark.parametrize("train_shards", [1, 2])
def test_documents_are_repeated_far_apart_by_their_column_and_never_held_out(
    documents, tmp_path, monkeypatch, train_shards
):
    monkeypatch.setattr(encode_module, "TOKENS_AT_ONCE", 500)  # many row groups
    times = lambda number: (1, 2, 1, 5, 3)[number % 5]
    folder = with_repeats(documents, tmp_path / "documents", times)
    config = dataclasses.replace(CONFIG, train_shards=train_shards, repeat_documents=True)
    manifest = write_shards(folder, TOKENIZER, tmp_path / "tokens", config)
    trained = [number for number in range(len(TEXTS)) if not held_out(number)]
    found = []
    for shard in manifest.splits["train"].shards:
        tokens, owners = stream(tmp_path / "tokens" / shard.file)
        own = in_order(owners, [token == TOKENIZER.bos_id for token in tokens])
        expected = [part for number in own for part in (TOKENIZER.bos_id, *TOKENIZER.encode(TEXTS[number]))]
        assert tokens == expected and shard.documents == len(own)
        for number in set(own):
            places = [place for place, one in enumerate(own) if one == number]
            gaps = np.diff(places)
            assert not len(gaps) or gaps.min() > len(own) // (3 * times(number))
        found += own
    assert Counter(found) == {number: times(number) for number in trained}
    assert manifest.repeats == sum(times(number) - 1 for number in trained)
    assert manifest.splits["train"].documents == len(found) and read_manifest(tmp_path / "tokens") == manifest
    (held,) = manifest.splits["val"].shards
    assert held.documents == len(TEXTS) - len(trained)
    write_shards(folder, TOKENIZER, tmp_path / "again", dataclasses.replace(config))
    assert contents(tmp_path / "again") == contents(tmp_path / "tokens")


def test_nothing_is_repeated_by_default(documents, tokens, tmp_path):
    folder = with_repeats(documents, tmp_path / "documents", lambda number: 2)
    write_shards(folder, TOKENIZER, tmp_path / "tokens", CONFIG)
    assert contents(tmp_path / "tokens") == contents(tokens)
    with pytest.raises(UsageError, match=r"repeat_documents is True, but .* has no column repeat.*upsampling_weights"):
        write_shards(documents, TOKENIZER, tmp_path / "none", dataclasses.replace(CONFIG, repeat_documents=True))
    many = with_repeats(documents, tmp_path / "many", lambda number: 101)
    with pytest.raises(InputError, match=r"are to be repeated 101 to 101 times; give .* of 1 to 100"):
        write_shards(many, TOKENIZER, tmp_path / "none", dataclasses.replace(CONFIG, repeat_documents=True))


# Shards of bounded size

SMALL = dataclasses.replace(CONFIG, shard_bytes=2**20)


@pytest.mark.parametrize(("length", "dtype"), [(16, "uint32"), (1024, "uint16")])
def test_no_shard_exceeds_its_size_and_no_document_is_split(tmp_path, length, dtype):
    """With incompressible tokens; each shard is filled until one more document might exceed the size."""
    config, generator = dataclasses.replace(SMALL, record_length=length, token_dtype=dtype), np.random.default_rng(0)
    sizes = generator.integers(1, 6000, 60 if length == 16 else 400).tolist()
    made = [Entry(7 + i, 3 * n, generator.integers(0, 2**16, n).astype(np.uint32)) for i, n in enumerate(sizes)]
    shards = write_stream(iter(made), tmp_path / "train-00000-of-00001.array_record", tmp_path, config)
    names = ["train-00000-of-00001", *(f"train-00000-of-00001-part-{i:05d}" for i in range(1, len(shards)))]
    assert [shard.file for shard in shards] == [f"{name}.array_record" for name in names]
    first = 0
    for shard in shards:
        own = made[first : first + shard.documents]
        tokens, numbers = stream(tmp_path / shard.file)
        assert tokens == np.concatenate([one.tokens for one in own]).tolist()
        assert numbers == np.repeat([one.number for one in own], [len(one.tokens) for one in own]).tolist()
        assert (shard.tokens, shard.text_bytes) == (len(tokens), sum(one.text_bytes for one in own))
        assert shard.bytes == (tmp_path / shard.file).stat().st_size <= config.shard_bytes
        if shard != shards[-1]:
            after = made[first + shard.documents]
            assert most_bytes(shard.tokens + len(after.tokens), shard.documents + 1, config) > config.shard_bytes
            assert shard.bytes > 0.6 * config.shard_bytes
        first += shard.documents
    assert first == len(made) and len(shards) > 2


def test_a_document_larger_than_a_shard_has_its_own_shard(tmp_path):
    tokens = np.random.default_rng(0).integers(0, 2**16, 2_000_000).astype(np.uint32)
    made = [Entry(0, 5, tokens[:5]), Entry(1, 9, tokens), Entry(2, 5, tokens[:5])]
    shards = write_stream(iter(made), tmp_path / "val-00000-of-00001.array_record", tmp_path, SMALL)
    assert [(shard.documents, shard.tokens) for shard in shards] == [(1, 5), (1, 2_000_000), (1, 5)]
    assert shards[1].bytes > SMALL.shard_bytes


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> Path:
    """A documents folder of two files whose tokens fill several shards of 1 MiB, and its shards written by one
    worker."""
    folder = tmp_path_factory.mktemp("large")
    generator = np.random.default_rng(0)
    words = ["".join(map(chr, generator.integers(0x3B1, 0x3C9, 8).tolist())) for _ in range(2000)]
    texts = [" ".join(generator.choice(words, 400).tolist()) for _ in range(300)]
    for part in range(2):
        rows = [(f"<{part}-{i}>", text) for i, text in enumerate(texts[150 * part : 150 * part + 150])]
        write_documents(folder / "documents" / f"{part:05d}.parquet", rows)
    write_shards(folder / "documents", TOKENIZER, folder / "tokens", SMALL)
    return folder


@pytest.mark.slow
def test_two_workers_write_the_shards_of_one(large, tmp_path):
    assert run_program(large / "documents", tmp_path, SMALL, workers=2)[0] == 0
    assert contents(tmp_path / "tokens") == contents(large / "tokens")


def test_the_number_of_shards_follows_from_their_size(large):
    shards = read_manifest(large / "tokens").splits["train"].shards
    assert len(shards) > 2 and all(shard.bytes <= SMALL.shard_bytes for shard in shards)
    assert {shard.file[:20] for shard in shards} == {"train-00000-of-00002", "train-00001-of-00002"}


def test_more_text_gives_more_groups_of_files():
    """At 2 bytes per token, and never more groups than files."""
    counts = [
        shard_count(8, 12 * 2**20, dataclasses.replace(CONFIG, shard_bytes=size * 2**20), 2) for size in (1000, 6, 1)
    ]
    assert counts == [2, 4, 8]


def test_tokens_are_estimated_for_any_script(large, tokens, documents):
    """Greek is one token per byte to this tokenizer, its own texts about two bytes per token."""
    for folder, shards in ((large / "documents", large / "tokens"), (documents, tokens)):
        real = sum(split.tokens for split in read_manifest(shards).splits.values())
        assert (
            real <= estimated_tokens(document_files(folder), TOKENIZER.encode_array) <= 1.5 * real
        )  # the index of a few short texts includes its own pages


def test_a_large_corpus_holds_out_at_most_validation_tokens(large, tmp_path):
    """Its held-out documents would also be held out of a smaller corpus."""
    config = dataclasses.replace(SMALL, validation_tokens=100_000)
    capped = write_shards(large / "documents", TOKENIZER, tmp_path, config).splits["val"]
    whole = read_manifest(large / "tokens").splits["val"]
    assert 20_000 < capped.tokens <= 100_000 < whole.tokens
    aside = [
        {row["id"] for row in pq.read_table(folder / "documents").to_pylist() if row["split"] == "val"}
        for folder in (tmp_path, large / "tokens")
    ]
    assert aside[0] < aside[1]
