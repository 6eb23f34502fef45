"""With schedules of batch size, context length and mixture, batches still read one stream: counts have a closed form,
each epoch reads a window once, and all targets remain. The reference is a loop over steps."""

import itertools
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.demo import get_config
from lm.config import MixtureSource, MixtureStage, TrainConfig
from lm.data.batches import BatchSource, training_batches
from lm.data.seen import StepOrder
from lm.errors import UsageError
from tests.lm.shard_files import FINGERPRINT, STREAMS, naive_rows, random_stream, same, write_tokens

CONTEXT, STEPS = 12, 40
CONFIG = replace(get_config().train, micro_batches=1, steps=STEPS)
STREAMS_OF = (STREAMS, [random_stream(3, 120, 3000, 0)], [random_stream(4, 400, 5000, 0)])
"""Streams of each folder; their first tokens differ, so that a row identifies its folder."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> list[Path]:
    root = tmp_path_factory.mktemp("runs")
    found = []
    for number, streams in enumerate(STREAMS_OF):
        (root / str(number)).mkdir()
        found.append(write_tokens(root / str(number), {"train": streams, "val": streams[:1]}))
    return found


steps_of_changes = st.lists(st.integers(1, STEPS - 1), max_size=3, unique=True).map(sorted)


@st.composite
def schedules(draw, mixed: bool = False) -> TrainConfig:
    """A config with schedules; of all three folders if `mixed`, else only of its own shards."""
    pairs = lambda values: tuple((step, draw(values)) for step in draw(steps_of_changes))
    weights = st.tuples(*[st.sampled_from([0.0, 0.5, 1.0, 3.0])] * 3).filter(any)
    config = replace(
        CONFIG, batch_size=draw(st.integers(1, 9)), batch_schedule=pairs(st.integers(1, 20)),
        context_schedule=pairs(st.sampled_from([1, 2, 3, 4, 6, 12])), shuffle_block=draw(st.sampled_from([1, 1, 3, 5])),
        seed=draw(st.integers(0, 99)),
    )  # fmt: skip
    if not mixed:
        return config
    stages = tuple(MixtureStage(step, draw(weights)) for step in draw(steps_of_changes))
    first = draw(weights)
    used = [any(column) for column in zip(first, *(stage.weights for stage in stages), strict=True)]
    mixture = tuple(MixtureSource(str(number), weight) for number, weight in enumerate(first[1:], 1) if used[number])
    kept = [0, *(number for number in (1, 2) if used[number])]
    stages = tuple(MixtureStage(one.step, tuple(one.weights[number] for number in kept)) for one in stages)
    if not first[0] + sum(source.weight for source in mixture):
        first = (1.0, *first[1:])
    return replace(config, own_weight=first[0], mixture=mixture, mixture_schedule=stages)


def opened(config: TrainConfig, folders: list[Path]) -> BatchSource:
    mixture = tuple(MixtureSource(str(folders[int(one.tokens)]), one.weight) for one in config.mixture)
    model = replace(get_config().model, context_length=CONTEXT)
    config = replace(config, mixture=mixture)
    return training_batches(model, config, folders[0], FINGERPRINT, loader_threads=2)


def value_at(step: int, before: int, schedule: tuple[tuple[int, int], ...]) -> int:
    for first, value in schedule:
        before = value if first <= step else before
    return before


@settings(max_examples=12)
@given(config=schedules())
def test_all_counts_equal_those_of_a_loop_over_the_steps(config):
    stages, windows = config.stages(CONTEXT), 0
    largest = max(config.batch_size, *(size for _, size in config.batch_schedule), 0)
    for step in range(2 * STEPS):
        stage = stages.at(step)
        size, length = (
            value_at(step, config.batch_size, config.batch_schedule), value_at(step, CONTEXT, config.context_schedule)
        )  # fmt: skip
        assert stage.first_step <= step < stage.end and stages.between(step, step + 1) == [stage]
        assert stage.shape == (size * CONTEXT // length, length) and stage.tokens == size * CONTEXT
        assert (stages.windows_before(step), stages.tokens_before(step)) == (windows, windows * CONTEXT)
        assert [stages.step_of(windows + place) for place in range(size)] == [(step, place) for place in range(size)]
        windows += size
    assert stages.largest(2 * STEPS).windows == largest


@given(config=schedules(), data=st.data())
def test_no_micro_batch_is_larger_than_that_of_the_largest_batch(config, data):
    parts = data.draw(st.sampled_from([n for n in range(1, 21) if config.largest_batch % n == 0]))
    for stage in replace(config, micro_batches=parts).stages(CONTEXT):
        assert stage.windows % stage.micro_batches == 0
        assert stage.windows // stage.micro_batches <= config.largest_batch // parts
        part = config.largest_batch // parts
        rows = math.gcd(stage.windows, part)  # devices that divide both also divide the parts
        assert (stage.windows // stage.micro_batches) % rows == 0
        fewer = [n for n in range(1, stage.micro_batches) if stage.windows % (n * rows) == 0]
        assert all(stage.windows // n > part for n in fewer)
        assert stage.windows != config.largest_batch or stage.micro_batches == parts


@settings(max_examples=5)
@given(config=schedules(mixed=True))
def test_no_window_is_repeated_before_the_end_of_its_epoch(folders, config):
    """Checked at the end of each stage and, with blocks of one window, at every step; counts equal the closed form."""
    source = opened(config, folders)
    ends = {stage.first_step for stage in source.stages} if config.shuffle_block > 1 else range(STEPS)
    read = [np.zeros(len(one.windows), int) for one in source.sources]
    for step in range(STEPS):
        counts = [int(one.sum()) for one in read]
        assert source.windows_read(step) == counts and sum(counts) == source.stages.windows_before(step)
        if step in ends:
            assert all(one.max() - one.min() <= 1 for one in read)
        for index, number in source.places(step):
            read[index][number] += 1


@settings(max_examples=15)
@given(config=schedules(mixed=True))
def test_each_stage_keeps_to_its_weights(folders, config):
    """The error is below n - 1 sequences; in block order, below n - 1 groups of sequences."""
    source = opened(replace(config, shuffle_block=1), folders)
    changes = [0, *(stage.step for stage in config.mixture_schedule), STEPS]
    for first, end in itertools.pairwise(changes):
        weights = source.stages.at(first).weights or [one.share for one in source.sources]
        whole = source.stages.windows_before(end) - source.stages.windows_before(first)
        for weight, before, after in zip(weights, source.windows_read(first), source.windows_read(end), strict=True):
            assert abs(after - before - whole * weight / sum(weights)) < max(1, len(weights) - 1)
            assert weight or after == before


GROWING = replace(
    CONFIG, batch_size=3, batch_schedule=((7, 6), (12, 8), (30, 2)), context_schedule=((0, 4), (5, 6), (12, 12))
)
MIXED = replace(
    GROWING, mixture=(MixtureSource("1", 0.0), MixtureSource("2", 2.0)),
    mixture_schedule=(MixtureStage(9, (1.0, 3.0, 0.0)), MixtureStage(12, (0.0, 1.0, 1.0))),
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "block"),
    [(MIXED, 3), (GROWING, 1), (GROWING, 3), (MIXED, 1)],
)
def test_a_batch_does_not_depend_on_previous_reads_or_processes(folders, config, block):
    """Resumed at, before and after each switch; also with several processes that read some of the rows."""
    source = opened(config := replace(config, shuffle_block=block), folders)
    expected = [source.batch(step) for step in range(STEPS)]
    for start in (0, *(one.first_step + near for one in [*source.stages][1:4] for near in (-1, 0, 1))):
        steps = range(start, min(start + 7, STEPS))
        read = opened(config, folders).iterate(start, stop_step=steps.stop)
        assert all(same(batch, expected[step]) for step, batch in zip(steps, read, strict=True))
        for part in range(2):
            read = source.iterate(start, lambda size, _, part=part: np.arange(size)[part::2], steps.stop)
            for step, batch in zip(steps, read, strict=True):
                assert same(batch, tuple(array[part::2] for array in expected[step]))


@pytest.mark.slow
@settings(max_examples=6)
@given(config=schedules())
def test_a_shorter_context_keeps_every_target_and_separates_sequences(folders, config):
    """The sequences of a window concatenate to the window; document numbers begin at 1 in each."""
    source, step = opened(config, folders), 0
    whole = BatchSource(folders[0], "train", CONTEXT, 1, config.seed, 1, tokenizer_fingerprint=FINGERPRINT)
    rows = naive_rows(STREAMS, CONTEXT)
    for stage in source.stages.between(0, STEPS):
        step = stage.first_step
        batch, documents = source.batch(step), source.documents(step)
        assert batch.inputs_BT.shape == stage.shape and len(documents) == stage.shape[0]
        for place, (_, number) in enumerate(source.places(step)):
            part = slice(place * stage.parts, (place + 1) * stage.parts)
            inputs, targets, segments, weights = whole.sources[0].windows[number]
            assert rows[int(inputs[0])][0] == inputs.tolist()
            found = (array[part].ravel() for array in (batch.inputs_BT, batch.targets_BT, batch.weights_BT))
            assert all(map(np.array_equal, found, (inputs, targets, weights)))
            own = batch.segment_ids_BT[part]
            for row, its, origin in zip(own, segments.reshape(own.shape), documents[part], strict=True):
                there = its > 0
                assert np.array_equal(row > 0, there) and np.array_equal(np.diff(row[there]), np.diff(its[there]))
                assert row[0] in (0, 1) and row.max() == len(origin.documents)  # no document has two parts here
        heads = source.heads(step)
        assert heads.shape == stage.shape
        assert heads.sum() == sum(whole.sources[0].windows.heads(number).sum() for _, number in source.places(step))


@pytest.mark.fast_rows
@pytest.mark.parametrize("most_held", [0, 50, 10**6])
@pytest.mark.parametrize("config", [GROWING, MIXED], ids=["one folder", "mixture"])
def test_the_steps_of_a_window_are_the_inverse_of_the_windows_of_a_step(folders, config, most_held):
    """Also if the order does not fit in memory and is computed again."""
    source = opened(config, folders)
    order = StepOrder(source, STEPS, most_held)
    numbers = [source.numbers(step).tolist() for step in range(STEPS)]
    wanted = [numbers[5][0], numbers[-1][-1]]
    for first in (0, 7, 0):
        there = [(s, i) for s, row in enumerate(numbers) for i, one in enumerate(row) if s >= first and one in wanted]
        assert order.places(np.array(wanted), first, lambda: False).places == there


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"batch_schedule": ((0, 4),)}, r"train\.batch_schedule has step 0; steps must be at least 1"),
        ({"batch_schedule": ((5, 4), (5, 8))}, r"batch_schedule has step 5; .* The step before it is 5"),
        ({"batch_schedule": ((5, 0),)}, r"batch_schedule has 0 from step 5 on; give values from 1"),
        ({"context_schedule": ((9, 4), (3, 8))}, r"context_schedule has step 3; .* The step before it is 9"),
        ({"context_schedule": ((0, 5),)}, r"context_schedule has 5 tokens, which does not divide .* = 12"),
        ({"mixture_schedule": (MixtureStage(4, (1.0, 2.0)),)}, r"2 weights from step 4 on, but there are 1 folders"),
        ({"batch_size": 6, "batch_schedule": ((3, 8),), "micro_batches": 3}, r"= 3 does not divide the largest .* = 8"),
    ],
)
def test_invalid_schedules_are_rejected(fields, said):
    with pytest.raises(UsageError, match=said):
        replace(CONFIG, **fields).stages(CONTEXT)


def test_invalid_weights_are_rejected():
    for bad in ((0.0, 0.0), (1.0, -1.0), (), (float("nan"), 1.0)):
        with pytest.raises(UsageError, match=r"train\.mixture_schedule has the weights .* from step 3 on"):
            MixtureStage(3, bad)
