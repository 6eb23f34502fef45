"""Attention: every implementation equals a float64 reference in values and gradients, on one device and on meshes."""

import dataclasses
import functools
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from lm.config import MeshConfig
from lm.devices import Target
from lm.errors import UsageError
from lm.model.attention.choice import AttentionSpec, choose
from lm.model.attention.cudnn import documents
from lm.model.attention.kernels import cudnn, splash
from lm.model.attention.plain import by_blocks, xla
from lm.model.transformer import Transformer
from lm.parallel import batch_sharding, make_mesh, traced_on
from tests.lm.model.attention_laws import arguments, check_with_reference, mask_of, with_gradients
from tests.lm.model_configs import LLAMA
from tests.lm.trees import leaf_pairs

interpreted = functools.partial(splash, interpret=True)


@pytest.mark.fast_rows(3)
@pytest.mark.parametrize(
    ("implementation", "shape", "mask"),
    [
        (xla, (2, 1, 2, 1, 4), {}),
        (xla, (2, 128, 4, 2, 8), {}),  # two causal blocks
        (xla, (1, 1100, 2, 1, 8), {}),  # blocks, the last one padded
        (xla, (1, 320, 2, 1, 8), {}),  # four causal blocks
        (functools.partial(by_blocks, blocks=5), (2, 33, 6, 2, 8), {}),
        (interpreted, (1, 256, 4, 2, 64), {}),
        (interpreted, (1, 384, 2, 1, 128), {}),
        (interpreted, (1, 100, 2, 1, 24), {}),  # padded to 128 positions and 64 channels
        (xla, (2, 33, 6, 2, 8), {"window": 1}),
        (xla, (2, 33, 6, 2, 8), {"window": 100}),
        (xla, (1, 256, 2, 1, 8), {"window": 50}),  # causal blocks, some without visible keys in the first
        (xla, (1, 1100, 2, 1, 8), {"window": 300}),  # blocks
        (functools.partial(by_blocks, blocks=5), (2, 33, 6, 2, 8), {"window": 7, "prefix": 12}),
        (xla, (1, 256, 2, 1, 8), {"window": 50, "prefix": 90}),
        (xla, (1, 1100, 2, 1, 8), {"prefix": 700}),
        (interpreted, (2, 256, 2, 1, 64), {"window": 1}),
        (interpreted, (1, 256, 4, 2, 64), {"window": 100}),
    ],
    ids=lambda value: str(value) if isinstance(value, (tuple, dict)) else None,
)
def test_values_and_gradients_equal_the_float64_reference(implementation, shape, mask):
    check_with_reference(jax.jit(with_gradients(implementation, **mask)), arguments(*shape), 3e-6, **mask)


@pytest.mark.fast_rows
@pytest.mark.parametrize("implementation", [xla, functools.partial(by_blocks, blocks=32), interpreted])
def test_blocks_and_kernels_are_as_exact_in_bfloat16_as_whole_attention(implementation):
    """Only single values are rounded: sums, also over blocks, are in float32."""
    inputs = arguments(2, 256, 2, 1, 64, "bfloat16")
    found = check_with_reference(jax.jit(with_gradients(implementation)), inputs, 6e-3)
    assert all(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(found))


SEGMENTS = jnp.concatenate([jnp.full((1, n), i, jnp.int32) for n, i in ((40, 1), (30, 2), (50, 3), (8, 0))], axis=1)


