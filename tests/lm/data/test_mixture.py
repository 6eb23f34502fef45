"""A mixture is deterministic, keeps to its weights at every step, and records the source of each sequence."""

import collections
import itertools
import math
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.demo import get_config
from configs.experiment import parse_command
from configs.experiment.run_folder import RunFolder, experiment_json
from lm.config import MixtureSource, MixtureStage
from lm.data.batches import BatchSource
from lm.data.mixture import Turns, mixture_of
from lm.errors import InputError, UsageError
from tests.lm.shard_files import FINGERPRINT, STREAMS, naive_rows, random_stream, same, write_tokens
from tests.run_files import REPOSITORY

CONTEXT, BATCH = 7, 3  # no record length is a multiple of it
WEIGHTS = (3.0, 0.5, 1.25)
PARTS = [  # two of equal size, one of another; records of different lengths
    (STREAMS, 24),
    ([random_stream(3, 120, 3000, 0), random_stream(4, 61, 3500, 50)], 10),
    ([(tokens + 4000, documents) for tokens, documents in STREAMS], 24),
]
CONFIG = get_config().train


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> list[Path]:
    root = tmp_path_factory.mktemp("runs")
    made = []
    for i, (streams, length) in enumerate(PARTS):
        (root / f"{i}/tokens").mkdir(parents=True)
        made.append(write_tokens(root / f"{i}/tokens", {"train": streams, "val": streams[:1]}, length))
    return made


def source(weights: Path | dict[Path, float], batch=BATCH, seed=0, threads=2, context=CONTEXT) -> BatchSource:
    return BatchSource(weights, "train", context, batch, seed, threads, tokenizer_fingerprint=FINGERPRINT)


@pytest.fixture(scope="module")
def weights(folders) -> dict[Path, float]:
    return dict(zip(folders, WEIGHTS, strict=True))


@given(
    weights=st.lists(st.floats(1e-3, 1e3) | st.integers(1, 9).map(float), min_size=1, max_size=9),
    start=st.integers(0, 100) | st.integers(0, 2**62),
)
def test_every_source_has_its_share_at_every_step_and_its_sequences_in_order(weights, start):
    turns, bound = Turns(weights), max(1, len(weights) - 1)
    shares = [Fraction(str(weight)) / sum(Fraction(str(weight)) for weight in weights) for weight in weights]
    seen: dict[int, int] = {}
    for number in range(start, start + 60):
        turn, before = turns[number]
        assert before == seen.get(turn, before)  # consecutive
        seen[turn] = before + 1
        assert abs(before - number * shares[turn]) < bound
        assert abs(before + 1 - (number + 1) * shares[turn]) < bound


def test_turns_begin_at_the_first_sequence_of_each_source():
    found = [Turns(WEIGHTS)[number] for number in range(950)]
    for turn, weight in enumerate(WEIGHTS):
        assert [before for who, before in found if who == turn] == list(range(round(950 * weight / sum(WEIGHTS))))


def test_weights_are_exact_and_relative():
    """Grain's mix rounds weights: 3 to 7 becomes 100 to 233, which is off by 3,000 sequences after ten million."""
    turns = Turns((3.0, 7.0))
    assert turns[10_000_000] == (0, 3_000_000)
    for others in ((0.3, 0.7), (30.0, 70.0), (3e-9, 7e-9)):
        assert all(Turns(others)[number] == turns[number] for number in (*range(50), 2**60))


@pytest.mark.parametrize("weight", [1.0, 0.3])
@pytest.mark.parametrize("context", [8, CONTEXT])
def test_a_mixture_of_one_folder_equals_the_folder(folders, weight, context):
    mixed, plain = source({folders[1]: weight}, context=context), source(folders[1], context=context)
    assert all(same(mixed.batch(step), plain.batch(step)) for step in (0, 1, 40, 2**40))
    assert mixed.documents(4) == plain.documents(4)


