"""Hugging Face checkpoints: our models give transformers' logits and gradients; invalid files are rejected.

The numbers in tests/fixtures/hugging_face come from transformers (make_hugging_face.py of commit 6e194231).
"""

import ast
import json
import os
import subprocess
import tracemalloc
from dataclasses import fields, replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from optax import softmax_cross_entropy_with_integer_labels as cross_entropy

from lm.config import RopeScalingConfig
from lm.errors import InputError, UsageError
from lm.formats.hugging_face.config import config_json, model_config_of
from lm.formats.hugging_face.names import stored_tensors
from lm.formats.hugging_face.reading import open_folder
from lm.formats.hugging_face.writing import write_hugging_face
from lm.formats.safetensors import read_folder
from lm.model.layers import rotary_frequencies
from lm.model.param_names import named_leaves, replace_leaves
from lm.model.transformer import Transformer
from lm.tokenizer import BytePairTokenizer
from lm.tokenizer.characters import CharacterTokenizer
from lm.tokenizer.patterns import SPLIT_PATTERNS
from tests.lm import reference_model
from tests.lm.byte_tokenizer import byte_tokenizer
from tests.lm.hugging_face_files import (
    FILE,
    FIXTURES,
    REPOSITORY,
    load_hugging_face,
    tensors_of,
    write_checkpoint,
    write_shards,
    write_tensors,
)
from tests.lm.model_configs import GPT2, LLAMA, MODERN, random_model, random_parameters, stack_layers

NAMES = ("gpt2", "llama", "llama31")
LLAMA31 = RopeScalingConfig(
    factor=8.0, low_frequency_factor=1.0, high_frequency_factor=4.0, original_context_length=8192
)  # as in its model card
STORIES = REPOSITORY / "../shared/data/models/stories260K"


PEER = Path(os.environ.get("PEERS_DIR", "~/.cache/gristmill-peers")).expanduser() / "torch/bin/python"
needs_peer = pytest.mark.skipif(not PEER.exists(), reason="needs torch and transformers in $PEERS_DIR/torch")
CHARACTERS = CharacterTokenizer("\nabc")
LOAD_BY_TRANSFORMERS = """
import pathlib, sys, numpy, torch, transformers
for folder in map(pathlib.Path, sys.argv[2:]):
    model, report = transformers.AutoModelForCausalLM.from_pretrained(
        folder / "model", output_loading_info=True, dtype=torch.float32, trust_remote_code=sys.argv[1] == "trust")
    assert not any(report.values()), (folder, report)
    with torch.inference_mode():
        logits = model.eval()(torch.tensor(numpy.load(folder / "tokens.npy"))).logits
    numpy.save(folder / "logits.npy", logits.numpy())
"""


def logits_by_transformers(folders, trust=False):
    """Return the logits of each folder's tokens.npy by the model in its folder `model`.

    One process computes all of them, because importing torch and transformers takes 7 s.
    """
    command = [PEER, "-c", LOAD_BY_TRANSFORMERS, "trust" if trust else "", *folders]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return [np.load(folder / "logits.npy") for folder in folders]


def model_of(config, arrays):
    like = jax.eval_shape(lambda: Transformer(config, jax.random.key(0)))
    return replace_leaves(like, {name: jnp.asarray(array) for name, array in arrays.items()})


def mean_loss(model, tokens_BT):
    """(loss, logits) as transformers computes them: all positions but the last have a target."""
    logits_BTV = model.logits(model.read(tokens_BT, jnp.ones_like(tokens_BT)))
    return jnp.mean(cross_entropy(logits_BTV[:, :-1], tokens_BT[:, 1:])), logits_BTV


def check_logits(folder, golden):
    """Check that the model in `folder` gives the logits in the file `golden`; return the gradients of its mean loss."""
    config, arrays = load_hugging_face(folder)
    model, golden = model_of(config, arrays), np.load(golden)
    tokens_BT = jnp.asarray(np.atleast_2d(golden["input_ids"]), jnp.int32)
    expected_BTV = golden["logits"].reshape(*tokens_BT.shape, config.vocab_size)
    (_, logits_BTV), gradients = jax.jit(jax.value_and_grad(mean_loss, has_aux=True))(model, tokens_BT)
    logits_BTV = np.asarray(logits_BTV)
    assert_allclose(logits_BTV, expected_BTV, rtol=0, atol=1e-4)
    assert_array_equal(logits_BTV.argmax(-1), expected_BTV.argmax(-1))
    return gradients


