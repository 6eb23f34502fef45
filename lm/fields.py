"""Base class of configs: checks of types and names, and marks for fields that may change during a run."""

import dataclasses
import functools
import math
import types
import typing

from lm.errors import UsageError, shown

not_hashed = functools.partial(dataclasses.field, metadata={"not_hashed": True})
"""A field that affects the speed or frequency of a computation, not its result; it may change during a run. (Another
mesh adds in another order: the same parameters up to rounding.)"""


measured = functools.partial(dataclasses.field, metadata={"measured": True})
"""A field of a filter that determines a measurement, not only its threshold: changing it requires measuring again,
while thresholds can change on stored measurements."""


NAMES_CODE = "names code"
"""Mark a field as Annotated[type, NAMES_CODE] if it may name your own code, as my_module.my_function
(lm/trusted_code.py)."""


def is_of_type(value: object, hint: typing.Any) -> bool:
    """Return whether `value` matches a type hint, with every item of a tuple. An int is a fine float; a bool is not a
    number."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if isinstance(hint, type):
        return isinstance(value, (int, float) if hint is float else hint) and not (
            type(value) is bool and hint in (int, float)
        )
    if origin is typing.Literal:
        return any(type(value) is type(one) and value == one for one in parts)
    if origin in (typing.Union, types.UnionType):
        return any(is_of_type(value, one) for one in parts)
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        each = parts[:1] * len(value) if parts[1:] == (...,) else parts
        return len(each) == len(value) and all(map(is_of_type, value, each))
    from beartype import BeartypeConf  # a tenth of a command's start-up time: only for other hints, of your own filters
    from beartype.door import is_bearable

    return is_bearable(value, hint, conf=BeartypeConf(is_pep484_tower=True))


class Config:
    """Base class of the frozen dataclasses of an experiment. Construction calls `check_values`, and raises UsageError
    for a value of a wrong type."""

    def __post_init__(self):
        hints = typing.get_type_hints(type(self))
        for field in dataclasses.fields(self):  # ty: ignore[invalid-argument-type]
            value, hint = getattr(self, field.name), hints[field.name]
            if not is_of_type(value, hint):
                wanted = getattr(hint, "__name__", "") if isinstance(hint, type) else str(hint).replace("typing.", "")
                kind = type(value).__name__
                raise UsageError(f"{type(self).__name__}.{field.name} must be {wanted}; it is {shown(value)} ({kind}).")
        self.check_values()

    def check_values(self) -> None:
        """Raise UsageError for values that cannot work."""


def literal_values(hint: typing.Any) -> tuple[typing.Any, ...]:
    """Return the values of the Literal in a type hint, Literal[...] or Literal[...] | str; () if it has none."""
    literals = [one for one in (hint, *typing.get_args(hint)) if typing.get_origin(one) is typing.Literal]
    return typing.get_args(literals[0]) if literals else ()


def check_names(config: Config, path: str, *names: str) -> None:
    """Raise UsageError unless each of the fields `names` is one of the names in its type, Literal[...] | str, or the
    dotted name of user code, such as my_module.my_loss. `path` is the config section, for the message."""
    hints = typing.get_type_hints(type(config))
    for name in names:
        value = getattr(config, name)
        shipped = literal_values(hints[name])
        module, _, attribute = value.rpartition(".")
        if value not in shipped and not (attribute.isidentifier() and all(map(str.isidentifier, module.split(".")))):
            section = f" {path}.{value} is a section of its own: give it in a config file." if value in hints else ""
            raise UsageError(
                f"{path}.{name} is {shown(value)}. Choose one of {', '.join(map(repr, shipped))}, or name your own as "
                f"my_module.my_{name} (docs/how_to_change_it.md).{section}"
            )


def may_name_code(field: dataclasses.Field) -> bool:
    return NAMES_CODE in getattr(field.type, "__metadata__", ())


def code_names(config: object, path: str = "") -> dict[str, list[str]]:
    """Return {option: dotted names of user code} for all fields of `config` marked NAMES_CODE, such as {"train.hooks":
    ["my_module.MyHook"]} with the path "train."."""
    found: dict[str, list[str]] = {}
    for field in dataclasses.fields(config):  # ty: ignore[invalid-argument-type]
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            found |= code_names(value, f"{path}{field.name}.")
        elif may_name_code(field):
            names = [name for name in (value if isinstance(value, tuple) else (value,)) if "." in name]
            found |= {f"{path}{field.name}": names} if names else {}
    return found


def within(
    config: Config, path: str, low: float, high: float, *names: str, above: bool = False, below: bool = False
) -> None:
    """Raise UsageError unless each of the fields `names`, or each item of it, is a finite number from `low` to `high`;
    with `above`, above `low`; with `below`, below `high`. `path` is the config section, for the message."""
    for name in names:
        value = getattr(config, name)
        for one in value if isinstance(value, tuple) else (value,):
            if not low <= one <= high or math.isinf(one) or (above and one == low) or (below and one == high):
                least, most = "above" if above else "at least", "below" if below else "at most"
                end = f" and {most} {high}" if math.isfinite(high) else ", and finite" if isinstance(one, float) else ""
                bounds = f"from {low} to {high}" if math.isfinite(high) and not above | below else f"{least} {low}{end}"
                raise UsageError(f"{path}.{name} is {shown(one)}; it must be {bounds}.")


def check_numbers(config: object, path: str = "") -> None:
    """Raise UsageError if a number anywhere in `config` is not finite or exceeds 64 bits. `path` precedes the field's
    name in the message."""
    for field in dataclasses.fields(config):  # ty: ignore[invalid-argument-type]
        value, name = getattr(config, field.name), f"{path}{field.name}"
        if dataclasses.is_dataclass(value):
            check_numbers(value, f"{name}.")
        for one in value if isinstance(value, tuple) else (value,):
            if isinstance(one, float) and not math.isfinite(one):
                raise UsageError(f"{name} is {one}; it must be a finite number.")
            if isinstance(one, int) and abs(one) >= 2**63:
                raise UsageError(f"{name} is {shown(one)}; numbers must fit into 64 bits (9.2e18).")


def positive(config: Config, path: str, *names: str) -> None:
    """Raise UsageError unless all fields `names` are above 0 and finite. `path` is the section, for the message."""
    within(config, path, 0, math.inf, *names, above=True)


def identifying(value: object) -> object:
    """Convert a config to JSON types, without fields marked not_hashed, as the input of a hash that identifies it."""
    if dataclasses.is_dataclass(value):
        fields = [f for f in dataclasses.fields(value) if not f.metadata.get("not_hashed")]
        return {f.name: identifying(getattr(value, f.name)) for f in fields}
    if isinstance(value, dict):
        return {key: identifying(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [identifying(item) for item in value]
    return value


def with_values[Part](config: Part, values: typing.Mapping[str, object]) -> Part:
    """Return `config` with the fields in `values` replaced: {"section.field": value}. Each dataclass is created only
    once, so that its checks see all new values; they raise UsageError."""
    inner: dict[str, dict[str, object]] = {}
    own: dict[str, object] = {}
    for name, value in values.items():
        head, _, rest = name.partition(".")
        if rest:
            inner.setdefault(head, {})[rest] = value
        else:
            own[head] = value
    parts = {head: with_values(getattr(config, head), rest) for head, rest in inner.items()}
    return dataclasses.replace(config, **own, **parts)  # ty: ignore[invalid-argument-type]


def flatten(value: object, path: str = "") -> dict[str, object]:
    """Flatten nested dicts to {"a.b": value}; lists are kept as values."""
    if not isinstance(value, dict):
        return {path: value}
    return {
        k: v for key, item in value.items() for k, v in flatten(item, f"{path}.{key}" if path else str(key)).items()
    }
