"""Decision trees are fitted, stored and evaluated; and the labels of main text that they are fitted on."""

import gzip
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from data_prep.extract.trees import CHUNK, MODEL, SCALE, Model, Trees, load_model
from lm.errors import InputError
from tests.bench.extract_fit import __main__ as fit
from tests.bench.extract_fit import corpora as collections
from tests.bench.extract_fit.corpora import Source, pages_at, read_readability, read_wcxb, site_of
from tests.bench.extract_fit.model import Boosting, fit_trees, model_json, trees_json, trees_of
from tests.data_prep.pages import GERMAN, PROSE, html

CATBOOST = importlib.util.find_spec("catboost")
needs_catboost = pytest.mark.skipif(CATBOOST is None, reason="needs catboost: make add PACKAGE=catboost")
FIXTURE = json.loads((Path(__file__).parent / "fixtures/catboost.json").read_text())
SETTINGS = Boosting(count=40, depth=3, rate=0.3, ridge=1.0, sample=1.0, seed=0)
FIVE = "The list of the mills. The list of the carts. The list of the horses, and of what they ate."
ALL_SETTINGS = dict.fromkeys(("kind", "article", "article_again", "other"), SETTINGS)


def rows(count: int, seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {
        "a": random.normal(size=count).astype(np.float32),
        "noise": random.normal(size=count).astype(np.float32),
        "flag": random.integers(0, 2, count).astype(np.float32),
        "constant": np.ones(count, np.float32),
    }


def truth(features: dict[str, np.ndarray]) -> np.ndarray:
    """An exclusive or: no single feature predicts it."""
    return ((features["a"] > 0.5) != (features["flag"] > 0)).astype(float)


def trees_at_random(count: int = 20, depth: int = 3) -> Trees:
    """Random trees."""
    random = np.random.default_rng(count + depth)
    return Trees(
        tuple(random.permutation(list(rows(1))).tolist()),
        random.integers(0, 4, (count, depth)),
        random.normal(size=(count, depth)),
        random.integers(-SCALE, SCALE, (count, 2**depth)),
        bias=-123,
    )


def test_catboost_trees_score_like_catboost():
    """Scores by CatBoost, written by tests/fixtures/make_catboost.py; a leaf is rounded to a thousandth."""
    model = FIXTURE["model"]
    trees = trees_of(model, tuple(FIXTURE["rows"]))
    scores = trees.score({name: np.array(row) for name, row in FIXTURE["rows"].items()})
    difference = np.abs(scores / SCALE - np.array(FIXTURE["scores"]))
    assert difference.max() <= 0.5 / SCALE * (1 + len(model["oblivious_trees"])) < np.ptp(FIXTURE["scores"]) / 100
    assert "constant" not in trees.features and len(trees.features) > 1


@needs_catboost
def test_trees_learn_interactions_of_features():
    seen, new = rows(4000), rows(1000, seed=1)
    trees = fit_trees(seen, truth(seen), np.ones(4000), SETTINGS)
    assert np.mean((trees.score(new) > 0) == truth(new)) > 0.95
    assert "constant" not in trees.features


def test_scores_equal_a_walk_through_each_tree_and_survive_the_file():
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
    assert Trees.from_content(json.loads(trees_json(trees))).score(seen).tolist() == walked
    assert trees_json(Trees.from_content(json.loads(trees_json(trees)))) == trees_json(trees)


def test_the_order_of_blocks_does_not_matter_to_scores():
    seen, trees = rows(2 * CHUNK + 7), trees_at_random()
    order = np.random.default_rng(5).permutation(2 * CHUNK + 7)
    shuffled = {name: row[order] for name, row in seen.items()}
    assert (trees.score(shuffled) == trees.score(seen)[order]).all()


def test_the_shipped_trees_are_in_bounds():
    model = load_model()
    for trees in (model.kind, model.article, model.other):
        assert trees.feature.max() < len(trees.features) and trees.leaves.shape[0] == len(trees.feature)
        assert trees.leaves.shape[1] == 2 ** trees.feature.shape[1] and abs(trees.leaves).max() < 5 * SCALE
    assert model_json(model) == MODEL.read_text(encoding="utf-8")


@pytest.fixture
def corpora(tmp_path):
    files = {}
    pages = (("dev", "1", PROSE), ("dev", "2", GERMAN), ("test", "3", GERMAN), ("dev", "4", None), ("dev", "5", FIVE))
    for split, number, text in pages:
        for part in ("html", "ground-truth"):
            (tmp_path / "wcxb" / split / part).mkdir(parents=True, exist_ok=True)
        files[number] = {"page_type": "listing" if number == "5" else "article", "domain": f"{number}.example"}
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


def test_collections_are_read_and_a_text_in_both_splits_belongs_to_the_test_split(corpora):
    found = [(one.url, one.text, one.kind) for one in read_wcxb(corpora / "wcxb")]
    assert found == [("http://1.example/", PROSE, "article"), ("http://5.example/", FIVE, "listing")]
    assert [one.text for one in read_wcxb(corpora / "wcxb", "test")] == [GERMAN, GERMAN]
    (one,) = read_readability(corpora / "readability")
    assert (site_of(one.url), one.text, one.kind) == ("b.example", PROSE, "readability")


def test_pages_of_an_excluded_site_are_skipped(corpora):
    folders = {name: corpora / name for name in ("wcxb", "readability")}
    urls = [page.url for page in fit.pages_of(folders, [])]
    assert urls == ["http://1.example/", "http://5.example/", "http://www.b.example/x"]
    assert [page.url for page in fit.pages_of(folders, ["https://www.1.example/other"])] == urls[1:]
    assert [page.url for page in fit.pages_of(folders, ["http://b.example/"])] == urls[:2]


@pytest.fixture
def sources(corpora, monkeypatch):
    """The collections as repositories with one commit each, instead of the pinned ones."""
    found = {}
    for name in ("wcxb", "readability"):
        git = ["git", "-C", str(corpora / name), "-c", "user.name=a", "-c", "user.email=a@a.example"]
        for command in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "-m", "pages"]):
            subprocess.run([*git, *command], check=True)
        commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
        found[name] = Source(str(corpora / name), commit, ".")
    monkeypatch.setattr(collections, "SOURCES", found)
    monkeypatch.setattr(fit, "SOURCES", found)
    return found


