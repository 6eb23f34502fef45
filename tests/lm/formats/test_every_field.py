"""For every field of ModelConfig and every format, the export computes the same logits or rejects the field by name.

A new field of ModelConfig fails `test_the_table_has_every_field` until CASES has a value for it.
"""

import ast
import re
import typing
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from launch import export as formats
from lm.config import ModelConfig, RopeScalingConfig
from lm.errors import UsageError
from lm.fields import literal_values
from lm.formats.coverage import OWN_FORWARD, OWN_PARAMETERS, unexpressed
from lm.formats.gguf.reading import open_gguf
from lm.formats.gguf.writing import write_gguf
from lm.formats.hugging_face.writing import CODE, write_hugging_face
from lm.formats.standalone.writing import write_standalone
from lm.formats.tensors import parameter_shapes
from lm.inspect.architecture import architecture
from lm.model import layers
from lm.model.cost import BYTES, count_parameters, flops_per_token
from lm.model.param_names import replace_leaves
from lm.model.transformer import Transformer
from lm.tokenizer.patterns import SPLIT_PATTERNS
from lm.trusted_code import module_code, trust
from tests.lm.byte_tokenizer import byte_tokenizer
from tests.lm.formats.test_hugging_face import logits_by_transformers, needs_peer
from tests.lm.formats.test_standalone import imported
from tests.lm.hugging_face_files import load_hugging_face
from tests.lm.model_configs import GPT2, LLAMA, random_parameters

TOKENIZER = byte_tokenizer(SPLIT_PATTERNS["gpt2"], b"ab")
BASES = {
    name: replace(config, vocab_size=260, width=16, mlp_width=24, context_length=12, initial_std=0.02)
    for name, config in {"llama": LLAMA, "gpt2": GPT2}.items()
}
SCALING = RopeScalingConfig(factor=4.0, low_frequency_factor=1.0, high_frequency_factor=4.0, original_context_length=8)
OWN = "tests.lm.own_parts"
"""A user's module with components of a model."""
CASES: dict[str, list[dict[str, Any]]] = {
    "vocab_size": [{"vocab_size": 270}],
    "context_length": [{"context_length": 10}],
    "layers": [{"layers": 3}],
    "width": [{"width": 24}],
    "heads": [{"heads": 2}],
    "kv_heads": [{"kv_heads": 1}, {"kv_heads": 4}],
    "mlp_width": [{"mlp_width": 20}],
    "norm": [{"norm": "rmsnorm"}, {"norm": "layernorm"}, {"norm": f"{OWN}.UnitNorm"}],
    "position": [{"position": "learned"}, {"position": "rope"}],
    "mlp": [{"mlp": "swiglu"}, {"mlp": "gelu"}, {"mlp": "relu_squared"}, {"mlp": f"{OWN}.geglu"}],
    "block": [{"block": "pre_norm"}, {"block": f"{OWN}.ParallelBlock"}],
    "biases": [{"biases": True}, {"biases": False}, {"biases": True, "norm": "layernorm"}],
    "tie_embeddings": [{"tie_embeddings": False}, {"tie_embeddings": True}],
    "rope_theta": [{"rope_theta": 100.0}],
    "norm_epsilon": [{"norm_epsilon": 0.5}],
    "initial_std": [{"initial_std": 0.3}],
    "parameter_dtype": [{"parameter_dtype": "float32"}, {"parameter_dtype": "bfloat16"}],
    "compute_dtype": [{"compute_dtype": "float32"}, {"compute_dtype": "bfloat16"}],
    "rope_scaling": [{"rope_scaling": SCALING}],
    "qk_norm": [{"qk_norm": True}],
    "zero_init": [{"zero_init": True}],
    "logit_softcap": [{"logit_softcap": 0.5}],
    "token_shift": [{"token_shift": True}],
    "ngram_rows": [{"ngram_rows": 20}],
    "ngram_longest": [{"ngram_longest": 3}, {"ngram_rows": 20, "ngram_longest": 3}],
    "head_dim": [{"head_dim": 6}],
    "attention_windows": [{"attention_windows": (2, 0)}, {"attention_windows": (0,)}],
    "scan_layers": [{"scan_layers": True}],
    "attention": [{"attention": kind} for kind in ("auto", "xla", "cudnn", "splash")],
}
"""{field: changes of a base that give it other values}: every value of a Literal, and otherwise one new value."""


