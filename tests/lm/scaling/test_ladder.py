"""A ladder has rungs of the requested sizes, with all other settings of the config."""

from dataclasses import replace

import jax
import pytest

from configs import demo, gpt2_124m, llama3_1b
from lm.config import MixtureSource, MixtureStage, StartConfig
from lm.data.batches import BatchSource
from lm.data.records import read_manifest
from lm.errors import UsageError
from lm.model.cost import flops_per_token, parameters_in_products
from lm.model.transformer import Transformer
from lm.scaling.ladder import LadderConfig, make_ladder, measured_on, refuse_repetition, windows_in
from tests.lm.shard_files import STREAMS, write_tokens

DEMO = demo.get_config()
ASKED = LadderConfig(rungs=(8e4, 1.6e5, 4e5), tokens=(1e5, 2e5, 4e5), budget=1e15)


@pytest.fixture(scope="module")
def ladder():
    return make_ladder(DEMO.model, DEMO.train, ASKED)


def test_a_ladder_has_every_size_with_every_length_and_larger_held_out_rungs(ladder):
    fitted, held_out = ladder[:9], ladder[9:]
    assert [rung.held_out for rung in ladder] == [False] * 9 + [True]
    assert len({rung.parameters for rung in fitted}) == 3 and len({rung.tokens for rung in fitted}) == 3
    for size in ASKED.rungs:
        assert min(abs(rung.parameters / size - 1) for rung in fitted) < 0.25
    step = DEMO.train.batch_size * DEMO.model.context_length
    assert {rung.tokens for rung in fitted} == {round(tokens / step) * step for tokens in ASKED.tokens}
    assert held_out[0].parameters == pytest.approx(4 * 4e5, rel=0.15)
    assert held_out[0].tokens == round(4e5 / step) * step
    assert len({rung.name for rung in ladder}) == 10


def test_parameters_are_those_counted_for_flops(ladder):
    for rung in ladder:
        attention = 12 * rung.model.layers * rung.model.context_length * rung.model.heads * rung.model.head_channels
        assert 6 * rung.parameters + attention == flops_per_token(rung.model)
        leaves = jax.tree.leaves(jax.eval_shape(lambda m=rung.model: Transformer(m, jax.random.key(0))))
        pairs = rung.model.ngram_rows * rung.model.width  # the demo's bigram tables
        assert rung.parameters == sum(leaf.size for leaf in leaves) - pairs


def test_a_rung_keeps_vocabulary_context_and_proportions(ladder):
    for rung in ladder:
        kept = ("vocab_size", "context_length", "norm", "mlp", "qk_norm", "ngram_rows", "tie_embeddings")
        assert all(getattr(rung.model, name) == getattr(DEMO.model, name) for name in kept)
        assert rung.model.width % 8 == 0 and rung.model.head_channels == DEMO.model.head_channels
        assert rung.model.layers == max(2, round(DEMO.model.layers * rung.model.width / DEMO.model.width))
        assert rung.model.mlp_width == 4 * rung.model.width
        assert rung.train.optimizer.warmup_steps <= rung.train.steps / 10
        assert rung.train.validate_every == rung.train.steps


@pytest.mark.slow
def test_the_default_ladder_ends_at_the_model_and_the_tokens_of_the_config():
    for experiment in (gpt2_124m.get_config(), llama3_1b.get_config()):
        made = make_ladder(experiment.model, experiment.train, LadderConfig())
        assert len(made) == 17
        last, shape = made[-1], experiment.model
        assert last.held_out and last.parameters == parameters_in_products(shape)
        assert (last.model.width, last.model.layers, last.model.kv_heads) == (shape.width, shape.layers, shape.kv_heads)
        assert last.train.steps == experiment.train.steps
        assert last.train.optimizer.learning_rate == experiment.train.optimizer.learning_rate
        most = max(rung.parameters for rung in made[:-1])
        assert last.parameters / most == pytest.approx(4, rel=0.1)


