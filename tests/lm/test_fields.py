"""Every config checks the types of its fields, without importing beartype for the shipped configs."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Literal

import pytest
from beartype import BeartypeConf
from beartype.door import is_bearable

from configs import demo
from lm.errors import UsageError
from lm.fields import Config, is_of_type

HINTS = (
    int, float, bool, str, int | None, tuple[str, ...], tuple[int, float], tuple[str | None, ...], tuple[()],
    Literal["a", 1], Literal["a"] | None, dict[str, int], tuple[tuple[int, ...], ...],
)  # fmt: skip
VALUES = (
    0, 1, 1.5, float("nan"), "a", "b", None, (), ("a",), ("a", 1), ("a", None), (1, 2), (1, 2.5), ((1,), ()),
    ((1,), "a"), {"a": 1}, ["a"], b"a",
)  # fmt: skip


@pytest.mark.parametrize("hint", HINTS, ids=str)
def test_types_are_checked_as_by_beartype_which_looks_at_one_random_item(hint):
    conf = BeartypeConf(is_pep484_tower=True)
    for value in VALUES:
        assert is_of_type(value, hint) == all(is_bearable(value, hint, conf=conf) for _ in range(99)), value


@pytest.mark.parametrize("hint", HINTS, ids=str)
def test_a_bool_is_no_number(hint):
    assert is_of_type(True, hint) == (hint is bool) and not is_of_type((1, True), tuple[int, ...])


def test_the_field_types_of_the_demo_are_checked_without_beartype():
    program = "import sys, configs.demo; configs.demo.get_config(); print('beartype' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.split()[-1] == "False"


def configs_in(config: Config) -> Iterator[Config]:
    yield config
    for field in fields(config):  # ty: ignore[invalid-argument-type]
        if isinstance(value := getattr(config, field.name), Config):
            yield from configs_in(value)


@pytest.mark.parametrize("config", [*configs_in(demo.get_config())], ids=lambda config: type(config).__name__)
def test_every_field_rejects_a_value_of_another_type(config):
    for field in fields(config):
        with pytest.raises(UsageError, match=rf"^{type(config).__name__}\.{field.name} must be .*; it is "):
            replace(config, **{field.name: object()})
