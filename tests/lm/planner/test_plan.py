"""Plans for hardware that is not here: memory, communication and cost, by the TPU compiler itself."""

import importlib.util
import json
import multiprocessing
import re
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from configs.experiment import load_config
from lm.config import MeshConfig
from lm.devices import Target, target_of
from lm.errors import UsageError
from lm.planner import compilers
from lm.planner.compile import RESUME, SAMPLE, STEP, VALIDATION, Compiled, OutOfMemory, compiler_for, out_of_memory
from lm.planner.compilers import CORES, has_cuda, target_config
from lm.planner.hlo import Overlap
from lm.planner.plan import make_plan
from lm.planner.text import in_words, plan_text, time_text
from lm.planner.topology import CHIPS, topology_of
from tests.commands import Ended, run_command
from tests.corpus import tiny_experiment
from tests.run_files import REPOSITORY

EXPERIMENT = load_config(REPOSITORY / "configs/gpt2_1558m.py")
EXPERIMENT = replace(
    EXPERIMENT,
    model=replace(EXPERIMENT.model, scan_layers=False),
    train=replace(EXPERIMENT.train, micro_batches=1, remat="none", layout=""),
)  # without the layout that it names


def plan_command(*words: str) -> Ended:
    """launch.plan as a user calls it."""
    return run_command("launch.plan", *words)


def has_libtpu() -> bool:
    try:
        return compilers.find_libtpu().is_file()
    except UsageError:
        return False


needs_libtpu = pytest.mark.skipif(not has_libtpu(), reason="needs the compiler for TPUs: make libtpu")


# By arithmetic


def test_a_gpu_plan_is_an_estimate_and_says_so():
    train = replace(EXPERIMENT.train, micro_batches=8)
    plan = make_plan(EXPERIMENT.model, train, topology_of("h100:8"), mfu=0.5, tokens=33.6e9, dollars_per_chip_hour=3.5)
    assert plan.fits is None and plan.compiled is None and plan.attention == "cudnn"
    assert plan.parameters == 1_557_611_200 and plan.mesh["fsdp"] == 8
    # 16 bytes a parameter over eight devices, and the activations that a block keeps per token: ten vectors of its
    # width in bfloat16. They are its input, queries, keys, values, the output of attention, its projection, and four in
    # the middle of the MLP.
    state = 16 * plan.parameters / 8
    blocks = train.batch_size * 1024 / 8 / 8 * 48 * 10 * 1600 * 2
    assert plan.needed_bytes == pytest.approx(state + blocks, rel=0.01)
    assert plan.days == pytest.approx(1, rel=0.1) and plan.dollars == pytest.approx(672, rel=0.1)  # as in llm.c
    text = plan_text(plan, EXPERIMENT.model, train)
    assert (
        "memory is a calculated lower bound" in text
        and "may fit: a device holds at least" in text
        and "free" not in text
    )
    figures = plan.as_json()
    assert figures["mfu_bound"] is figures["fits"] is figures["peak_bytes"] is None
    assert figures["least_bytes"] == plan.needed_bytes


def test_if_temporary_values_do_not_fit_the_remedy_is_named():
    train = replace(EXPERIMENT.train, mesh=MeshConfig())
    plan = make_plan(EXPERIMENT.model, train, topology_of("h100:1"))
    text = plan_text(plan, EXPERIMENT.model, train)
    assert plan.fits is False
    assert "--train.micro-batches 1024: now 1024 sequences per device" in text and "--train.remat full" in text
    plan = make_plan(EXPERIMENT.model, train, topology_of("v5p:4x4x2"), lambda *_: OutOfMemory(10**12))
    text = plan_text(plan, EXPERIMENT.model, train)
    for option in ("--train.remat full", "--train.micro-batches 32", "--model.scan-layers True", "--train.loss-chunks"):
        assert option in text
    assert "--train.mesh.fsdp 32: parameters" in text and "at least 931.32 GiB" in text


@pytest.mark.parametrize("options", [(), ("xla_tpu_scoped_vmem_limit_kib=20480",)])
def test_a_plan_first_prints_the_exposed_communication_as_a_share_of_the_step(options):
    found = Compiled(1, 0, 1, (), Overlap(2e9, 1e9, 0.5), (), 12.0, {})
    train = replace(EXPERIMENT.train, xla_options=options)
    plan = make_plan(EXPERIMENT.model, train, topology_of("v5p:4x4x2"), lambda *_: found)
    assert plan.floors is not None
    share = 0.5 / max(plan.floors.arithmetic, plan.floors.memory)
    first = plan_text(plan, EXPERIMENT.model, train).splitlines()[0]
    assert first.startswith(f"exposed communication: {100 * share:.2g} % of the least time of a step (0.5 of ")
    assert "50 % of the bytes" in first and ("with 1 option of train.xla_options" in first) == bool(options)
    assert plan.as_json()["exposed_share"] == pytest.approx(share)


