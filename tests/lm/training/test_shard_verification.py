"""Shards are compared with their SHA-256 during training, which stops if one is damaged."""

import contextlib
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lm.errors import InputError
from lm.resilience.goodput import Goodput
from lm.storage import Url
from lm.training.hooks import Progress, Verifying
from lm.training.shard_verification import ShardVerification
from tests.lm.shard_files import STREAMS, write_tokens

UNUSED: Any = None


@pytest.fixture
def tokens(tmp_path) -> Path:
    (tmp_path / "tokens").mkdir()
    return write_tokens(tmp_path / "tokens", {"train": STREAMS})


def test_verified_shards_are_recorded_for_the_next_start(tokens, tmp_path):
    with contextlib.ExitStack() as stack:
        splits = [(tokens, "train"), (Url("s3://is-not-read/x"), "train")]
        verification = ShardVerification(splits, tmp_path / "note", stack)
        verification.check(60)
        assert verification.finished and "train-00003" in (tmp_path / "note").read_text()


def test_training_continues_until_damage_is_found(tokens, tmp_path):
    shard = next(tokens.glob("train-00001*"))
    shard.unlink()
    os.mkfifo(shard)  # blocks the reader
    with contextlib.ExitStack() as stack:
        verification = ShardVerification([(tokens, "train")], tmp_path / "note", stack)
        tools: Any = SimpleNamespace(goodput=Goodput(tmp_path))
        hook = Verifying(10, Progress(25), tools, verification)
        assert [step for step in range(1, 26) if hook.due(step)] == [10, 20, 25]
        hook.run(UNUSED, 10)
        shard.write_bytes(b"other bytes")
        with pytest.raises(InputError, match=rf"1 of 4 shards differ .*{shard.name}"):
            verification.check(60)
        assert not verification.finished and not (tmp_path / "note").exists()
