"""Plans, training, job files and the benchmark of a card assume the same memory of a GPU."""

import argparse
import os
import sys

import pytest

from launch.stages.command import run_command
from lm.gpu_memory import GPU_MEMORY, VARIABLES, gpu_memory_note, set_gpu_memory
from lm.planner.topology import CHIPS, Topology
from tests.bench.card import Runner
from tests.launch.cloud.files import REPOSITORY, WORDS, dry_run

NAME, OLD_NAME = VARIABLES


@pytest.mark.parametrize("chip", CHIPS.values(), ids=lambda chip: chip.name)
def test_a_plan_uses_the_fraction_of_a_gpus_memory_that_training_allocates(chip):
    usable = 1 if chip.torus else GPU_MEMORY
    assert Topology(chip, (1, 1)).device_memory == pytest.approx(usable * chip.memory / chip.devices, abs=1)


@pytest.mark.parametrize("cloud", WORDS)
@pytest.mark.parametrize("name", VARIABLES)
def test_job_files_set_the_fraction_on_gpus_whatever_the_variable_is_here(cloud, name, capsys, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setenv(name, "0.5")
    text = dry_run(capsys, cloud, "v6e:4x4" if cloud == "tpu_vm" else "h100:16")
    assert (NAME in text and str(GPU_MEMORY) in text) == (cloud != "tpu_vm")


def test_commands_and_the_benchmark_of_a_card_set_it_for_jax(monkeypatch, capsys):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    options = argparse.Namespace(dry_run=True, minutes=1)
    assert Runner(options, None).environment[NAME] == str(GPU_MEMORY)
    monkeypatch.setattr(sys, "argv", ["x", "no-such-config.py"])
    with pytest.raises(SystemExit):
        run_command("launch.train", None)
    assert os.environ[NAME] == str(GPU_MEMORY)
    capsys.readouterr()


@pytest.mark.parametrize(("name", "value"), [(NAME, "0.5"), (OLD_NAME, "0.5"), (OLD_NAME, "0.92"), (NAME, "")])
def test_a_fraction_set_by_the_user_stays_and_a_difference_is_printed(name, value):
    environment = {name: value}
    set_gpu_memory(environment)
    assert environment == ({name: value} if value else {NAME: str(GPU_MEMORY)})  # JAX rejects both names together
    note = gpu_memory_note(environment)
    assert ("plans assume 0.92" in note) == (value == "0.5") and (value in note or "92 %" in note)
    assert gpu_memory_note({}) == ""