@pytest.mark.parametrize("refused", [False, True])
@pytest.mark.parametrize("largest", [STEP, VALIDATION, SAMPLE, RESUME])
def test_a_plan_checks_every_phase_of_the_run(largest, refused):
    """Each phase that needs a byte more than a device has is named, however little the others need, and also if the
    compiler rejects it."""
    topology = topology_of("v5p:4x4x2")
    needs = {STEP: 1, VALIDATION: 1, SAMPLE: 1, RESUME: 1, largest: topology.device_memory + 1}
    found = Compiled(1, 0, needs.pop(STEP), (), Overlap(0.0, 0.0, 0.0), (), 1.0, needs)
    found = OutOfMemory(topology.device_memory + 1, largest) if refused else found
    plan = make_plan(EXPERIMENT.model, EXPERIMENT.train, topology, lambda *_: found)
    assert ("--train.sample-every 0" in plan_text(plan, EXPERIMENT.model, EXPERIMENT.train)) == (largest == SAMPLE)
    assert plan.fits is False and plan.needed_bytes == topology.device_memory + 1
    text = plan_text(plan, EXPERIMENT.model, EXPERIMENT.train)
    assert f"does not fit: a device has 95.74 GiB, and {largest} needs at least 95.74 GiB" in text


@pytest.mark.parametrize(
    ("topology", "said"), [("h100:8", "so at least 89 such devices"), ("h100:128", "--train.mesh.fsdp 128: parameters")]
)
def test_if_the_state_does_not_fit_more_shards_are_suggested(topology, said):
    model = load_config(REPOSITORY / "configs/llama3_405b.py").model
    train = replace(EXPERIMENT.train, mesh=MeshConfig(fsdp=8))
    plan = make_plan(model, train, topology_of(topology))
    text = plan_text(plan, model, train)
    assert plan.fits is False and said in text and "--train.micro-batches" not in text


def test_if_nothing_can_shrink_other_chips_are_suggested():
    model = load_config(REPOSITORY / "configs/gpt2_124m.py").model
    model = replace(model, scan_layers=True)
    train = replace(EXPERIMENT.train, mesh=MeshConfig(), batch_size=1, loss_chunks=1024, remat="full")
    plan = make_plan(model, train, topology_of("v5e-1"), lambda *_: OutOfMemory(None))
    text = plan_text(plan, model, train)
    assert "a step needs more than that" in text and text.count("more chips, or chips with more memory") == 1


def test_a_model_that_cannot_be_divided_is_rejected_before_compilation():
    def compiler(*_):
        raise AssertionError("compiled")

    with pytest.raises(UsageError, match="fsdp = 8"):
        make_plan(EXPERIMENT.model, EXPERIMENT.train, topology_of("v5e:2x2"), compiler)


@pytest.mark.parametrize(
    ("days", "said"), [(0.01, "14 minutes"), (0.5, "12.0 hours"), (7, "7.0 days"), (1e4, "10,000 days")]
)
def test_times_are_printed_in_readable_units(days, said):
    assert time_text(days) == said


def test_large_numbers_are_printed_as_words():
    assert [in_words(one) for one in (800, 2e6, 33.6e9, 15e12)] == ["800", "2 million", "33.6 billion", "15 trillion"]


def test_the_reason_for_plain_attention_is_printed():
    model = replace(EXPERIMENT.model, compute_dtype="float32")
    plan = make_plan(model, EXPERIMENT.train, topology_of("h100:8"))
    assert plan.attention == "xla" and any("not by cudnn: it needs bfloat16" in one for one in plan.remarks)


@pytest.mark.parametrize(
    ("text", "needed"),
    [
        ("total memory required for HLO temporaries (103.79G) exceeds available HBM (15.75G).", int(103.79 * 2**30)),
        ("Ran out of memory in memory space hbm. Used 29.87G of 15.75G hbm. Exceeded hbm by 14G", int(29.87 * 2**30)),
        ("Used 900.5M of 15.75G hbm", int(900.5 * 2**20)),
        ("something else", None),
    ],
)
def test_the_compilers_message_for_a_program_that_does_not_fit_is_parsed(text, needed):
    assert out_of_memory(f"RESOURCE_EXHAUSTED: {text}") == OutOfMemory(needed)