@pytest.mark.fast_rows
@pytest.mark.parametrize(
    "implementation",
    [xla, functools.partial(by_blocks, blocks=3), interpreted],
    ids=["xla", "by_blocks", "splash"],
)
def test_gradients_show_causality_and_separate_documents(implementation):
    """The last document is the padding."""
    q_BTHC, k_BTKC, v_BTKC, _ = arguments(1, 128, 2, 1, 64)

    @jax.jit
    def influence(target):
        out = lambda k, v: jnp.sum(jnp.sin(implementation(q_BTHC, k, v, mask_of(SEGMENTS))[0, target]))
        return [jnp.linalg.norm(x[0, :, 0], axis=-1) for x in jax.grad(out, (0, 1))(k_BTKC, v_BTKC)]

    for target, start in {39: 0, 40: 40, 60: 40, 127: 120}.items():
        for felt_T in map(np.asarray, influence(target)):
            assert np.all(felt_T[:start] == 0) and np.all(felt_T[target + 1 :] == 0)
            assert np.all(felt_T[start : target + 1] > 0) or start == target  # a single key has weight 1


def test_the_scores_of_a_long_sequence_are_never_all_in_memory():
    inputs = [jax.ShapeDtypeStruct((1, 8192, heads, 8), "float32") for heads in (4, 2, 2)]
    segments = jax.ShapeDtypeStruct((1, 8192), "int32")
    memory = jax.jit(with_gradients(xla)).lower(*inputs, segments, inputs[0]).compile().memory_analysis()
    assert memory is not None
    assert memory.temp_size_in_bytes < 4 * 8192 * 8192 * 4 / 8  # an eighth of the memory of all scores


def mesh_of(devices, fsdp=1, tensor=1):
    return make_mesh(MeshConfig(fsdp, tensor), LLAMA, 4, jax.devices()[:devices])


@pytest.mark.slow
@pytest.mark.parametrize("implementation", [functools.partial(by_blocks, blocks=4), interpreted])
def test_a_mesh_gives_the_same_values_with_sharded_heads_and_sequences(implementation):
    mesh = mesh_of(8, fsdp=2, tensor=2)
    inputs = arguments(4, 128, 2, 2, 64)
    gradient_BTHC = jnp.ones_like(inputs[0])
    expected = jax.jit(with_gradients(implementation))(*inputs, gradient_BTHC)
    by_head = NamedSharding(mesh, PartitionSpec(("data", "fsdp"), None, "tensor"))
    cut = [by_head, by_head, by_head, batch_sharding(mesh), by_head]
    step = jax.jit(traced_on(mesh, with_gradients(implementation)), in_shardings=cut)
    found = step(*jax.device_put((*inputs, gradient_BTHC), tuple(cut)))
    for x, y in leaf_pairs(found, expected):
        np.testing.assert_allclose(np.asarray(x), np.asarray(y), atol=1e-5)
        assert x.sharding.is_equivalent_to(by_head, 4)


LLAMA_8B = (4, 8192, 32, 8, 128)
GPT2_124M = (8, 1024, 12, 12, 64)


def lowered(implementation, shape, platform, mesh, **mask):
    """Return the program of forward and backward lowered for `platform`, which need not exist here."""
    batch, length, heads, kv_heads, channels = shape
    q_BTHC, kv_BTKC = (jax.ShapeDtypeStruct((batch, length, n, channels), "bfloat16") for n in (heads, kv_heads))
    segments_BT = jax.ShapeDtypeStruct((batch, length), "int32")
    function = jax.jit(traced_on(mesh, with_gradients(implementation, **mask)), in_shardings=batch_sharding(mesh))
    traced = function.trace(q_BTHC, kv_BTKC, kv_BTKC, segments_BT, q_BTHC)
    return traced.lower(lowering_platforms=(platform,)).as_text()


@pytest.mark.parametrize(("shape", "devices"), [(LLAMA_8B, 4), (GPT2_124M, 1)], ids=str)
def test_splash_is_lowered_to_kernels_for_tpu(shape, devices):
    for window in (None, 512):
        text = lowered(splash, shape, "tpu", mesh_of(devices, tensor=min(2, devices)), window=window)
        assert text.count("@tpu_custom_call") == 3  # forward, the gradient of q, the gradient of k and v


