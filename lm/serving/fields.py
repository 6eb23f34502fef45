"""The fields of a JSON body, read strictly: a wrong type or number is refused by its name, and so is a field that is
not known. null is the same as a field that is not there."""

import json
import math
import threading
from collections.abc import Callable, Collection, Mapping

from lm.errors import shown
from lm.serving.errors import ApiError, wrong


def parse_object(body: bytes) -> dict[str, object]:
    """The JSON object that `body` is. Raises ApiError 400 for whatever is none."""
    try:
        value = json.loads(body.decode("utf-8"), parse_constant=refuse_constant)
    except UnicodeDecodeError as error:
        raise ApiError(400, f"The body is not UTF-8: byte {error.start:,} is {body[error.start]:#04x}.") from None
    except RecursionError:
        raise ApiError(400, "The body is JSON, but nested too deep.") from None
    except ValueError as error:
        raise ApiError(400, f"The body is no JSON: {shown(str(error), quotes=False)}") from None
    if not isinstance(value, dict):
        raise ApiError(400, f"The body is {shown(value)}; it must be a JSON object.")
    return value


def refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")


class Unwanted(Exception):  # noqa: N818  (it went as it should)
    """Nobody waits for the answer any more."""


class Fields:
    """The fields of one body."""

    def __init__(
        self, body: Mapping[str, object], known: Collection[str], left: threading.Event | None = None,
        take_turn: Callable[[str, str], None] = lambda lane, text: None,
    ):  # fmt: skip
        """`left` is set when the client has gone; `take_turn` is as the method. Raises ApiError 400 for a field that is
        not `known`."""
        self.body, self.left, self._take_turn = body, left, take_turn
        if unknown := [name for name in body if name not in known]:
            names = shown(", ".join(unknown), quotes=False)
            raise ApiError(
                400, f"Unknown fields: {names}. Known: {', '.join(known)}.", param=unknown[0], code="unknown_parameter"
            )

    def take_turn(self, lane: str, text: str = "") -> None:
        """To be called before what takes seconds: from here on, this inspection shares the lane of that name instead of
        its own, which others may use; `text` says what it does, for those who wait. Only the first call counts. Raises
        Unwanted where the client has gone."""
        self._take_turn(lane, text)

    def tell(self, text: str) -> None:
        """`take_turn` before a program is compiled."""
        self.take_turn("compile", text)

    def go_on(self) -> None:
        """To be called now and then by what takes long. Raises Unwanted where the client has gone."""
        if self.left is not None and self.left.is_set():
            raise Unwanted

    def get(self, name: str, default: object = None) -> object:
        value = self.body.get(name)
        return default if value is None else value

    def integer(self, name: str, default: int, low: int, high: int) -> int:
        value = self.get(name, default)
        if type(value) is not int:
            raise wrong(name, value, "an integer", "invalid_type")
        if not low <= value <= high:
            raise wrong(name, value, f"from {low:,} to {high:,} here")
        return value

    def number(self, name: str, default: float, low: float, high: float = math.inf) -> float:
        value = self.get(name, default)
        if type(value) not in (int, float):
            raise wrong(name, value, "a number", "invalid_type")
        assert isinstance(value, int | float)
        if not low <= value <= high or not abs(value) < 1e300:
            raise wrong(name, value, f"from {low:g} to {high:g}" if high < math.inf else f"a number of {low:g} or more")
        return float(value)

    def boolean(self, name: str, default: bool) -> bool:
        value = self.get(name, default)
        if not isinstance(value, bool):
            raise wrong(name, value, "true or false", "invalid_type")
        return value

    def string(self, name: str, default: str) -> str:
        value = self.get(name, default)
        if not isinstance(value, str):
            raise wrong(name, value, "a string", "invalid_type")
        return value
