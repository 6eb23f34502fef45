"""GGUF: exports are read back, with llama.cpp's quantization rules; unsupported features are rejected by name."""

import tracemalloc
from dataclasses import replace

import gguf
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from lm.config import RopeScalingConfig, TokenizerConfig
from lm.errors import InputError, UsageError
from lm.formats.gguf.model import KNOWN_SCALINGS
from lm.formats.gguf.reading import READ, open_gguf
from lm.formats.gguf.writing import write_gguf
from lm.formats.tensors import paired, parameter_shapes, unpaired
from lm.model.layers import rotary_frequencies
from lm.tokenizer import BytePairTokenizer, train_bpe
from lm.tokenizer.characters import CharacterTokenizer
from lm.tokenizer.hugging_face.library import LibraryTokenizer
from lm.tokenizer.sentencepiece import SentencePieceTokenizer, train_sentencepiece
from lm.tokenizer.sentencepiece_model import read_model
from tests.lm.byte_tokenizer import byte_tokenizer
from tests.lm.model_configs import GPT2, LLAMA, MODERN, random_parameters
from tests.lm.tokenizer.test_hugging_face_library import llama2_like, smollm2_like
from tests.run_files import LICENSE

TEXT = "The miller's mill stood by the river; it'll grind 1234 sacks of corn.\n\n  DON'T stop, naïve Ünïcode 数字!"
OWN_SCALING = RopeScalingConfig(
    factor=5.0, low_frequency_factor=1.5, high_frequency_factor=4.0, original_context_length=64
)
CONFIGS = {
    name: replace(config, vocab_size=400, initial_std=0.02)
    for name, config in {
        "gpt2": GPT2,
        "gpt2 tied": replace(GPT2, tie_embeddings=True),
        "llama": LLAMA,
        "llama untied": replace(LLAMA, tie_embeddings=False, kv_heads=1),
        "llama head_dim": replace(LLAMA, head_dim=16, rope_theta=500_000.0),
        "llama 3.1": replace(LLAMA, head_dim=16, rope_theta=500_000.0, rope_scaling=KNOWN_SCALINGS[0]),
        "own scaling": replace(LLAMA, rope_scaling=OWN_SCALING),
    }.items()
}


@pytest.fixture(scope="module")
def tokenizers():
    base = TokenizerConfig(vocab_size=320, split_pattern="gpt2", train_characters=100_000)
    patterns = {
        name: train_bpe([LICENSE, TEXT], replace(base, split_pattern=name, vocab_size=300))
        for name in ("gpt2", "cl100k", "o200k")
    }
    return (
        patterns
        | {
            kind: train_sentencepiece([LICENSE], replace(base, vocab_size=380, algorithm=kind))
            for kind in ("sentencepiece_bpe", "sentencepiece_unigram")
        }
        | {"SmolLM2": LibraryTokenizer.from_json(smollm2_like().to_str().encode(), "<|endoftext|>")}
    )


@pytest.mark.parametrize("name", CONFIGS)
def test_a_round_trip_in_float32_is_exact(tmp_path, tokenizers, name):
    config, arrays = CONFIGS[name], random_parameters(CONFIGS[name])
    write_gguf(tmp_path / "m.gguf", config, arrays, tokenizers["cl100k"], "numbers")
    source = open_gguf(tmp_path / "m.gguf")
    assert source.config == config and source.parameters.keys() == arrays.keys()
    for parameter, array in arrays.items():
        assert source.parameters[parameter].dtype == np.float32
        assert_array_equal(source.parameters[parameter], array)
    assert list(tmp_path.iterdir()) == [tmp_path / "m.gguf"]


