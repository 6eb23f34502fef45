"""Damage to a shard is found before or during reading, and the shard is named."""

import hashlib
import os
import shutil
from pathlib import Path

import pytest

from lm.data.batches import Batch, BatchSource
from lm.data.verify_shards import stamp, verify_shards
from lm.errors import InputError
from lm.storage import digest
from tests.damage import flips
from tests.lm.shard_files import LENGTH, STREAMS, same, write_tokens


@pytest.fixture
def tokens(tmp_path) -> Path:
    (tmp_path / "tokens").mkdir()
    return write_tokens(tmp_path / "tokens", {"train": STREAMS, "val": STREAMS[:1]})


def shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("train-*"))


BOTH = "train", "val"


def all_of(tokens: Path, known=None, share=(0, 1)) -> dict:
    return verify_shards([(tokens, split) for split in BOTH], share, known=known)


def test_complete_shards_are_verified_by_exactly_one_process(tokens):
    whole = all_of(tokens)
    assert {Path(path).name for path in whole} == {path.name for path in tokens.glob("*.array_record")}
    parts = [all_of(tokens, share=(i, 3)) for i in range(3)]
    assert all(parts)
    assert parts[0] | parts[1] | parts[2] == whole and sum(map(len, parts)) == len(whole)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def test_a_verified_shard_is_not_read_again(tokens):
    path = shards(tokens)[1]
    sha = digest(path)[1]
    flip(path)
    known = {str(path): stamp(path, sha)}  # as if it had just been verified
    assert str(path) in all_of(tokens, known)
    path.touch()
    with pytest.raises(InputError, match=rf"1 of \d+ shards differ .*{path.name} has the SHA-256 .* instead of"):
        all_of(tokens, known)


def test_a_changed_shard_is_verified_again_despite_its_modification_time(tokens):
    path = shards(tokens)[1]
    known, before = all_of(tokens), path.stat()
    flip(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(InputError, match=rf"1 of \d+ shards differ .*{path.name} has the SHA-256 .* instead of"):
        all_of(tokens, known)
    flip(path)
    assert all_of(tokens, known).keys() == known.keys()
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match=f"{path.name} has {before.st_size - 1} bytes instead of {before.st_size}"):
        all_of(tokens, known)


def test_a_shard_with_a_new_manifest_is_verified_again(tokens, tmp_path):
    """The shard is unchanged, but the manifest has another SHA-256."""
    known = all_of(tokens)
    path = shards(tokens)[0]
    data = path.read_bytes()
    sha = hashlib.sha256(data).hexdigest()
    manifest = tokens / "manifest.json"
    manifest.write_text(manifest.read_text().replace(sha, "0" * 64))
    with pytest.raises(InputError, match=f"SHA-256 {sha} instead of {'0' * 64}"):
        all_of(tokens, known)


def test_every_flipped_bit_is_found_and_its_shard_named(tokens):
    for path in flips([path for path in shards(tokens) if path.stat().st_size], 120):
        with pytest.raises(InputError, match=rf"1 of 4 shards differ .*{path.name} has the SHA-256 .* instead of"):
            verify_shards([(tokens, "train")])


def epoch(tokens) -> list[Batch]:
    """The batches of one epoch, which hold every window."""
    source = BatchSource(tokens, "train", LENGTH, 4, 0, 1)
    return [*source.iterate(stop_step=-(-source.windows // 4))]


def test_later_damage_is_found_when_read_or_changes_nothing(tokens):
    """Training gets the same tokens or an error that names the shard, never other tokens."""
    expected, found = epoch(tokens), 0
    for path in flips(shards(tokens)[:1], 60, nonzero=True):
        try:
            assert all(same(a, b) for a, b in zip(epoch(tokens), expected, strict=True))
        except InputError as error:
            found += 1
            assert path.name in str(error) or str(tokens) in str(error)
    assert found > 20


def test_a_swapped_shard_is_named_with_the_shard_it_contains(tokens):
    first, second = shards(tokens)[:2]
    shutil.copy(first, second)
    with pytest.raises(
        InputError, match=rf"{second.name} has \d+ bytes instead|and has the contents of .*{first.name}"
    ):
        verify_shards([(tokens, "train")])


def test_a_missing_shard_is_named(tokens):
    shards(tokens)[3].unlink()
    with pytest.raises(InputError, match=r"train-00003-of-.* cannot be read: No such file"):
        verify_shards([(tokens, "train")])


def test_duplicate_shards_are_rejected(tokens, tmp_path):
    shutil.copytree(tokens, tmp_path / "copy")
    with pytest.raises(
        InputError, match=rf"{tmp_path}/copy/train-00000.* holds the same bytes as {tokens}/train-00000"
    ):
        BatchSource({tokens: 1.0, tmp_path / "copy": 1.0}, "train", LENGTH, 4, 0, 1)
