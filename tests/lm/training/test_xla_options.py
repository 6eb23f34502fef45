"""XLA options go only to their own platform, and options that XLA rejects are named."""

import dataclasses
import json
from types import SimpleNamespace
from typing import Any, cast

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from configs.experiment import parse_command
from configs.experiment.named_code import named_code
from configs.layouts import GPU_OVERLAP, LAYOUTS, on_hardware
from lm.errors import UsageError
from lm.parallel import MESH_AXES
from lm.planner.topology import topology_of
from lm.training.aot_compile import REFUSED, compile_ahead, compiler_options, example_batch
from tests.corpus import tiny_experiment
from tests.lm.planner.test_plan import needs_libtpu, plan_command
from tests.run_files import REPOSITORY

TPUS = [row for row in LAYOUTS.values() if topology_of(row.topology).chip.torus]


@dataclasses.dataclass(frozen=True)
class Chip:
    """A device as JAX describes it, without hardware."""

    platform: str
    version: str
    compute_capability: str = "9.0"
    device_kind: str = "chip"
    id: int = 0

    @property
    def client(self) -> SimpleNamespace:
        return SimpleNamespace(platform_version=self.version)


GIVEN = ("xla_gpu_enable_latency_hiding_scheduler=true", "xla_gpu_experimental_parallel_collective_overlap_limit=4",
         "xla_gpu_pipeline_all_gather=COLLECTIVE_PIPELINING_MODE_ON", "xla_tpu_enable_async_collective_fusion=true",
         "xla_enable_async_all_gather=true")  # fmt: skip


@pytest.mark.parametrize(
    ("platform", "passed_on"),
    [
        ("cuda", {"xla_gpu_enable_latency_hiding_scheduler": True,
                  "xla_gpu_experimental_parallel_collective_overlap_limit": 4,
                  "xla_gpu_pipeline_all_gather": "COLLECTIVE_PIPELINING_MODE_ON"}),
        ("tpu", {"xla_tpu_enable_async_collective_fusion": "true", "xla_enable_async_all_gather": "true"}),
        ("cpu", None), ("rocm", None),
    ],
)  # fmt: skip
def test_each_platform_gets_its_own_options(platform, passed_on):
    assert compiler_options(GIVEN, platform) == passed_on


@pytest.mark.parametrize(
    "option", [{"xla_gpu_nothing_of_the_kind": True}, {"xla_gpu_enable_latency_hiding_scheduler": "perhaps"}]
)
def test_the_rejected_option_is_found_in_the_error_of_xla(option):
    with pytest.raises(jax.errors.JaxRuntimeError) as raised:
        jax.jit(lambda x: x + 1).lower(1.0).compile(compiler_options=option)
    found = REFUSED.search(str(raised.value))
    assert found is not None and {*found.groups()} & {*option}


def test_an_option_that_is_refused_on_a_chip_is_found_in_the_error_of_libtpu():
    found = REFUSED.search(
        "FAILED_PRECONDITION: Continuation fusion for AllGather is enabled on platform ghostlite, but it is not "
        "supported/recommended. Please disable it with xla_tpu_enable_async_collective_fusion=false"
    )
    assert found is not None and "xla_tpu_enable_async_collective_fusion" in found.groups()


@pytest.mark.parametrize("option", ["--xla_gpu_autotune_level=0", "xla_gpu_autotune_level", "rm -r", "xla_a=1 xla_b=2"])
def test_invalid_options_are_rejected(option):
    with pytest.raises(UsageError, match="name=value"):
        dataclasses.replace(tiny_experiment().train, xla_options=(option,))


def test_a_run_folder_of_others_may_set_only_layout_options():
    """Others are dangerous: xla_gpu_cuda_data_dir names the folder of a program that XLA runs."""
    saved = {"train": {"xla_options": [*GPU_OVERLAP, "xla_gpu_cuda_data_dir=/tmp/theirs"]}}
    (found,) = named_code(saved)
    assert [code.name for code in found.codes] == ["train.xla_options"]
    found.leave_out()
    assert saved["train"]["xla_options"] == [*GPU_OVERLAP]


@pytest.mark.fast_rows(8)
@pytest.mark.parametrize("row", LAYOUTS.values(), ids=lambda row: row.name)
def test_plans_and_training_use_the_options_of_the_row_which_are_for_its_platform(row):
    tpu = bool(topology_of(row.topology).chip.torus)
    assert len(compiler_options(row.xla_options, "tpu" if tpu else "cuda") or {}) == len(row.xla_options)
    assert bool(row.no_xla_options) == (tpu and not row.xla_options)  # why a TPU has none
    path = str(REPOSITORY / f"configs/{row.model}.py")
    usual, _ = parse_command("launch.x", "", [path])
    own, _ = parse_command("launch.train", "", [path, "--train.layout", row.name])
    planned = on_hardware(usual.model, usual.train, row.topology)[3]
    assert planned.xla_options == own.train.xla_options == row.xla_options


class Lowered:
    """A program of JAX that records the options that it is compiled with."""

    def as_text(self) -> str:
        return ""

    def compile(self, compiler_options: dict[str, Any] | None) -> "Lowered":
        self.options = compiler_options
        return self

    def memory_analysis(self) -> None:
        return None


@pytest.mark.parametrize("row", [row for row in LAYOUTS.values() if row.xla_options], ids=lambda row: row.name)
def test_the_options_reach_the_compiler(row):
    program, model = Lowered(), tiny_experiment().model
    step = SimpleNamespace(lower=lambda *_: program)
    chip: Any = Chip("tpu", "libtpu") if row in TPUS else Chip("gpu", "cuda 12090")
    mesh = Mesh(np.reshape(chip, (1, 1, 1, 1)), MESH_AXES)
    compile_ahead(step, cast(Any, None), example_batch(2, 8), mesh, model, row.xla_options)
    assert program.options is not None
    assert {f"{name}={value}".lower() for name, value in program.options.items()} == {
        option.lower() for option in row.xla_options
    }


@needs_libtpu
@pytest.mark.slow
@pytest.mark.parametrize("options", sorted({row.xla_options for row in LAYOUTS.values() if row in TPUS} - {()}))
def test_libtpu_accepts_the_options_and_refuses_an_unknown_one(options):
    row = next(row for row in TPUS if row.xla_options == options)
    chip = topology_of(row.topology).chip.name
    shape = f"{chip}:{'2x2' if topology_of(row.topology).chip.torus == 2 else '2x2x1'}"
    words = ("--topology", shape, "--json", "--train.mesh.fsdp", "4", "--train.layout", "", "--train.xla-options")
    done = plan_command("configs/demo.py", *words, *options)
    assert done.returncode == 0 and json.loads(done.stdout)["exposed_share"] is not None, done.stderr
    done = plan_command("configs/demo.py", *words, *options, "xla_tpu_no_such_option=true")
    assert done.returncode == 2 and "train.xla_options has xla_tpu_no_such_option" in done.stderr
