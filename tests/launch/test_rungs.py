"""Rungs of a ladder are trained once, and a failed one does not affect the others. test_scaling.py runs the whole
command."""

import dataclasses
import json
from pathlib import Path

import pytest

from configs.experiment import Experiment
from data_prep.warc import write_pages
from launch import extract_texts, fetch_pages, prepare_documents, train, train_tokenizer, write_shards
from launch.scaling import train_rungs
from launch.stages.stage import run_stage
from lm.config import MeshConfig
from lm.fields import with_values
from lm.scaling.ladder import LadderConfig, Rung, make_ladder
from lm.scaling.study import Measured
from tests.corpus import tiny_experiment, web_pages
from tests.train_runs import rows

pytestmark = pytest.mark.slow
Trained = tuple[list[Measured], list[tuple[Rung, str]]]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> tuple[Experiment, Path, list[Rung]]:
    """(experiment, its run folder up to the shards, two rungs)."""
    warc, workdir = tmp_path_factory.mktemp("warc"), tmp_path_factory.mktemp("run")
    write_pages(warc / "0.warc.gz", web_pages(40))
    tiny = tiny_experiment()
    pages = dataclasses.replace(tiny.pages, warc=(f"{warc}/*.warc.gz",), packages=())
    experiment = dataclasses.replace(tiny, pages=pages)
    for script in (fetch_pages, extract_texts, prepare_documents, train_tokenizer, write_shards):
        run_stage(script.STAGE, experiment, workdir)
    asked = LadderConfig(rungs=(3e3, 9e3, 2e4), tokens=(1024, 2048, 4096))
    return experiment, workdir, make_ladder(experiment.model, experiment.train, asked)[:2]


def trained(run: tuple[Experiment, Path, list[Rung]], *changed: Rung) -> Trained:
    experiment, workdir, rungs = run
    return train_rungs(train.STAGE, write_shards.STAGE, experiment, [*rungs, *changed], workdir)


@pytest.fixture(scope="module")
def first(run) -> Trained:
    return trained(run)


def folders(run: tuple[Experiment, Path, list[Rung]]) -> list[Path]:
    return [run[1] / "scaling" / rung.name for rung in run[2]]


def starts(folder: Path) -> int:
    return sum(row["event"] == "start" for row in rows(folder, "supervisor.jsonl"))


def test_a_rung_is_trained_once_and_its_loss_is_that_of_its_last_step(run, first):
    measured, failed = first
    assert not failed and [one.rung for one in measured] == run[2]
    for one, folder in zip(measured, folders(run), strict=True):
        losses = [row["validation_loss"] for row in rows(folder) if "validation_loss" in row]
        assert one.loss == losses[-1]
        assert one.flops == 6 * one.rung.parameters * one.rung.tokens
    assert trained(run) == first
    assert [starts(folder) for folder in folders(run)] == [1, 1]


def test_a_failed_rung_is_named_and_the_others_are_kept(run, first, capfd):
    broken = with_values(run[2][0], {"train.mesh": MeshConfig(tensor=7), "train.seed": 1})
    measured, failed = trained(run, broken)
    assert measured == first[0]
    ((rung, why),) = failed
    assert rung == broken and "launch.train ended with code 2; see above" in why
    assert "train.mesh" in capfd.readouterr().err


def test_a_rung_with_other_settings_or_text_is_rejected(run, first):
    rung, folder = run[2][0], folders(run)[0]
    measured, ((_, why),) = trained(run, with_values(rung, {"train.optimizer.weight_decay": 0.2}))
    assert measured == first[0] and "train.optimizer.weight_decay: 0.1 there, 0.2 asked for" in why
    marker = folder / "stages/shards.json"
    before = marker.read_text()
    marker.write_text(json.dumps(json.loads(before) | {"key": "f" * 64}))
    measured, ((_, why),) = trained(run)
    marker.write_text(before)
    assert measured == first[0][1:] and f"was trained on other tokens ({'f' * 12})" in why


def test_a_rung_without_its_loss_is_rejected(run, first):
    metrics = folders(run)[1] / "metrics.jsonl"
    before = metrics.read_text()
    metrics.unlink()
    measured, ((rung, why),) = trained(run)
    metrics.write_text(before)
    assert measured == first[0][:1] and rung == run[2][1] and "metrics.jsonl, of " in why and "cannot be read" in why
