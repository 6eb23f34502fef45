"""Strict access to the fields of a JSON body, and the errors that clients get, in the format of OpenAI's API. Wrong
types, invalid numbers and unknown fields are rejected by name. null is the same as an absent field."""

import json
import math
import threading
from collections.abc import Callable, Collection, Mapping

from lm.errors import shown


class ApiError(Exception):
    """Error that becomes an HTTP response with `status`, and a JSON body in the format of OpenAI's API."""

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ):
        """`param` is the name of the invalid field, `code` a machine-readable error code."""
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.headers = dict(headers or {})

    @property
    def kind(self) -> str:
        if self.status == 429:
            return "rate_limit_error"
        return "server_error" if self.status >= 500 else "invalid_request_error"

    def as_json(self) -> dict[str, object]:
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}


def wrong(field: str, value: object, wanted: str, code: str = "invalid_value") -> ApiError:
    """Return a 400 error about an invalid field; `wanted` describes valid values, as in "it must be an integer"."""
    return ApiError(400, f"{field} is {shown(value)}; it must be {wanted}.", param=field, code=code)


def parse_object(body: bytes) -> dict[str, object]:
    """Parse a JSON object. Raises ApiError 400 if `body` is not one."""
    try:
        value = json.loads(body.decode("utf-8"), parse_constant=refuse_constant)
    except UnicodeDecodeError as error:
        raise ApiError(400, f"The body is not UTF-8: byte {error.start:,} is {body[error.start]:#04x}.") from None
    except RecursionError:
        raise ApiError(400, "The body is JSON, but nested too deeply.") from None
    except ValueError as error:
        raise ApiError(400, f"The body is not JSON: {shown(str(error), quotes=False)}") from None
    if not isinstance(value, dict):
        raise ApiError(400, f"The body is {shown(value)}; it must be a JSON object.")
    return value


def refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")


class Cancelled(Exception):  # noqa: N818  (it went as it should)
    """Raised in an inspection whose client has disconnected: its result is not needed."""


class Fields:
    """Fields of a JSON body, read with checks of their types and ranges."""

    def __init__(
        self, body: Mapping[str, object], known: Collection[str], left: threading.Event | None = None,
        change_lane: Callable[[str, str], None] = lambda lane, text: None,
    ):  # fmt: skip
        """`left` is set when the client disconnects; the method `change_lane` calls the argument of that name. Raises
        ApiError 400 for fields that are not `known`."""
        self.body, self.left, self._change_lane = body, left, change_lane
        if unknown := [name for name in body if name not in known]:
            names = shown(", ".join(unknown), quotes=False)
            raise ApiError(
                400, f"Unknown fields: {names}. Known: {', '.join(known)}.", param=unknown[0], code="unknown_parameter"
            )

    def change_lane(self, lane: str, text: str = "") -> None:
        """Move the running inspection to another lane, so that other inspections in its own lane can run
        (lm.serving.inspections). Call it before work that takes seconds; `text` describes the work to waiting clients.
        Only the first call has an effect. Raises Cancelled if the client has disconnected."""
        self._change_lane(lane, text)

    def before_compiling(self, text: str) -> None:
        """Move the running inspection to the lane "compile" (`change_lane`), before a program is compiled."""
        self.change_lane("compile", text)

    def check_cancelled(self) -> None:
        """Raise Cancelled if the client has disconnected. Call it periodically during long work."""
        if self.left is not None and self.left.is_set():
            raise Cancelled

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

    def string(self, name: str, default: str, most: float = math.inf) -> str:
        """Read a string of at most `most` characters. Raises ApiError for another value."""
        value = self.get(name, default)
        if not isinstance(value, str):
            raise wrong(name, value, "a string", "invalid_type")
        if len(value) > most:
            raise wrong(name, value, f"of at most {most:,} characters here")
        return value

    def token_ids(self, name: str, vocab_size: int, most: float = math.inf) -> list[int]:
        """Read a list of at most `most` token ids below `vocab_size`; [] if it is absent. Raises ApiError for another
        value."""
        ids = self.get(name, [])
        if not isinstance(ids, list) or not all(type(id) is int for id in ids):
            raise wrong(name, ids, "a list of token ids", "invalid_type")
        if len(ids) > most:
            raise wrong(name, ids, f"of at most {most:,} ids here")
        if outside := [id for id in ids if not 0 <= id < vocab_size]:
            raise wrong(name, outside[0], f"of ids from 0 to {vocab_size - 1:,}")
        return ids
