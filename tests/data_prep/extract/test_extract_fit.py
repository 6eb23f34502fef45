"""Trees: fitted, stored, evaluated; and what of a page counts as its main text when they are fitted."""

import gzip
import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from data_prep.extract.boosting import Boosting, fit_trees, trees_of
from data_prep.extract.corpora import MarkedPage, read_readability, read_wcxb, site_of
from data_prep.extract.fit import pages_of, targets
from data_prep.extract.trees import CHUNK, SCALE, Trees, load_model
from lm.errors import InputError
from tests.data_prep.pages import GERMAN, PROSE, html

CATBOOST = importlib.util.find_spec("catboost")
needs_catboost = pytest.mark.skipif(CATBOOST is None, reason="needs catboost: uv pip install --group fit")
FIXTURE = json.loads((Path(__file__).parents[2] / "fixtures/catboost.json").read_text())
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


def trees_at_random(count: int = 20, depth: int = 3) -> Trees:
    """Trees that nobody has fitted."""
    random = np.random.default_rng(2)
    return Trees(
        tuple(rows(1)),
        random.integers(0, 4, (count, depth)),
        random.normal(size=(count, depth)),
        random.integers(-SCALE, SCALE, (count, 2**depth)),
        bias=-123,
    )


def test_the_trees_of_catboost_score_as_it_does_itself():
    """Numbers of CatBoost's own, written by tests/fixtures/make_catboost.py; a leaf is rounded to a thousandth."""
    model = FIXTURE["model"]
    trees = trees_of(model, tuple(FIXTURE["rows"]))
    scores = trees.score({name: np.array(row) for name, row in FIXTURE["rows"].items()})
    difference = np.abs(scores / SCALE - np.array(FIXTURE["scores"]))
    assert difference.max() <= 0.5 / SCALE * (1 + len(model["oblivious_trees"])) < np.ptp(FIXTURE["scores"]) / 100
    assert "constant" not in trees.features and len(trees.features) > 1


def test_a_tree_of_fewer_questions_is_widened():
    model = FIXTURE["model"] | {"scale_and_bias": [2, [0.5]]}
    split = model["oblivious_trees"][0]["splits"][0]
    short = {"splits": [split], "leaf_values": [-0.25, 0.75]}
    both = model | {"oblivious_trees": [model["oblivious_trees"][0], short, {"splits": None, "leaf_values": [0.1]}]}
    seen = {name: np.array(row) for name, row in FIXTURE["rows"].items()}
    alone = trees_of(model | {"oblivious_trees": model["oblivious_trees"][:1]}, tuple(seen)).score(seen)
    names = list(seen)
    feature = model["features_info"]["float_features"][split["float_feature_index"]]["flat_feature_index"]
    yes = seen[names[feature]] > split["border"]
    assert (trees_of(both, tuple(seen)).score(seen) - alone == np.where(yes, 1500, -500) + 200).all()


@pytest.mark.skipif(CATBOOST is not None, reason="catboost is installed")
def test_without_catboost_the_message_says_how_to_get_it():
    with pytest.raises(InputError, match=r"not installed\. Install it first: uv pip install --group fit"):
        fit_trees(rows(10), np.zeros(10), np.ones(10), SETTINGS)


@needs_catboost
def test_trees_learn_what_no_feature_tells_alone():
    seen, new = rows(4000), rows(1000, seed=1)
    trees = fit_trees(seen, truth(seen), np.ones(4000), SETTINGS)
    assert np.mean((trees.score(new) > 0) == truth(new)) > 0.95
    assert "constant" not in trees.features


@needs_catboost
def test_a_weight_of_nothing_is_not_learnt():
    seen = rows(4000)
    wrong = np.arange(4000) % 2 == 0
    target = np.where(wrong, 1 - truth(seen), truth(seen))
    trees = fit_trees(seen, target, np.where(wrong, 0.0, 1.0), SETTINGS)
    assert np.mean((trees.score(seen) > 0) == truth(seen)) > 0.95


def test_scores_are_those_of_a_walk_through_each_tree_and_survive_the_file():
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
    assert Trees.from_json(trees.to_json()).score(seen).tolist() == walked
    assert Trees.from_json(trees.to_json()).to_json() == trees.to_json()


@needs_catboost
def test_the_same_rows_give_the_same_trees():
    seen = rows(4000)
    fitted = [fit_trees(seen, truth(seen), np.ones(4000), SETTINGS).to_json() for _ in range(2)]
    assert fitted[0] == fitted[1]


def test_the_order_of_blocks_does_not_matter_to_scores():
    seen, trees = rows(2 * CHUNK + 7), trees_at_random()
    order = np.random.default_rng(5).permutation(2 * CHUNK + 7)
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


def test_pages_of_an_excluded_site_are_left_out(corpora):
    folders = {name: corpora / name for name in ("wcxb", "readability")}
    urls = [page.url for page in pages_of(folders, [])]
    assert urls == ["http://1.example/", "http://www.b.example/x"]
    assert [page.url for page in pages_of(folders, ["https://www.1.example/other"])] == urls[1:]
    assert [page.url for page in pages_of(folders, ["http://b.example/"])] == urls[:1]


@needs_catboost
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
    assert Trees.from_json((corpora / "model.json").read_text()).leaves.shape[0] == 40