def equal(left, right):
    assert left.keys() == right.keys()
    return all(left[name].dtype == right[name].dtype and np.array_equal(left[name], right[name]) for name in left)


@pytest.mark.fast_rows
@pytest.mark.parametrize("name", NAMES)
def test_logits_and_gradients_equal_those_of_transformers(name):
    gradients = named_leaves(check_logits(FIXTURES / name, FIXTURES / name / "golden.npz"))
    _, expected = load_hugging_face(FIXTURES / name / "gradients")
    total = np.sqrt(sum(np.sum(np.square(each)) for each in expected.values()))
    for parameter, each in expected.items():
        difference = np.linalg.norm(np.asarray(gradients[parameter]) - each)
        # The gradient of a key's bias is 0 up to rounding, since the softmax ignores a common addend.
        assert difference <= 1e-3 * np.linalg.norm(each) + 1e-6 * total, parameter


@pytest.mark.skipif(not STORIES.is_dir(), reason="needs ../shared/data/models/stories260K")
def test_a_trained_llama_gives_the_logits_of_transformers():
    check_logits(STORIES / "hf", STORIES / "golden.npz")


@pytest.mark.parametrize("name", NAMES)
def test_one_file_or_many_give_the_same_model(tmp_path, name):
    whole = load_hugging_face(write_checkpoint(tmp_path / "one", name))
    many = load_hugging_face(write_shards(tmp_path / "many", name, 3)[0])
    assert whole[0] == many[0] and equal(whole[1], many[1])
    assert equal(whole[1], load_hugging_face(FIXTURES / name)[1])  # llama has three files there


@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_complete_and_have_the_requested_dtype(name):
    config, exact = load_hugging_face(FIXTURES / name)
    rounded_config, rounded = load_hugging_face(FIXTURES / name, "bfloat16")
    assert rounded_config == replace(config, parameter_dtype="bfloat16", compute_dtype="bfloat16")
    like = named_leaves(jax.eval_shape(lambda: Transformer(config, jax.random.key(0))))
    assert {key: array.shape for key, array in exact.items()} == {key: leaf.shape for key, leaf in like.items()}
    for key, array in exact.items():
        assert array.dtype == np.float32 and array.flags.c_contiguous and not isinstance(array, np.memmap)
        assert rounded[key].dtype == jnp.bfloat16
        assert_array_equal(rounded[key], array.astype(jnp.bfloat16))


