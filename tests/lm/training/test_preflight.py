"""Configs that can never train are rejected before any data is read, with values and remedy; others pass."""

import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from lm.config import MeshConfig, MixtureSource, StartConfig
from lm.devices import Devices, Target
from lm.errors import InputError, UsageError
from lm.model.attention.choice import attention_spec_of, explain
from lm.own_process import in_own_process
from lm.training.preflight import check_tokenizer, check_training
from tests.corpus import tiny_experiment
from tests.lm.shard_files import FINGERPRINT, STREAMS, write_tokens

EXPERIMENT = tiny_experiment()
CPU = Devices(1, "cpu", Target("cpu"))
H100S = Devices(8, "NVIDIA H100 80GB HBM3", Target("cuda", (9, 0)))
SIXTEEN = Devices(16, "cpu", Target("cpu"))
V5E = Devices(4, "TPU v5 lite", Target("tpu"))


def check(devices: Devices = CPU, model: dict | None = None, fingerprint: str | None = None, **train) -> None:
    changed = replace(EXPERIMENT.model, **(model or {}))
    config = replace(EXPERIMENT.train, **train)
    own = Path("runs/a/tokens")
    check_training(EXPERIMENT.tokenizer, changed, config, own, fingerprint, devices)


@pytest.mark.parametrize(
    ("devices", "settings", "words"),
    [
        (CPU, {"mesh": MeshConfig(fsdp=8)}, ["fsdp = 8", "1 device (cpu)", "Leave all three at 1"]),
        (H100S, {"mesh": MeshConfig(fsdp=3)}, ["fsdp = 3", "8 devices (NVIDIA H100", "divides 8"]),
        (H100S, {"mesh": MeshConfig(fsdp=4, tensor=4)}, ["tensor = 4 is 16", "8 devices"]),
        (H100S, {"mesh": MeshConfig(tensor=8)}, ["model.heads = 2", "tensor = 8"]),
        (H100S, {"batch_size": 12}, ["batch_size = 12", "8 x 1 devices", "multiple of 8"]),
        (H100S, {"batch_size": 24, "micro_batches": 2}, ["batch_size = 24", "micro_batches = 2", "multiple of 16"]),
        (CPU, {"model": {"attention": "cudnn"}}, ["attention = cudnn", "platform cuda", "is cpu", "attention = xla"]),
        (H100S, {"mesh": MeshConfig(context=8), "batch_size": 1, "model": {"context_length": 20}},
         ["context_length = 20 is sharded over train.mesh.context = 8"]),
        (SIXTEEN, {"mesh": MeshConfig(zero1=True), "model": {"width": 72}, "batch_size": 16},
         ["width = 72 over data x fsdp x context = 16 x 1 x 1", "mesh.zero1 False"]),
        (CPU, {"start": StartConfig("runs/none/checkpoints/8")}, ["'runs/none/checkpoints/8' is not the folder"]),
    ],
)  # fmt: skip
def test_unsupported_settings_are_rejected_with_the_values_and_the_remedy(devices, settings, words):
    with pytest.raises(UsageError) as error:
        check(devices, **settings)
    assert all(word in str(error.value) for word in words), error.value


@pytest.mark.parametrize(
    ("devices", "settings"),
    [
        (CPU, {}),
        (H100S, {"mesh": MeshConfig(fsdp=4, context=2), "batch_size": 8}),
        (H100S, {"model": {"attention": "cudnn", "compute_dtype": "bfloat16"}}),
        (V5E, {"model": {"attention": "auto"}}),
        (SIXTEEN, {"model": {"width": 72}, "batch_size": 16}),
    ],
)
def test_supported_settings_pass(devices, settings):
    check(devices, **settings)


def test_missing_wandb_is_reported_with_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UsageError, match=r"wandb_project is 'mill'.*make add PACKAGE=wandb"):
        check(wandb_project="mill")


def test_folders_of_a_mixture_must_exist_and_fit(tmp_path):
    with pytest.raises(InputError, match=rf"train.mixture names {tmp_path}/none, but .*manifest.json is missing"):
        check(mixture=(MixtureSource(f"{tmp_path}/none", 1.0),))
    write_tokens(tmp_path, {"train": STREAMS[:1]})
    mixture = (MixtureSource(str(tmp_path), 1.0),)
    with pytest.raises(UsageError, match=r"tokenizer of 4096 symbols, but tokenizer.vocab_size = 320\."):
        check(mixture=mixture)
    tokenizer = replace(EXPERIMENT.tokenizer, vocab_size=4096)
    config = replace(EXPERIMENT.train, mixture=mixture)
    asked = lambda context, fingerprint: check_training(
        tokenizer, replace(EXPERIMENT.model, context_length=context), config, tmp_path / "own", fingerprint,
        CPU,
    )  # fmt: skip
    asked(24, FINGERPRINT)
    asked(24, None)  # a tokenizer that is not trained yet may be the same
    with pytest.raises(UsageError, match="context of 32 tokens is longer than the records of 24"):
        asked(32, FINGERPRINT)
    with pytest.raises(UsageError, match=f"written with tokenizer {FINGERPRINT}, but this experiment's is cd"):
        asked(24, "cd" * 32)


def test_a_tokenizer_that_cannot_be_loaded_is_rejected():
    for load, size, words in (("gpt3", 320, "'gpt3'"), ("LICENSE", 320, "LICENSE")):
        config = replace(EXPERIMENT.tokenizer, load=load, vocab_size=size)
        with pytest.raises(InputError, match=words):
            check_tokenizer(config)
    assert check_tokenizer(EXPERIMENT.tokenizer) is None


@pytest.mark.parametrize(
    ("target", "model", "words"),
    [
        (Target("cpu"), {}, "attention by xla"),
        (Target("cuda", (9, 0)), {"compute_dtype": "bfloat16"}, "attention by cudnn"),
        (Target("cuda", (9, 0)), {}, r"xla \(plain operations\), not by cudnn: .*compute_dtype = float32"),
        (Target("tpu"), {}, r"attention by splash \(heads of 16 channels are padded to 64; sequences of"),
        (Target("cuda", (8, 0)), {"compute_dtype": "bfloat16"}, r"attention by cudnn \(documents by a mask"),
        (Target("rocm"), {}, "no fused kernel for rocm"),
        (Target("cuda", (9, 0)), {"attention": "xla"}, "attention by xla$"),
    ],
)
def test_the_choice_of_attention_is_explained(target, model, words):
    config = replace(EXPERIMENT.model, **model)
    assert re.search(words, explain(config.attention, target, attention_spec_of(config, 1)))


def test_errors_of_the_subprocess_are_raised():
    assert in_own_process(max, 3, 5) == 5
    with pytest.raises(UsageError, match="'runs/none' is not the folder of a checkpoint"):
        in_own_process(StartConfig("runs/none").folder)
    with pytest.raises(InputError, match=r"code 1 and printed: no device of that name\. .*JAX_PLATFORMS"):
        in_own_process(sys.exit, "no device of that name")
