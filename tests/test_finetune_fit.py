"""The rules of configs/finetune.py choose settings that suit the conversations, the model and the memory."""

import dataclasses
import functools
import itertools
import math
from pathlib import Path

import pytest

from configs import demo, finetune, gpt2_124m, llama3_1b, own_text
from configs.experiment import parse_run
from configs.experiment.run_folder import experiment_json
from data_prep.sources.sizes import ConversationSizes
from launch.finetune import CONVERSATIONS, conversation_sizes
from launch.stages.command import Measure, fit_to_data
from lm.config import LoraConfig, ModelConfig, TokenizerConfig
from lm.fields import flatten, with_values
from lm.tokenizer import save, train_tokenizer
from lm.training.memory import training_bytes
from tests.run_files import REPOSITORY
from tests.test_own_text import changed, check_reasons

GB = 10**9
SMOLLM2 = ModelConfig(
    vocab_size=49152, context_length=8192, layers=30, width=576, heads=9, kv_heads=3, mlp_width=1536, norm="rmsnorm",
    position="rope", mlp="swiglu", biases=False, tie_embeddings=True, rope_theta=100_000.0, norm_epsilon=1e-5,
    initial_std=0.041666666666666664, parameter_dtype="float32", compute_dtype="float32",
)  # fmt: skip
"""SmolLM2-135M (config.json of HuggingFaceTB/SmolLM2-135M)."""


