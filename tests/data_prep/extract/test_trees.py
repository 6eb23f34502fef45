"""Decision trees: scores equal a walk through each tree, in any order of blocks; the shipped trees are in bounds."""

import numpy as np

from data_prep.extract.trees import CHUNK, SCALE, Trees, load_model

NAMES = ("a", "noise", "flag", "constant")


def rows(count: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    of_blocks = random.normal(size=(3, count)).astype(np.float32)
    return dict(zip(NAMES, (*of_blocks, np.ones(count, np.float32)), strict=True))


def trees_at_random(count: int = 20, depth: int = 3) -> Trees:
    """Random trees, as read from the file."""
    random = np.random.default_rng(count + depth)
    feature = random.integers(0, len(NAMES), (count, depth)).tolist()
    threshold = random.normal(size=(count, depth)).tolist()
    leaves = random.integers(-SCALE, SCALE, (count, 2**depth)).tolist()
    trees = list(zip(feature, threshold, leaves, strict=True))
    return Trees.from_content({"features": NAMES, "bias": -123, "trees": trees})


def test_scores_equal_a_walk_through_each_tree():
    seen, trees = rows(500), trees_at_random()
    walked = []
    for n in range(500):
        score = trees.bias
        for features, thresholds, leaves in zip(trees.feature, trees.threshold, trees.leaves, strict=True):
            leaf = 0
            for depth, (feature, threshold) in enumerate(zip(features, thresholds, strict=True)):
                leaf += int(seen[trees.features[feature]][n] > np.float32(threshold)) << depth
            score += int(leaves[leaf])
        walked.append(score)
    assert trees.score(seen).tolist() == walked


def test_the_order_of_blocks_does_not_matter_to_scores():
    count, trees = 2 * CHUNK + 7, trees_at_random()
    order = np.random.default_rng(5).permutation(count)
    shuffled = {name: row[order] for name, row in rows(count).items()}
    assert (trees.score(shuffled) == trees.score(rows(count))[order]).all()


def test_the_shipped_trees_are_in_bounds():
    model = load_model()
    for trees in (model.kind, model.article, model.other):
        assert trees.feature.max() < len(trees.features) and trees.leaves.shape[0] == len(trees.feature)
        assert trees.leaves.shape[1] == 2 ** trees.feature.shape[1] and abs(trees.leaves).max() < 5 * SCALE
