"""Answers in the form that the page's scripts read."""

import base64
import json
from collections.abc import Mapping

import numpy as np


def key_of(name: str, fields: Mapping[str, object]) -> str:
    """Key of a recorded answer, as in source.js."""
    given = {field: value for field, value in fields.items() if value is not None}
    return name + json.dumps(given, sort_keys=True, separators=(",", ":"))


def script_json(value: object) -> str:
    """JSON that cannot close a <script>, whatever texts it contains."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def packed(array: np.ndarray) -> dict[str, object]:
    """An array for toArray of dom.js: little-endian numbers in base64, in C order."""
    kind = "int32" if array.dtype.kind in "iu" else "float32"
    data = np.ascontiguousarray(array, f"<{kind[0]}4").tobytes()
    return {"type": kind, "shape": list(array.shape), "data": base64.b64encode(data).decode("ascii")}