@pytest.mark.parametrize("name", ["gpt2", "llama untied"])
@pytest.mark.parametrize(
    ("dtype", "kind", "largest"), [("bfloat16", "BF16", 2**-8), ("float16", "F16", 2**-11), ("q8_0", "Q8_0", None)]
)
def test_only_matrices_are_quantized(tmp_path, tokenizers, name, dtype, kind, largest):
    config, arrays = CONFIGS[name], random_parameters(CONFIGS[name])
    write_gguf(tmp_path / "m.gguf", config, arrays, tokenizers["gpt2"], "numbers", dtype)
    source = open_gguf(tmp_path / "m.gguf")
    assert source.config.parameter_dtype == ("bfloat16" if dtype == "bfloat16" else "float32")
    for tensor in gguf.GGUFReader(tmp_path / "m.gguf").tensors:
        exact = "norm" in tensor.name or tensor.name.endswith(".bias") or tensor.name == "position_embd.weight"
        whole_blocks = dtype != "q8_0" or tensor.shape[0] % 32 == 0
        assert tensor.tensor_type.name == (kind if not exact and whole_blocks else "F32"), tensor.name
    for parameter, array in arrays.items():
        read = np.asarray(source.parameters[parameter], np.float32)
        if largest is None:  # a step of the block's maximum / 127, plus the rounding of the scale
            assert np.max(np.abs(read - array)) <= np.max(np.abs(array)) * (0.5 / 127 + 2**-11)
        else:
            assert_allclose(read, array, rtol=largest, atol=1e-7)


@pytest.mark.parametrize(("kind", "levels"), [("Q4_0", 8), ("Q4_1", 15)])
def test_files_of_four_bits_are_read(tmp_path, tokenizers, kind, levels):
    """Written by the gguf package, as llama.cpp's quantize writes them."""
    config, arrays = CONFIGS["llama"], random_parameters(CONFIGS["llama"])
    write_gguf(tmp_path / "m.gguf", config, arrays, tokenizers["gpt2"], "numbers")
    whole, kind = gguf.GGUFReader(tmp_path / "m.gguf"), gguf.GGMLQuantizationType[kind]
    writer = gguf.GGUFWriter(tmp_path / "q.gguf", "llama")
    for field in whole.fields.values():
        if not field.name.startswith("GGUF.") and field.name != "general.architecture":
            writer.add_key_value(
                field.name, field.contents(), field.types[0], sub_type=field.types[-1] if len(field.types) > 1 else None
            )
    for tensor in whole.tensors:
        value = np.array(tensor.data)
        if value.ndim == 2 and value.shape[-1] % 32 == 0:
            writer.add_tensor(tensor.name, gguf.quants.quantize(value, kind), raw_dtype=kind)
        else:
            writer.add_tensor(tensor.name, value)
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        step()
    source = open_gguf(tmp_path / "q.gguf")
    assert source.config == config
    for parameter, array in arrays.items():
        assert np.max(np.abs(source.parameters[parameter] - array)) <= 2 * np.max(np.abs(array)) / levels


MATRIX = "blk.0.ffn_down.weight"


@pytest.mark.parametrize("kind", gguf.GGMLQuantizationType, ids=lambda kind: kind.name)
def test_every_type_is_read_or_rejected_by_name(tmp_path, tokenizers, kind):
    config = replace(CONFIGS["llama"], width=256, mlp_width=256, layers=1)
    zeros = {name: np.zeros(shape, np.float32) for name, shape in parameter_shapes(config).items()}
    write_gguf(tmp_path / "m.gguf", config, zeros, tokenizers["gpt2"], "numbers")
    data = bytearray((tmp_path / "m.gguf").read_bytes())
    at = data.index(MATRIX.encode()) + len(MATRIX) + 4 + 2 * 8  # after the name, the number of axes, and two lengths
    data[at : at + 4] = int(kind).to_bytes(4, "little")
    (tmp_path / "m.gguf").write_bytes(data)
    if kind.name in READ:
        assert open_gguf(tmp_path / "m.gguf").parameters["blocks.0.mlp.down.weight"].shape == (256, 256)
    else:
        with pytest.raises(
            InputError, match=rf"(ffn_down.weight is of type {kind.name}; F32|not a complete GGUF file)"
        ):
            open_gguf(tmp_path / "m.gguf")


