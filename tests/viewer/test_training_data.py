"""The training part of the report equals the files, and errors name the file."""

import json
import math
from pathlib import Path

import pytest

from lm.data.records import Manifest, Split
from lm.errors import InputError
from viewer.training_data import read_compression, read_curves, read_json, read_samples, read_splits, short, visible

FIGURES = {
    "validation_loss": 3.0, "validation_bits_per_byte": 1.5, "validation_tokens": 9, "validation_bytes": 40,
    "gzip_bits_per_byte": 2.9, "xz_bits_per_byte": 2.7, "zstd_bits_per_byte": 2.8, "parameters": 7,
}  # fmt: skip


def write_lines(path: Path, lines: list[dict]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_curves_sort_steps_and_keep_the_later_row_of_a_step(tmp_path: Path):
    lines = [
        {"step": 20, "loss": 9.0, "tokens_per_second": 1.0},
        {"step": 10, "loss": 5.0, "tokens_per_second": 10.0},
        {"step": 20, "loss": 4.0, "tokens_per_second": 30.0},
        {"step": 20, "validation_loss": 4.5},
        {"step": 30, "loss": 3.0, "tokens_per_second": math.nan},
    ]
    curves = read_curves(write_lines(tmp_path / "metrics.jsonl", lines))
    assert [(line["step"], line["loss"]) for line in curves.train] == [(10, 5.0), (20, 4.0), (30, 3.0)]
    assert [line["validation_loss"] for line in curves.validation] == [4.5]
    assert curves.steps == 30
    assert curves.median("tokens_per_second") == 20.0  # the median of 10 and 30


def test_a_line_truncated_by_a_kill_is_skipped_but_a_damaged_one_is_an_error(tmp_path: Path):
    path = write_lines(tmp_path / "metrics.jsonl", [{"step": 1, "loss": 5.0}])
    path.write_text(path.read_text() + '{"step": 2, "lo')
    assert read_curves(path).steps == 1
    path.write_text('{"step": 2, "lo\n{"step": 3, "loss": 1.0}\n')
    with pytest.raises(InputError, match=r"metrics\.jsonl, line 1"):
        read_curves(path)


def test_evaluators_and_hooks_of_one_step_are_one_row(tmp_path):
    lines = [{"step": 5, "loss": 2.0}, {"step": 5, "piqa_acc": 0.5}, {"step": 5, "my_norm": 3.0}]
    curves = read_curves(write_lines(tmp_path / "metrics.jsonl", lines))
    assert curves.evaluated == ({"step": 5, "piqa_acc": 0.5, "my_norm": 3.0},)


def test_no_metrics_are_empty_curves(tmp_path: Path):
    curves = read_curves(tmp_path / "metrics.jsonl")
    assert (curves.steps, curves.median("tokens_per_second")) == (0, None)


def test_samples_are_grouped_by_step_without_their_prompt(tmp_path: Path):
    for step in (1000, 200):
        sample = {"step": step, "prompt": "The", "temperature": 0.8, "text": f"The mill {step}"}
        (tmp_path / f"step-{step:08d}.json").write_text(json.dumps(sample))
    final = [{"prompt": "In", "temperature": 0.0, "text": "In the end"}]
    (tmp_path / "final.json").write_text(json.dumps({"samples": final}))
    during, at_the_end = read_samples(tmp_path)
    assert [(sample.step, sample.continuation) for sample in during] == [(200, " mill 200"), (1000, " mill 1000")]
    assert [(sample.step, sample.prompt, sample.continuation) for sample in at_the_end] == [(None, "In", " the end")]
    assert read_samples(tmp_path / "nowhere") == ((), ())


@pytest.mark.parametrize(
    ("token", "expected"),
    [(b" a\n", "␣a⏎"), (b"\xc3", "\\xc3"), ("\u202e".encode(), "\\u202e"), (b"\0", "\\u0000"), ("é".encode(), "é")],
)
def test_every_character_of_a_token_is_visible(token: bytes, expected: str):
    assert visible(token) == expected


def test_long_runs_of_characters_are_shown_by_their_length():
    assert short("+" + "-" * 40 + "+-") == "+-×40+-"
    assert short("=" * 7) == "=" * 7


def test_compression_puts_the_model_last_and_names_missing_parts(tmp_path: Path):
    path = tmp_path / "evaluation.json"
    path.write_text(json.dumps(FIGURES))
    rates = read_compression(path)["rates"]
    assert [*rates.items()] == [("gzip -9", 2.9), ("xz -9e", 2.7), ("zstd -19", 2.8), ("this model", 1.5)]
    path.write_text(json.dumps({key: value for key, value in FIGURES.items() if key != "parameters"}))
    with pytest.raises(InputError, match=r"evaluation\.json has no 'parameters'"):
        read_compression(path)


def test_bytes_per_token_are_over_both_splits(tmp_path: Path):
    splits = {"train": Split(1, 90, 350, 1, ()), "val": Split(1, 10, 50, 1, ())}
    manifest = Manifest("fingerprint", 300, 4096, "uint16", splits, ())
    path = tmp_path / "manifest.json"
    path.write_text(manifest.to_json())
    assert read_splits(path)["bytes_per_token"] == 4.0
    path.write_text(manifest.to_json().replace('"text_bytes"', '"text_bites"'))
    with pytest.raises(InputError, match=r"manifest\.json is damaged"):
        read_splits(path)


@pytest.mark.parametrize("content", [None, "{", "[1]"])
def test_a_file_without_a_json_object_is_an_input_error(tmp_path: Path, content: str | None):
    path = tmp_path / "evaluation.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=r"evaluation\.json.*launch\.evaluate"):
        read_json(path, "launch.evaluate")