@pytest.fixture(autouse=True)
def own_parts_are_trusted():
    trust(module_code(OWN))


def changed_bases() -> dict[str, ModelConfig]:
    """Both bases, and every change of each base that accepts and differs by it."""
    found = {f"{name} itself": config for name, config in BASES.items()}
    for name, base in BASES.items():
        for change in (change for changes in CASES.values() for change in changes):
            try:
                changed = replace(base, **change)
            except UsageError:  # learned positions have no scaling
                continue
            if changed not in found.values():
                said = " ".join(f"{field}={getattr(value, 'factor', value)}" for field, value in change.items())
                found[f"{name} {said}"] = changed
    return found


EVERY_CONFIG = pytest.mark.parametrize("config", changed_bases().values(), ids=changed_bases())


def test_every_format_is_tested():
    assert {*FORMATS} == {*formats.FORMATS, *formats.FILE_FORMATS}


def test_the_table_has_every_field():
    hints = typing.get_type_hints(ModelConfig)
    for field in fields(ModelConfig):
        assert field.name in CASES, f"CASES has no {field.name}: add a change of it, and see each format hold or refuse"
        values = [change[field.name] for change in CASES[field.name] if field.name in change]
        assert any(value != getattr(BASES["llama"], field.name) for value in values), field.name
        if shipped := literal_values(hints[field.name]):
            assert {*shipped} == {value for value in values if "." not in value}, f"CASES lacks one of {field.name}"


def logits_of(config: ModelConfig, arrays: dict[str, np.ndarray], tokens: list[int]) -> np.ndarray:
    """(T, V) logits of one row in float32 by our forward pass, not compiled: compilation would take most of the
    time."""
    exact = {"parameter_dtype": "float32", "compute_dtype": "float32"}
    config = replace(config, scan_layers=False, attention="auto", **exact)
    like = jax.eval_shape(lambda: Transformer(config, jax.random.key(0)))
    model = replace_leaves(like, {name: jnp.asarray(array, jnp.float32) for name, array in arrays.items()})
    tokens_BT = jnp.asarray([tokens])
    return np.asarray(model.logits(model.read(tokens_BT, jnp.ones_like(tokens_BT))))[0]


def by_hugging_face(folder: Path, config: ModelConfig, arrays: dict[str, np.ndarray], tokens: list[int]) -> np.ndarray:
    write_hugging_face(folder, config, arrays, TOKENIZER)
    return logits_of(*load_hugging_face(folder), tokens)


def by_gguf(folder: Path, config: ModelConfig, arrays: dict[str, np.ndarray], tokens: list[int]) -> np.ndarray:
    write_gguf(folder / "model.gguf", config, arrays, TOKENIZER, "numbers")
    source = open_gguf(folder / "model.gguf")
    return logits_of(source.config, {name: source.parameters[name] for name in source.parameters}, tokens)


class Read(dict):
    """The parameters of model.py, and the set of those that were used."""

    def __init__(self, arrays: dict[str, np.ndarray]):
        super().__init__(arrays)
        self.used: set[str] = set()

    def __getitem__(self, name: str) -> np.ndarray:
        self.used.add(name)
        return super().__getitem__(name)


def by_standalone(folder: Path, config: ModelConfig, arrays: dict[str, np.ndarray], tokens: list[int]) -> np.ndarray:
    """Logits by model.py in NumPy, which must use every parameter."""
    write_standalone(folder, config, arrays, TOKENIZER, "numbers")
    program = imported(folder)
    program.P = read = Read(program.P)
    cache = program.Cache()
    logits_TV = np.stack([program.forward([token], cache) for token in tokens])
    assert read.used == {*parameter_shapes(config)}
    return logits_TV