# The command


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("configs/demo.py",), "Give the hardware"),
        (("configs/gpt2_124m.py", "--topology", "v5pp:2x2"), "Did you mean v5p"),
        (("configs/gpt2_124m.py", "--topology", "h100:8", "--mfu", "45"), "--mfu is 45.0; it must be from 0.01 to 1"),
        (("configs/gpt2_124m.py", "--topology", "h100:8", "--tokens", "-5"), "--tokens is -5.0; it must be a number"),
        (("configs/gpt2_1558m.py", "--topology", "h100:4"), "fsdp = 8"),
        (("configs/gpt2_124m.py", "--topology", "h100:8", "--days", "0"), "--days is 0.0; it must be from 0.01"),
        (
            ("configs/gpt2_124m.py", "--topology", "h100:8", "--days", "7", "--tokens", "1e9"),
            "--tokens 1000000000.0 and --days 7.0 are given",
        ),
    ],
)
def test_user_errors_are_reported(words, said):
    done = plan_command(*words)
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr


def test_without_the_compiler_the_install_command_is_named(monkeypatch, tmp_path):
    monkeypatch.delenv("TPU_LIBRARY_PATH", raising=False)
    monkeypatch.setattr(compilers, "FETCHED", tmp_path / "none")
    monkeypatch.setattr(compilers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="make libtpu"):
        compilers.find_libtpu()
    monkeypatch.setenv("TPU_LIBRARY_PATH", str(tmp_path / "nothing.so"))
    with pytest.raises(UsageError, match=r"TPU_LIBRARY_PATH is .*nothing\.so, which is not a file"):
        compilers.find_libtpu()


def take_turn(lock: Path, ready, go) -> None:
    compilers.wait_for_turn(print, lock)
    ready.set()
    go.wait()


def test_a_second_process_waits_until_the_first_ends_and_says_so(tmp_path, monkeypatch):
    """It waits until the first one ends, not only until it has compiled, because the library stays locked."""
    monkeypatch.setattr(compilers, "TURN", [])
    context = multiprocessing.get_context("spawn")
    ready, go, said = context.Event(), context.Event(), []
    first = context.Process(target=take_turn, args=(tmp_path / "lock", ready, go))
    first.start()
    ready.wait()
    entered = threading.Event()

    def second() -> None:
        compilers.wait_for_turn(said.append, tmp_path / "lock")
        entered.set()

    thread = threading.Thread(target=second)
    thread.start()
    while not said:
        assert not entered.is_set()
    assert "waiting for another process" in said[0] and not entered.is_set()
    go.set()
    thread.join()
    first.join()
    assert entered.is_set()
    compilers.wait_for_turn(said.append, tmp_path / "lock")  # it already holds the lock
    compilers.TURN.pop().close()
    assert len(said) == 1


# By the compiler


def plan_of_small_model(topology: str, fsdp: int, *words: str) -> Ended:
    """Three layers of 256 channels, with parameters sharded over `fsdp` devices; 8 sequences of 256 tokens."""
    return plan_command(
        "tests/configs.py", "--topology", topology, "--json", "--model.width", "256", "--model.heads", "4",
        "--model.kv-heads", "4", "--model.mlp-width", "512", "--model.context-length", "256", "--model.layers", "3",
        "--model.scan-layers", "True", "--model.compute-dtype", "bfloat16", "--train.remat", "full",
        "--shards.record-length", "512", "--train.mesh.fsdp", str(fsdp), "--train.batch-size", "8",
        "--train.loss-chunks", "1", *words,
    )  # fmt: skip


@needs_libtpu
@pytest.mark.slow
def test_activations_offloaded_to_the_host_take_no_device_memory():
    """All temporary values together are less than the inputs of 48 blocks, for 64 sequences per device."""
    words = ("--model.layers", "48", "--train.batch-size", "256", "--train.remat-offload", "decoder_layer_input")
    held = json.loads(plan_of_small_model("v5e:2x2", 4, *words).stdout)["temporary_bytes"]
    assert held < 0.7 * 48 * 64 * 256 * 256 * 2


