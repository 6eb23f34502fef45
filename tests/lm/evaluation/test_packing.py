"""Packing has little padding and few shapes, and does not change the scores of a request."""

import random
from dataclasses import replace

import numpy as np
import pytest

from lm.evaluation.log_likelihood import TOKENS_AT_ONCE, LogLikelihoods, Request
from lm.evaluation.packing import BRANCHES, ROW, bucket, computed
from lm.parallel import one_device_mesh
from tests.lm.inference.models import log_probabilities
from tests.lm.model_configs import FAMILIES, LLAMA, initial_model

LONG = replace(LLAMA, context_length=8192)
AT_MOST = 1.5


def tokens_of(requests) -> int:
    """Tokens that the model reads for separate requests without padding."""
    return sum(len(one.context) + len(one.continuation) - 1 for one in requests)


def question(draw, context: int, answers: int, length: int) -> list[Request]:
    ids = lambda count: [draw.randrange(64) for _ in range(count)]
    shared = ids(context)
    return [Request(shared, ids(max(1, draw.randint(length // 2, length * 3 // 2)))) for _ in range(answers)]


MIXES = {
    "hellaswag": lambda draw: question(draw, draw.randint(20, 120), 4, 25),
    "arc": lambda draw: question(draw, draw.randint(10, 60), 4, 5),
    "lambada": lambda draw: question(draw, draw.randint(50, 200), 1, 2),
    "blimp": lambda draw: question(draw, 1, 2, 10),
    "few-shot": lambda draw: question(draw, draw.randint(1000, 1300), 4, 5),
    "one length above a row": lambda draw: question(draw, ROW // 2 + 1, 1, 1),
    "one length": lambda draw: question(draw, 174, 1, 1),
    "mixed": lambda draw: question(draw, int(2 ** draw.uniform(1, 12)), draw.randint(1, 5), 20),
    "documents": lambda draw: question(draw, 1, 1, int(2 ** draw.uniform(3, 14))),
}


@pytest.mark.fast_rows(8)
@pytest.mark.parametrize("shared", [True, False], ids=["contexts shared", "contexts alone"])
@pytest.mark.parametrize("name", MIXES)
def test_padding_is_at_most_half_of_the_tokens_with_few_shapes(name, shared):
    config = LONG if shared else replace(LONG, token_shift=True)
    scorer, mesh = LogLikelihoods(config, 16), one_device_mesh(config)
    assert scorer.branches(mesh) is shared
    for count in (1, 2, 3, 5, 10, 50, 300):
        draw = random.Random(count)
        requests = [one for _ in range(count) for one in MIXES[name](draw)]
        layouts = scorer.lay_out(mesh, requests)
        assert computed(layouts) <= AT_MOST * tokens_of(requests), count
        assert len({one.shape for one in layouts}) == len(layouts) <= 4 * 9  # 4 lengths per power of two
        assert all(rows * length <= max(TOKENS_AT_ONCE["cpu"], length) for (rows, length, _), _ in layouts)
        if name in ("hellaswag", "arc", "lambada") and count >= 50:
            assert len(layouts) == 1


def test_a_shared_context_is_computed_once():
    requests = [one for _ in range(200) for one in MIXES["hellaswag"](random.Random(0))]
    once = sum(len(one.context) for one in requests[::4]) + sum(len(one.continuation) - 1 for one in requests)
    layouts = LogLikelihoods(LONG, 16).lay_out(one_device_mesh(LONG), requests)
    assert computed(layouts) <= 1.3 * once < tokens_of(requests)


@pytest.mark.fast_rows
@pytest.mark.parametrize("name", ["modern", "windows", "llama", "gpt2"])
def test_packed_scores_equal_those_of_separate_requests(name):
    changes = {"attention_windows": (8, 0)} if name == "windows" else {"layers": 1}
    config = replace(FAMILIES.get(name, LLAMA), context_length=64, **changes)
    model = initial_model(config, 1)
    log_p_of = log_probabilities(model, 64)
    draw, requests = random.Random(0), []
    for _ in range(12):
        requests += question(draw, draw.randint(1, 40), draw.randint(1, 5), 6)
    for _ in range(BRANCHES + 3):  # more than a tree has branches
        requests.append(Request([7], [draw.randrange(64)]))
    found = LogLikelihoods(config, 4).score(model, one_device_mesh(config), requests)
    for request, one in zip(requests, found, strict=True):
        whole = [*request.context, *request.continuation]
        log_p = log_p_of(whole[:-1])
        rows = np.arange(len(request.context) - 1, len(whole) - 1)
        wanted = log_p[rows, list(request.continuation)]
        assert one.log_likelihood == pytest.approx(wanted.sum(), abs=2e-4)
        assert one.greedy == bool((wanted >= log_p[rows].max(-1)).all())


def test_there_are_four_lengths_per_power_of_two():
    lengths = sorted({bucket(length) for length in range(1, 8193)})
    assert lengths[:12] == [1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16] and lengths[-4:] == [5120, 6144, 7168, 8192]
    assert all(length <= bucket(length) <= max(length, 1.25 * length) for length in range(1, 8193))
