"""The main job rejects settings that would fail later before its first stage, and writes nothing."""

import dataclasses
from pathlib import Path

import pytest

from configs.experiment import Experiment
from launch import preflight, pretrain, train_tokenizer, write_shards
from lm.errors import UsageError
from lm.run_paths import RunPaths
from lm.tokenizer import save
from lm.tokenizer import train_tokenizer as trained
from tests.corpus import texts, tiny_experiment

EXPERIMENT = tiny_experiment()


def changed(section: str, **fields) -> Experiment:
    return dataclasses.replace(EXPERIMENT, **{section: dataclasses.replace(getattr(EXPERIMENT, section), **fields)})


@pytest.mark.parametrize(
    ("experiment", "words"),
    [
        (changed("model", attention="cudnn"), r"model\.attention = cudnn cannot run here: it needs the platform cuda"),
        (changed("tokenizer", load="gpt3"), r"gpt3"),
    ],
    ids=["attention", "tokenizer"],
)
def test_an_impossible_setting_is_rejected_before_the_first_stage(tmp_path, experiment, words):
    with pytest.raises(UsageError, match=words):
        pretrain.run(experiment, tmp_path)
    assert not list(tmp_path.iterdir())


def test_finished_stages_are_not_checked_again(tmp_path):
    """Data of a machine with GPUs can be inspected on a laptop."""

    def marker(stage) -> None:
        path = RunPaths(tmp_path).marker(stage.name)
        path.parent.mkdir(exist_ok=True)
        path.write_text("{}")

    impossible = changed("tokenizer", load="gpt3")
    with pytest.raises(UsageError):
        preflight.check(impossible, tmp_path)
    marker(train_tokenizer.STAGE)
    marker(write_shards.STAGE)
    preflight.check(impossible, tmp_path)


def test_an_invalid_prompt_of_the_final_samples_is_rejected_before_training(tmp_path):
    tokenizer = trained(texts(8), EXPERIMENT.tokenizer)
    save(tokenizer, tmp_path / "tokenizer")
    preflight.check_prompts(EXPERIMENT, Path(tmp_path / "tokenizer"))
    long = changed("sample", prompts=("", "The miller carried a sack of grain. " * 9), tokens=24)
    with pytest.raises(UsageError, match=r"sample\.prompts with sample\.tokens = 24: .*leaves no room within 24"):
        preflight.check_prompts(long, tmp_path / "tokenizer")
