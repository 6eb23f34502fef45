"""configs/layouts.py: every size has existing hardware, which divides it and its batch, and has enough memory."""

import dataclasses
import importlib.util
import json
from pathlib import Path

import pytest

from configs.experiment import load_config, parse_command
from configs.layouts import LAYOUTS, USUAL_MFU, layout_of, on_hardware
from launch import plan
from lm.devices import mesh_sizes
from lm.errors import UsageError
from lm.planner.plan import as_devices, make_plan
from lm.planner.topology import topology_of
from tests.lm.planner.test_plan import needs_libtpu, plan_command
from tests.run_files import REPOSITORY

WANTED = {
    "gpt2_124m": ("h100:1", "v5e:2x2", "v6e:2x4"), "gpt2_1558m": ("h100:8", "v5e:4x4"), "llama3_1b": ("v6e:2x4",),
    "llama3_8b": ("v5p:4x4x2", "v6e:8x8", "h100:32", "h100:64", "h100:512", "h100:1024"),
    "llama3_70b": ("v5p:8x8x4", "h100:512", "h100:1024"),
    "llama3_405b": ("v5p:16x16x16", "h100:1024"),
}  # fmt: skip
GPUS = [row for row in LAYOUTS.values() if not topology_of(row.topology).chip.torus]
TPUS = [row for row in LAYOUTS.values() if topology_of(row.topology).chip.torus]
ONE_OF_EACH_KIND = {
    kind: row for row in TPUS
    for kind in (topology_of(row.topology).chip.name, row.xla_options, row.mesh.context > 1, row.mesh.tensor > 1)
}  # fmt: skip
"""For each chip, set of options and axis of the mesh, the last row, which has the largest model."""
LARGEST = 0.75
"""Share of a GPU's memory that the estimate may use without a compiler: activations inside blocks, gathered weights and
copies come on top."""


def config_path(model: str) -> str:
    return str(REPOSITORY / f"configs/{model}.py")


def parsed(model: str, *words: str):
    return parse_command("launch.x", "", [config_path(model), *words])[0]


def test_every_size_has_the_usual_hardware():
    assert {f"{model}/{one}" for model, names in WANTED.items() for one in names} <= LAYOUTS.keys()


@pytest.mark.parametrize("model", sorted({row.model for row in LAYOUTS.values()}))
def test_a_config_uses_the_layout_of_its_first_row(model):
    first = next(row for row in LAYOUTS.values() if row.model == model)
    experiment = load_config(Path(config_path(model)))
    assert experiment.train.layout == first.name
    assert first.of(experiment.model, experiment.train) == (experiment.model, experiment.train)


FIRST = {row.model: row.name for row in reversed(LAYOUTS.values())}.values()


@pytest.mark.fast_rows(len(FIRST))
@pytest.mark.parametrize("name", dict.fromkeys((*FIRST, *LAYOUTS)))
def test_devices_divide_model_and_batch_and_the_rest_of_the_experiment_is_unchanged(name):
    row = LAYOUTS[name]
    topology = topology_of(row.topology)
    assert topology.name == row.topology
    usual, own = load_config(Path(config_path(row.model))), parsed(row.model, "--train.layout", name)
    sizes = mesh_sizes(
        own.train.mesh, own.model, own.train.batch_size, as_devices(topology),
        own.train.micro_batches,
    )  # fmt: skip
    # Parameters are sharded over no device, over all, or over the GPUs of a node, which have the fast links.
    assert sizes["data"] == 1 or own.train.mesh.fsdp == 1 or (
        own.train.mesh.zero1 and sizes["fsdp"] * sizes["tensor"] == topology.shape[-1]
    )  # fmt: skip
    fields = ("mesh", "micro_batches", "remat", "remat_keep", "remat_offload", "loss_chunks", "layout", "xla_options")
    same = {one: getattr(usual.train, one) for one in fields}
    assert dataclasses.replace(own.train, **same) == usual.train
    assert dataclasses.replace(own.model, scan_layers=usual.model.scan_layers) == usual.model


