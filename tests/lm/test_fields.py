"""Every config checks the types of its fields, mostly without beartype."""

import dataclasses
import subprocess
import sys
from collections.abc import Iterator
from typing import Literal

import pytest

from configs import demo
from lm.errors import UsageError
from lm.fields import Config, is_of_type, is_plainly

HINTS = (
    int, float, bool, str, int | None, tuple[str, ...], tuple[int, float], tuple[str | None, ...], tuple[()],
    Literal["a", 1], Literal["a"] | None, dict[str, int], tuple[tuple[int, ...], ...],
)  # fmt: skip
VALUES = (
    0, 1, True, 1.5, float("nan"), "a", "b", None, (), ("a",), ("a", 1), ("a", None), (1, 2), (1, 2.5), ((1,), ()),
    ((1,), "a"), {"a": 1}, ["a"], b"a",
)  # fmt: skip


@pytest.mark.parametrize("hint", HINTS, ids=str)
def test_plain_type_checks_accept_no_more_than_beartype(hint):
    for value in VALUES:
        assert is_plainly(value, hint) <= is_of_type(value, hint), value


def test_most_field_types_are_checked_without_beartype():
    assert all(
        is_plainly(value, hint) for value, hint in [(1, float), (("a", "b"), tuple[str, ...]), (None, int | None)]
    )
    program = "import sys, configs.demo; configs.demo.get_config(); print('beartype' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.split()[-1] == "False"


def configs_in(config: Config) -> Iterator[Config]:
    yield config
    for field in dataclasses.fields(config):  # ty: ignore[invalid-argument-type]
        if isinstance(value := getattr(config, field.name), Config):
            yield from configs_in(value)


@pytest.mark.parametrize("config", [*configs_in(demo.get_config())], ids=lambda config: type(config).__name__)
def test_every_field_rejects_a_value_of_another_type(config):
    for field in dataclasses.fields(config):
        with pytest.raises(UsageError, match=rf"^{type(config).__name__}\.{field.name} must be .*; it is "):
            dataclasses.replace(config, **{field.name: object()})
