"""Checks of the main job before its first stage, for settings that would only fail after hours of data processing."""

from pathlib import Path

from configs.experiment import Experiment
from data_prep.by_language.splitters import check_splitters
from data_prep.select.fixes import check_fixes
from launch import train_tokenizer, write_shards
from launch.stages.processes import process_count
from lm.address_space import TRAINING, check_address_space
from lm.errors import InputError
from lm.evaluation.evaluators import EVALUATORS, check_classes, check_evaluators, task_files
from lm.inference.requests import check_prompt
from lm.own_process import in_own_process
from lm.run_paths import RunPaths
from lm.tokenizer.bpe import check_pattern
from lm.tokenizer.patterns import SPLIT_PATTERNS
from lm.training.preflight import check_samples, check_tokenizer, check_training


def check(experiment: Experiment, workdir: Path, training: bool = True, sampling: bool = True) -> None:
    """Raise UsageError or InputError if a later stage cannot succeed, whatever the earlier stages produce. `training`
    says whether stages after the data stages will run, `sampling` whether the stage sample will. Settings of training
    are not checked if the shards exist, since training is next and checks them itself; nor with several processes, each
    of which sees only its own devices."""
    if experiment.documents.by_language is not None:
        check_splitters(experiment.documents.language.languages)
        check_fixes(experiment.documents.by_language)
    if not experiment.tokenizer.load and experiment.tokenizer.algorithm == "bpe":
        pattern = experiment.tokenizer.split_pattern
        check_pattern(SPLIT_PATTERNS.get(pattern, pattern), "tokenizer.split_pattern")
    if not training:
        return
    check_address_space(TRAINING)
    if sampling and "." in experiment.model.block:  # imports the user's block
        in_own_process(check_samples, experiment.model)
    check_evaluators(experiment.evaluate.evaluators, "evaluate.evaluators")
    task_files(experiment.evaluate.evaluators, experiment.evaluate.tasks, "evaluate.tasks.data")
    for names, option in (
        (experiment.evaluate.evaluators, "evaluate.evaluators"),
        (experiment.train.evaluators if experiment.train.validate_every else (), "train.evaluators"),
    ):
        if others := tuple(name for name in names if name not in EVALUATORS):
            in_own_process(check_classes, others, option)
    if RunPaths(workdir).marker(write_shards.STAGE.name).exists() or process_count() > 1:
        return
    made = RunPaths(workdir).marker(train_tokenizer.STAGE.name).exists()
    fingerprint = None if made else check_tokenizer(experiment.tokenizer)
    check_training(experiment.tokenizer, experiment.model, experiment.train, RunPaths(workdir).tokens, fingerprint)


def check_prompts(experiment: Experiment, tokenizer: Path) -> None:
    """Raise UsageError if a prompt of train.sample_prompt or sample.prompts leaves no room for new tokens."""
    from lm.tokenizer import load

    known, train, sample = load(tokenizer), experiment.train, experiment.sample
    asked = [("train.sample_prompt", train.sample_prompt, "train.sample_tokens", train.sample_tokens)]
    asked = asked if train.sample_every else []
    asked += [("sample.prompts", prompt, "sample.tokens", sample.tokens) for prompt in sample.prompts]
    for option, prompt, limit, tokens in asked:
        try:
            check_prompt(known, prompt, tokens)
        except InputError as error:
            raise type(error)(f"{option} with {limit} = {tokens}: {error}") from error
