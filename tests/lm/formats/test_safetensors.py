"""The safetensors reader: exact values of each dtype; damaged files are rejected with both values."""

import json

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from lm.errors import InputError
from lm.formats.safetensors import read_folder, read_header, write_file
from tests.lm.hugging_face_files import FILE, FIXTURES, INDEX, parts, write_index, write_parts, write_shards

TWO = {
    "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
    "b": {"dtype": "F16", "shape": [4], "data_offsets": [24, 32]},
}


def changed(name, **entry):
    return TWO | {name: TWO[name] | entry}


def test_values_of_every_dtype_are_exact(tmp_path):
    bits = np.arange(2**16, dtype=np.uint32).astype("<u2")
    raw32 = np.random.default_rng(0).integers(0, 2**32, 5, np.uint32).astype("<u4")
    header = {
        "odd": {"dtype": "U8", "shape": [3], "data_offsets": [0, 3]},  # so that the following tensor is not aligned
        "bf16": {"dtype": "BF16", "shape": [256, 256], "data_offsets": [3, 3 + 2**17]},
        "f16": {"dtype": "F16", "shape": [2**16], "data_offsets": [3 + 2**17, 3 + 2**18]},
        "f32": {"dtype": "F32", "shape": [5, 1], "data_offsets": [3 + 2**18, 3 + 2**18 + 20]},
        "none": {"dtype": "F32", "shape": [0, 7], "data_offsets": [3 + 2**18 + 20, 3 + 2**18 + 20]},
    }
    write_parts(tmp_path / FILE, header, b"abc" + bits.tobytes() * 2 + raw32.tobytes())
    tensors = read_folder(tmp_path)
    # bfloat16 is the upper half of a float32.
    expected = (bits.astype(np.uint32) << 16).view(np.float32).reshape(256, 256)
    assert_array_equal(tensors["bf16"].read().astype(np.float32), expected)
    sign, exponent, fraction = bits >> 15, (bits >> 10) & 31, (bits & 1023).astype(float)
    expected = np.where(exponent == 0, fraction / 2**24, (1 + fraction / 1024) * 2.0 ** (exponent.astype(float) - 15))
    expected = np.where(exponent < 31, expected, np.where(fraction == 0, np.inf, np.nan)) * np.where(sign, -1, 1)
    assert_array_equal(tensors["f16"].read().astype(float), expected)
    assert_array_equal(tensors["f32"].read().view(np.uint32)[:, 0], raw32)
    assert tensors["none"].read().shape == (0, 7)
    with pytest.raises(InputError, match=r"odd has dtype U8, but only F32, F16, BF16"):
        tensors["odd"].read()


def test_a_written_file_is_read_back(tmp_path):
    values = {"x": np.arange(6, dtype=np.float32).reshape(2, 3), "y": np.ones(1, np.float32)}
    write_file(tmp_path / FILE, {name: ("F32", value.shape) for name, value in values.items()}, values.__getitem__)
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
    for name, tensor in read_folder(tmp_path).items():
        assert_array_equal(tensor.read(), values[name])
    assert int.from_bytes((tmp_path / FILE).read_bytes()[:8], "little") % 8 == 0  # so that the data is aligned


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"\xff{}", "invalid UTF-8"),
        (b'{"a": ' * 100_000, "recursion limit"),
        (b'{"a": {"dtype": "F32", "dtype": "F32"}}', "duplicate field `dtype`"),
        (changed("a", dtype="F4"), "invalid shape, data type, or offset"),
        (changed("a", shape=[2**62, 2**62]), "overflow"),
        (changed("b", data_offsets=[20, 28]), "invalid offset for tensor `b`"),
        ({"a": TWO["a"]}, "file not fully covered"),
    ],
)  # fmt: skip
def test_an_invalid_header_is_rejected(tmp_path, header, message):
    write_parts(tmp_path / FILE, header, bytes(32))
    size = (tmp_path / FILE).stat().st_size
    with pytest.raises(InputError, match=rf"{FILE}, a file of {size} bytes: .*{message}.*ownload it again"):
        read_folder(tmp_path)


def test_a_truncated_or_too_long_file_is_rejected(tmp_path):
    whole = (FIXTURES / "llama31" / FILE).read_bytes()
    path = tmp_path / FILE
    header_end = 8 + int.from_bytes(whole[:8], "little")
    for size in (0, 1, 7, 8, 9, header_end - 1, header_end, header_end + 1, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(InputError, match=f"a file of {size} bytes: .*ownload it again"):
            read_header(path)
    for longer in (whole + b"\0", b"\xff" * 8 + whole):
        path.write_bytes(longer)
        with pytest.raises(InputError, match=f"a file of {len(longer)} bytes: .*ownload it again"):
            read_header(path)
    path.write_bytes(whole)
    assert read_header(path).keys() == parts(path)[0].keys()
    path.unlink()
    with pytest.raises(InputError, match=f"{FILE} cannot be read: No such file"):
        read_header(path)


def test_an_index_that_does_not_match_its_files_is_rejected(tmp_path):
    folder, homes = write_shards(tmp_path / "x", "llama31", 3)
    assert read_folder(folder).keys() == homes.keys()
    (first, home), other = next(iter(homes.items())), sorted(set(homes.values()))[1]
    for weight_map, message in (
        (homes | {first: other}, f"has {first} in {other}, but that file has no such tensor"),
        ({k: v for k, v in homes.items() if k != first}, rf"{home} has {first}, which .* has in None"),
        (homes | {"new": home}, f"has new in {home}, but that file has no such tensor"),
        (homes | {first: "absent.safetensors"}, "absent.safetensors cannot be read: No such file"),
        (homes | {first: f"../x/{home}"}, "which is no file of this folder"),
        (homes | {first: ".."}, "which is no file of this folder"),
        (homes | {first: f"\0{home}"}, "which is no file of this folder"),
        (homes | {first: 3}, "in 3, which is no file of this folder"),
        ([], r"has the weight_map \[\]"),
        ({}, r"has the weight_map \{\}"),
    ):
        write_index(folder, weight_map)
        with pytest.raises(InputError, match=message):
            read_folder(folder)
    for text, message in (("{", "holds no JSON"), ("[1]", "holds list instead of a JSON object")):
        (folder / INDEX).write_text(text)
        with pytest.raises(InputError, match=f"{INDEX} {message}"):
            read_folder(folder)
    (folder / INDEX).write_text(json.dumps({}))
    with pytest.raises(InputError, match="has the weight_map None"):
        read_folder(folder)
    (folder / INDEX).unlink()
    with pytest.raises(InputError, match=f"neither {FILE} nor {INDEX}"):
        read_folder(folder)
