"""Memory does not grow with the number of measured texts."""

import gc
import itertools
from pathlib import Path

import pytest

from configs.recipes import datatrove_0_10, fineweb_2024, gristmill
from data_prep.documents import Document
from data_prep.language import detect_language
from data_prep.measure.row import measure
from data_prep.pii import replace_personal_data
from tests.adversarial import GENERATORS
from tests.data_prep.measured import fetch_punkt
from tests.data_prep.quality.test_datatrove import TEXTS

STATUS = Path("/proc/self/statm")
PAGE_BYTES = 4096
WARM, ROUNDS = 3, 4
MOST_GROWTH = 12e6
"""Bytes that the allocator may keep between rounds; a thousand leaked texts would be more."""


def hostile_and_ordinary() -> list[str]:
    ordinary = [text["text"] for text in TEXTS]
    made = itertools.cycle(GENERATORS.values())
    return [*ordinary, *(next(made)(1_000 + 16 * n) for n in range(1_000 - len(ordinary)))]


def resident_bytes() -> int:
    gc.collect()
    return int(STATUS.read_text(encoding="ascii").split()[1]) * PAGE_BYTES


@pytest.mark.slow
@pytest.mark.skipif(not STATUS.is_file(), reason="the memory of a process is read from /proc")
@pytest.mark.parametrize("recipe", [gristmill, datatrove_0_10, fineweb_2024], ids=lambda recipe: recipe.__name__)
def test_measuring_a_thousand_texts_repeatedly_leaks_no_memory(recipe):
    fetch_punkt()
    config, texts, sizes = recipe.documents("dump", gristmill.URL_FILTER_WITHOUT_LISTS), hostile_and_ordinary(), []
    assert len(texts) == 1_000
    for _ in range(WARM + ROUNDS):
        for text in texts:
            measure(text, config)
            detect_language(Document(text, "", "", "", "", "", "", 0.0), config.language)
            replace_personal_data(text, config.personal_data)
        sizes.append(resident_bytes())
    assert sizes[-1] - sizes[WARM] < MOST_GROWTH, [round(size / 1e6, 1) for size in sizes]
