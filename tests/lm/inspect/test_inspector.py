"""The Inspector's results equal the model's own, for every family, layout and length of text."""

import gc
import gzip
import itertools
import math
import weakref
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from lm.config import EvaluateConfig, MeshConfig
from lm.errors import InputError, UsageError
from lm.evaluation.bits_per_byte import evaluate_texts
from lm.inference.weights import for_inference
from lm.inspect.inspector import Inspector, gzip_bits_per_byte
from lm.model.param_names import named_leaves
from lm.model.transformer import Transformer, unstack_layers, with_blocks
from lm.parallel import make_mesh, one_device_mesh, shardings
from lm.tokenizer.characters import CharacterTokenizer
from tests.lm.inference.models import log_probabilities
from tests.lm.model_configs import FAMILIES, LLAMA, MODERN, random_model

TOKENIZER = CharacterTokenizer("\n" + "".join(map(chr, range(32, 64))) + "abcdefghijklmnopqrstuvwxyz")
TEXT = "a tale of 2"
MOST = replace(MODERN, attention_windows=(3, 0))
CONFIGS = {"windows": MOST, **FAMILIES, "scan": replace(LLAMA, scan_layers=True)}
EACH = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
"""The first, with all options of MODERN, is the only fast row of tests that compile."""

SMALLEST = replace(LLAMA, layers=1)


def inspector_of(config, model=None) -> Inspector:
    return Inspector(model or random_model(config), config, TOKENIZER, one_device_mesh(config))


def test_each_compilation_is_reported_once():
    config, told = replace(SMALLEST, rope_theta=9_000.0), []
    for inspector in (inspector_of(config), inspector_of(config)):
        for text in ("a", "bcd"):
            inspector.score(text, tell=told.append)
            inspector.next_logits(text, tell=told.append)
    assert told == [f"compiling a program for texts of up to {config.context_length - 1} tokens (once)"]


def distribution(model, ids) -> np.ndarray:
    """(T, V): probabilities after each token, without padding."""
    return np.exp(log_probabilities(model, len(ids))(ids))


@pytest.mark.slow
@EACH
def test_each_stage_of_the_lens_is_the_model_without_the_later_blocks(config):
    """The last stage is the model's own distribution."""
    model, found = random_model(config), inspector_of(config).layers(TEXT, top=4)
    assert found.lens_ids_ETK.shape == (config.layers + 1, len(TEXT) + 1, 4) and found.dropped == 0
    whole = unstack_layers(model)
    for stage in (1, config.layers):
        p_TV = distribution(with_blocks(whole, whole.layer_blocks()[:stage]), found.ids_T)
        in_order_TV = np.argsort(-p_TV[:, : TOKENIZER.vocab_size], axis=-1, kind="stable")
        top_TK = np.take_along_axis(p_TV, in_order_TV[:, :4], axis=-1)
        assert_allclose(found.lens_probabilities_ETK[stage], top_TK, rtol=1e-4)
        named_TK = np.take_along_axis(p_TV, found.lens_ids_ETK[stage], axis=-1)
        assert_allclose(found.lens_probabilities_ETK[stage], named_TK, rtol=1e-4)
        next_T = p_TV[np.arange(len(TEXT)), found.ids_T[1:]]
        assert_allclose(found.next_probability_ET[stage, :-1], next_T, rtol=1e-4)
        ranks_T = 1 + (p_TV[:-1, : TOKENIZER.vocab_size] > next_T[:, None]).sum(-1)
        assert_array_equal(found.next_rank_ET[stage, :-1], ranks_T)


@pytest.mark.fast_rows
@EACH
def test_attention_is_causal_and_sums_to_one(config):
    found = inspector_of(config).layers(TEXT)
    length = len(TEXT) + 1
    assert found.attention_LHTS.shape == (config.layers, config.heads, length, length)
    assert_allclose(found.attention_LHTS.sum(-1), 1.0, atol=1e-5)
    t, s = np.indices((length, length))
    for layer, weights_HTS in enumerate(found.attention_LHTS):
        seen_TS = (s <= t) & (s > t - (config.window(layer) or length))
        assert (weights_HTS[:, seen_TS] > 0).all() and (weights_HTS[:, ~seen_TS] == 0).all()