def test_an_own_weight_of_zero_omits_the_runs_own_shards(folders):
    mixture = (MixtureSource(str(folders[1]), 2.0),)
    assert mixture_of(CONFIG, folders[0]) == {folders[0]: 1.0}
    assert mixture_of(replace(CONFIG, mixture=mixture), folders[0]) == {folders[0]: 1.0, folders[1]: 2.0}
    alone = replace(CONFIG, mixture=mixture, own_weight=0.0)
    assert mixture_of(alone, folders[0]) == {folders[1]: 2.0}


def rows_by_folder(mixed: BatchSource, steps: int) -> dict[Path, list[tuple]]:
    """{folder: its sequences in the format of naive_rows, in the order of reads}."""
    rows = collections.defaultdict(list)
    for step in range(steps):
        for origin, *row in zip(mixed.documents(step), *mixed.batch(step), strict=True):
            rows[origin.folder].append((*(array.tolist() for array in row), origin.documents))
    return rows


def test_sequences_have_their_origin_and_sources_have_their_own_epochs_and_orders(folders, weights):
    steps = 130
    rows = rows_by_folder(source(weights), steps)
    firsts = []
    for folder, (streams, _), weight in zip(folders, PARTS, WEIGHTS, strict=True):
        expected, found = naive_rows(streams, CONTEXT), rows[folder]
        assert abs(len(found) - steps * BATCH * weight / sum(WEIGHTS)) < len(WEIGHTS) - 1
        epochs = [list(epoch) for epoch in itertools.batched(found, len(expected))]
        for epoch in epochs:
            assert all(row == expected[row[0][0]] for row in epoch)
            assert len({row[0][0] for row in epoch}) == len(epoch)  # no duplicates
        assert all(one != other for one, other in itertools.pairwise(epochs))
        firsts.append([list(expected).index(row[0][0]) for row in epochs[0]])
    assert len(rows[folders[0]]) > 3 * len(naive_rows(STREAMS, CONTEXT)) > 0  # several epochs
    length = min(len(firsts[0]), len(firsts[2]))
    assert firsts[0][:length] != firsts[2][:length]  # sources of equal size have different orders


def test_another_source_does_not_change_the_order_of_the_first(folders, weights):
    alone = rows_by_folder(source(folders[0]), 20)[folders[0]]
    mixed = rows_by_folder(source(weights), 20)[folders[0]]
    assert mixed == alone[: len(mixed)]


def test_sources_have_shares_and_epochs(weights, folders):
    mixed = source(weights)
    assert [one.folder for one in mixed.sources] == folders
    assert [one.share for one in mixed.sources] == [weight / sum(WEIGHTS) for weight in WEIGHTS]
    assert [one.tokens_per_epoch for one in mixed.sources] == [
        sum(max(len(tokens) - 1, 0) for tokens, _ in streams) for streams, _ in PARTS
    ]
    assert mixed.windows == sum(len(naive_rows(streams, CONTEXT)) for streams, _ in PARTS)


def test_an_incompatible_folder_is_rejected_with_both_values(folders, tmp_path):
    with pytest.raises(UsageError, match=rf"context of 11 .* longer than the records of 10 in {folders[1]}"):
        source({folders[0]: 1.0, folders[1]: 1.0}, context=11)
    other = write_tokens(tmp_path, {"train": STREAMS}, fingerprint="cd" * 32)
    with pytest.raises(UsageError, match=rf"{other} .* tokenizer {'cd' * 32}, but .* {FINGERPRINT}.*tokenizer\.load"):
        source({folders[0]: 1.0, other: 1.0})
    for bad in ({}, {folders[0]: 0.0}, {folders[0]: 1.0, folders[1]: math.inf}):
        with pytest.raises(UsageError, match="one, each above 0 and finite"):
            source(bad)


def mixed_config(*sources: tuple[Path | str, float], own_weight: float = 1.0):
    mixture = tuple(MixtureSource(str(tokens), weight) for tokens, weight in sources)
    return replace(CONFIG, mixture=mixture, own_weight=own_weight)


def test_a_missing_folder_is_rejected_with_the_remedy(folders, tmp_path):
    with pytest.raises(InputError, match=r"train\.mixture names .*/none, but .*manifest\.json is missing.*another run"):
        mixture_of(mixed_config((tmp_path / "none", 1.0)), folders[0])
    with pytest.raises(InputError, match=rf"manifest\.json is missing\. Name {folders[1]}, which has one"):
        mixture_of(mixed_config((folders[1].parent, 1.0)), folders[0])