def of_gpu(monkeypatch, capability):
    """Replace the queries for the GPU's cuDNN version and compute capability."""
    module = "jax._src.cudnn.fused_attention_stablehlo"
    monkeypatch.setattr(f"{module}.check_cudnn_version", lambda: 91_000)
    asked = lambda text: capability >= tuple(map(int, text.split(".")))
    monkeypatch.setattr(f"{module}.check_compute_capability", asked)
    monkeypatch.setattr("lm.parallel.target_of", lambda device: Target("cuda", capability))


@pytest.mark.fast_rows
@pytest.mark.parametrize(("shape", "devices"), [(LLAMA_8B, 1), (GPT2_124M, 4), ((2, 1023, 4, 2, 60), 1)], ids=str)
def test_cudnn_is_lowered_to_its_kernels_for_cuda_without_a_mask(shape, devices, monkeypatch):
    """No array of length x length exists for any documents."""
    of_gpu(monkeypatch, (9, 0))
    mesh = mesh_of(devices, tensor=min(2, devices))
    for window in (None, 512):
        text = lowered(cudnn, shape, "cuda", mesh, window=window)
        assert text.count("@__cudnn$fmhaSoftmax(") == text.count("@__cudnn$fmhaSoftmaxBackward(") == 1
        assert text.count("PADDING_CAUSAL") == 2 and text.count(f"sliding_window_length\\22: {window or 0}") == 2
        assert not re.search(rf"[<x]{shape[1]}x{shape[1]}[x>]", text)


@pytest.mark.parametrize("capability", [(8, 0), (9, 0)])
def test_cudnn_is_lowered_with_a_mask_if_it_cannot_pack_documents(capability, monkeypatch):
    of_gpu(monkeypatch, capability)
    for shape, filled in ((GPT2_124M, 1024), ((2, 1023, 4, 2, 60), 1024)):
        for mask in ({}, {"window": 512}, {"prefix": 100}):
            if capability < (9, 0) or "prefix" in mask:
                text = lowered(cudnn, shape, "cuda", mesh_of(1), **mask)
                assert text.count("@__cudnn$fmhaScaleBiasSoftmax(") == 1
                assert text.count("@__cudnn$fmhaScaleBiasSoftmaxBackward(") == 1
                assert text.count("CAUSAL") == (0 if "prefix" in mask else 2)
                assert re.search(rf"[<x]{filled}x{filled}[x>]", text)


def test_cudnn_gets_the_starts_and_lengths_of_the_documents():
    generator = np.random.default_rng(0)
    segments_BT = np.sort(generator.integers(0, 7, (5, 40)), axis=1)[:, ::-1].astype(np.int32)
    segments_BT[0], segments_BT[1, 20:] = 3, 0  # a row of one document; a row with padding
    most = 7
    starts_BM, lengths_BM, fits = jax.jit(documents, static_argnums=1)(segments_BT, most)
    assert fits and starts_BM.shape == (5, most + 1) and lengths_BM.shape == (5, most)
    for segments_T, starts_M, lengths_M in zip(segments_BT, starts_BM, lengths_BM, strict=True):
        expected, place = [], 0
        for _, same in itertools.groupby(segments_T):
            expected.append((place, count := len(list(same))))
            place += count
        found = list(zip(starts_M.tolist(), lengths_M.tolist(), strict=False))
        assert found == expected + [(-1, -1)] * (most - len(expected))
    alternating_BT = jnp.arange(40)[None] % 2
    assert not documents(alternating_BT, 39)[2] and documents(alternating_BT, 40)[2]


H100, A100, T4 = Target("cuda", (9, 0)), Target("cuda", (8, 0)), Target("cuda", (7, 5))
CPU, TPU, ROCM = Target("cpu"), Target("tpu"), Target("rocm")


