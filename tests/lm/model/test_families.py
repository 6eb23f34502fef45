"""The configs of published models have the published numbers of parameters."""

import dataclasses
from pathlib import Path

import pytest

from configs.experiment import load_config
from lm.model.cost import count_parameters

CONFIGS = Path(__file__).parents[3] / "configs"
# GPT-2: the released checkpoints (openai/gpt-2), with the embeddings counted once. Llama: Hugging Face's model cards.
PARAMETERS = {
    "gpt2_124m": 124_439_808,
    "gpt2_355m": 354_823_168,
    "gpt2_774m": 774_030_080,
    "gpt2_1558m": 1_557_611_200,
    "llama3_1b": 1_235_814_400,
    "llama3_8b": 8_030_261_248,
    "llama3_70b": 70_553_706_496,
    "llama3_405b": 405_853_388_800,
}
MODERN = {"modern_124m": 123_551_232, "shakespeare_char": 804_096, "shakespeare_char_modern": 797_952}


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_equal_those_of_the_published_model(name):
    path = CONFIGS / f"{name}.py"
    assert count_parameters(load_config(path).model) == PARAMETERS[name]
    assert f"{PARAMETERS[name]:,} parameters" in path.read_text(encoding="utf-8")


def test_the_modern_models_are_as_large_as_the_classic_ones():
    counts = {name: count_parameters(load_config(CONFIGS / f"{name}.py").model) for name in MODERN}
    assert counts == MODERN
    assert abs(counts["modern_124m"] / PARAMETERS["gpt2_124m"] - 1) < 0.01
    assert abs(counts["shakespeare_char_modern"] / counts["shakespeare_char"] - 1) < 0.01


def test_the_modern_shakespeare_model_trains_on_the_same_tokens():
    classic, modern = (load_config(CONFIGS / f"shakespeare_char{suffix}.py") for suffix in ("", "_modern"))
    for part in ("pages", "documents", "tokenizer", "shards", "evaluate"):
        assert getattr(classic, part) == getattr(modern, part)
    same = dataclasses.replace(modern.train, optimizer=classic.train.optimizer)
    assert same == classic.train
    assert modern.model.context_length == classic.model.context_length


@pytest.mark.parametrize("name", PARAMETERS)
def test_batches_have_a_power_of_two_of_tokens_and_the_warm_up_is_short(name):
    experiment = load_config(CONFIGS / f"{name}.py")
    train, context = experiment.train, experiment.model.context_length
    assert train.batch_size * context in (2**19, 2**20, 2**22, 2**24)
    assert train.batch_size % train.mesh.fsdp == 0 and experiment.model.width % train.mesh.fsdp == 0
    assert train.optimizer.warmup_steps < train.steps / 10
