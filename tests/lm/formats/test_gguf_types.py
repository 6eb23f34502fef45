"""Quantized tensors of GGUF files: every type is read as its format defines it, or refused by its name."""

import dataclasses
from collections.abc import Callable

import gguf
import numpy as np
import pytest

from lm.config import TokenizerConfig
from lm.errors import InputError
from lm.formats.gguf.reading import READ, open_gguf
from lm.formats.gguf.writing import write_gguf
from lm.formats.tensors import parameter_shapes
from lm.tokenizer import train_bpe
from tests.lm.hugging_face_files import REPOSITORY
from tests.lm.model_configs import LLAMA

CONFIG = dataclasses.replace(LLAMA, vocab_size=300, width=256, mlp_width=256, heads=4, kv_heads=4, layers=1)
MATRIX = "blk.0.ffn_down.weight"
FLAT = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
"""Values of the 4 bits of IQ4_NL and IQ4_XS (ggml-org/ggml: ggml-common.h)."""
Block = Callable[[bytes, int], float]
"""(bytes of a block, number of a value) -> the value, by the layouts of ggml-common.h."""


def half(block: bytes, at: int) -> float:
    return float(np.frombuffer(block[at : at + 2], "<f2")[0])


def signed(byte: int) -> int:
    return byte - 256 if byte > 127 else byte