@pytest.mark.slow
def test_the_residual_stream_is_the_sum_of_the_outputs():
    """In a model of width 1, norms are absolute values."""
    config = replace(LLAMA, width=1, heads=1, kv_heads=1, head_dim=2, tie_embeddings=False)
    model = random_model(config)
    found = inspector_of(config).layers(TEXT)
    assert found.stream_ET.shape == (config.layers + 1, len(TEXT) + 1)
    assert_allclose(found.stream_ET[0], np.abs(np.asarray(model.embedding[...])[found.ids_T, 0]), rtol=1e-5)
    for before_T, added_T, after_T in (
        *zip(found.stream_ET, found.attention_out_LT, found.after_attention_LT, strict=False),
        *zip(found.after_attention_LT, found.mlp_out_LT, found.stream_ET[1:], strict=True),
    ):
        near = lambda size_T, after_T=after_T: np.isclose(after_T, size_T, atol=1e-5)
        assert (near(before_T + added_T) | near(np.abs(before_T - added_T))).all()


@pytest.mark.fast_rows
@EACH
def test_scores_equal_the_forward_pass(config):
    found = inspector_of(config).score(TEXT, top=3)
    ids = np.array([TOKENIZER.bos_id, *TOKENIZER.encode(TEXT), *TOKENIZER.encode("?")])
    logp_TV = log_probabilities(random_model(config), config.context_length)(ids[:-1].tolist())[
        :, : TOKENIZER.vocab_size
    ]
    logp_N = np.take_along_axis(logp_TV, ids[1:, None], axis=1)[:, 0]
    likeliest_TK = np.argsort(-logp_TV, axis=1, stable=True)[:, :3]
    assert_allclose(found.bits_N * np.float32(-math.log(2)), logp_N[:-1], rtol=1e-4)
    assert_array_equal(found.ranks_N, 1 + (logp_TV > logp_N[:, None]).sum(axis=1)[:-1])
    assert_array_equal(found.top_ids_NK, likeliest_TK[:-1])
    top_TK = np.exp(np.take_along_axis(logp_TV, likeliest_TK, axis=1))
    assert_allclose(found.top_probabilities_NK, top_TK[:-1], rtol=1e-4)
    logits_V = inspector_of(config).next_logits(TEXT).logits_V  # logits of the token after the text, here "?"
    assert logits_V.shape == (TOKENIZER.vocab_size,)
    assert_array_equal(np.argsort(-logits_V)[:3], likeliest_TK[-1])
    differences = logits_V[likeliest_TK[-1]] - logits_V[ids[-1]]
    assert_allclose(differences, logp_TV[-1, likeliest_TK[-1]] - logp_N[-1], atol=1e-4)


def test_bits_per_byte_equal_those_of_the_evaluation_and_gzip():
    found = inspector_of(MOST).score(TEXT)
    figures = evaluate_texts(random_model(MOST), MOST, EvaluateConfig(stride=8, batch_size=1), TOKENIZER, [TEXT])
    assert found.bits_per_byte_N[-1] == pytest.approx(figures["bits_per_byte"], rel=1e-5)
    assert found.gzip_bits_per_byte_N[-1] == pytest.approx(figures["gzip_bits_per_byte"])


def test_the_size_of_each_prefix_equals_gzip():
    """Also beyond the 32 KiB window of deflate, and with empty pieces."""
    words = np.random.default_rng(0).choice([b"meal ", b"mill", b" ground ", b"\n"], 30_000)
    whole = b"".join(map(bytes, words))
    cuts = [0, 0, 1, 50, 20_000, 20_000, 40_000, 99_999, len(whole)]
    found = gzip_bits_per_byte([whole[start:end] for start, end in itertools.pairwise(cuts)])
    assert math.isnan(found[0])
    for end, bits in zip(cuts[2:], found[1:], strict=True):
        assert bits == 8 * len(gzip.compress(whole[:end], 9)) / end


@pytest.mark.slow
@pytest.mark.parametrize("context", [40, 96])
def test_each_padded_length_is_compiled_once(context, monkeypatch):
    """Programs are traced for each padded length, not for each text or step; layers pads to 64 positions."""
    config = replace(SMALLEST, context_length=context)
    traced = []
    for name in ("read", "forward_with_taps"):
        method = getattr(Transformer, name)
        spy = lambda self, tokens_BT, *rest, name=name, method=method: (
            traced.append((name, tokens_BT.shape[1])), method(self, tokens_BT, *rest)
        )[1]  # fmt: skip
        monkeypatch.setattr(Transformer, name, spy)
    tokenizer = CharacterTokenizer("\n a" + "b" * (context > 40))  # without compiled programs from other tests
    models = random_model(SMALLEST), jax.tree.map(lambda x: x + 1, random_model(SMALLEST))
    steps = [Inspector(model, config, tokenizer, one_device_mesh(config)) for model in models]
    steps[0].warm()
    read, looked = {40: ((32, 40), (32, 40)), 96: ((32, 64, 96), (32, 64))}[context]
    expected = [("forward_with_taps", length) for length in looked] + [("read", length) for length in read]
    assert sorted(traced) == expected
    for inspector in steps:
        for length in range(6, context, 12):
            inspector.score("a" * length)
            inspector.next_logits("a" * length)
            assert inspector.layers("a" * length).dropped == max(0, length - 63)
    assert sorted(traced) == expected