@pytest.mark.slow
@needs_libtpu
def test_the_compilers_figures_match_the_step():
    """A small model sharded over four chips: 12 bytes a parameter, the kernel's name, each layer's weights twice."""
    tiny = tiny_experiment()
    done = plan_of_small_model("v5e:2x2", fsdp=4)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["fits"] and found["attention"] == "splash"
    assert {"splash_mha_fwd", "splash_mha_dq"} <= {"_".join(name.split("_")[:3]) for name in found["kernels"]}
    batch = 8 * 256 * 16 / 4
    assert found["argument_bytes"] == pytest.approx(12 * found["parameters"] / 4 + batch, rel=0.05)
    assert found["peak_bytes"] < found["device_bytes"]
    assert {*found["also_held_bytes"]} == {VALIDATION, SAMPLE, RESUME}
    assert all(
        found["argument_bytes"] - batch <= held < found["peak_bytes"] for held in found["also_held_bytes"].values()
    )
    assert found["flops_per_step"] > 6 * (found["parameters"] - 2 * 256 * tiny.model.vocab_size) * 8 * 256
    layer = 2 * (4 * 256 * 256 + 3 * 256 * 512)  # bytes in bfloat16
    assert found["collectives"]["all-gather"] >= 3 * 2 * layer
    assert found["collectives"]["all-gather"] < 4 * 2 * layer + 3 * 2 * 256 * tiny.model.vocab_size * 2
    assert 0 < found["mfu_bound"] <= 1 and found["limit"] in ("arithmetic", "memory", "network")


@needs_libtpu
def test_a_step_that_no_chip_can_hold_is_advice_and_no_error():
    done = plan_command(
        "configs/gpt2_1558m.py", "--topology", "v5e:4x4", "--train.remat", "none", "--train.micro-batches", "1"
    )
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    assert "does not fit: a device has 15.75 GiB" in done.stdout and "--train.remat full" in done.stdout


# GPUs, without a card

GPUS = [chip for chip in CHIPS.values() if any(chip.capability)]
needs_cuda = pytest.mark.skipif(not has_cuda(), reason="needs JAX's CUDA packages: make setup ACCELERATOR=cuda12")


def test_every_nvidia_gpu_of_a_topology_has_a_compilation_target():
    assert {chip.name for chip in GPUS} == CORES.keys()
    assert {name for name, chip in CHIPS.items() if not chip.torus} - CORES.keys() == {"mi300x"}
    for chip in GPUS:
        text = target_config(chip)
        assert f"device_memory_size: {chip.memory}" in text and text.count("{") == text.count("}")


@pytest.mark.parametrize("chip", GPUS, ids=lambda chip: chip.name)
def test_a_compile_only_gpu_reports_its_capability(chip):
    """From the description that XLA passes as the platform's version."""
    (version,) = re.findall(r'device_description_str: "(.*)"', target_config(chip))
    device = SimpleNamespace(client=SimpleNamespace(platform_version=version), platform="gpu")
    assert target_of(device) == Target("cuda", chip.capability)


def test_without_the_packages_gpus_are_estimated_and_tpus_are_not(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert not has_cuda() and compiler_for(topology_of("h100:8")) is None
    assert compiler_for(topology_of("v5e:2x2")) is not None


def test_a_plan_for_amd_is_an_estimate_with_plain_attention_and_needs_no_cuda(monkeypatch):
    monkeypatch.setattr("lm.planner.compile.has_cuda", lambda: True)
    experiment = load_config(REPOSITORY / "configs/gpt2_1558m.py")
    topology = topology_of("mi300x:8")
    assert compiler_for(topology) is None
    plan = make_plan(experiment.model, experiment.train, topology)
    assert plan.attention == "xla" and plan.needed_bytes is not None
    assert "no fused kernel for rocm" in plan.remarks[0] and "takes an AMD GPU" in plan.remarks[1]


@needs_cuda
def test_the_step_is_compiled_without_a_gpu():
    done = plan_of_small_model("h100:8", fsdp=8)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["fits"] and found["attention"] == "cudnn" and found["kernels"]
    assert found["argument_bytes"] == pytest.approx(12 * found["parameters"] / 8 + 256 * 16, rel=0.05)
    # Gradients of the layers in bfloat16, and at most those of both tables in float32, plus the norms.
    layers = 3 * (4 * 256 * 256 + 3 * 256 * 512) * 2
    tables = found["parameters"] - layers // 2
    assert layers <= found["collectives"]["reduce-scatter"] <= layers + 4 * tables
