"""A run whose pages are in a bucket or on a web server has the same bytes as one whose pages are on disk."""

import dataclasses
import hashlib
from pathlib import Path

import pytest

from configs.demo import get_config
from configs.experiment import Experiment
from data_prep.config.pages import PagesConfig
from data_prep.warc import write_pages
from launch import extract_texts, fetch_pages
from launch.stages.stage import run_stage
from lm.storage import Url, write_atomically
from tests.data_prep.loopback_crawl import LoopbackCrawl, serving
from tests.data_prep.pages import PROSE, html, page
from tests.object_store import QUICK, variables
from tests.object_store import serving as serving_store


def experiment(pattern: str) -> Experiment:
    config = get_config()
    pages = PagesConfig((pattern,))
    return dataclasses.replace(config, pages=pages, engine=dataclasses.replace(config.engine, workers=2))


def made(pattern: str, run: Path) -> dict[str, str]:
    """{name: SHA-256} of the texts of a run."""
    for stage in (fetch_pages.STAGE, extract_texts.STAGE):
        assert run_stage(stage, experiment(pattern), run)
        assert not run_stage(stage, experiment(pattern), run)
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted((run / "texts").iterdir())}


@pytest.mark.slow
def test_texts_are_the_same_from_every_location_with_worker_processes_too(tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    files = {}
    for name in "abc":
        pages = [page(html(PROSE, f"Page {n}."), url=f"http://{name}.example/{n}") for n in range(20)]
        write_pages(tmp_path / f"crawl/{name}.warc.gz", pages)
        files[f"crawl/{name}.warc.gz"] = (tmp_path / f"crawl/{name}.warc.gz").read_bytes()
    here = made(str(tmp_path / "crawl/*.warc.gz"), tmp_path / "here")
    assert len(here) == 4
    with serving_store() as store, variables(store.environment() | QUICK):
        store.bucket("corpus")
        for name, data in files.items():
            write_atomically(Url("s3://corpus") / name, data)
        store.fail(lambda request: "503" if request.number % 3 == 0 else None)
        assert made("s3://corpus/crawl/*.warc.gz", tmp_path / "there") == here
    with serving(LoopbackCrawl(files | {"crawl/list": b"c.warc.gz\nb.warc.gz\na.warc.gz\n"})) as web:
        assert made(f"@{web.url}crawl/list", tmp_path / "web") == here
