"""What the main job checks before its first stage: settings that could only fail after hours of work on the data."""

from pathlib import Path

from configs.experiment import Experiment
from data_prep.by_language.fixes import check_fixes
from data_prep.by_language.splitters import check_splitters
from launch import train_tokenizer, write_shards
from launch.stages.processes import place
from lm.errors import InputError
from lm.evaluation.evaluators import check_evaluators, check_tasks
from lm.run_paths import RunPaths
from lm.training.preflight import check_tokenizer, check_training


def check(experiment: Experiment, workdir: Path, training: bool = True) -> None:
    """Raises UsageError or InputError where a later stage must fail, whatever the stages before it make. Without
    `training`, only the stages of the data run.

    Nothing is asked twice: once the tokenizer and the shards are there, training is next, and checks them and the
    devices itself. Of several processes each sees a part of the devices alone; they train by launch.train.
    """
    if experiment.documents.by_language is not None:
        check_splitters(experiment.documents.language.languages)
        check_fixes(experiment.documents.by_language)
    if not training:
        return
    check_evaluators(experiment.evaluate.evaluators, "evaluate.evaluators")
    check_tasks(experiment.evaluate.evaluators, experiment.evaluate.tasks, "evaluate.tasks.data")
    if RunPaths(workdir).marker(write_shards.STAGE.name).exists() or place()[1] > 1:
        return
    made = RunPaths(workdir).marker(train_tokenizer.STAGE.name).exists()
    fingerprint = None if made else check_tokenizer(experiment.tokenizer)
    check_training(experiment.tokenizer, experiment.model, experiment.train, RunPaths(workdir).tokens, fingerprint)


def check_prompts(experiment: Experiment, tokenizer: Path) -> None:
    """Raises UsageError where a prompt of the samples after training leaves no room for new tokens; starts JAX."""
    from lm.inference.generate import check_prompt
    from lm.tokenizer import load

    known = load(tokenizer)
    for prompt in experiment.sample.prompts:
        try:
            check_prompt(known, prompt, experiment.sample.tokens)
        except InputError as error:
            raise type(error)(f"sample.prompts with sample.tokens = {experiment.sample.tokens}: {error}") from error
