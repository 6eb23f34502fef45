"""What every config has in common: fields whose types are checked, and fields that change speed alone."""

import dataclasses
import functools
import typing

from lm.errors import UsageError

speed_only = functools.partial(dataclasses.field, metadata={"speed_only": True})
"""A field that changes how fast a result is made, never the result; it is left out of what identifies a result."""


class Config:
    """Base of the frozen dataclasses that tell an experiment; a value of a wrong type is refused where it is given."""

    def __post_init__(self):
        from beartype import BeartypeConf
        from beartype.door import is_bearable

        hints = typing.get_type_hints(type(self))
        for field in dataclasses.fields(self):  # ty: ignore[invalid-argument-type]
            value, hint = getattr(self, field.name), hints[field.name]
            if not is_bearable(value, hint, conf=BeartypeConf(is_pep484_tower=True)):  # an int is a fine float
                wanted = getattr(hint, "__name__", "") if isinstance(hint, type) else str(hint).replace("typing.", "")
                raise UsageError(
                    f"{type(self).__name__}.{field.name} must be {wanted}, but is {value!r} ({type(value).__name__})."
                )