@pytest.mark.slow
@pytest.mark.parametrize("weights", ["float32", "bfloat16", "int8"])
def test_prepared_weights_can_be_inspected(weights):
    """Tied embeddings, and attention with fused query, key and value."""
    prepared = for_inference(random_model(SMALLEST), SMALLEST, weights)
    inspector = inspector_of(SMALLEST, prepared)
    found, scored = inspector.layers(TEXT, top=1), inspector.score(TEXT)
    p_TV = distribution(prepared, found.ids_T)
    rough = 3e-2 if weights == "bfloat16" else 1e-4  # sums of bfloat16 depend on the number of rows
    assert_allclose(found.lens_probabilities_ETK[-1, :, 0], p_TV[:, : TOKENIZER.vocab_size].max(-1), rtol=rough)
    assert_allclose(2.0**-scored.bits_N, found.next_probability_ET[-1, :-1], rtol=rough)
    assert inspector.parameters == inspector_of(SMALLEST).parameters


@pytest.mark.slow
def test_a_sharded_model_gives_the_same_results():
    config = replace(LLAMA, kv_heads=4)
    mesh = make_mesh(MeshConfig(fsdp=2, tensor=2, context=2), config, 8)
    model = jax.device_put(random_model(config), shardings(random_model(config), mesh))
    spread, alone = Inspector(model, config, TOKENIZER, mesh), inspector_of(config)
    for ask in (lambda one: one.score(TEXT), lambda one: one.layers(TEXT), lambda one: one.next_logits(TEXT)):
        for value, expected in zip(ask(spread), ask(alone), strict=True):
            if isinstance(value, np.ndarray):
                assert_allclose(value, expected, rtol=1e-3, atol=1e-5)


def test_tokens_beyond_the_context_are_dropped_and_counted():
    inspector = inspector_of(MOST)
    text = "abcdefghijklmnopqrstuvwxyz"
    whole, cut = inspector.score(text), inspector.score(text, most=4)
    assert (len(whole.ids_N), whole.dropped, len(cut.ids_N), cut.dropped) == (15, 11, 4, 22)
    assert_allclose(whole.bits_N[:4], cut.bits_N, rtol=1e-4)
    assert inspector.next_logits(text).tokens == inspector.layers(text).ids_T.size - 1 == 15


def test_empty_texts_ids_and_explicit_heads():
    inspector = inspector_of(MOST)
    empty = inspector.score("")
    assert len(empty.ids_N) == len(empty.bits_per_byte_N) == 0 and inspector.layers("").ids_T.tolist() == [0]
    ids = TOKENIZER.encode(TEXT)
    assert_array_equal(inspector.score(ids).bits_N, inspector.score([TOKENIZER.bos_id, *ids]).bits_N)
    with pytest.raises(UsageError, match=r"59 is not a token id: ids range from 0 to 58"):
        inspector.score([1, 59])
    with pytest.raises(UsageError, match="top is 21; it must be from 0 to 20"):
        inspector.score(TEXT, top=21)


def test_an_inspector_caches_the_last_texts_and_is_freed_without_garbage_collection():
    inspector = inspector_of(SMALLEST)
    for ids in range(20):
        inspector.score([ids + 1], 1)
    assert len(inspector._remembered) == 8
    gone = weakref.ref(inspector)
    gc.disable()
    try:
        del inspector
        assert gone() is None
    finally:
        gc.enable()


def test_nan_is_reported():
    inspector = inspector_of(SMALLEST, jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), random_model(SMALLEST)))
    for ask in (inspector.score, inspector.next_logits, inspector.layers):
        with pytest.raises(InputError, match="NaN"):
            ask(TEXT)


def leaves(part):
    return [part] if not part.children else [one for child in part.children for one in leaves(child)]


@EACH
def test_the_architecture_has_every_parameter_once(config):
    root = inspector_of(config).architecture()
    model = jax.eval_shape(lambda: unstack_layers(Transformer(config, jax.random.key(0))))
    expected = {name: leaf.shape for name, leaf in named_leaves(model).items()}
    own = [one for one in leaves(root) if one.parameters]
    assert {one.path: one.shape for one in own} == expected and len(own) == len(expected)
    assert all(len(one.axes) == len(one.shape) for one in own)

    def check(part):
        assert part.about and (not part.children or part.parameters == sum(one.parameters for one in part.children))
        assert len({one.name for one in part.children}) == len(part.children)
        list(map(check, part.children))

    check(root)
    assert root.parameters == sum(leaf.size for leaf in jax.tree.leaves(model))
