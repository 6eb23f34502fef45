"""Every number of an experiment has bounds: finite, within 64 bits, and at least 0 except for seeds."""

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from configs.experiment import load_config
from lm.config import MuonConfig, RopeScalingConfig
from lm.errors import UsageError
from lm.fields import with_values

DEMO = with_values(
    load_config(Path(__file__).parents[1] / "configs/demo.py"),
    {
        "model.rope_scaling": RopeScalingConfig(8.0, 1.0, 4.0, 8192), "model.logit_softcap": 30.0, "model.head_dim": 64,
        "train.optimizer.muon": MuonConfig(0.02, 0.95, 5),
    },
)  # fmt: skip


def numbers(config: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for field in dataclasses.fields(config):
        value, here = getattr(config, field.name), (*path, field.name)
        if dataclasses.is_dataclass(value):
            yield from numbers(value, here)
        one = value[0] if isinstance(value, tuple) and value else value
        if isinstance(one, (int, float)) and not isinstance(one, bool):
            yield here, value


def replaced(config: Any, path: tuple[str, ...], value: Any) -> Any:
    name, *rest = path
    inner = replaced(getattr(config, name), tuple(rest), value) if rest else value
    return dataclasses.replace(config, **{name: inner})


SEEDS = "pages.common_crawl.seed", "documents.minhash.seed"  # hashed: any number works
INFINITE = math.nan, math.inf, -math.inf
NUMBERS = {".".join(path): (path, value) for path, value in numbers(DEMO)}


@pytest.mark.parametrize("name", NUMBERS)
def test_an_impossible_number_is_rejected(name):
    path, value = NUMBERS[name]
    is_float = isinstance(value[0] if isinstance(value, tuple) else value, float)
    for bad in (True, *(() if name in SEEDS else (-1,)), *(INFINITE if is_float else (10**20, -(10**20)))):
        with pytest.raises(UsageError, match=rf"{path[-1]}.*({bad}|{bad:,})"):
            replaced(DEMO, path, (*value[:-1], bad) if isinstance(value, tuple) else bad)


@pytest.mark.parametrize(
    ("path", "most"),
    [
        ("train.steps", 2**31 - 1),
        ("train.loader_threads", 1024),
        ("engine.workers", 10_000),
        ("shards.record_length", 2**26),
        ("documents.minhash.bands", 10_000),
    ],
)
def test_numbers_beyond_any_computer_have_a_reported_bound(path, most):
    replaced(DEMO, tuple(path.split(".")), most)
    with pytest.raises(UsageError, match=f"{path} is {most + 1}; it must be from 1 to {most}"):
        replaced(DEMO, tuple(path.split(".")), most + 1)
