"""Block order: each window occurs once per epoch, rows read neighboring windows, and the order is deterministic."""

import numpy as np
import pytest

from lm.config.stages import Stage, Stages, constant
from lm.data.block_order import BlockOrder, BlockStream


@pytest.mark.parametrize(("windows", "block"), [(100, 7), (64, 16), (5, 16), (1, 3), (33, 32)])
def test_each_window_occurs_once_per_epoch(windows, block):
    stream = BlockStream(range(10, 10 + windows), block, 3)
    group = lambda number: stream.group(number, number * block, block)
    found = np.concatenate([group(number) for number in range(6 * windows // block + 6)])
    for end in range(block, len(found), block):
        counts = np.bincount(found[:end] - 10, minlength=windows)
        epochs = end // windows
        assert counts.sum() == end and counts.min() >= epochs - (end % windows != 0 and block > windows)
        assert counts.max() <= epochs + 1
    assert len({tuple(np.sort(group(number))) for number in range(8)}) > 1 or windows <= block


def test_a_small_batch_has_windows_of_many_blocks():
    order = BlockOrder([range(100_000)], [[1.0]], 0, constant(8, 1), 10)
    rows = np.stack([order[step] for step in range(80)], axis=1)
    assert 60 <= len(np.unique(rows // 10)) <= 2 * 64  # a block may span two tens
    for row in rows:
        assert len(np.unique(np.diff(np.sort(row)) > 1)) == 2 and np.sum(np.diff(np.sort(row)) > 1) <= 7


@pytest.mark.fast_rows
@pytest.mark.parametrize("batch", [64, 65, 70])
def test_a_row_reads_blocks_of_neighbouring_windows(batch):
    order = BlockOrder([range(1000)], [[1.0]], 0, constant(batch, 1), 10)
    rows = np.stack([order[step] for step in range(120)], axis=1)
    whole = 0
    for row in rows.reshape(-1, 10):
        neighbours = np.sort(row)
        whole += bool(np.all(np.isin(np.diff(neighbours), (1, 991))))  # a block may wrap around the end
        assert len(set(row)) == 10
    assert whole >= batch * 12 - 2 * (1 + batch * 120 // 1000)  # at the end of an epoch, a block has two parts
    assert len(np.unique(rows[:, 0] // 10)) >= 40


def test_sources_have_their_shares_of_blocks():
    order = BlockOrder([range(5000), range(5000, 5100)], [[3.0, 1.0]], 0, constant(8, 1), 5)
    numbers = np.concatenate([order[step] for step in range(480)])
    assert np.mean(numbers >= 5000) == pytest.approx(0.25, abs=0.01)
    counts = np.bincount(numbers[numbers >= 5000] - 5000)
    assert counts.max() - counts.min() <= 1


def test_stages_of_the_same_mixture_keep_its_shares():
    """Also if each stage is too short for a block of every source."""
    stages = Stages([Stage(10 * n, 10 * (n + 1), 40 * n, 4, 1, 1, 1) for n in range(40)])
    order = BlockOrder([range(500), range(500, 900)], [[0.01, 0.99]] * 40, 0, stages, 8)
    numbers = np.concatenate([order[step] for step in range(400)])
    assert order.windows_read(400) == [np.sum(numbers < 500), np.sum(numbers >= 500)]
    assert np.mean(numbers < 500) == pytest.approx(0.01, abs=0.01)


def test_the_order_depends_only_on_the_seed():
    sources, weights = [range(300), range(300, 900)], [1.0, 2.0]
    orders = [BlockOrder(sources, [weights], seed, constant(4, 1), 6) for seed in (0, 0, 1)]
    steps = np.random.default_rng(0).permutation(200).tolist()
    mixed = dict(sorted((step, orders[0][step].tolist()) for step in steps))
    assert mixed == {step: orders[1][step].tolist() for step in range(200)}
    assert [orders[2][step].tolist() for step in range(10)] != [mixed[step] for step in range(10)]
    # Other versions of the code and of NumPy must give the same order, so that runs can resume.
    assert [mixed[0], mixed[7]] == [[274, 328, 567, 258], [99, 518, 868, 299]]
