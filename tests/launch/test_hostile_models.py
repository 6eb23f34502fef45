"""Hostile model files are rejected in one clear line, with about as much memory as good files."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from lm.errors import InputError, UsageError
from tests.commands import Ended
from tests.hostile_models import Case, cases, good_commands, make_base, measured

ALL = cases()
MORE_MEGABYTES = 200
"""Excess of memory over the same command on good files."""
LIKE = {"config": "hugging_face", "safetensors": "hugging_face", "index": "hugging_face", "tokenizer": "hugging_face",
        "run": "run", "gguf": "gguf"}  # fmt: skip
"""{prefix of case names: the good command to compare with}."""
WORST = (
    "gguf: array of 2^40 strings", "gguf: arrays in arrays", "gguf: block_count = 4000000000",
    "gguf: array of 2^60 bytes", "gguf: 2 million strings", "tokenizer: a million words",
    "config: num_hidden_layers = 100000", "config: num_hidden_layers = 1000000000",
    'config: architectures = [["LlamaForCausalLM"]]', "safetensors: 100,000 tensors", "safetensors: weights NaN",
    "tokenizer: split by (a+)+$", "tokenizer: library, split by (a+)+$", "tokenizer: special id 5000",
    "run: model.layers = 20000", "run: special token id 5000", "run: split by (a+)+$",
)  # fmt: skip
"""Cases that once took most resources, or ended in a traceback."""
SAID = {
    "gguf: array of 2^40 strings": "'a' has 1,099,511,627,776 items of at least 8 bytes, but 0 bytes follow",
    "config: num_hidden_layers = 100000": "in 100,000 layers, but its weights are",
    "tokenizer: library, split by (a+)+$": "the split pattern repeats a part that itself repeats",
}
"""{name of a case: pattern of its message}."""
FAST = [case for number, case in enumerate(ALL) if case.name in WORST or number % 20 == 0]


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("hostile") / "base"
    make_base(folder)
    return folder


@pytest.fixture(scope="module")
def good(base, tmp_path_factory) -> dict[str, Ended]:
    """{kind: the result of its command on good files}."""
    commands = good_commands(base, tmp_path_factory.mktemp("good"))
    found = {name: measured(command) for name, command in commands.items()}
    assert all(one.returncode == 0 and not one.stderr for one in found.values()), found
    return found


def wrongs(base: Path, good: Mapping[str, Ended], chosen: Sequence[Case], folder: Path) -> list[str]:
    """Problems with the results of these cases."""
    found = []
    for number, case in enumerate(chosen):
        place = folder / str(number)
        place.mkdir()
        one = measured(case.make(base, place))
        like, lines = good[LIKE[case.name.partition(":")[0]]], one.stderr.splitlines()
        for is_wrong, told in (
            (one.returncode not in (InputError.exit_code, UsageError.exit_code), f"exit code {one.returncode}"),
            (len(lines) != 1 or not one.stderr.startswith("launch."), f"{len(lines)} lines"),
            (
                one.megabytes > like.megabytes + MORE_MEGABYTES,
                f"{one.megabytes:.0f} MB, {like.megabytes:.0f} MB on a good file",
            ),
            ((place / "out").exists(), "something was written"),
            (SAID.get(case.name, "") not in one.stderr, "another message"),
        ):
            if is_wrong:
                found.append(f"{case.name}: {told}: {one.stderr[-2000:]}")
    assert chosen
    return found


def test_there_are_200_cases_and_the_worst_are_among_the_fast_ones():
    assert len(ALL) >= 200 and 20 <= len(FAST) < 45
    assert {*WORST, *SAID} <= {case.name for case in FAST}


def test_hostile_files_are_rejected_in_one_line_in_little_memory(base, good, tmp_path):
    assert not wrongs(base, good, FAST, tmp_path)


@pytest.mark.slow
def test_all_hostile_files_are_rejected_in_one_line_in_little_memory(base, good, tmp_path):
    assert not wrongs(base, good, [case for case in ALL if case not in FAST], tmp_path)