def test_rotated_pairs_are_adjacent():
    """llama.cpp rotates rows 2c and 2c + 1 of a head, we rotate c and c + C/2: the same queries in another order."""
    weight_OI = np.arange(16.0).reshape(16, 1)  # two heads of 8
    assert paired(weight_OI, 2).ravel().tolist() == [0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15]
    assert_array_equal(unpaired(paired(weight_OI, 2), 2), weight_OI)


def test_llama_31_frequencies_are_divided_by_a_tensor(tmp_path, tokenizers):
    config = CONFIGS["llama 3.1"]
    write_gguf(tmp_path / "m.gguf", config, random_parameters(config), tokenizers["cl100k"], "numbers")
    (factors,) = [t.data for t in gguf.GGUFReader(tmp_path / "m.gguf").tensors if t.name == "rope_freqs.weight"]
    plain = np.asarray(rotary_frequencies(8, config.rope_theta, None))
    assert_allclose(plain / factors, rotary_frequencies(8, config.rope_theta, config.rope_scaling), rtol=1e-6)
    assert factors[0] == 1 and factors[-1] == pytest.approx(8)


@pytest.mark.parametrize(
    ("name", "pre"),
    [
        ("gpt2", "gpt-2"),
        ("cl100k", "llama-bpe"),
        ("o200k", "gpt-4o"),
        ("SmolLM2", "smollm"),
        ("sentencepiece_bpe", "default"),
    ],
)
def test_tokenizers_round_trip(tmp_path, tokenizers, name, pre):
    config, ours = CONFIGS["llama"], tokenizers[name]
    write_gguf(tmp_path / "m.gguf", config, random_parameters(config), ours, "numbers")
    fields = gguf.GGUFReader(tmp_path / "m.gguf").fields
    of = lambda field: fields[f"tokenizer.ggml.{field}"].contents()
    assert (of("pre"), of("add_bos_token"), of("bos_token_id")) == (pre, True, ours.bos_id)
    assert of("eos_token_id") in ours.eos_ids
    assert len(of("tokens")) == len(of("token_type")) == config.vocab_size  # llama.cpp requires a token for each row
    assert len({*of("tokens")}) == config.vocab_size
    read = open_gguf(tmp_path / "m.gguf").tokenizer
    for text in (TEXT, "", " ", "a  b\n\n ▁ ▁c 🙂", "<|endoftext|>", "\x85\xa0 ſ's"):
        assert read.encode(text) == ours.encode(text)
    assert (read.vocab_size, read.bos_id, read.eos_ids) == (ours.vocab_size, ours.bos_id, ours.eos_ids)
    assert [read.token_bytes(id) for id in range(300)] == [ours.token_bytes(id) for id in range(300)]
    if isinstance(ours, BytePairTokenizer | LibraryTokenizer):
        assert type(read) is type(ours)
    if isinstance(ours, BytePairTokenizer):
        assert read.fingerprint == ours.fingerprint
    if isinstance(ours, SentencePieceTokenizer):
        assert isinstance(read, SentencePieceTokenizer)
        assert read_model(read.model) == read_model(ours.model)