@pytest.mark.parametrize(
    ("target", "spec", "expected"),
    [
        (CPU, AttentionSpec("bfloat16", 64, 1024), "xla"),
        (ROCM, AttentionSpec("bfloat16", 64, 1024), "xla"),
        (H100, AttentionSpec("bfloat16", 64, 1024), "cudnn"),
        (H100, AttentionSpec("float16", 256, 1024), "cudnn"),
        (A100, AttentionSpec("bfloat16", 128, 8192), "cudnn"),
        (A100, AttentionSpec("bfloat16", 256, 8192), "xla"),
        (T4, AttentionSpec("bfloat16", 64, 1024), "xla"),
        (H100, AttentionSpec("float32", 64, 1024), "xla"),
        (H100, AttentionSpec("bfloat16", 60, 1023), "cudnn"),  # padded
        (H100, AttentionSpec("bfloat16", 264, 1024), "xla"),
        (H100, AttentionSpec("bfloat16", 64, 1024, context_shards=2), "xla"),
        (TPU, AttentionSpec("bfloat16", 128, 8192), "splash"),
        (TPU, AttentionSpec("float32", 64, 1024), "splash"),
        (TPU, AttentionSpec("bfloat16", 80, 1000), "splash"),  # padded
        (TPU, AttentionSpec("bfloat16", 128, 8192, context_shards=4), "splash"),
        (TPU, AttentionSpec("bfloat16", 128, 8192, context_shards=64), "xla"),
        (TPU, AttentionSpec("bfloat16", 128, 8192, prefix=True), "xla"),
        (H100, AttentionSpec("bfloat16", 64, 1024, prefix=True), "cudnn"),
    ],
    ids=str,
)
def test_auto_chooses_the_expected_implementation(target, spec, expected):
    assert choose("auto", target, spec) == expected
    assert choose(expected, target, spec) == expected, "what auto chooses may also be asked for"
    assert choose("xla", target, spec) == "xla", "the plain form runs everywhere"


@pytest.mark.parametrize(
    ("choice", "target", "spec", "words"),
    [
        ("cudnn", CPU, AttentionSpec("bfloat16", 64, 1024), ["platform cuda", "is cpu", "= xla"]),
        ("cudnn", TPU, AttentionSpec("bfloat16", 64, 1024), ["platform cuda", "is tpu", "= splash"]),
        ("cudnn", ROCM, AttentionSpec("bfloat16", 64, 1024), ["platform cuda", "is rocm", "= xla"]),
        ("cudnn", T4, AttentionSpec("bfloat16", 64, 1024), ["8.0", "7.5", "= xla"]),
        ("cudnn", H100, AttentionSpec("float32", 64, 1024), ["bfloat16", "model.compute_dtype = float32", "= xla"]),
        ("cudnn", A100, AttentionSpec("bfloat16", 256, 1024), ["128", "model.head_dim", "= 256", "= xla"]),
        ("cudnn", H100, AttentionSpec("bfloat16", 64, 1024, 2), ["whole sequences", "train.mesh.context = 2", "= xla"]),
        ("splash", H100, AttentionSpec("bfloat16", 64, 1024), ["platform tpu", "is cuda", "= cudnn"]),
        ("splash", TPU, AttentionSpec("bfloat16", 64, 1024, prefix=True), ["both directions", "= xla"]),
        ("splash", TPU, AttentionSpec("bfloat16", 64, 1024, 8), ["256, 512", "train.mesh.context = 8", "= xla"]),
    ],
    ids=str,
)
def test_unsupported_choices_are_rejected_with_both_values_and_the_remedy(choice, target, spec, words):
    with pytest.raises(UsageError) as error:
        choose(choice, target, spec)
    message = str(error.value)
    assert all(word in message for word in [f"model.attention = {choice}", *words]), message


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="asks for kernels that a CPU does not have")
@pytest.mark.parametrize("choice", ["cudnn", "splash"])
def test_the_choice_is_checked_before_compilation(choice):
    config = dataclasses.replace(LLAMA, attention=choice)
    tokens_BT = jax.ShapeDtypeStruct((1, 16), "int32")
    with pytest.raises(UsageError, match=f"model.attention = {choice}"):
        jax.eval_shape(lambda t: Transformer(config, jax.random.key(0)).read(t, t), tokens_BT)