def test_the_schedule_of_llama_3_405b_equals_the_papers_and_fits_its_layout():
    """arXiv:2407.21783, section 3.4.1: 4 million tokens in sequences of 4,096, 8 million in sequences of 8,192 after
    252 million tokens, 16 million after 2.87 trillion."""
    text = Path(config_path("llama3_405b")).read_text()
    words = " ".join(line for line in text.splitlines() if line.startswith("    --train")).split()
    experiment = parsed("llama3_405b", *words)
    train, stages = experiment.train, experiment.train.stages(experiment.model.context_length)
    shapes = [(stage.shape, stages.tokens_before(stage.first_step)) for stage in stages.between(0, train.steps)]
    assert [shape for shape, _ in shapes] == [(1024, 4096), (1024, 8192), (2048, 8192)]
    assert [before for _, before in shapes] == pytest.approx([0, 252e6, 2.87e12], rel=2e-3)
    assert stages.tokens_before(train.steps) == pytest.approx(15.6e12, rel=1e-6)
    made = make_plan(experiment.model, train, topology_of("h100:1024"))
    assert made.tokens_per_step == 2**24 and made.tokens == stages.tokens_before(train.steps)
    usual = make_plan(
        *on_hardware(parsed("llama3_405b").model, parsed("llama3_405b").train, "h100:1024")[2:],
        topology_of("h100:1024"),
    )
    assert made.needed_bytes == usual.needed_bytes and 0.97 * usual.days < made.days < usual.days
    with pytest.raises(
        UsageError, match=r"From step 0 on, with batches of 1,024 sequences of 4,096 tokens .* 1 x 2048 devices"
    ):
        make_plan(*on_hardware(experiment.model, train, "v5p:16x16x16")[2:], topology_of("v5p:16x16x16"))


@pytest.mark.fast_rows
@pytest.mark.parametrize("row", GPUS, ids=lambda row: row.name)
def test_the_estimate_leaves_room_on_gpus(row):
    topology, own = topology_of(row.topology), parsed(row.model, "--train.layout", row.name)
    made = make_plan(own.model, own.train, topology)
    assert made.attention == "cudnn" and made.needed_bytes is not None
    assert made.needed_bytes < LARGEST * topology.device_memory


@needs_libtpu
@pytest.mark.slow
@pytest.mark.parametrize("row", {row.name: row for row in ONE_OF_EACH_KIND.values()}.values(), ids=lambda row: row.name)
def test_two_layers_fit_by_the_compiler(row):
    """A minute each. tests.bench.layouts compiles the whole models of all rows."""
    words = ("--train.layout", row.name, "--json", "--model.layers", "2")
    done = plan_command(f"configs/{row.model}.py", *words)
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    assert made["fits"] and made["attention"] == "splash" and any("splash" in one for one in made["kernels"])


def test_the_command_line_selects_another_row_and_explicit_options_win():
    own = parsed("llama3_8b", "--train.micro-batches", "16", "--train.layout", "v6e-64")
    row = LAYOUTS["llama3_8b/v6e:8x8"]
    assert own.train.layout == row.name and own.train.mesh == row.mesh and own.train.remat == row.remat
    assert own.train.micro_batches == 16
    assert parsed("llama3_8b", f"--train.layout={row.name}").train.mesh == row.mesh
    twice = parsed("llama3_8b", "--train.layout", "v5p:4x4x2", "--train.layout=v6e:8x8")
    assert (twice.train.layout, twice.train.mesh) == (row.name, row.mesh)  # the last counts
    assert parsed("demo", "--train.layout", "gpt2_124m/v5e:2x2").train.layout == "gpt2_124m/v5e:2x2"


@pytest.mark.parametrize(
    ("model", "name", "said"),
    [
        ("llama3_8b", "v5e:4x4", "'v5e:4x4', but the layouts of llama3_8b are llama3_8b/v5p:4x4x2"),
        ("llama3_8b", "v4", "There is no slice 'v4'"),
        ("demo", "v6e:8x8", "'v6e:8x8', but a layout is MODEL/HARDWARE"),
        ("demo", "llama3_9b/v6e:8x8", "'llama3_9b/v6e:8x8', but a layout is MODEL/HARDWARE"),
    ],
)
def test_a_missing_row_is_rejected_with_the_available_ones(model, name, said):
    with pytest.raises(UsageError) as refused:
        parsed(model, "--train.layout", name)
    assert said in str(refused.value)