def test_loading_needs_memory_for_the_model_and_one_tensor(tmp_path):
    config = replace(LLAMA, width=256, mlp_width=1024, layers=4)
    arrays = random_parameters(config)
    write_hugging_face(tmp_path, config, arrays, CHARACTERS)
    sizes = [array.nbytes for array in arrays.values()]
    load_hugging_face(tmp_path)  # a first call, so that imports and traces are not counted
    tracemalloc.start()
    load_hugging_face(tmp_path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sum(sizes) < peak < sum(sizes) + max(sizes) + 2**17  # names, shapes and the like


def test_gpt2_as_published_is_read(tmp_path):
    """Its names have no prefix, and the weights include the causal mask."""
    tensors = {name.removeprefix("transformer."): each for name, each in tensors_of(FIXTURES / "gpt2").items()}
    tensors |= {"h.0.attn.bias": ("F32", [1, 1, 2, 2], bytes(16)), "h.1.attn.masked_bias": ("U8", [], b"\0")}
    folder = write_checkpoint(tmp_path, "gpt2", tensors)
    assert equal(load_hugging_face(folder)[1], load_hugging_face(FIXTURES / "gpt2")[1])


def test_a_tied_head_is_accepted_if_it_equals_the_embedding(tmp_path):
    tensors, expected = tensors_of(FIXTURES / "llama"), load_hugging_face(FIXTURES / "llama")[1]
    dtype, shape, raw = tensors["model.embed_tokens.weight"]
    folder = write_checkpoint(tmp_path, "llama", tensors | {"lm_head.weight": (dtype, shape, raw)})
    assert equal(load_hugging_face(folder)[1], expected)
    write_tensors(folder / FILE, tensors | {"lm_head.weight": (dtype, shape, raw[4:] + raw[:4])})
    with pytest.raises(InputError, match=r"lm_head.weight \(11, 16\) other than model.embed_tokens.weight \(11, 16\)"):
        load_hugging_face(folder)


@pytest.mark.parametrize(("name", "tensor"), [(n, t) for n in NAMES for t in tensors_of(FIXTURES / n)])
def test_every_tensor_is_required_and_has_one_shape(tmp_path, name, tensor):
    tensors = tensors_of(FIXTURES / name)
    dtype, shape, raw = tensors[tensor]
    folder = write_checkpoint(tmp_path, name, {key: each for key, each in tensors.items() if key != tensor})
    with pytest.raises(InputError, match=f"has no tensor {tensor}, which its config.json asks for"):
        load_hugging_face(folder)
    longer = [shape[0] + 1, *shape[1:]]
    write_tensors(folder / FILE, tensors | {tensor: (dtype, longer, raw + raw[: len(raw) // shape[0]])})
    with pytest.raises(InputError) as caught:
        load_hugging_face(folder)
    assert f"{tensor} has shape {tuple(longer)}" in str(caught.value)
    assert f"needs {tuple(shape)}" in str(caught.value)


def test_a_tensor_that_the_model_does_not_use_is_rejected(tmp_path):
    for name, extra in (
        ("llama", "model.layers.2.mlp.up_proj.weight"),
        ("llama", "model.layers.0.self_attn.q_proj.bias"),
        ("gpt2", "transformer.h.0.attn.bias.extra"),
        ("gpt2", "lm_head.bias"),
    ):
        tensors = tensors_of(FIXTURES / name) | {extra: ("F32", [1], bytes(4))}
        with pytest.raises(InputError, match=rf"has a tensor {extra} of shape \(1,\), which the model"):
            load_hugging_face(write_checkpoint(tmp_path / extra, name, tensors))
    with pytest.raises(InputError, match=r"lm_head.weight of shape|lm_head.weight \(1,\) other than"):
        tensors = tensors_of(FIXTURES / "gpt2") | {"lm_head.weight": ("F32", [1], bytes(4))}
        load_hugging_face(write_checkpoint(tmp_path / "head", "gpt2", tensors))


def test_an_untied_gpt2_and_weights_of_unsupported_dtypes_are_rejected(tmp_path):
    with pytest.raises(InputError, match=r"has no tensor lm_head.weight"):
        load_hugging_face(write_checkpoint(tmp_path / "x", "gpt2", tie_word_embeddings=False))
    tensors = tensors_of(FIXTURES / "llama")
    _, shape, raw = tensors["model.norm.weight"]
    tensors["model.norm.weight"] = ("F64", shape, raw * 2)
    with pytest.raises(InputError, match=r"model.norm.weight has dtype F64, but only F32, F16, BF16"):
        load_hugging_face(write_checkpoint(tmp_path / "y", "llama", tensors))


SCALED = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 64}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "config", "message"),
    [
        ("llama", {"architectures": ["MistralForCausalLM"]}, r"architectures is \['MistralForCausalLM'\]"),
        ("llama", {"architectures": ...}, "architectures is None"),
        ("llama", {"architectures": "LlamaForCausalLM"}, "architectures is 'LlamaForCausalLM', which is not"),
        ("llama", {"architectures": ["LlamaForCausalLM"] * 2}, "architectures is .* not supported"),
        ("llama", {"hidden_act": "gelu"}, "hidden_act is 'gelu', which is not supported; only 'silu'"),
        ("llama", {"attention_bias": True}, "attention_bias is True, which is not supported; only False"),
        ("llama", {"mlp_bias": True}, "mlp_bias is True"),
        ("llama", {"head_dim": 0}, "is not a supported model: model.head_dim is 0"),
        ("llama", {"head_dim": 7}, "is not a supported model: model.head_dim .* = 7 is odd"),
        ("llama", {"head_dim": "8"}, "head_dim is '8', but must be of type int"),
        ("llama", {"head_dim": ..., "hidden_size": 17}, "not a supported model: model.heads = 2 .* model.width = 17"),
        ("llama", {"num_attention_heads": 0}, "is not a supported model: model.heads is 0"),
        ("llama", {"hidden_size": ...}, "hidden_size is None, but must be of type int"),
        ("llama", {"hidden_size": "16"}, "hidden_size is '16', but must be of type int"),
        ("llama", {"num_hidden_layers": True}, "num_hidden_layers is True, but must be of type int"),
        ("llama", {"num_hidden_layers": 0}, "is not a supported model: model.layers is 0"),
        ("llama", {"num_key_value_heads": 3}, "is not a supported model: model.kv_heads = 3"),
        ("llama", {"tie_word_embeddings": 1}, "tie_word_embeddings is 1, but must be of type bool"),
        ("llama", {"rms_norm_eps": 10**400}, "rms_norm_eps is 10+.* but must be of type float"),
        ("llama", {"rms_norm_eps": -1e-5}, "is not a supported model: model.norm_epsilon is -1e-05"),
        ("llama", {"quantization_config": {"bits": 4}}, r"quantization_config is \{'bits': 4\}"),
        ("llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5"),
        ("llama", {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}}, "rotary_factor is 0.5"),
        ("llama", {"rope_parameters": {"rope_type": "yarn", "factor": 2.0}}, "rope_type is 'yarn', which is not"),
        ("llama", {"rope_parameters": ..., "rope_scaling": {"type": "linear", "factor": 2.0}}, "type is 'linear'"),
        ("llama", {"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_parameters is .* but rope_scaling is"),
        ("llama", {"rope_parameters": 3}, "rope_parameters is 3, but must be of type dict"),
        ("llama", {"rope_parameters": {"rope_type": "llama3"}}, "factor is None, but must be of type float"),
        ("llama", {"rope_parameters": SCALED | {"factor": 0}}, "model.rope_scaling.factor is 0.0; it must be above 0"),
        ("gpt2", {"activation_function": "gelu"}, "activation_function is 'gelu', .* only 'gelu_new' is"),
        ("gpt2", {"scale_attn_weights": False}, "scale_attn_weights is False"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx is True"),
        ("gpt2", {"add_cross_attention": True}, "add_cross_attention is True"),
        ("gpt2", {"n_head": 3}, "is not a supported model: model.heads = 3"),
        ("gpt2", {"vocab_size": ...}, "vocab_size is None"),
    ],
)  # fmt: skip
def test_a_config_of_an_unsupported_model_is_rejected(tmp_path, name, config, message):
    folder = write_checkpoint(tmp_path, name, **config)
    with pytest.raises(InputError, match=message) as caught:
        load_hugging_face(folder)
    assert caught.value.exit_code == 1 and str(folder / "config.json") in str(caught.value)


def test_our_config_section_with_unknown_fields_is_rejected(tmp_path):
    text = config_json(MODERN)
    text["model"]["rope_scaling"] = {"slope": 2.0}
    (tmp_path / "config.json").write_text(json.dumps(text))
    with pytest.raises(InputError, match=r"is not a supported model: .*slope"):
        model_config_of(tmp_path)


def test_an_unreadable_config_is_rejected(tmp_path):
    with pytest.raises(InputError, match=r"config.json cannot be read: No such file"):
        model_config_of(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(InputError, match=r"config.json holds no JSON"):
        model_config_of(tmp_path)


def test_settings_of_older_files_mean_the_same(tmp_path):
    new = model_config_of(write_checkpoint(tmp_path, "llama", rope_parameters=SCALED | {"rope_theta": 5e5}))
    assert new.rope_theta == 5e5
    assert new.rope_scaling == replace(LLAMA31, original_context_length=64)
    old = {"rope_parameters": ..., "rope_theta": 500000, "rope_scaling": SCALED}
    assert model_config_of(write_checkpoint(tmp_path, "llama", **old)) == new
    missing = dict.fromkeys(("head_dim", "attention_bias", "mlp_bias", "rope_parameters", "num_key_value_heads"), ...)
    llama1 = model_config_of(write_checkpoint(tmp_path, "llama", **missing, rope_scaling=None))
    assert (llama1.kv_heads, llama1.rope_theta, llama1.rope_scaling) == (2, 10_000.0, None)


@pytest.mark.parametrize("scaling", [None, LLAMA31, replace(LLAMA31, factor=32.0)])
def test_rotary_frequencies_follow_the_formula(scaling):
    """The settings of Llama 3.1 and 3.2: 64 pairs of channels, theta 500,000."""
    ours = np.asarray(rotary_frequencies(64, 500_000.0, scaling))
    formula = np.array([reference_model.frequency(500_000.0, pair / 64, scaling) for pair in range(64)])
    assert_allclose(ours, formula, rtol=5e-7)
    ratio = formula * 500_000.0 ** (np.arange(64) / 64)
    if scaling is not None:  # all three cases occur
        slow = np.isclose(ratio, 1 / scaling.factor)
        assert slow.any() and (ratio == 1).any() and (~slow & (ratio < 1)).any()


def test_invalid_rope_scaling_is_rejected():
    for field in fields(LLAMA31):
        zero = type(getattr(LLAMA31, field.name))(0)
        with pytest.raises(UsageError, match=f"model.rope_scaling.{field.name} is {zero}; it must be above 0"):
            replace(LLAMA31, **{field.name: zero})
    with pytest.raises(UsageError, match=r"low_frequency_factor = 4.0 must be below high_frequency_factor = 4.0"):
        replace(LLAMA31, low_frequency_factor=4.0)
    with pytest.raises(UsageError, match=r"rope_scaling is given, but model.position = learned"):
        replace(GPT2, rope_scaling=LLAMA31)


EXPORTED = {"llama": LLAMA, "gpt2": GPT2} | {
    "llama31": replace(LLAMA, rope_scaling=LLAMA31, rope_theta=500_000.0, parameter_dtype="bfloat16"),
    "head_dim": replace(LLAMA, head_dim=12),
}
exported = pytest.mark.parametrize("config", EXPORTED.values(), ids=EXPORTED)


@exported
def test_an_export_is_read_back(tmp_path, config):
    arrays = random_parameters(config)
    write_hugging_face(tmp_path / "x", config, arrays, CHARACTERS)
    found, again = load_hugging_face(tmp_path / "x", config.parameter_dtype)
    assert found == replace(config, compute_dtype=config.parameter_dtype) and equal(again, arrays)
    assert read_folder(tmp_path / "x").keys() == stored_tensors(config).keys()


@pytest.mark.fast_rows(2)
@exported
def test_stacked_layers_are_written_as_identical_files(tmp_path, config):
    model = random_model(config)
    write_hugging_face(tmp_path / "one by one", config, named_leaves(model), CHARACTERS)
    scanned = replace(config, scan_layers=True)
    write_hugging_face(tmp_path / "stack", scanned, named_leaves(stack_layers(model)), CHARACTERS)
    for path in (tmp_path / "stack").iterdir():
        assert path.read_bytes() == (tmp_path / "one by one" / path.name).read_bytes(), path.name


def test_the_head_dimension_comes_from_the_file(tmp_path):
    """transformers' head_dim; with another value, the tensors have other shapes."""
    folder = write_checkpoint(tmp_path, "llama", head_dim=16)
    assert model_config_of(folder).head_dim == 16
    with pytest.raises(InputError, match=r"q_proj.weight has shape \(16, 16\), .* needs \(32, 16\)"):
        load_hugging_face(folder)
    assert model_config_of(FIXTURES / "llama").head_dim is None


OWN = byte_tokenizer(SPLIT_PATTERNS["gpt2"])
TWO = BytePairTokenizer(SPLIT_PATTERNS["cl100k"], OWN.tokens, "<s>", "</s>", special_tokens={"<s>": 256, "</s>": 257})


@pytest.mark.parametrize(
    ("tokenizer", "bos", "eos"), [(OWN, 256, 256), (TWO, 256, [257, 256]), (CHARACTERS, 0, None)],
    ids=["one symbol heads and ends a document", "one heads it, another ends it", "characters have no end"],
)  # fmt: skip
@pytest.mark.parametrize("family", [LLAMA, GPT2], ids=["llama", "gpt2"])
def test_both_configs_have_the_bos_and_eos_tokens(tmp_path, family, tokenizer, bos, eos):
    """Otherwise transformers uses its defaults (1 and 2 as in Llama 2, or 50256 as in GPT-2) and never stops. In
    training the next document's BOS ends a document, so it is always an EOS token too."""
    config = replace(family, vocab_size=258, layers=1)
    arrays = random_parameters(config)
    write_hugging_face(tmp_path, config, arrays, tokenizer)
    for name in ("config.json", "generation_config.json"):
        found = json.loads((tmp_path / name).read_text())
        assert {"bos_token_id": bos, "eos_token_id": eos, "pad_token_id": None}.items() <= found.items()
    assert load_hugging_face(tmp_path)[0] == config


def test_a_tokenizer_larger_than_the_model_is_rejected(tmp_path):
    with pytest.raises(UsageError, match=r"tokenizer has 257 symbols, but model\.vocab_size = 64"):
        write_hugging_face(tmp_path, LLAMA, random_parameters(LLAMA), OWN)
    assert not list(tmp_path.iterdir())


def test_parameters_of_another_model_are_not_written(tmp_path):
    arrays = random_parameters(LLAMA)
    arrays.pop("norm.scale")
    with pytest.raises(InputError, match=r"norm.scale is absent, but \(32,\) in the config"):
        write_hugging_face(tmp_path, LLAMA, arrays, CHARACTERS)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "change",
    [
        {"qk_norm": True}, {"token_shift": True}, {"ngram_rows": 8}, {"logit_softcap": 30.0}, {"biases": True},
        {"attention_windows": (8, 0)}, {"mlp": "relu_squared"}, {"norm": "layernorm"}, {"rope_scaling": LLAMA31},
        {"position": "learned", "head_dim": 6},
    ],
    ids=str,
)  # fmt: skip
def test_models_other_than_gpt2_and_llama_are_written_with_their_code(tmp_path, change):
    """tests.bench.interop of commit 6e194231 runs that code."""
    config = replace(MODERN, **change)
    arrays = random_parameters(config)
    write_hugging_face(tmp_path, config, arrays, CHARACTERS)
    found, again = load_hugging_face(tmp_path)
    assert found == replace(config, zero_init=found.zero_init) and equal(again, arrays)
    written = json.loads((tmp_path / "config.json").read_text())
    for place in written["auto_map"].values():
        module, name = place.split(".")
        tree = ast.parse((tmp_path / f"{module}.py").read_text(encoding="utf-8"))
        assert name in [node.name for node in tree.body if isinstance(node, ast.ClassDef)]
    assert written["bos_token_id"] == 0 and written["vocab_size"] == 64


def test_shards_give_the_same_model_and_respect_the_maximum_size(tmp_path):
    arrays = random_parameters(LLAMA)
    write_hugging_face(tmp_path, LLAMA, arrays, CHARACTERS, shard_bytes=20_000)
    files = sorted(tmp_path.glob("*.safetensors"))
    assert len(files) > 2 and all(path.stat().st_size < 20_000 + 4_000 for path in files)
    assert [path.name for path in files] == [f"model-{n:05}-of-{len(files):05}.safetensors" for n in
                                             range(1, len(files) + 1)]  # fmt: skip
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(array.nbytes for array in arrays.values())
    assert equal(load_hugging_face(tmp_path)[1], arrays)


@pytest.mark.parametrize(("dtype", "stored"), [("float16", np.float16), ("bfloat16", jnp.bfloat16)])
def test_weights_are_written_in_the_requested_dtype(tmp_path, dtype, stored):
    arrays = random_parameters(LLAMA)
    write_hugging_face(tmp_path, LLAMA, arrays, CHARACTERS, dtype)
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == dtype
    for name, value in load_hugging_face(tmp_path)[1].items():
        assert_array_equal(value, arrays[name].astype(stored).astype(np.float32))
    arrays["norm.scale"] = np.full_like(arrays["norm.scale"], 1e5)
    if dtype == "float16":
        with pytest.raises(UsageError, match=r"model.norm.weight has values up to 100000, but float16 .* bfloat16"):
            write_hugging_face(tmp_path / "large", LLAMA, arrays, CHARACTERS, dtype)


def test_pickles_are_rejected_with_the_remedy(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(InputError, match=r"pytorch_model.bin, a pickle, .* safe_serialization=True"):
        open_folder(tmp_path)
