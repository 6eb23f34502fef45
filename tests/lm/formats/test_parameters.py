"""Parameters of a checkpoint are read one at a time, equal for separate and stacked layers, without extra reads."""

from dataclasses import replace

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
import tensorstore as ts
from etils import epath
from jax.sharding import NamedSharding, PartitionSpec

from lm.checkpoints.from_parameters import array_spec, write_parameters
from lm.checkpoints.manifest import write_manifest
from lm.checkpoints.reading import item_handler
from lm.errors import InputError
from lm.formats.parameters import StoredParameters
from lm.formats.tensors import parameter_shapes
from lm.model.param_names import stack_names
from tests.lm.formats.test_hugging_face import equal
from tests.lm.model_configs import MODERN, random_parameters
from tests.lm.trees import named_arrays
from tests.run_files import restore_model

CONFIG = replace(MODERN, parameter_dtype="bfloat16")


@pytest.mark.parametrize("scan_layers", [False, True], ids=["one by one", "a stack"])
def test_parameters_are_written_and_read_one_at_a_time(tmp_path, scan_layers):
    expected = random_parameters(CONFIG)
    config = replace(CONFIG, scan_layers=scan_layers)
    write_parameters(tmp_path / "7", config, expected, {"step": 7})
    stored = StoredParameters(tmp_path / "7")
    assert equal(stored, expected)
    assert stored.shapes == parameter_shapes(CONFIG) and set(stored.dtypes.values()) == {"bfloat16"}
    for form in (False, True):  # Orbax reads it too, into either form
        model = restore_model(replace(CONFIG, scan_layers=form), tmp_path)
        leaves = named_arrays(model)
        assert equal(leaves, stack_names(expected, lambda name, layers: np.stack(layers)) if form else expected)


def save_stacks(folder, stacks):
    """As training saves them: Orbax chooses the chunks."""
    handler = item_handler()
    (folder / "model").mkdir(parents=True)
    handler.save(epath.Path(folder / "model"), args=ocp.args.PyTreeSave(stacks))
    handler.finalize(epath.Path(folder / "model"))


@pytest.mark.parametrize("cut", [False, True], ids=["on one device", "cut over devices"])
def test_a_layer_of_a_stack_written_by_orbax_is_read_separately(tmp_path, cut):
    layers, source = 16, np.random.default_rng(0)
    stack = source.normal(size=(layers, 64, 48)).astype(np.float32)
    mesh = jax.make_mesh((4,), ("fsdp",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = PartitionSpec(None, "fsdp") if cut else PartitionSpec()
    place = NamedSharding(mesh, spec) if cut else None
    stacks = {
        "blocks.mlp.up.weight": jax.device_put(stack, place),
        "blocks.mlp_norm.scale": jax.numpy.zeros((layers, 8)),
    }
    save_stacks(tmp_path / "1", stacks)
    stored = StoredParameters(tmp_path / "1")
    for layer in (0, 7, layers - 1):
        assert np.array_equal(stored[f"blocks.{layer}.mlp.up.weight"], stack[layer])
        assert np.array_equal(stored[f"blocks.{layer}.mlp_norm.scale"], np.zeros(8))
    read = lambda: sum(
        value["value"]
        for metric in ts.experimental_collect_matching_metrics("/tensorstore/kvstore/file/bytes_read")
        for value in metric["values"]
    )
    before = read()
    assert stored["blocks.3.mlp.up.weight"].shape == (64, 48)
    assert read() - before < 3 * stack[3].nbytes < stack.nbytes / 4


def test_a_model_that_differs_from_the_config_is_named(tmp_path):
    write_parameters(tmp_path / "0", CONFIG, random_parameters(CONFIG), {"step": 0})
    shapes = parameter_shapes(replace(CONFIG, mlp_width=24))
    with pytest.raises(InputError, match=r"blocks.0.mlp.down.weight is \(48, 32\) there, \(24, 32\) in the config"):
        StoredParameters(tmp_path / "0").check(shapes)
    with pytest.raises(InputError, match="cannot be read"):
        StoredParameters(tmp_path / "1")


def test_a_missing_parameter_or_another_shape_makes_no_checkpoint(tmp_path):
    parameters = random_parameters(CONFIG)
    parameters["norm.scale"] = parameters["norm.scale"][:5]
    with pytest.raises(InputError, match=r"norm.scale is \(5,\), but the model's config needs \(32,\)"):
        write_parameters(tmp_path / "0", CONFIG, parameters, {"step": 0})
    del parameters["norm.scale"]
    with pytest.raises(InputError, match=r"norm\.scale is absent"):
        write_parameters(tmp_path / "1", CONFIG, parameters, {"step": 0})
    for number, (value, dtype) in enumerate(((np.nan, "float32"), (-np.inf, "float32"), (3.4e38, "bfloat16"))):
        config, bad = replace(CONFIG, parameter_dtype=dtype), random_parameters(CONFIG)
        bad["norm.scale"] = np.full(32, value, np.float32)
        with pytest.raises(InputError, match=rf"32 of the 32 values of norm\.scale are NaN or infinite in {dtype}"):
            write_parameters(tmp_path / f"bad-{number}", config, bad, {"step": 0})
    assert not list(tmp_path.glob("*/manifest.json"))


def test_a_checkpoint_without_its_chunks_is_rejected_whatever_size_it_claims(tmp_path):
    """42 kB once became 2 GB of zeros, in memory and in an export."""
    config = replace(CONFIG, vocab_size=40_000, width=1024)
    shapes = parameter_shapes(config)
    item = tmp_path / "0/model"
    save_stacks(
        item.parent,
        {name: jax.numpy.zeros((1,) * len(shape), config.parameter_dtype) for name, shape in shapes.items()},
    )
    for name, shape in shapes.items():
        spec = array_spec(item, name) | {"metadata": {"compressor": None}}
        ts.open(spec, create=True, delete_existing=True, dtype=ts.bfloat16, shape=shape).result()
    write_manifest(item.parent, {"step": 0})
    with pytest.raises(InputError, match=r"claims 0\.\d GB of parameters, but its files are [\d,]{5,6} bytes"):
        StoredParameters(item.parent)
    with pytest.raises(InputError, match="nearly all would be zeros"):
        restore_model(config, tmp_path)
