"""Errors returned to clients, in the format of OpenAI's API."""

from collections.abc import Mapping

from lm.errors import shown


class ApiError(Exception):
    """Error response with HTTP status `status` and a JSON body in the format of OpenAI's API."""

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
    """Return a 400 error: `field` has the invalid `value`; `wanted` describes valid ones."""
    return ApiError(400, f"{field} is {shown(value)}; it must be {wanted}.", param=field, code=code)