def test_pages_are_those_of_the_pinned_commit_or_rejected(sources, tmp_path):
    (page,) = read_readability(pages_at(tmp_path / "clones", "readability"))
    assert page.text == PROSE
    source = tmp_path / "clones/readability/one/source.html"
    kept = source.read_bytes()
    source.write_bytes(b"other")
    with pytest.raises(InputError, match=r"differs from its commit: M one/source.html"):
        pages_at(tmp_path / "clones", "readability")
    source.write_bytes(kept)
    pages_at(tmp_path / "clones", "readability")
    sources["readability"] = Source(sources["readability"].url, "0" * 40, ".")
    with pytest.raises(InputError, match=f"is at commit .*, the trees are fitted to {'0' * 40}"):
        pages_at(tmp_path / "clones", "readability")


@needs_catboost
def test_fitting_from_the_command_line_skips_the_excluded_sites(sources, tmp_path, monkeypatch, capsys):
    (tmp_path / "urls").write_text("http://1.example/other\n")
    monkeypatch.setattr(fit, "SETTINGS", ALL_SETTINGS)
    monkeypatch.setattr(
        sys, "argv",
        ["fit", str(tmp_path / "clones"), "--exclude", str(tmp_path / "urls"), "--out", str(tmp_path / "model.json")],
    )  # fmt: skip
    fit.main()
    assert capsys.readouterr().out.startswith("3 blocks")
    assert Model.from_json((tmp_path / "model.json").read_text()).other.leaves.shape[0] == 40
