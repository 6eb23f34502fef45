"""The layouts that --search tries divide and fit, fastest first, each printed as the options that select it."""

import dataclasses
import json
from pathlib import Path

import pytest

from configs.experiment import load_config, parse_command
from lm.errors import UsageError
from lm.planner.compile import Compiled, OutOfMemory
from lm.planner.hlo import Overlap
from lm.planner.search import LESS, ROOM, WANTED, candidates, search, search_text
from lm.planner.topology import topology_of
from tests.lm.planner.test_plan import needs_libtpu, plan_command
from tests.run_files import REPOSITORY

CONFIG = str(REPOSITORY / "configs/llama3_8b.py")
LLAMA_8B = load_config(Path(CONFIG))


class Limit:
    """A stand-in for the compiler: programs need more memory than estimated, by a factor."""

    def __init__(self, factor: float, has: int):
        self.factor, self.has, self.asked = factor, has, []

    def __call__(self, model, train):
        self.asked.append(train)
        least = next(one.least_bytes for one in CANDIDATES if one.train == train)
        if least * self.factor > self.has:
            return OutOfMemory(None)
        return Compiled(least, 0, int(least * self.factor), (), Overlap(0.0, 0.0, 0.0), (), 1.0)


V5P = topology_of("v5p:4x4x2")
CANDIDATES = candidates(LLAMA_8B.model, LLAMA_8B.train, V5P)


def test_candidates_divide_and_fit_and_the_fastest_is_first():
    assert len(CANDIDATES) > 50
    assert all(one.least_bytes <= ROOM * V5P.device_memory for one in CANDIDATES)
    cost = [one.arithmetic + one.network for one in CANDIDATES]
    assert cost == sorted(cost)
    # Recomputation costs FLOPs, more shards cost communication: with the same mesh each is slower than without.
    of = lambda **fields: next(
        one for one in CANDIDATES if one.train.mesh.fsdp == 32
        and all(getattr(one.train, name) == value for name, value in fields.items())
    )  # fmt: skip
    assert of(remat="full", micro_batches=8).arithmetic > of(remat="minimal", micro_batches=8).arithmetic
    assert of(remat="full", micro_batches=8).network > of(remat="full", micro_batches=4).network


def test_the_options_select_the_layout():
    one = CANDIDATES[0]
    words = [part for option in one.options() for part in option.split()]
    asked = parse_command("launch.x", "", [CONFIG, *words])[0]
    assert asked.model == one.model
    assert dataclasses.replace(asked.train, layout="", remat_keep=(), remat_offload=()) == one.train


def test_candidates_that_need_more_than_one_that_did_not_fit_are_skipped():
    compiler = Limit(3.0, V5P.device_memory)
    found = search(LLAMA_8B.model, LLAMA_8B.train, V5P, compiler)
    assert len(found) == WANTED and all(plan.fits for _, plan in found)
    least = {one.train: one.least_bytes for one in CANDIDATES}
    for place, train in enumerate(compiler.asked):
        for before in compiler.asked[:place]:
            if least[before] * 3 > V5P.device_memory:
                assert least[train] <= LESS * least[before]
    steps = [plan.floors.step for _, plan in found if plan.floors]
    assert steps == sorted(steps) and "fits" in search_text(found, V5P)


def test_if_nothing_fits_both_are_reported():
    with pytest.raises(UsageError, match=r"Nothing fits v5e:2x2: with model\.context_length = 8192"):
        search(LLAMA_8B.model, LLAMA_8B.train, topology_of("v5e:2x2"), None)
    with pytest.raises(UsageError, match=r"None of the [1-8] layouts that were compiled"):
        search(LLAMA_8B.model, LLAMA_8B.train, V5P, Limit(1000.0, V5P.device_memory))


@needs_libtpu
@pytest.mark.slow
def test_the_compiler_decides_if_a_layout_fits():
    done = plan_command(
        "configs/shakespeare_char.py", "--topology", "v5e:2x2", "--search", "--json", "--model.layers", "2",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert 1 <= len(found) <= WANTED
    for one in found:
        assert one["fits"] and one["peak_bytes"] <= one["device_bytes"] and one["options"]
