"""The rules of configs/own_text.py choose settings that fit any amount of text, and nothing is rejected."""

import dataclasses
import functools
import itertools
import math

import pytest

from configs import own_text
from configs.experiment import parse_run
from data_prep.sources.sizes import InputSizes
from lm.config import StartConfig
from lm.fields import flatten, with_values
from tests.run_files import REPOSITORY

CONFIG = str(REPOSITORY / "configs/own_text.py")
BYTES = [300, 3_000, 30_000, 100_000, 333_333, 10**6, 3 * 10**6, 10**7, 10**8, 10**9]
SIZES = [InputSizes(size, count) for size in BYTES for count in (1, 30, 999, 1_000, 10**6) if count <= size // 50]


@functools.cache
def parsed(*words):
    return parse_run("launch.pretrain", "", [CONFIG, *words])


def fitted(sizes, *words):
    command = parsed(*words)
    return own_text.fit(command.experiment, sizes, command.given)


def tokens_of(experiment, sizes):
    """Estimated number of training tokens, with the bytes per token of BPE on English at this vocabulary."""
    bytes_per_token = min(0.5 * math.log2(experiment.tokenizer.vocab_size) - 2.3, 4.2)
    return (1 - experiment.shards.validation_fraction) * sizes.bytes / bytes_per_token


def check_reasons(experiment, reasons):
    """Each names its option and the value that the experiment has."""
    values = flatten(dataclasses.asdict(experiment))
    for line in reasons:
        option, _, rest = line.partition(" = ")
        assert str(values[option]) == rest.partition(":")[0].replace(",", "")


def changed(before, after):
    """The options in which they differ."""
    before, after = (flatten(dataclasses.asdict(one)) for one in (before, after))
    return {option for option in after if after[option] != before[option]}


@pytest.mark.parametrize("sizes", SIZES, ids=lambda sizes: f"{sizes.bytes} bytes in {sizes.documents}")
def test_the_defaults_suit_the_amount_of_text(sizes):
    experiment, reasons = fitted(sizes)
    train, context = experiment.train, experiment.model.context_length
    tokens = tokens_of(experiment, sizes)
    held_out = tokens * experiment.shards.validation_fraction / (1 - experiment.shards.validation_fraction)
    read = train.steps * train.batch_size * context
    assert train.optimizer.warmup_steps < train.steps / 4
    assert (train.validation_batches - 1) * train.batch_size * context < held_out
    assert read <= 2 * own_text.MOST_TOKENS  # minutes on two cores, however much text there is
    if sizes.bytes >= 30_000:
        assert train.batch_size * context <= tokens
        assert read <= own_text.EPOCHS * tokens * 1.1
        assert train.steps >= own_text.FEWEST_STEPS
    if experiment.shards.held_out == "documents":  # the chance that none of them is drawn is negligible
        assert experiment.shards.validation_fraction * sizes.documents >= 19
    else:
        assert sizes.documents < own_text.FEW_DOCUMENTS
    check_reasons(experiment, reasons)


def test_a_larger_text_has_no_smaller_vocabulary_batch_or_number_of_steps():
    chosen = [fitted(InputSizes(size, 30))[0] for size in BYTES]
    for value in (
        lambda one: one.tokenizer.vocab_size, lambda one: one.train.batch_size,
        lambda one: one.train.steps * one.train.batch_size,
    ):  # fmt: skip
        assert [value(one) for one in chosen] == sorted(value(one) for one in chosen)


OPTIONS = {
    "train.steps": "6", "train.batch_size": "3", "train.optimizer.warmup_steps": "7", "tokenizer.vocab_size": "2000",
    "tokenizer.allow_fewer": "False", "model.vocab_size": "3000", "shards.token_dtype": "uint16",
    "shards.held_out": "documents", "shards.validation_fraction": "0.3", "shards.record_length": "512",
    "train.micro_batches": "1", "train.loss_chunks": "2", "train.validate_every": "0", "train.validation_batches": "99",
    "train.sample_every": "0", "train.checkpoint_every": "5", "train.log_every": "1", "train.sample_tokens": "20",
    "model.ngram_rows": "64", "sample.tokens": "30", "evaluate.stride": "9", "evaluate.batch_size": "2",
}  # fmt: skip
"""{option that the rules choose: another value}."""


def test_the_options_above_are_all_that_the_rules_choose():
    plain = parsed().experiment
    for sizes, base in itertools.product((SIZES[0], SIZES[-1]), (plain, continued(plain))):
        assert changed(base, own_text.fit(base, sizes, ())[0]) <= OPTIONS.keys()


def continued(experiment):
    """As launch.import_model writes it: a large model and its tokenizer."""
    tokenizer = {"tokenizer.vocab_size": 50_000, "tokenizer.load": "runs/a/tokenizer"}
    return with_values(experiment, {**tokenizer, "train.start": StartConfig("runs/a/checkpoints/0")})


@pytest.mark.parametrize("option", OPTIONS)
def test_an_explicit_option_is_kept_and_fits(option):
    for sizes in (SIZES[0], InputSizes(30_000, 30), SIZES[-1]):
        experiment, _ = fitted(sizes, f"--{option.replace('_', '-')}", OPTIONS[option])
        assert str(flatten(dataclasses.asdict(experiment))[option]) == OPTIONS[option]
        assert experiment.train.optimizer.warmup_steps < experiment.train.steps


@pytest.mark.parametrize("words", [
    ["--train.steps", "1"], ["--model.context-length", "32"], ["--model.context-length", "8192"],
    ["--tokenizer.algorithm", "characters"], ["--tokenizer.algorithm", "sentencepiece_unigram"],
    ["--tokenizer.vocab-size", "100277"], ["--tokenizer.load", "gpt2"],
    ["--sample.prompts", "Once upon a time there was " * 20],
], ids=lambda words: words[0] + words[1][:20])  # fmt: skip
@pytest.mark.parametrize("size", [30_000, 10**9])
def test_other_options_alone_cause_no_rejection(words, size):
    experiment, _ = fitted(InputSizes(size, 30), *words)
    assert experiment.model.vocab_size == experiment.tokenizer.vocab_size


def test_more_steps_than_the_default_keep_the_warm_up_so_that_training_continues():
    sizes = InputSizes(10**6, 30)
    (plain, _), (longer, _) = fitted(sizes), fitted(sizes, "--train.steps", "99999")
    assert longer.train.optimizer == plain.train.optimizer


@pytest.mark.parametrize("size", [30_000, 10**6, 10**9])
@pytest.mark.parametrize("context", [64, 1024, 8192])
def test_an_imported_model_is_trained_in_batches_that_suit_the_text_and_the_memory(size, context):
    plain = continued(parsed().experiment)
    plain = with_values(plain, {"model.context_length": context})
    experiment, _ = own_text.fit(plain, InputSizes(size, 1), ())
    train = experiment.train
    assert (experiment.tokenizer, experiment.model) == (plain.tokenizer, plain.model)
    assert train.optimizer.warmup_steps < train.steps
    assert train.batch_size * context // train.micro_batches <= max(own_text.STEP_TOKENS, context)
    if size > 30_000:
        assert train.steps * train.batch_size * context <= 2.2 * max(size / 4.2, own_text.FEWEST_STEPS * context)
