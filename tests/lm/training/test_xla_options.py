"""XLA options go only to their own platform, and options that XLA rejects are named."""

import dataclasses

import jax
import pytest

from configs.experiment.named_code import named_code
from configs.layouts import GPU_OVERLAP, LAYOUTS
from lm.errors import UsageError
from lm.training.aot_compile import REFUSED, compiler_options
from tests.corpus import tiny_experiment

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
    assert found is not None and (found[1] or found[2]) in option


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


def test_layout_options_apply_only_to_their_own_platform():
    for row in LAYOUTS.values():
        platform = "cuda" if row.topology.startswith("h100") else "tpu"
        assert len(compiler_options(row.xla_options, platform) or {}) == len(row.xla_options)