def test_features_that_gguf_lacks_are_rejected_by_name(tmp_path, tokenizers):
    def refused(match, tokenizer="gpt2", dtype="", arrays=None, **changed):
        base = CONFIGS["llama"] if "base" not in changed else changed.pop("base")
        config = replace(base, **changed)
        made = tokenizers[tokenizer] if isinstance(tokenizer, str) else tokenizer
        with pytest.raises(UsageError, match=match):
            write_gguf(tmp_path / "m.gguf", config, arrays or random_parameters(config), made, "x", dtype)
        assert not list(tmp_path.iterdir())

    all_of_it = (
        r"gguf \(llama of llama.cpp\) cannot express model.mlp = relu_squared \(only swiglu\), model.qk_norm = True "
        r"\(only False\), model.logit_softcap = 3.0 \(only None\), model.token_shift = True \(only False\), "
        r"model.ngram_rows = 48 \(only 0\)\. Choose --format hugging_face or standalone"
    )
    refused(all_of_it, base=MODERN)
    refused(r"cannot express model.attention_windows = \(8, 0\) \(only \(\)\)", attention_windows=(8, 0))
    refused(r"\(gpt2 of llama.cpp\) cannot express model.kv_heads = 2 \(only 4\)\.", base=CONFIGS["gpt2"], kv_heads=2)
    refused("of the kind characters, but GGUF supports bpe and sentencepiece", CharacterTokenizer("\nabc"))
    refused("is of the kind unigram, which llama.cpp's llama does not support", "sentencepiece_unigram")
    by_characters = LibraryTokenizer.from_json(llama2_like().to_str().encode(), "<s>")
    refused("The tokenizer normalizes text", by_characters)
    own = byte_tokenizer(r"\s+|\S+")
    refused(r"split pattern '\\\\s\+\|\\\\S\+'; it supports gpt2, cl100k, o200k", own)
    refused("--dtype is 'q4_0'; GGUF supports float32, float16, bfloat16, q8_0", dtype="q4_0")
    refused("has 300 symbols, but model.vocab_size = 299", vocab_size=299)
    arrays = random_parameters(CONFIGS["llama"])
    arrays["embedding"][0, 0] = 1e5
    refused(r"token_embd.weight has values up to 100000", dtype="float16", arrays=arrays)


@pytest.fixture
def file(tmp_path, tokenizers):
    write_gguf(
        tmp_path / "m.gguf", CONFIGS["llama"], random_parameters(CONFIGS["llama"]), tokenizers["gpt2"], "numbers"
    )
    return tmp_path / "m.gguf"


def test_damaged_and_foreign_files_are_rejected(file, tokenizers):
    whole = file.read_bytes()
    for cut in (0, 3, 20, 200, 5_000, len(whole) // 2, len(whole) - 40):
        file.write_bytes(whole[:cut])
        with pytest.raises(InputError, match=r"m\.gguf"):
            open_gguf(file)
    for before, after, match in (
        (b"llama", b"lamma", "general.architecture is 'lamma'; gpt2 and llama are supported"),
        (b"blk.1.ffn_up", b"blk.9.ffn_up", "blk.1.ffn_up.weight is absent, but"),
        (b"gpt-2", b"gpt-9", "tokenizer.ggml.pre is 'gpt-9'; gpt-2, llama-bpe, gpt-4o, smollm, llama3"),
    ):
        file.write_bytes(whole.replace(before, after, 1) if before != b"llama" else whole.replace(before, after))
        with pytest.raises(InputError, match=match):
            open_gguf(file)
    assert open_gguf(file, tokenizers["cl100k"]).tokenizer is tokenizers["cl100k"]  # not the file's


def test_only_one_tensor_is_in_memory_at_a_time(tmp_path, tokenizers):
    config = replace(CONFIGS["llama"], width=256, mlp_width=1024, layers=6, head_dim=64)
    shapes = parameter_shapes(config)
    sizes = {name: 4 * int(np.prod(shape)) for name, shape in shapes.items()}

    class Made(dict):
        def __getitem__(self, name):
            return np.full(shapes[name], 0.5, np.float32)

        def items(self):
            return [(name, np.broadcast_to(np.float32(0), shape)) for name, shape in shapes.items()]

    write_gguf(tmp_path / "warm.gguf", config, Made(shapes), tokenizers["gpt2"], "numbers", "q8_0")
    tracemalloc.start()
    write_gguf(tmp_path / "m.gguf", config, Made(shapes), tokenizers["gpt2"], "numbers", "q8_0")
    parameters = open_gguf(tmp_path / "m.gguf").parameters
    for name in parameters:
        assert np.asarray(parameters[name]).flat[0] == pytest.approx(0.5, rel=1e-2)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 6 * max(sizes.values()) < sum(sizes.values())