def test_duplicate_folders_are_rejected_under_any_name(folders, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(folders[1])
    for twin in (folders[1], link, folders[1] / "../tokens"):
        with pytest.raises(UsageError, match=rf"{folders[1]} \(with weight 1\) and .* \(with weight 2\)"):
            mixture_of(mixed_config((folders[1], 1.0), (twin, 2.0)), folders[0])
    for own_weight in (1.0, 0.0):
        with pytest.raises(UsageError, match=rf"this run's own, with train.own_weight = {own_weight:g}\) and "):
            mixture_of(mixed_config((folders[0], 2.0), own_weight=own_weight), folders[0])


@pytest.mark.parametrize("bad", [0.0, -1.0, math.inf, math.nan])
def test_invalid_weights_are_rejected(bad):
    refused = rf"with a weight of {bad}; weights must be 0" if bad else "a/tokens with a weight of 0, and no stage"
    with pytest.raises(UsageError, match=refused):
        replace(CONFIG, mixture=(MixtureSource("a/tokens", bad),))
    with pytest.raises(UsageError, match=r"tokens"):
        MixtureSource("", 1.0)
    if bad:
        with pytest.raises(UsageError, match=rf"own_weight is {bad}; it must be at least 0, and finite"):
            replace(CONFIG, own_weight=bad)
    else:
        with pytest.raises(UsageError, match=r"own_weight is 0 and train\.mixture has no folder"):
            replace(CONFIG, own_weight=bad)


def test_a_mixture_and_schedules_can_be_given_on_the_command_line_and_are_restored_from_json(tmp_path, capsys):
    demo = str(REPOSITORY / "configs/demo.py")
    words = ["--train.mixture", "a/tokens", "0", "b/tokens", "2", "--train.mixture-schedule", "40:1,0.5,0", "80:0,1,1"]
    words += ["--train.batch-schedule", "5", "16", "60", "32", "--train.context-schedule", "0", "128", "5", "256"]
    words += ["--train.own-weight", "0"]
    experiment = parse_command("x", "", [demo, *words])[0]
    train = experiment.train
    assert (train.mixture, train.own_weight) == ((MixtureSource("a/tokens", 0.0), MixtureSource("b/tokens", 2.0)), 0)
    assert train.mixture_schedule == (MixtureStage(40, (1.0, 0.5, 0.0)), MixtureStage(80, (0.0, 1.0, 1.0)))
    assert (train.batch_schedule, train.context_schedule) == (((5, 16), (60, 32)), ((0, 128), (5, 256)))
    (tmp_path / "config.json").write_text(experiment_json(experiment), encoding="utf-8")
    assert RunFolder(tmp_path).experiment() == experiment
    changed = parse_command("x", "", [str(tmp_path), "--train.batch-schedule", "--train.mixture-schedule", "9:1,1,1"])[
        0
    ]
    expected = replace(train, batch_schedule=(), mixture_schedule=(MixtureStage(9, (1.0, 1.0, 1.0)),))
    assert changed.train == expected
    with pytest.raises(UsageError, match="a/tokens with a weight of -2"):
        parse_command("x", "", [demo, "--train.mixture", "a/tokens", "-2"])
    wrong = {"batch-schedule": ["5"], "mixture-schedule": ["40"], "mixture": ["a/tokens", "much"]}
    for option, values in wrong.items():
        with pytest.raises(SystemExit) as stopped:
            parse_command("x", "", [demo, f"--train.{option}", *values])
        assert stopped.value.code == 2 and option in capsys.readouterr().err


@settings(max_examples=20, deadline=None)
@given(step=st.integers(0, 2**45))
def test_the_batch_of_any_step_is_computed_directly(weights, step):
    """It has the sequences of its turns, without reading previous steps."""
    mixed = source(weights)
    numbers = range(step * BATCH, (step + 1) * BATCH)
    expected = [mixed.sources[Turns(WEIGHTS)[number][0]].folder for number in numbers]
    assert [origin.folder for origin in mixed.documents(step)] == expected
