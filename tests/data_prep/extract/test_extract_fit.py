"""Trees: fitted, stored, evaluated; and what of a page counts as its main text when they are fitted."""

import gzip
import json
import sys

import numpy as np
import pytest

from data_prep.extract.boosting import Boosting, fit_trees
from data_prep.extract.corpora import MarkedPage, read_readability, read_wcxb, site_of
from data_prep.extract.fit import targets
from data_prep.extract.trees import CHUNK, SCALE, Trees, load_model
from tests.data_prep.pages import GERMAN, PROSE, html

SETTINGS = Boosting(count=40, depth=3, rate=0.3, ridge=1.0, sample=1.0, seed=0)


def rows(count: int, seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {
        "a": random.normal(size=count).astype(np.float32),
        "noise": random.normal(size=count).astype(np.float32),
        "flag": random.integers(0, 2, count).astype(np.float32),
        "constant": np.ones(count, np.float32),
    }


def truth(features: dict[str, np.ndarray]) -> np.ndarray:
    """An exclusive or: no feature alone tells it."""
    return ((features["a"] > 0.5) != (features["flag"] > 0)).astype(float)


def test_trees_learn_what_no_feature_tells_alone():
    seen, new = rows(4000), rows(1000, seed=1)
    trees = fit_trees(seen, truth(seen), np.ones(4000), SETTINGS)
    assert np.mean((trees.score(new) > 0) == truth(new)) > 0.95
    assert "constant" not in trees.features


def test_a_weight_of_nothing_is_not_learnt():
    seen = rows(4000)
    wrong = np.arange(4000) % 2 == 0
    target = np.where(wrong, 1 - truth(seen), truth(seen))
    trees = fit_trees(seen, target, np.where(wrong, 0.0, 1.0), SETTINGS)
    assert np.mean((trees.score(seen) > 0) == truth(seen)) > 0.95


def test_scores_are_those_of_a_walk_through_each_tree_and_survive_the_file():
    seen = rows(500)
    trees = fit_trees(seen, truth(seen), np.ones(500), SETTINGS)
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
    assert Trees.from_json(trees.to_json()).score(seen).tolist() == walked
    assert Trees.from_json(trees.to_json()).to_json() == trees.to_json()


def test_the_same_rows_give_the_same_trees_and_the_order_of_blocks_does_not_matter_to_scores():
    seen = rows(2 * CHUNK + 7)
    target = truth(seen)
    trees = fit_trees(seen, target, np.ones(len(target)), SETTINGS)
    assert fit_trees(seen, target, np.ones(len(target)), SETTINGS).to_json() == trees.to_json()
    order = np.random.default_rng(5).permutation(len(target))
    shuffled = {name: row[order] for name, row in seen.items()}
    assert (trees.score(shuffled) == trees.score(seen)[order]).all()


def test_the_shipped_trees_are_in_bounds():
    trees = load_model()
    assert trees.feature.max() < len(trees.features) and trees.leaves.shape == (len(trees.feature), 32)
    assert abs(trees.leaves).max() < 5 * SCALE
    assert Trees.from_json(trees.to_json()).to_json() == trees.to_json()


def test_what_counts_as_main_text():
    marked = MarkedPage("http://a.example/", "", f"{PROSE}\nThe second day\n{GERMAN}", "article", (), ("Der Müller",))
    blocks = [
        "Home",
        "The miller set",
        PROSE,
        "The second day",
        "of",
        "***",
        f"{GERMAN} Der Müller",
        "Der Müller",
        "bridge",
    ]
    share, weight = targets(blocks, marked)
    assert (share > 0.5).tolist() == [False, True, True, True, False, False, True, False, False]
    assert weight[5] == 0 and weight[2] > weight[0] > 0
    wanted = MarkedPage("", "", PROSE, "article", ("Home",), ("nobody had ever asked him such a thing",))
    share, _ = targets(["Home", "because nobody had ever asked him such a thing"], wanted)
    assert share.tolist() == [1, 0]


@pytest.fixture
def corpora(tmp_path):
    files = {}
    for split, number, text in (("dev", "1", PROSE), ("dev", "2", GERMAN), ("test", "3", GERMAN), ("dev", "4", None)):
        for part in ("html", "ground-truth"):
            (tmp_path / "wcxb" / split / part).mkdir(parents=True, exist_ok=True)
        files[number] = {"page_type": "article", "domain": f"{number}.example"}
        (tmp_path / "wcxb" / split / "html" / f"{number}.html.gz").write_bytes(gzip.compress(html(text or "")))
        truth = {"ground_truth": {"main_content": text}}
        (tmp_path / "wcxb" / split / "ground-truth" / f"{number}.json").write_text(json.dumps(truth))
    (tmp_path / "wcxb/metadata.json").write_text(json.dumps({"files": files}))
    folder = tmp_path / "readability/one"
    folder.mkdir(parents=True)
    link = b'<link rel="canonical" href="http://www.b.example/x"></head>'
    body = html(PROSE).replace(b"</head>", link).replace(b"<body>", b"<body><nav><a href=x>Home</a> Menu</nav>")
    (folder / "source.html").write_bytes(body)
    (folder / "expected.html").write_text(f"<div><p>{PROSE}</p></div>")
    return tmp_path


def test_collections_are_read_and_a_text_of_both_splits_counts_to_the_test(corpora):
    assert [(one.url, one.text) for one in read_wcxb(corpora / "wcxb")] == [("http://1.example/", PROSE)]
    assert [one.text for one in read_wcxb(corpora / "wcxb", "test")] == [GERMAN, GERMAN]
    (one,) = read_readability(corpora / "readability")
    assert (site_of(one.url), one.text, one.kind) == ("b.example", PROSE, "readability")


def test_fitting_from_the_command_line_leaves_out_the_excluded_sites(corpora, monkeypatch, capsys):
    import data_prep.extract.fit as fit

    (corpora / "urls").write_text("http://1.example/other\n")
    monkeypatch.setattr(fit, "SETTINGS", SETTINGS)
    monkeypatch.setattr(
        sys, "argv",
        ["fit", "--wcxb", str(corpora / "wcxb"), "--readability", str(corpora / "readability"),
         "--exclude", str(corpora / "urls"), "--out", str(corpora / "model.json")],
    )  # fmt: skip
    fit.main()
    assert capsys.readouterr().out.startswith("2 blocks")
    assert Trees.from_json((corpora / "model.json").read_text()).leaves.shape == (40, 8)