def test_a_plan_for_other_hardware_uses_its_row_unless_a_field_was_set():
    experiment = parsed("llama3_8b")
    row = LAYOUTS["llama3_8b/v6e:8x8"]
    topology, mfu, model, train = on_hardware(experiment.model, experiment.train, "v6e-64")
    assert (topology.name, mfu, train.layout) == (row.topology, row.mfu, row.name)
    assert (model, train) == row.of(experiment.model, experiment.train) != (experiment.model, experiment.train)
    own = parsed("llama3_8b", "--train.micro-batches", "16")
    on_chip = dataclasses.replace(own.train, xla_options=row.xla_options)
    assert on_hardware(own.model, own.train, "v6e-64")[2:] == (own.model, on_chip)
    nowhere = on_hardware(experiment.model, experiment.train, "v5p-128")
    assert nowhere[1:] == (USUAL_MFU, experiment.model, experiment.train)
    assert experiment.train.xla_options and on_hardware(experiment.model, experiment.train, "v5e:4x4")[3] == (
        dataclasses.replace(experiment.train, xla_options=())
    )
    chosen = dataclasses.replace(experiment.train, xla_options=("xla_tpu_scoped_vmem_limit_kib=20480",))
    assert on_hardware(experiment.model, chosen, "v5e:4x4")[3] == chosen


def test_a_plan_names_its_row_and_equals_the_rows(capsys, monkeypatch):
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None
    )  # also if CUDA's packages are installed: it is quicker
    said = []
    for words, topology in (((), "h100:32"), (("--train.layout", "h100:32"), "")):
        plan.plan(parsed("llama3_8b", *words), REPOSITORY, plan.Options(topology=topology, json=1))
        said.append(capsys.readouterr())
    assert json.loads(said[0].out) == json.loads(said[1].out)
    assert "to train with it: --train.layout llama3_8b/h100:32\n" in said[0].err and "--train.layout" not in said[1].err


def test_days_become_tokens_and_steps_of_the_model_and_of_every_shipped_size(capsys, monkeypatch):
    """The printed tokens take the given days, by the arithmetic of a plan with these tokens."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    experiment, topology = parsed("llama3_8b", "--train.layout", "h100:64"), topology_of("h100:64")
    plan.plan(experiment, REPOSITORY, plan.Options(days=7.0, json=1))
    found = json.loads(capsys.readouterr().out)
    assert found["days"] == pytest.approx(7, rel=1e-3) and found["days"] <= 7
    assert found["tokens"] == found["steps"] * found["tokens_per_step"]
    again = make_plan(experiment.model, experiment.train, topology, mfu=found["mfu"], tokens=found["tokens"])
    assert (again.steps, again.days) == (found["steps"], found["days"])
    sizes = {one["model"]: one for one in found["sizes"]}
    assert sizes.keys() == {row.model for row in LAYOUTS.values()}
    assert sizes["llama3_8b"]["tokens"] == pytest.approx(found["tokens"], rel=1e-3)
    assert sizes["llama3_8b"]["layout"] == "llama3_8b/h100:64" and sizes["llama3_405b"]["layout"] == ""
    plan.plan(experiment, REPOSITORY, plan.Options(days=7.0))
    text = capsys.readouterr().out
    assert f"in {found['steps']:,} steps; at 40 % MFU" in text and "7.0 days" in text
    assert "compute-optimal is a model of 11.3 billion parameters" in text and "layout llama3_8b/h100:64" in text


def test_a_row_is_found_by_its_name_and_a_slice_for_any_order_of_its_shape():
    for row in LAYOUTS.values():
        assert layout_of(row.name) is layout_of(row.topology, row.name) is row
    experiment = parsed("llama3_8b")
    for name in ("v5p-64", "v5p:2x4x4", "v5p:4x2x4", "v5p:4x4x2"):
        assert layout_of(f"llama3_8b/{name}").name == "llama3_8b/v5p:4x4x2"
        assert on_hardware(experiment.model, experiment.train, name)[0].name == "v5p:4x4x2"