def nibble(block: bytes, at: int, i: int) -> int:
    """Value i of 32: the low halves of 16 bytes, then the high ones."""
    return block[at + i % 16] >> 4 * (i // 16) & 15


def fifth(block: bytes, at: int, i: int) -> int:
    return nibble(block, at + 4, i) | (int.from_bytes(block[at : at + 4], "little") >> i & 1) << 4


def pair_of_bits(block: bytes, at: int, i: int) -> int:
    """Value i of 256: a byte has those of four runs of 32."""
    return block[at + 32 * (i // 128) + i % 32] >> 2 * (i % 128 // 32) & 3


def scale_and_least(block: bytes, at: int, j: int) -> tuple[int, int]:
    """Eight pairs of six bits in 12 bytes."""
    s = block[at : at + 12]
    if j < 4:
        return s[j] & 63, s[j + 4] & 63
    return s[j + 4] & 15 | s[j - 4] >> 6 << 4, s[j + 4] >> 4 | s[j] >> 6 << 4


def q3_k(block: bytes, i: int) -> float:
    j = i // 16
    low = block[96 + j % 8] >> 4 * (j // 8) & 15
    scale = (low | (block[96 + 8 + j % 4] >> 2 * (j // 4) & 3) << 4) - 32
    return half(block, 108) * scale * (pair_of_bits(block, 32, i) - (0 if block[i % 32] >> i // 32 & 1 else 4))


def of_five_or_four(block: bytes, i: int, at: int, high: int) -> float:
    scale, least = scale_and_least(block, 4, i // 32)
    value = (block[at + 32 * (i // 64) + i % 32] >> 4 * (i % 64 // 32) & 15) + 16 * high
    return half(block, 0) * scale * value - half(block, 2) * least


def q6_k(block: bytes, i: int) -> float:
    quarter = i % 128 // 32
    low = block[64 * (i // 128) + 32 * (quarter % 2) + i % 32] >> 4 * (quarter // 2) & 15
    value = (low | pair_of_bits(block, 128, i) << 4) - 32
    return half(block, 208) * signed(block[192 + i // 16]) * value


def iq4_xs(block: bytes, i: int) -> float:
    part = i // 32
    high = int.from_bytes(block[2:4], "little") >> 2 * part & 3
    scale = (block[4 + part // 2] >> 4 * (part % 2) & 15 | high << 4) - 32
    return half(block, 0) * scale * FLAT[nibble(block, 8 + 16 * part, i % 32)]


BLOCKS: dict[str, tuple[Block, tuple[int, ...]]] = {
    "Q4_0": (lambda b, i: half(b, 0) * (nibble(b, 2, i) - 8), (0,)),
    "Q4_1": (lambda b, i: half(b, 0) * nibble(b, 4, i) + half(b, 2), (0, 2)),
    "Q5_0": (lambda b, i: half(b, 0) * (fifth(b, 2, i) - 16), (0,)),
    "Q5_1": (lambda b, i: half(b, 0) * fifth(b, 4, i) + half(b, 2), (0, 2)),
    "Q8_0": (lambda b, i: half(b, 0) * signed(b[2 + i]), (0,)),
    "Q2_K": (
        lambda b, i: half(b, 80) * (b[i // 16] & 15) * pair_of_bits(b, 16, i) - half(b, 82) * (b[i // 16] >> 4),
        (80, 82),
    ),
    "Q3_K": (q3_k, (108,)),
    "Q4_K": (lambda b, i: of_five_or_four(b, i, 16, 0), (0, 2)),
    "Q5_K": (lambda b, i: of_five_or_four(b, i, 48, b[16 + i % 32] >> i // 32 & 1), (0, 2)),
    "Q6_K": (q6_k, (208,)),
    "IQ4_NL": (lambda b, i: half(b, 0) * FLAT[nibble(b, 2, i)], (0,)),
    "IQ4_XS": (iq4_xs, (0,)),
}  # fmt: skip
"""{type: (one value of a block, where its float16 numbers are)}."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("gguf") / "m.gguf"
    text = (REPOSITORY / "LICENSE").read_text(encoding="utf-8")
    tokenizer = train_bpe([text], TokenizerConfig(vocab_size=300, split_pattern="gpt2", train_characters=100_000))
    drawn = np.random.default_rng(0)
    arrays = {name: drawn.normal(0, 0.5, shape).astype(np.float32) for name, shape in parameter_shapes(CONFIG).items()}
    write_gguf(path, CONFIG, arrays, tokenizer, "numbers")
    return path


def with_matrix(whole, path, kind: gguf.GGMLQuantizationType, rows: np.ndarray):
    """A copy of the file whose MATRIX has these bytes."""
    reader, writer = gguf.GGUFReader(whole), gguf.GGUFWriter(path, "llama")
    for field in reader.fields.values():
        if not field.name.startswith("GGUF.") and field.name != "general.architecture":
            kinds = field.types
            sub = kinds[-1] if len(kinds) > 1 else None
            writer.add_key_value(field.name, field.contents(), kinds[0], sub_type=sub)
    for tensor in reader.tensors:
        if tensor.name == MATRIX:
            writer.add_tensor(tensor.name, rows, raw_dtype=kind)
        else:
            writer.add_tensor(tensor.name, np.array(tensor.data))
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        step()
    return path


@pytest.mark.parametrize("name", BLOCKS)
def test_quantized_values_are_those_that_the_format_defines(whole, tmp_path, name):
    kind = gguf.GGMLQuantizationType[name]
    value_of, halves = BLOCKS[name]
    values, size = gguf.GGML_QUANT_SIZES[kind]
    drawn = np.random.default_rng(1)
    blocks = drawn.integers(0, 256, (256, 256 // values, size), np.uint8)
    for at in halves:
        blocks[..., at : at + 2] = drawn.normal(0, 0.1, blocks.shape[:2]).astype("<f2")[..., None].view(np.uint8)
    file = with_matrix(whole, tmp_path / "q.gguf", kind, blocks.reshape(256, -1))
    found = open_gguf(file).parameters["blocks.0.mlp.down.weight"].T
    assert found.dtype == np.float32
    for row in (0, 17, 255):
        wanted = [value_of(block.tobytes(), i) for block in blocks[row] for i in range(values)]
        np.testing.assert_allclose(found[row], np.array(wanted, np.float32), rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("kind", gguf.GGMLQuantizationType, ids=lambda kind: kind.name)
def test_every_type_is_read_or_refused_by_its_name(whole, tmp_path, kind):
    values, size = gguf.GGML_QUANT_SIZES[kind]
    file = with_matrix(whole, tmp_path / "q.gguf", gguf.GGMLQuantizationType.F32, np.zeros((256, 256), np.float32))
    data = bytearray(file.read_bytes())
    at = data.index(MATRIX.encode()) + len(MATRIX) + 4 + 2 * 8  # after the name, the count of axes, and two lengths
    data[at : at + 4] = int(kind).to_bytes(4, "little")
    file.write_bytes(data)
    assert 256 % values == 0 and 256 // values * size <= 8 * 256
    if kind.name in READ:
        assert kind.name in BLOCKS or size in (2, 4)
        assert open_gguf(file).parameters["blocks.0.mlp.down.weight"].shape == (256, 256)
    else:
        with pytest.raises(InputError, match=rf"(ffn_down.weight is of type {kind.name}; F32|no whole GGUF file)"):
            open_gguf(file)
