"""Plots for notebooks show the values of the model, with labels for axes and tokens."""

import base64
import dataclasses
import functools
import re
import zlib

import numpy as np
import pytest

from lm.errors import UsageError
from lm.inspect import pictures
from lm.inspect.inspector import Inspector, Layers
from lm.model.param_names import named_leaves
from lm.parallel import one_device_mesh
from lm.tokenizer.characters import CharacterTokenizer
from tests.lm.model_configs import LLAMA, random_model

TOKENIZER = CharacterTokenizer("\n abcdefghijklmnopqrstuvwxyz")
SCANNED = dataclasses.replace(LLAMA, scan_layers=True)


@functools.cache
def inspector() -> Inspector:
    return Inspector(random_model(SCANNED), SCANNED, TOKENIZER, one_device_mesh(SCANNED))


def text_of(picture) -> str:
    """HTML of a picture, with compressed parts expanded."""
    html = picture._repr_html_()
    while packed := re.search(r">(eN[A-Za-z0-9+/]{60,}=*)<", html):
        part = zlib.decompress(base64.b64decode(packed[1])).decode()
        html = html[: packed.start() + 1] + part + html[packed.end() - 1 :]
    return re.sub(r"\s+", " ", html)


def test_parameters_have_the_names_of_checkpoints_and_axes():
    found = pictures.named_parameters(inspector(), "blocks.1.*.weight")
    assert sorted(found) == [
        *(f"blocks.1.attention.{name}.weight" for name in ("key", "out", "query", "value")),
        *(f"blocks.1.mlp.{name}.weight" for name in ("down", "gate", "up")),
    ]
    query = found["blocks.1.attention.query.weight"]
    assert query.axes == ("width", "heads")
    expected = named_leaves(inspector().model)["blocks.attention.query.weight"][1]
    np.testing.assert_array_equal(query.values, expected)
    with pytest.raises(UsageError, match=r"No parameter of the model matches 'blocks.2.*'. Its names: blocks.0."):
        pictures.parameters(inspector(), "blocks.2.*")


def test_plots_are_labelled():
    def shares(*shape: int) -> np.ndarray:
        return np.full(shape, 0.25, np.float32)

    ids = np.array([0, *TOKENIZER.encode("mill")], np.int32)
    looked = Layers(
        ids, shares(2, 4, 5, 5), shares(3, 5), shares(2, 5), shares(2, 5), shares(2, 5), np.zeros((3, 5, 1), np.int32),
        shares(3, 5, 1), shares(3, 5), np.ones((3, 5), np.int32), 0,
    )  # fmt: skip
    drawn = {
        "one": pictures.parameter(inspector(), "blocks.0.mlp.up.weight"),
        "attention": pictures.attention(inspector(), looked, 1),
        "lens": pictures.lens(inspector(), looked),
    }
    with pytest.raises(UsageError, match="layer is 2; this model has 2, numbered from 0 to 1"):
        pictures.attention(inspector(), looked, 2)
    html = {name: text_of(one) for name, one in drawn.items()}
    assert "width: 32" in html["one"] and "mlp: 48" in html["one"]
    assert "1 'm'" in html["attention"] and "query" in html["attention"]
    assert "after block 1" in html["lens"]
    tree = text_of(pictures.parameters(inspector(), "blocks.0.mlp.*"))
    assert all(name in tree for name in ("gate", "down", "width: 32", "mlp: 48")) and "attention" not in tree