def test_the_learning_rate_scales_with_the_width_but_not_with_muon(ladder):
    assert {rung.learning_rate for rung in ladder} == {DEMO.train.optimizer.learning_rate}
    gpt2 = gpt2_124m.get_config()
    for rung in make_ladder(gpt2.model, gpt2.train, LadderConfig(rungs=(4e6, 8e6, 2e7))):
        peak = gpt2.train.optimizer.learning_rate
        assert rung.learning_rate * rung.model.width == pytest.approx(peak * gpt2.model.width)
        final = rung.train.optimizer.final_learning_rate / rung.learning_rate
        assert final == pytest.approx(gpt2.train.optimizer.final_learning_rate / peak)


def test_the_share_of_decay_steps_is_kept():
    optimizer = replace(DEMO.train.optimizer, schedule="warmup_stable_decay", decay_steps=220)
    train = replace(DEMO.train, optimizer=optimizer)
    for rung in make_ladder(DEMO.model, train, ASKED):
        assert rung.train.optimizer.decay_steps == round(rung.train.steps / 5)


def test_every_seed_is_a_separate_rung_and_all_start_from_scratch():
    start = StartConfig(checkpoint="runs/other/checkpoints/5")
    train = replace(DEMO.train, start=start)
    made = make_ladder(DEMO.model, train, replace(ASKED, seeds=2))
    assert len(made) == len({rung.name for rung in made}) == 20
    assert {rung.train.seed for rung in made} == {0, 1}
    assert {rung.train.start for rung in made} == {StartConfig()}


def test_every_rung_is_validated_on_the_same_text(ladder):
    for windows in (3, 40, 5000):
        for rung in ladder:
            found = measured_on(rung, windows).train.validation_batches * rung.train.batch_size
            assert found >= min(windows, 2**17 // rung.model.context_length)
            assert found < windows + rung.train.batch_size


def refused(**asked) -> str:
    with pytest.raises(UsageError) as error:
        config = replace(ASKED, **asked)
        config.check(DEMO.train)
        make_ladder(DEMO.model, DEMO.train, config)
    return str(error.value)


def test_invalid_ladders_are_rejected_with_their_values():
    assert "--budget is 0; give the FLOP" in refused(budget=0.0)
    assert "--rungs has 0; give numbers from 1 up" in refused(rungs=(1e5, 0.0))
    assert "--held-out-tokens has nan" in refused(held_out_tokens=(float("nan"),))
    assert "--seeds is 0; the number of runs per rung must be from 1 to 100" in refused(seeds=0)
    assert "--epochs is -1; it must be above 0" in refused(epochs=-1.0)
    assert "--rungs: 100000 and 101000 parameters make the same rung" in refused(rungs=(1e5, 1.01e5, 4e5))
    assert "--tokens: 100000 and 100001 tokens make the same rung" in refused(tokens=(1e5, 100_001, 4e5))
    said = refused(held_out=(4e5,), held_out_tokens=(4e5,))
    assert "is both in --rungs and in --held-out" in said and "1.6e+06" in said


def test_a_mixture_is_rejected():
    train = replace(DEMO.train, mixture=(MixtureSource("runs/other/tokens", 1.0),))
    with pytest.raises(UsageError, match="runs/other/tokens, but a ladder uses one corpus"):
        ASKED.check(train)


@pytest.mark.parametrize(
    "schedule",
    [{"batch_schedule": ((3, 8),)}, {"context_schedule": ((3, 8),)}, {"mixture_schedule": (MixtureStage(3, (2.0,)),)}],
)
def test_schedules_of_batches_are_rejected(schedule):
    with pytest.raises(UsageError, match=rf"train\.{next(iter(schedule))} is set, .* --train\..*-schedule without"):
        ASKED.check(replace(DEMO.train, **schedule))


def test_repeated_text_is_rejected_unless_requested(ladder):
    longest = max(rung.tokens for rung in ladder)
    refuse_repetition(ladder, longest, 1.0)
    refuse_repetition(ladder, longest // 2 + 1, 2.0)
    with pytest.raises(UsageError, match=f"needs {longest:,} tokens, but the corpus has {longest - 1:,}.*--epochs 1.1"):
        refuse_repetition(ladder, longest - 1, 1.0)


def test_windows_are_counted_as_in_training(tmp_path):
    folder = write_tokens(tmp_path, {"train": STREAMS})
    for context in (8, 7, 3):
        split = read_manifest(folder).splits["train"]
        assert windows_in(split, context) == BatchSource(folder, "train", context, 2, 0, 1).windows