FORMATS: dict[str, Callable[..., np.ndarray]] = {
    "hugging_face": by_hugging_face, "gguf": by_gguf, "standalone": by_standalone,
}  # fmt: skip


def changed_fields(config: ModelConfig) -> set[str]:
    """The fields in which a config differs from both bases."""
    differ = lambda base: {f.name for f in fields(base) if getattr(config, f.name) != getattr(base, f.name)}
    return min((differ(base) for base in BASES.values()), key=len)


@pytest.mark.fast_rows
@EVERY_CONFIG
def test_a_field_is_restored_or_rejected_by_name(tmp_path, config):
    arrays, changed = random_parameters(config), changed_fields(config)
    tokens = np.random.default_rng(0).integers(0, 256, 10).tolist()
    expected_TV = logits_of(config, arrays, tokens)
    held = 0
    for name, written in FORMATS.items():
        (tmp_path / name).mkdir()
        try:
            found_TV = written(tmp_path / name, config, arrays, tokens)
        except UsageError as refused:
            told = {*re.findall(r"model\.(\w+)", str(refused).partition("(docs/")[0])}
            assert name in str(refused) and told & changed and told <= {*CASES}, refused
            assert not [*(tmp_path / name).iterdir()]
            continue
        held += 1
        np.testing.assert_allclose(found_TV, expected_TV, rtol=0, atol=3e-5, err_msg=name)
    assert held == 3 if not changed else held >= 2 or unexpressed(config, OWN_FORWARD)


NO_WEIGHTS = ("norm", "rope_theta", "norm_epsilon", "rope_scaling", "qk_norm", "logit_softcap", "attention_windows")
"""Fields that change no parameter's shape: losing one would silently compute something else."""


@pytest.mark.parametrize("field", NO_WEIGHTS)
def test_a_lost_field_would_be_noticed(field):
    base, tokens = BASES["llama"], list(range(10))
    change = next(one for one in CASES[field] if one[field] != getattr(base, field))
    changed = replace(base, **change)
    found, without = (logits_of(config, random_parameters(config), tokens) for config in (changed, base))
    assert np.abs(found - without).max() > 0.01


@needs_peer
@pytest.mark.slow
def test_transformers_computes_the_same(tmp_path):
    expected, tokens = {}, list(range(5, 15))
    for name, config in changed_bases().items():
        folder, arrays = tmp_path / name, random_parameters(config)
        write_hugging_face(folder / "model", config, arrays, TOKENIZER, "float32")
        np.save(folder / "tokens.npy", [tokens])
        expected[folder] = logits_of(config, arrays, tokens)
    for folder, found in zip(expected, logits_by_transformers([*expected], trust=True), strict=True):
        np.testing.assert_allclose(found[0], expected[folder], rtol=0, atol=1e-4, err_msg=folder.name)


PARAMETERS = (
    "embedding", "positions", "ngrams.0", "head.weight", "norm.scale", "norm.bias", "blocks.0.attention_norm.scale",
    "blocks.0.mlp_norm.bias", "blocks.0.attention.query.weight", "blocks.0.attention.key.bias",
    "blocks.0.attention.value.weight", "blocks.0.attention.out.weight", "blocks.0.attention.query_share",
    "blocks.0.attention.key_share", "blocks.0.attention.value_share", "blocks.0.mlp_share", "blocks.0.mlp.gate.weight",
    "blocks.0.mlp.up.bias", "blocks.0.mlp.down.weight",
)  # fmt: skip


def test_the_torch_code_defines_every_possible_parameter():
    """Without torch the code is only parsed: each part of a parameter's name is an attribute that it sets, or one of
    torch's modules."""
    tree = ast.parse((CODE / "modeling_gristmill.py.txt").read_text(encoding="utf-8"))
    attributes = {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Store)}
    parts = {part for name in PARAMETERS for part in name.split(".") if not part.isdigit()}
    assert parts - attributes == {"weight"}
    assert all(map(OWN_PARAMETERS.fullmatch, PARAMETERS))
    named = {*re.findall(r"[a-z_]{2,}", OWN_PARAMETERS.pattern)} - {"_share"}
    assert named <= parts  # PARAMETERS has every name of the pattern


