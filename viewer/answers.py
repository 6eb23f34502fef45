"""Answers of inspections (lm/serving/inspections.py) in the form that the page's scripts read."""

import base64
import json
from collections.abc import Mapping

import numpy as np


def key_of(name: str, fields: Mapping[str, object]) -> str:
    """Key of an answer in an exported page: name, and fields as JSON, such as batch{"step":1}; as in source.js."""
    given = {field: value for field, value in fields.items() if value is not None}
    return name + json.dumps(given, sort_keys=True, separators=(",", ":"))


def packed(array: np.ndarray) -> dict[str, object]:
    """Encode an array for toArray of dom.js: {"type", "shape", "data": int32 or float32, little-endian, in base64}."""
    kind = "int32" if array.dtype.kind in "iu" else "float32"
    data = np.ascontiguousarray(array, f"<{kind[0]}4").tobytes()
    return {"type": kind, "shape": list(array.shape), "data": base64.b64encode(data).decode("ascii")}