def imported(model):
    """As launch.import_model writes it: the stride of a long context."""
    context = model.context_length
    values = {"shards.token_dtype": "uint32", "shards.record_length": max(4096, context)}
    values |= {"evaluate.stride": min(512, context // 2), "sample.tokens": min(256, context)}
    return with_values(own_text.get_config(), {**values, "model": model, "tokenizer.vocab_size": model.vocab_size})


BASES = {
    "demo": demo.get_config(),
    "SmolLM2": imported(SMOLLM2),
    "GPT-2": imported(gpt2_124m.get_config().model),
    "Llama 1B": imported(dataclasses.replace(llama3_1b.get_config().model, context_length=131_072)),
}
LEAST_MEMORY = {"demo": GB, "SmolLM2": 4 * GB, "GPT-2": 4 * GB, "Llama 1B": 32 * GB}
SIZES = [
    ConversationSizes(count, count * length, longest, rephrased * count // 3, 0)
    for length, longest in ((30, 60), (4_000, 40_000))
    for rephrased in (0, 1)
    for count in (2, 200, 1_000_000)
]


@functools.cache
def configured(name):
    return finetune.get_config(BASES[name])


@pytest.mark.fast_rows(3)
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("name", BASES)
def test_the_defaults_suit_conversations_model_and_memory(name, sizes):
    before = configured(name)
    for memory in (LEAST_MEMORY[name], 24 * GB if name != "Llama 1B" else 64 * GB, 0):
        sizes = sizes._replace(memory=memory)
        experiment, reasons = finetune.fit(before, sizes, ())
        train, context = experiment.train, experiment.model.context_length
        if memory:
            assert sum(training_bytes(experiment.model, train).values()) < memory
        assert context >= min(sizes.longest, before.model.context_length) and context <= before.model.context_length
        assert (context == before.model.context_length) or before.model.position != "learned"
        assert 1 <= experiment.evaluate.stride <= context and experiment.sample.tokens <= context
        assert train.batch_size * context <= max(finetune.STEP_TOKENS, context)
        tokens = max(math.ceil((1 - experiment.chat.validation_fraction) * sizes.tokens / context), 1) * context
        epoch = math.ceil(tokens / (train.batch_size * context))
        assert train.steps <= 60 * epoch and train.patience
        held_out = experiment.chat.validation_fraction * sizes.conversations
        assert min(5, sizes.conversations / 2) <= held_out + 1e-9 and held_out <= max(1_000, sizes.conversations / 2)
        assert (experiment.chat.held_out == "rephrased") <= (sizes.rephrased >= held_out / 2)
        check_reasons(experiment, reasons)


def test_larger_models_learn_at_lower_rates_and_adapters_at_higher_ones():
    rates = [finetune.fit(configured(name), SIZES[1], ())[0].train.optimizer.learning_rate for name in BASES]
    assert (rates[0] == 2e-3 and rates == sorted(rates)[::-1]) or (rates[0] == 2e-3 and rates[2] > rates[1] > rates[3])
    for name in BASES:
        lora = with_values(configured(name), {"train.lora": LoraConfig(rank=4)})
        full, adapters = (finetune.fit(one, SIZES[1], ())[0].train.optimizer for one in (configured(name), lora))
        assert adapters.learning_rate == pytest.approx(10 * full.learning_rate, rel=0.06)


def test_the_result_is_an_average_over_an_epoch_if_memory_allows():
    sizes = SIZES[1]
    for name, memory, averages in (
        ("demo", 0, True), ("SmolLM2", 24 * GB, True), ("SmolLM2", 5 * GB, False), ("Llama 1B", 32 * GB, False),
    ):  # fmt: skip
        train = finetune.fit(configured(name), sizes._replace(memory=memory), ())[0].train
        epoch = min(train.steps // finetune.EPOCHS, finetune.MOST_AVERAGED)
        assert train.ema_decay == (round(1 - 1 / epoch, 3) if averages else 0.0), name
    model = dataclasses.replace(BASES["SmolLM2"].model, parameter_dtype="bfloat16")
    for more in ({"model": model}, {"train.lora": LoraConfig(rank=4)}):  # neither can have an average
        assert finetune.fit(with_values(configured("SmolLM2"), more), sizes, ())[0].train.ema_decay == 0.0


OPTIONS = {
    "chat.validation_fraction": "0.3", "chat.held_out": "any", "model.context_length": "64", "train.batch_size": "3",
    "train.steps": "7", "train.validate_every": "2", "train.patience": "9", "train.validation_batches": "5",
    "train.log_every": "3", "train.optimizer.learning_rate": "0.5", "train.optimizer.warmup_steps": "6",
    "train.ema_decay": "0.5", "train.micro_batches": "1", "train.loss_chunks": "2", "train.skip_untrained": "False",
    "train.remat": "minimal", "evaluate.stride": "9", "sample.tokens": "30", "train.sample_tokens": "20",
}  # fmt: skip
"""{option that the rules choose: another value}."""


def test_the_options_above_are_all_that_the_rules_choose():
    for name, sizes in itertools.product(BASES, (*SIZES, SIZES[0]._replace(memory=1))):
        assert changed(configured(name), finetune.fit(configured(name), sizes, ())[0]) <= OPTIONS.keys()


@pytest.fixture(scope="module")
def bases(tmp_path_factory) -> Path:
    """Run folders with only config and tokenizer, and a file of conversations."""
    folder = tmp_path_factory.mktemp("bases")
    tokenizer = train_tokenizer(["a b c " * 50], TokenizerConfig(300, "gpt2", 1_000, allow_fewer=True))
    for name, experiment in BASES.items():
        (folder / name).mkdir()
        (folder / name / "config.json").write_text(experiment_json(experiment))
        save(tokenizer, folder / name / "tokenizer")
    (folder / "talks.jsonl").write_bytes((REPOSITORY / "tests/fixtures/handbook.jsonl").read_bytes())
    return folder


MEASURE = Measure(ConversationSizes, CONVERSATIONS.name, conversation_sizes)


def command(bases, name, *words):
    given = ["--chat.conversations", str(bases / "talks.jsonl"), "--workdir", str(bases / "mine"), *words]
    config = str(REPOSITORY / "configs/finetune.py")
    return parse_run("launch.finetune", "", [str(bases / name), config, *given], from_run="chat")


@pytest.mark.fast_rows
@pytest.mark.parametrize("option", OPTIONS)
def test_an_explicit_option_is_kept_and_fits(bases, option, capsys):
    """Also a context below the stride of the base's evaluation."""
    words = (f"--{option.replace('_', '-')}", OPTIONS[option])
    experiment = fit_to_data(command(bases, "SmolLM2", *words), MEASURE)
    assert str(flatten(dataclasses.asdict(experiment))[option]) == OPTIONS[option]
    assert experiment.evaluate.stride <= experiment.model.context_length
    assert f"  {option} = " not in capsys.readouterr().out


def test_the_values_of_a_run_stay_when_its_data_and_machine_change(bases, tmp_path, capsys):
    first = fit_to_data(command(bases, "SmolLM2", "--workdir", str(tmp_path)), MEASURE)
    assert first.fitted_to[0] == 200 and "Defaults chosen for this data" in capsys.readouterr().out
    (tmp_path / "config.json").write_text(
        experiment_json(dataclasses.replace(first, fitted_to=(9, 999, 70, 0, 3 * GB)))
    )
    (tmp_path / "stages").mkdir()
    again = lambda: fit_to_data(command(bases, "SmolLM2", "--workdir", str(tmp_path)), MEASURE)
    assert again() == first  # no conversations were written yet
    capsys.readouterr()
    (tmp_path / "stages/conversations.json").write_text("{}")
    kept = again()
    assert kept.fitted_to == (9, 999, 70, 0, 3 * GB) and kept.train.steps != first.train.steps
    assert capsys.readouterr().out == ""


def test_the_committed_conversations_have_few_answers_to_more_questions(bases):
    sizes = conversation_sizes(command(bases, "demo").experiment)
    assert (sizes.conversations, sizes.rephrased) == (200, 50) and math.isclose(sizes.tokens / 200, 110, rel_tol=0.3)