@dataclass(frozen=True)
class WiderConfig(ModelConfig):
    """As after a change that adds a field with a default."""

    residual_scale: float = 1.0


@dataclass(frozen=True, kw_only=True)
class NeedyConfig(ModelConfig):
    """As after a change that adds a field without a default."""

    residual_scale: float


@dataclass(frozen=True)
class OtherConfig(ModelConfig):
    """As after a change that adds a value to a field."""

    mlp: Literal["swiglu", "gelu", "relu_squared", "other"]


def as_class[Kind: ModelConfig](kind: type[Kind], base: ModelConfig, **changes: Any) -> Kind:
    return kind(**{f.name: getattr(base, f.name) for f in fields(base)} | changes)


@pytest.mark.fast_rows
@pytest.mark.parametrize("base", BASES.values(), ids=BASES)
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(
    ("kind", "changes", "field"),
    [
        (WiderConfig, {"residual_scale": 0.5}, r"model\.residual_scale = 0\.5 \(only 1\.0\)"),
        (NeedyConfig, {"residual_scale": 1.0}, r"model\.residual_scale = 1\.0 \(only no value\)"),
        (OtherConfig, {"mlp": "other"}, r"model\.mlp = other \(only "),
    ],
)
def test_a_field_or_value_unknown_to_every_format_is_rejected_by_name(tmp_path, base, format, kind, changes, field):
    config = as_class(kind, base, **changes)
    with pytest.raises(
        UsageError, match=rf"The format {format}.* cannot express {field}.*(docs/how_to_change_it|--format)"
    ):
        FORMATS[format](tmp_path, config, random_parameters(config), [1, 2])
    assert not [*tmp_path.iterdir()]
    if kind is WiderConfig:  # every format computes the default
        FORMATS[format](tmp_path, as_class(kind, base), random_parameters(base), [1, 2])


class TwoScales(nnx.Module):
    """As after a change that adds a parameter to a norm: x * scale * gain."""

    def __init__(self, config: ModelConfig):
        self.scale = layers.constant(1.0, (config.width,), ("width",), config.parameter_dtype)
        self.gain = layers.constant(1.0, (config.width,), ("width",), config.parameter_dtype)
        self.bias = layers.constant(0.0, (config.width,), ("width",), config.parameter_dtype) if config.biases else None

    def __call__(self, x_BTD: jax.Array) -> jax.Array:
        return x_BTD * self.scale[...][None, None] * self.gain[...][None, None]


@pytest.mark.parametrize("number", range(2), ids=BASES)
def test_a_parameter_that_a_format_would_not_write_is_rejected_by_name(tmp_path, monkeypatch, number):
    """Uses configs of its own, since shapes are cached by config."""
    config = replace([*BASES.values()][number], vocab_size=259)
    monkeypatch.setitem(layers.NORMS, config.norm, TwoScales)
    for name, written in FORMATS.items():
        said = rf"The format {name}.* writes \d+ of .* parameters; blocks\.0\.attention_norm\.gain is not among them"
        with pytest.raises(UsageError, match=said):
            written(tmp_path, config, random_parameters(config), [1, 2])
        assert not [*tmp_path.iterdir()]
    # The inspector and the planner have it too.
    assert architecture(config).parameters == count_parameters(config)
    assert "blocks.1.attention_norm.gain" in parameter_shapes(config)


@pytest.mark.fast_rows(14)
@EVERY_CONFIG
def test_the_inspector_and_the_planner_have_every_parameter(config):
    count = sum(int(np.prod(shape)) for shape in parameter_shapes(config).values())
    assert architecture(config).parameters == count_parameters(config) == count
    assert flops_per_token(config) > 0
    assert {config.parameter_dtype, config.compute_dtype} <= {*BYTES}
